"""The engine's side of models: an engine's real process, and a simulator of the process of a model on its socket.

What loads and runs a model is not here; this is the protocol between the two, and who is let through to it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.node import new_home, wait_until
from tests.e2e.spool import Line, Spool
from tests.e2e.wire import HTTP_2, tls_context
from tests.simulators.model import running_model

from vedette import processes
from vedette.config.served import ModelLimits, ServedModel, Tensor
from vedette.config.snapshot import ModelBackend, PathMatch, Route, Snapshot
from vedette.control.bootstrap import Keys, Wish, bootstrap, open_keys, read_facts
from vedette.identity.signer import verify_envelope
from vedette.store.activation import activate
from vedette.store.history import History
from vedette.store.home import Home

WORKER = "0123456789abcdef"
BLOB = f"sha256:{'a' * 64}"
MODEL = ServedModel(
    name="digits",
    version=3,
    blob=BLOB,
    size=1,
    format="onnx",
    inputs=(Tensor(name="x", datatype="FP32", shape=(0, 64)),),
    outputs=(Tensor(name="y", datatype="INT64", shape=(0,)),),
    limits=ModelLimits(request_bytes=65_536),
    worker=WORKER,
)
TEXT_WORKER = "fedcba9876543210"
TEXT = MODEL.model_copy(
    update={
        "name": "notes",
        "inputs": (Tensor(name="text", datatype="BYTES", shape=(0,)),),
        "worker": TEXT_WORKER,
    }
)
INFER = "/v2/models/digits/infer"
ATTACK = "' UNION SELECT password FROM users -- <script>alert(1)</script>"


class Engine:
    """An engine of its own, without control, that serves a model."""

    def __init__(self, home: Home) -> None:
        self.home = home
        facts = read_facts(home)
        assert facts is not None
        self.keys = open_keys(home, facts)
        _serve(home, self.keys)
        self.requests = Spool(home.spool_requests, "request")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.process = self._start()
        self.url = f"https://localhost:{self.listener.getsockname()[1]}"
        self.token = self.keys.tokens.mint("alice").token

    def _start(self) -> subprocess.Popen[bytes]:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(self.home.engine_socket))
        control.listen()
        address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        listener = {"name": "https", "address": address, "scheme": "https"}
        config = {
            "engineDir": str(self.home.engine),
            "spoolDir": str(self.home.spool_requests.parent),
            "modelsDir": str(self.home.models_run),
            "location": "here",
            "workers": 1,
            "tlsMinVersion": "1.3",
            "listeners": [{**listener, "fds": [self.listener.fileno()]}],
            "controlFd": control.fileno(),
        }
        command = processes.module_command("vedette.engine.process")
        with control:
            return subprocess.Popen(
                processes.command_line(command, "engine", self.home.root),
                env={"PATH": os.environ["PATH"], "VEDETTE_ENGINE_CONFIG": json.dumps(config)},
                pass_fds=[self.listener.fileno(), control.fileno()],
            )

    def client(self, protocol: str) -> httpx.Client:
        context: ssl.SSLContext = tls_context(self.home.ca_certificate, protocol)
        is_http2 = protocol == HTTP_2
        return httpx.Client(
            base_url=self.url,
            verify=context,
            http1=not is_http2,
            http2=is_http2,
            trust_env=False,
            timeout=60,
        )

    @property
    def authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def record(self, answer: httpx.Response) -> Line:
        request_id = answer.headers["x-request-id"]
        [found] = self.requests.wait_for(lambda line: line["requestId"] == request_id)
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.listener.close()


def _serve(home: Home, keys: Keys) -> None:
    """Makes a snapshot with the model the active one, as control would."""
    history = History(home.database)
    entry = history.active()
    assert entry is not None
    before = Snapshot.parse(verify_envelope(history.envelope(entry.digest), keys.signer.public_pem))
    routes = [
        Route(
            name=f"model-{model.name}",
            path=PathMatch(type="PathPrefix", value=f"/v2/models/{model.name}"),
            backend=ModelBackend(model=model.name),
        )
        for model in (MODEL, TEXT)
    ]
    critical = Route(
        name="triage",
        path=PathMatch(type="PathPrefix", value="/triage"),
        backend=ModelBackend(model=MODEL.name, criticality="Critical"),
    )
    snapshot = before.with_(models=(MODEL, TEXT), routes=(*before.routes, *routes, critical))
    envelope = keys.signer.sign(snapshot.canonical_bytes())
    activate(
        home, history, digest=snapshot.digest(), envelope=envelope, action="test", actor="test"
    )
    history.close()


@contextmanager
def _running() -> Iterator[Engine]:
    home = Home(new_home())
    bootstrap(home, Wish(name="edge-models"), ["127.0.0.1"])
    engine = Engine(home)
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(home.root)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One for the tests that leave it as it is."""
    with _running() as engine:
        yield engine


def _socket(engine: Engine, worker: str = WORKER) -> Path:
    return engine.home.models_run / f"{worker}.sock"


def test_a_holder_of_the_node_s_token_asks_the_model_and_nobody_else_does(
    engine: Engine, protocol: str
) -> None:
    body = json.dumps({"inputs": []}).encode()
    fields = {"content-type": "application/json", "cookie": "a=b", "x-api-key": "secret"}
    with running_model(_socket(engine)) as model, engine.client(protocol) as client:
        refused = client.post(INFER, content=body, headers=fields)
        answer = client.post(INFER, content=body, headers={**fields, **engine.authorization})
    assert refused.status_code == 401
    assert (answer.status_code, answer.json()) == (200, {"model_name": "digits", "got": len(body)})
    assert answer.headers["server-timing"] == "queue;dur=0.007, run;dur=1.250"
    assert not {"set-cookie", "x-vedette-run-us"} & set(answer.headers)
    [(line, told, got)] = model.asked
    assert (line, got) == (f"POST {INFER} HTTP/1.1", body)
    tenant = told.pop("x-vedette-tenant")
    assert re.fullmatch("[0-9a-f]{16}", tenant)
    assert set(told) - {"accept", "traceparent"} == {"host", "content-type", "content-length"}
    record = engine.record(answer)
    expected = {"model": "digits", "modelVersion": 3, "modelDigest": BLOB, "tier": "edge"}
    assert expected.items() <= record.items()
    assert (record["queueMicros"], record["runMicros"]) == (7, 1250)
    assert record["policies"] == ["node-token"]
    assert engine.record(refused)["cause"] == "credentials_required"


def test_a_model_is_told_callers_apart_and_not_who_they_are(engine: Engine, protocol: str) -> None:
    tokens = [engine.keys.tokens.mint(name).token for name in ("alice", "alice", "bob")]
    fields = [{"authorization": f"Bearer {token}"} for token in tokens]
    forged = {"x-vedette-tenant": "0" * 16}
    with running_model(_socket(engine)) as model, engine.client(protocol) as client:
        for each in fields:
            client.get("/v2/models/digits", headers={**each, **forged})
    [one, again, other] = [told["x-vedette-tenant"] for _, told, _ in model.asked]
    assert one == again != other
    assert "0" * 16 not in (one, other)
    assert not any("alice" in value for _, told, _ in model.asked for value in told.values())


def test_whose_turn_is_first_the_route_says_and_not_the_caller(
    engine: Engine, protocol: str
) -> None:
    fields = {**engine.authorization, "x-vedette-criticality": "sheddable"}
    with running_model(_socket(engine)) as model, engine.client(protocol) as client:
        for path in ("/v2/models/digits", "/triage"):
            assert client.get(path, headers=fields).status_code == 200
    told = [told.get("x-vedette-criticality") for _, told, _ in model.asked]
    assert told == [None, "critical"]


def test_tensors_reach_the_model_as_they_came(engine: Engine, protocol: str) -> None:
    """Bytes that would be an attack if they were text; the firewall is on and blocks."""
    header = b'{"inputs":[]}'
    attack = ATTACK.encode() + b" ../../etc/passwd \x00\xff"
    fields = {
        "content-type": "application/json",
        "inference-header-content-length": str(len(header)),
        **engine.authorization,
    }
    with running_model(_socket(engine)) as model, engine.client(protocol) as client:
        answer = client.post(INFER, content=header + attack, headers=fields)
        blocked = client.get("/v2/models/digits", params={"q": ATTACK}, headers=fields)
    assert (answer.status_code, blocked.status_code) == (200, 403)
    assert [got for _, _, got in model.asked] == [header + attack]
    assert model.asked[0][1]["inference-header-content-length"] == str(len(header))


def test_text_for_a_model_is_judged_and_cannot_be_called_something_else(
    engine: Engine, protocol: str
) -> None:
    def ask(client: httpx.Client, text: str, **fields: str) -> tuple[int, str | None]:
        inputs = [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]
        content = json.dumps({"inputs": inputs}).encode()
        told = {name.replace("_", "-"): value for name, value in fields.items()}
        answer = client.post(
            "/v2/models/notes/infer", content=content, headers={**told, **engine.authorization}
        )
        return answer.status_code, engine.record(answer).get("cause")

    plain, other = "application/json", "application/octet-stream"
    path = _socket(engine, TEXT_WORKER)
    with running_model(path) as model, engine.client(protocol) as client:
        assert ask(client, "a quiet day", content_type=plain) == (200, None)
        assert ask(client, ATTACK, content_type=plain) == (403, "waf_blocked")
        assert ask(client, ATTACK, content_type=other) == (400, "body_malformed")
        assert len(model.asked) == 1
        fields = {"content_type": other, "inference_header_content_length": "2"}
        assert ask(client, ATTACK, **fields) == (200, None)


def test_a_body_beyond_the_model_s_limit_does_not_reach_it(engine: Engine, protocol: str) -> None:
    fields = {"content-type": "application/json", **engine.authorization}
    with running_model(_socket(engine)) as model, engine.client(protocol) as client:
        answer = client.post(INFER, content=b"\0" * 65_537, headers=fields)
    assert answer.status_code == 413
    assert engine.record(answer)["cause"] == "request_too_large"
    assert model.asked == []


def test_a_model_whose_process_is_away_answers_again_when_it_is_back(
    engine: Engine, protocol: str
) -> None:
    with engine.client(protocol) as client:
        for _ in range(2):
            away = client.get("/v2/models/digits/ready", headers=engine.authorization)
            assert away.status_code == 503
            assert (away.headers["retry-after"], away.json()["error"]) == (
                "1",
                "The model is not available",
            )
            assert engine.record(away)["cause"] == "model_unavailable"
            with running_model(_socket(engine)):
                back = client.get("/v2/models/digits/ready", headers=engine.authorization)
                assert back.status_code == 200


def _children(pid: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    ]


def _ended(pid: int) -> bool:
    return processes.start_ticks(pid) is None


def test_who_connects_for_the_engine_can_do_nothing_else_and_ends_with_it() -> None:
    with _running() as engine:
        with engine.client("HTTP/1.1") as client:
            client.get("/v2/models/digits", headers=engine.authorization)
        [dialler] = _children(engine.process.pid)
        status = Path(f"/proc/{dialler}/status").read_text("ascii")
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        found = processes.find(engine.home.root, "engine")
        assert [one.pid for one in found] == [engine.process.pid]
        # What would end an engine does not end it before the engine.
        os.kill(dialler, signal.SIGTERM)
        os.kill(dialler, signal.SIGINT)
        with running_model(_socket(engine)), engine.client("HTTP/1.1") as client:
            answer = client.get("/v2/models/digits", headers=engine.authorization)
            assert answer.status_code == 200
        engine.process.kill()
        engine.process.wait()
        wait_until("the dialler has ended", lambda: _ended(dialler))


def test_without_who_connects_the_engine_answers_what_it_has_and_ends_to_be_started_again() -> None:
    with _running() as engine, running_model(_socket(engine)), engine.client("HTTP/1.1") as client:
        client.get("/", headers=engine.authorization)
        [dialler] = _children(engine.process.pid)
        os.kill(dialler, signal.SIGKILL)
        answer = client.get("/v2/models/digits", headers=engine.authorization)
        assert answer.status_code == 503
        assert engine.process.wait(timeout=60) == 0
