"""Models that functions ask: a real component, a real model in its box, and the policy that says who may ask which."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.spool import Line, Spool
from tests.e2e.test_predict import ONE, WIDTH, rows, scaled
from tests.e2e.wire import HTTP_2, tls_context
from tests.guests import Guests

DENIED = b"ErrorCode::HttpRequestDenied"
PERMIT = """\
@id("{function}-asks")
permit (principal == Function::"{function}", action == Action::"predict", resource == Model::"twice");
"""


class Asking:
    """A node with the model `twice`, and functions: `asker` may ask it, `nosy` may not, though others may call both."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.predictions = Spool(node.path("spool", "requests"), "predict")
        self.client = httpx.Client(
            base_url=node.url,
            http2=True,
            verify=tls_context(node.ca_file, HTTP_2),
            headers={"authorization": f"Bearer {node.usual_token}"},
            timeout=120,
            trust_env=False,
        )

    def ask(self, path: str, body: object = None, **fields: str) -> httpx.Response:
        """One request of a function: GET without a body, which is JSON unless it is bytes."""
        if body is None:
            return self.client.get(path)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"content-type": kind}
        headers |= {name.replace("_", "-"): value for name, value in fields.items()}
        return self.client.post(path, content=content, headers=headers)

    def predicted(self, answer: httpx.Response) -> Line:
        """The one record of the model that was asked for this answer."""
        request_id = answer.headers["x-request-id"]
        [found] = self.predictions.wait_for(lambda line: line["requestId"] == request_id)
        return found


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, guests: Guests) -> Iterator[Asking]:
    node = Node(new_home())
    try:
        node.start()
        file = scaled(tmp_path_factory.mktemp("models") / "twice.onnx", 2.0)
        node.run("model", "add", str(file), "--name", "twice")
        for name in ("asker", "nosy"):
            node.deploy(guests.predictor, name, "--memory", "64MB", "--waf", "off")
        node.deploy(guests.service, "asker3", "--waf", "off")
        policies = [PERMIT.format(function=name) for name in ("asker", "asker3")]
        node.set_policy("asker.cedar", "\n".join(policies))
        asking = Asking(node)
        yield asking
        asking.client.close()
    finally:
        node.discard()


def test_a_function_asks_a_model_by_http_and_the_record_says_who_asked(asking: Asking) -> None:
    answer = asking.ask("/asker/http/twice/infer", rows(ONE))
    assert answer.status_code == 200, answer.text
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert outputs == {"y": [2 * each for each in ONE], "best": [WIDTH - 1]}
    line = asking.predicted(answer)
    assert (line["model"], line["modelVersion"], line["tier"]) == ("twice", 1, "edge")
    assert line["modelDigest"].startswith("sha256:")
    assert line["runMicros"] >= 0
    assert (line["function"], line["route"], line["outcome"]) == ("asker", "asker", "served")
    assert line["principal"].endswith("/fn/asker")
    assert line["policies"] == ["asker-asks"]
    listed = json.loads(asking.node.run("list", "--json").stdout)
    digests = {each["name"]: each["digest"] for each in listed}
    assert line["component"] == digests["asker"]
    told = asking.node.run("records", "--kind", "predict", "--tail", "50").stdout
    assert "asker on route asker asks POST twice/v2/models/twice/infer" in told


def test_tensors_go_as_bytes_too_and_what_the_model_is_can_be_asked(asking: Asking) -> None:
    given = np.arange(2 * WIDTH, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, WIDTH]}
    sized = {**tensor, "parameters": {"binary_data_size": given.nbytes}}
    said = json.dumps({"inputs": [sized], "outputs": [{"name": "y"}]}).encode()
    length = str(len(said))
    body = said + given.tobytes()
    answer = asking.ask("/asker/http/twice/infer", body, inference_header_content_length=length)
    assert answer.json()["outputs"][0]["data"] == (2 * given).tolist()
    told = asking.ask("/asker/http/twice/").json()
    assert [each["name"] for each in told["inputs"]] == ["x"]
    assert asking.ask("/asker/http/twice/v2/models/twice/ready").status_code == 200


def test_without_a_policy_a_function_asks_nothing_and_is_told_which_is_missing(
    asking: Asking,
) -> None:
    answer = asking.ask("/nosy/http/twice/infer", rows(ONE))
    assert (answer.status_code, answer.content) == (502, DENIED)
    line = asking.predicted(answer)
    assert (line["outcome"], line["cause"]) == ("refused", "policy_denied")
    request_id = answer.headers["x-request-id"]
    [said] = asking.node.logs.wait_for(lambda it: it["requestId"] == request_id)
    assert said["message"].endswith(f"; the policy {line['wouldAllow']} would allow it")
    asking.node.set_policy("nosy.cedar", line["wouldAllow"])
    assert asking.ask("/nosy/http/twice/infer", rows(ONE)).status_code == 200
    asking.node.run("policy", "remove", "nosy.cedar")
    assert asking.ask("/nosy/http/twice/infer", rows(ONE)).content == DENIED


REMOTE = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: far}
spec: {inputs: [{name: x, datatype: FP32, shape: [-1]}], outputs: [{name: y, datatype: FP32, shape: [-1]}]}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: far}
spec:
  rules:
    - matches: [{path: {value: /far}}]
      backendRefs: [{kind: Model, group: vedette.dev, name: far}]
      tiers: [{name: central, url: "http://127.0.0.1:9", send: {inputs: all}}]
---
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {name: far}
spec: {routes: [far], allow: [{to: "http://127.0.0.1:9"}]}
---
apiVersion: vedette.dev/v1alpha1
kind: Policy
metadata: {name: asker-far}
spec:
  cedar: |
    permit (principal == Function::"asker", action == Action::"predict", resource == Model::"far");
"""


def test_a_model_that_only_tiers_have_is_none_for_functions(asking: Asking) -> None:
    asking.node.apply(REMOTE)
    answer = asking.ask("/asker/http/far/infer", rows(ONE))
    assert (answer.status_code, answer.content) == (502, b"ErrorCode::DestinationNotFound")
    line = asking.predicted(answer)
    assert (line["cause"], line["outcome"], line["model"]) == ("model_is_remote", "refused", "far")
    assert not {"modelVersion", "tier"} & set(line)


def test_what_the_caller_may_is_not_what_the_function_may(asking: Asking) -> None:
    """The token of this node may ask the model itself; through a function it may not."""
    direct = asking.ask("/v2/models/twice/infer", rows(ONE))
    assert direct.status_code == 200
    assert asking.ask("/nosy/http/twice/infer", rows(ONE)).content == DENIED


def test_policy_says_beforehand_which_function_may_ask(asking: Asking, tmp_path: Path) -> None:
    def said(function: str, *more: str) -> dict[str, Any]:
        asked = ("--as-function", function, "--model", "twice", "--method", "POST", *more)
        answer = json.loads(asking.node.run("policy", "explain", *asked, "--json").stdout)
        explained: dict[str, Any] = answer["answers"][0]
        return explained

    allowed = said("asker", "--path", "/infer")
    assert (allowed["allowed"], allowed["decidedBy"]) == (True, ["asker-asks"])
    assert allowed["context"]["path"] == "/v2/models/twice/infer"
    assert allowed["context"]["host"] == "twice.model"
    assert allowed["principal"]["type"] == "Function"
    denied = said("nosy")
    assert (denied["allowed"], denied["cause"]) == (False, "policy_denied")
    lost = asking.node.run("policy", "explain", "--as-function", "asker", check=False)
    assert "say which one is asked" in lost.stderr
    both = ("--as-function", "asker", "--anonymous", "--model", "twice")
    assert "say who calls" in asking.node.run("policy", "explain", *both, check=False).stderr
    table = tmp_path / "table.yaml"
    table.write_text(
        "expectations:\n"
        "- {request: {asFunction: asker, model: twice}, expect: allow, policy: asker-asks}\n"
        "- {request: {asFunction: nosy, model: twice}, expect: deny, cause: policy_denied}\n"
    )
    asking.node.run("policy", "test", str(table))


def test_a_model_that_is_not_there_is_no_address(asking: Asking) -> None:
    answer = asking.ask("/asker/http/thrice/infer", rows(ONE))
    assert (answer.status_code, answer.content) == (502, b"ErrorCode::DestinationNotFound")
    assert asking.predicted(answer)["cause"] == "model_unknown"


def test_what_the_model_refuses_is_an_answer_and_no_failure(asking: Asking) -> None:
    answer = asking.ask("/asker/http/twice/infer", rows(ONE[:-1]))
    assert answer.status_code == 400
    assert "x" in answer.json()["error"]
    line = asking.predicted(answer)
    assert (line["outcome"], line["status"]) == ("served", 400)


@contextmanager
def _revoked(node: Node, what: str) -> Iterator[None]:
    node.run("revoke", what)
    try:
        yield
    finally:
        node.run("revoke", "--lift", what)


def test_a_function_whose_identity_is_revoked_asks_nothing(asking: Asking) -> None:
    line = asking.predicted(asking.ask("/asker/http/twice/infer", rows(ONE)))
    with _revoked(asking.node, line["principal"]):
        answer = asking.ask("/asker/http/twice/infer", rows(ONE))
        assert (answer.status_code, answer.content) == (502, DENIED)
        assert asking.predicted(answer)["cause"] == "identity_revoked"
    assert asking.ask("/asker/http/twice/infer", rows(ONE)).status_code == 200


def test_what_is_known_of_a_function_counts(asking: Asking) -> None:
    node = asking.node
    line = asking.predicted(asking.ask("/asker/http/twice/infer", rows(ONE)))
    forbid = (
        'forbid (principal is Function, action, resource) when { context.posture.contains("bad") };'
    )
    node.set_policy("bad.cedar", forbid)
    assert asking.ask("/asker/http/twice/infer", rows(ONE)).status_code == 200
    node.run("posture", "set", line["principal"], "bad", "--for", "10m")
    assert asking.ask("/asker/http/twice/infer", rows(ONE)).content == DENIED
    node.run("posture", "remove", line["principal"], "bad")
    assert asking.ask("/asker/http/twice/infer", rows(ONE)).status_code == 200
    node.run("policy", "remove", "bad.cedar")


@pytest.fixture(scope="module")
def small(asking: Asking, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The model `small`, which takes 4 kB at once, and which `asker` may ask."""
    folder = tmp_path_factory.mktemp("small")
    scaled(folder / "small.onnx", 2.0)
    manifest = (
        "apiVersion: vedette.dev/v1alpha1\nkind: Model\nmetadata: {name: small}\n"
        "spec: {file: small.onnx, limits: {requestSize: 4KB}}\n"
    )
    (folder / "small.yaml").write_text(manifest, "utf-8")
    asking.node.run("apply", "--yes", "-f", str(folder / "small.yaml"))
    asking.node.set_policy("small.cedar", PERMIT.format(function="asker").replace("twice", "small"))


@pytest.mark.usefixtures("small")
def test_a_body_larger_than_the_model_takes_is_refused(asking: Asking) -> None:
    large = asking.ask("/asker/http/small/infer", b"1" * 5000)
    assert large.status_code == 502
    assert large.content.startswith(b"ErrorCode::HttpRequestBodySize")
    assert asking.predicted(large)["cause"] == "request_too_large"
    assert asking.ask("/asker/http/small/infer", rows(ONE)).status_code == 200


def test_while_a_worker_starts_again_calls_fail_plainly_and_go_well_afterwards(
    asking: Asking,
) -> None:
    def state() -> dict[str, Any]:
        told = json.loads(asking.node.run("model", "show", "twice", "--json").stdout)
        worker: dict[str, Any] = told["worker"]
        return worker

    before = state()
    states = json.loads(asking.node.path("run", "models", "state.json").read_text("utf-8"))
    workers = [each for each in states["models"].values() if each["name"] == "twice"]
    [pid] = [each["pid"] for each in workers]
    os.kill(pid, signal.SIGKILL)
    answers = []

    def is_back() -> bool:
        answers.append(asking.ask("/asker/http/twice/infer", rows(ONE)))
        return answers[-1].status_code == 200

    wait_until("the worker is back", is_back, timeout=120)
    assert {each.status_code for each in answers} <= {200, 502, 503}
    assert state()["restarts"] == before["restarts"] + 1


VALUES = np.array(ONE, np.float32)
X = f"x:FP32:1,{WIDTH}"


def _told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


def _outputs(answer: httpx.Response) -> dict[str, tuple[str, str, bytes]]:
    """By name: type, shape and bytes, as the guest prints them."""
    assert answer.status_code == 200, answer.text
    lines = [line.split(" ", 2) for line in answer.text.splitlines()]
    split = {name: (kind, rest.rpartition(" ")) for name, kind, rest in lines}
    return {
        name: (kind, shape, bytes.fromhex(data)) for name, (kind, (shape, _, data)) in split.items()
    }


def test_a_function_asks_a_model_by_wasi_nn(asking: Asking) -> None:
    answer = asking.ask(f"/asker/nn/twice/compute?{X}", VALUES.tobytes())
    outputs = _outputs(answer)
    assert outputs["y"] == ("TensorType::Fp32", f"[1, {WIDTH}]", (2 * VALUES).tobytes())
    kind, shape, best = outputs["best"]
    assert (kind, shape, int.from_bytes(best, "little")) == ("TensorType::I64", "[1]", WIDTH - 1)
    line = asking.predicted(answer)
    assert (line["interface"], line["model"], line["modelVersion"]) == ("wasi:nn", "twice", 1)
    assert line["path"] == "/v2/models/twice/infer"
    assert (line["outcome"], line["function"]) == ("served", "asker")


def test_a_component_of_wasi_0_3_asks_by_wasi_nn_as_well(asking: Asking) -> None:
    answer = asking.ask("/asker3/predict?twice")
    assert _outputs(answer)["y"][2] == (2 * VALUES).tobytes()
    assert asking.predicted(answer)["function"] == "asker3"
    assert asking.ask("/asker3/predict?thrice").text.startswith("ErrorCode::NotFound: ")


def test_by_wasi_nn_too_a_policy_is_needed(asking: Asking) -> None:
    answer = asking.ask(f"/nosy/nn/twice/compute?{X}", VALUES.tobytes())
    status, said = _told(answer)
    assert status == 502
    assert said.startswith("ErrorCode::Security: ")
    line = asking.predicted(answer)
    assert (line["interface"], line["cause"]) == ("wasi:nn", "policy_denied")
    request_id = answer.headers["x-request-id"]
    [told] = asking.node.logs.wait_for(lambda it: it["requestId"] == request_id)
    assert told["message"].endswith(f"; the policy {line['wouldAllow']} would allow it")


@pytest.mark.parametrize("name", ["thrice", "TWICE%20", "twice.model", "a@twice"])
def test_a_graph_is_found_by_the_name_of_a_model_alone(asking: Asking, name: str) -> None:
    status, said = _told(asking.ask(f"/asker/nn/{name}/compute?{X}", VALUES.tobytes()))
    assert (status, said.partition(":")[0]) == (502, "ErrorCode")
    assert said.startswith("ErrorCode::NotFound"), said


def test_a_guest_brings_no_model_along(asking: Asking, tmp_path: Path) -> None:
    model = scaled(tmp_path / "own.onnx", 3.0).read_bytes()
    status, said = _told(asking.ask("/asker/nn/twice/load", model))
    assert status == 502
    assert said.startswith("ErrorCode::UnsupportedOperation: ")


@pytest.mark.parametrize(
    ("tensor", "body", "code"),
    [
        (f"x:FP32:1,{WIDTH}", b"1234", "InvalidArgument"),
        (f"x:FP32:2,{WIDTH}", VALUES.tobytes(), "InvalidArgument"),
        (f"x:FP64:1,{WIDTH // 2}", VALUES.tobytes(), "InvalidArgument"),
        (f"z:FP32:1,{WIDTH}", VALUES.tobytes(), "InvalidArgument"),
        (f"x:BF16:1,{2 * WIDTH}", VALUES.tobytes(), "UnsupportedOperation"),
    ],
)
def test_what_does_not_fit_the_model_is_an_error_of_the_interface(
    asking: Asking, tensor: str, body: bytes, code: str
) -> None:
    status, said = _told(asking.ask(f"/asker/nn/twice/compute?{tensor}", body))
    assert (status, said.partition(" ")[0]) == (502, f"ErrorCode::{code}:")


def test_a_thousand_contexts_are_a_thousand_names_and_ten_thousand_end_the_guest(
    asking: Asking,
) -> None:
    many = asking.ask(f"/asker/nn/twice/contexts?1000/{X}", VALUES.tobytes())
    assert _outputs(many)["y"][2] == (2 * VALUES).tobytes()
    more = asking.ask(f"/asker/nn/twice/contexts?10000/{X}", VALUES.tobytes())
    assert more.status_code == 500
    assert asking.node.record(more.headers["x-request-id"])["cause"] == "function_trap"
    assert asking.ask("/asker/http/twice/infer", rows(ONE)).status_code == 200


def test_tensors_that_the_node_holds_are_the_function_s_memory(asking: Asking) -> None:
    """The function has 64 MB."""
    body = bytes(1_000_000)
    held = asking.ask("/asker/nn/twice/tensors?20", body)
    assert _told(held) == (200, "20 tensors\n")
    before = asking.node.resident()
    beyond = asking.ask("/asker/nn/twice/tensors?1000", body)
    assert beyond.status_code == 500
    assert asking.node.record(beyond.headers["x-request-id"])["cause"] == "memory_exceeded"
    assert asking.node.resident() - before < 256 << 20
    huge = asking.ask("/asker/nn/twice/tensors?1", bytes(9 << 20))
    assert huge.status_code == 500
    assert asking.node.record(huge.headers["x-request-id"])["cause"] == "function_trap"


def test_a_request_asks_as_often_as_it_may_call_out(asking: Asking) -> None:
    answer = asking.ask(f"/asker/nn/twice/series?{X}", VALUES.tobytes())
    assert answer.text.startswith("good 64, then ErrorCode::Security: "), answer.text
    request_id = answer.headers["x-request-id"]

    def last() -> bool:
        lines = [it for it in asking.predictions.lines() if it["requestId"] == request_id]
        return len(lines) == 65 and lines[-1]["cause"] == "too_many_calls"

    wait_until("65 calls are recorded", last)


@pytest.mark.usefixtures("small")
def test_inputs_larger_than_the_model_takes_are_too_large(asking: Asking) -> None:
    rows_of = 1000
    given = np.zeros((rows_of, WIDTH), np.float32).tobytes()
    answer = asking.ask(f"/asker/nn/small/compute?x:FP32:{rows_of},{WIDTH}", given)
    assert (answer.status_code, answer.text.partition(":")[0]) == (502, "ErrorCode")
    assert answer.text.startswith("ErrorCode::TooLarge: ")
    assert asking.predicted(answer)["cause"] == "request_too_large"
