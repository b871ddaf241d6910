"""The admin API over its Unix socket: statuses, limits, and who may speak."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.control.conftest import Running
from tests.simulators.native import COMPONENT

from vedette import processes
from vedette.control import api, generate, limits, peers, process
from vedette.control.client import ControlClient
from vedette.control.messages import NodeStatus
from vedette.control.supervisor import sockets
from vedette.control.supervisor.state import ProcessState, SupervisorState
from vedette.errors import ConfigError, UnavailableError
from vedette.ids import digest_of
from vedette.store.home import Home

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """A node behind its real servers, an HTTP client on the admin socket, and the metrics' address."""

    running: Running
    http: httpx.Client
    metrics: str


@pytest.fixture
def served(running: Running) -> Iterator[Served]:
    """The node with both of its servers in a thread."""
    admin = sockets.bind_unix(running.home.admin_socket)
    metrics = sockets.bind_metrics("127.0.0.1:0")
    address = sockets.shown_address(metrics)
    servers = process.Servers(running.node)
    thread = threading.Thread(target=lambda: asyncio.run(servers.run(admin, metrics)))
    thread.start()
    transport = httpx.HTTPTransport(uds=str(running.home.admin_socket))
    with httpx.Client(transport=transport, base_url="http://node", timeout=60.0) as client:
        yield Served(running, client, f"http://{address}")
    servers.stop()
    thread.join()


def deploy(served: Served, name: str = "hello") -> httpx.Response:
    digest = digest_of(COMPONENT)
    assert served.http.put(f"/v1/blobs/{digest}", content=COMPONENT).status_code == 200
    return served.http.put(f"/v1/functions/{name}", json={"component": digest})


def code_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def test_a_function_is_uploaded_deployed_listed_and_removed(served: Served) -> None:
    answer = deploy(served).json()
    assert answer["url"] == "https://localhost:8443/hello"
    assert answer["applied"] is True
    assert [one["name"] for one in served.http.get("/v1/functions").json()] == ["hello"]
    assert served.http.delete("/v1/functions/hello").json()["generation"] == 3
    assert code_of(served.http.delete("/v1/functions/hello")) == "function_unknown"


def test_the_history_names_the_user_the_kernel_vouches_for(served: Served) -> None:
    deploy(served)
    assert served.http.get("/v1/history").json()[0]["actor"] == f"uid:{os.getuid()}"


def test_what_is_not_there_is_404_and_what_is_wrong_422(served: Served) -> None:
    assert served.http.delete("/v1/functions/none").status_code == 404
    assert served.http.get("/v1/policies/none.cedar").status_code == 404
    assert served.http.post("/v1/rollback", json={"digest": "0" * 12}).status_code == 404
    assert served.http.put("/v1/functions/Bad_Name", json={"component": "x"}).status_code == 422
    wrong = served.http.put("/v1/functions/hello", json={"component": 5, "more": 1})
    assert (wrong.status_code, code_of(wrong)) == (422, "request_invalid")
    assert served.http.post("/v1/rollback").status_code == 422


def test_a_component_over_64_mib_is_413_whether_declared_or_streamed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_BLOB_BYTES", 100_000)
    digest = digest_of(b"x" * 200_000)
    declared = served.http.put(f"/v1/blobs/{digest}", content=b"x" * 200_000)
    streamed = served.http.put(f"/v1/blobs/{digest}", content=iter([b"x" * 50_000] * 4))
    assert (declared.status_code, code_of(declared)) == (413, "blob_too_large")
    assert (streamed.status_code, code_of(streamed)) == (413, "blob_too_large")
    assert list(served.running.home.run.glob("upload-*")) == []


def test_a_full_disk_is_503_with_the_reason(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "component")

    monkeypatch.setattr(api.tempfile, "TemporaryDirectory", full)
    answer = served.http.put(f"/v1/blobs/{digest_of(COMPONENT)}", content=COMPONENT)
    assert (answer.status_code, code_of(answer)) == (503, "disk_full")


def test_any_other_body_over_the_limit_is_413(served: Served) -> None:
    text = "x" * (limits.MAX_BODY_BYTES + 1)
    answer = served.http.put("/v1/policies/big.cedar", json={"text": text})
    assert answer.status_code == 413
    assert served.http.get("/v1/status").status_code == 200


def test_what_is_no_component_is_refused_on_upload(served: Served) -> None:
    answer = served.http.put(f"/v1/blobs/{digest_of(b'text')}", content=b"text")
    assert (answer.status_code, code_of(answer)) == (422, "not_a_component")


def test_policies_issuers_tokens_and_the_ca_are_served(served: Served) -> None:
    assert served.http.put("/v1/policies/a.cedar", json={"text": "// a"}).status_code == 200
    assert served.http.get("/v1/policies/a.cedar").json()["text"] == "// a"
    bad = served.http.post("/v1/policies/b.cedar/check", json={"text": "mistake"})
    assert bad.json()["error"]["line"] == 1
    assert served.http.get("/v1/issuers").json()[0]["name"] == "node"
    assert served.http.post("/v1/tokens", json={"subject": "me"}).json()["token"].count(".") == 2
    assert served.http.get("/v1/ca").content.startswith(b"-----BEGIN CERTIFICATE-----")


def test_the_metrics_port_serves_metrics_and_nothing_else(served: Served) -> None:
    text = httpx.get(f"{served.metrics}/metrics").text
    assert "vedette_engine_up 1.0" in text
    assert httpx.get(f"{served.metrics}/v1/status").status_code == 404
    assert httpx.post(f"{served.metrics}/metrics").status_code == 404
    assert httpx.get(f"{served.metrics}/openapi.json").status_code == 404


def test_logs_give_the_last_lines_and_then_those_that_come(served: Served) -> None:
    deploy(served)
    segment = served.running.home.spool_logs / "a.jsonl"

    def write(number: int, function: str = "hello") -> None:
        line = {
            "time": f"2026-01-01T00:00:0{number}Z",
            "function": function,
            "message": str(number),
        }
        with segment.open("a") as file:
            file.write(json.dumps(line) + "\n")

    write(1)
    write(2)
    write(3, "other")
    lines = ControlClient(served.running.home).lines(
        "/v1/functions/hello/logs?tail=1&follow=1", follow=True
    )
    assert next(lines)["message"] == "2"
    write(4)
    assert next(lines)["message"] == "4"
    lines.close()  # type: ignore[attr-defined]
    assert served.http.get("/v1/functions/none/logs").status_code == 404


def test_another_user_is_disconnected_before_a_byte_is_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "is_allowed", lambda _uid: False)
    assert answer_to_a_request(served) == b""


def answer_to_a_request(served: Served) -> bytes:
    """The first bytes that come back on a new connection to the admin socket; none when it is dropped."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(served.running.home.admin_socket))
        try:
            caller.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            return caller.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def record_engine(home: Home, pid: int, ticks: int | None) -> None:
    state = SupervisorState("0", str(home.root), "local")
    state.engine = ProcessState(pid, "running", startTicks=ticks)
    state.write(home.supervisor_file)


def test_the_engine_is_disconnected_before_a_byte_is_read(served: Served) -> None:
    home, pid = served.running.home, os.getpid()
    record_engine(home, pid, processes.start_ticks(pid))
    assert answer_to_a_request(served) == b""


def test_a_process_that_is_not_the_engine_is_heard_even_with_its_old_pid(served: Served) -> None:
    home, pid = served.running.home, os.getpid()
    record_engine(home, os.getppid(), processes.start_ticks(os.getppid()))
    assert answer_to_a_request(served).startswith(b"HTTP/1.1 ")
    record_engine(home, pid, (processes.start_ticks(pid) or 0) - 1)
    assert answer_to_a_request(served).startswith(b"HTTP/1.1 ")


def test_only_this_user_and_root_are_allowed() -> None:
    assert peers.is_allowed(os.getuid())
    assert peers.is_allowed(0)
    assert not peers.is_allowed(os.getuid() + 12345)


def test_errors_come_back_from_the_client_as_they_were_raised(served: Served) -> None:
    client = ControlClient(served.running.home)
    with pytest.raises(ConfigError) as refusal:
        client.delete("/v1/functions/none")
    assert refusal.value.code == "function_unknown"


def test_a_token_is_never_in_a_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = served.http.post("/v1/tokens", json={"subject": "me"}).json()["token"]
    assert token not in caplog.text


def test_the_generated_documents_are_current() -> None:
    assert generate.drifted(REPOSITORY) == []


def test_the_status_has_the_documented_shape(served: Served) -> None:
    deploy(served)
    status = served.http.get("/v1/status").json()
    NodeStatus.model_validate(status)
    assert {"snapshot", "listeners", "location", "processes", "functions"} <= status.keys()
    assert {"pid"} <= status["processes"]["supervisor"].keys()
    fields = {"name", "digest", "route", "domains", "public", "url", "allowedHosts", "reuse"}
    assert fields == status["functions"][0].keys()


def test_the_status_names_services_without_a_healthy_endpoint(served: Served) -> None:
    assert served.http.get("/v1/status").json()["engine"]["unreadyUpstreams"] == []
    served.running.engine.unready.append("shop")
    assert served.http.get("/v1/status").json()["engine"]["unreadyUpstreams"] == ["shop"]


def test_routes_are_told_with_their_policies_and_services_without_an_engine_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(served)
    [route] = served.http.get("/v1/routes").json()
    assert route["backends"][0]["name"] == "hello"
    assert [one["policy"] for one in route["callers"]] == ["node-token"]

    def away() -> None:
        raise UnavailableError("engine_away", "gone")

    monkeypatch.setattr(served.running.activator.engine, "upstreams", away)
    assert served.http.get("/v1/upstreams").json() == []
    assert served.http.get("/v1/routes").status_code == 200


@pytest.mark.parametrize("seconds", [0, 31 * 24 * 3600])
def test_a_token_of_impossible_life_is_refused_with_its_own_code(
    served: Served, seconds: int
) -> None:
    answer = served.http.post("/v1/tokens", json={"subject": "me", "ttlSeconds": seconds})
    assert (answer.status_code, code_of(answer)) == (422, "token_ttl")
