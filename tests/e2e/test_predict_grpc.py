"""Models over gRPC, through the whole node: published clients, as they are, over TLS with a token."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from tests.e2e.caller import Caller
from tests.e2e.node import Node, new_home
from tests.e2e.test_predict import ONE, WIDTH, scaled, worker_of
from tests.e2e.test_predict import ask as ask_with_http
from tests.e2e.wire import HTTP_2
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

OPTIONS = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_http_proxy", 0)]

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: every}
spec:
  file: every.onnx
  limits: {requestSize: 64KB, run: 1s}
"""


def identities(path: Path) -> Path:
    """A model that gives back an input of each datatype that has a typed field of gRPC, FP16 and texts included."""
    kinds = {
        "bool": TensorProto.BOOL,
        "int8": TensorProto.INT8,
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "uint8": TensorProto.UINT8,
        "uint64": TensorProto.UINT64,
        "fp32": TensorProto.FLOAT,
        "fp64": TensorProto.DOUBLE,
        "text": TensorProto.STRING,
    }
    given = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in kinds.items()]
    told = [helper.make_tensor_value_info(f"{name}_", kind, ["n"]) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in kinds]
    graph = helper.make_graph(nodes, "every", given, told)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(new_home())
    folder = tmp_path_factory.mktemp("models")
    try:
        node.start()
        node.run("model", "add", str(scaled(folder / "twice.onnx", 2.0)), "--name", "twice")
        identities(folder / "every.onnx")
        (folder / "every.yaml").write_text(MANIFEST, "utf-8")
        node.run("apply", "--yes", str(folder / "every.yaml"))
        yield node
    finally:
        node.discard()


@pytest.fixture(scope="module")
def client(node: Node) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(
        f"{node.endpoint.host}:{node.endpoint.port}",
        ssl=True,
        root_certificates=str(node.ca_file),
        channel_args=OPTIONS,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def stub(node: Node) -> Iterator[Any]:
    """The service's own stub: what it sends can be anything."""
    credentials = grpc.ssl_channel_credentials(node.ca_file.read_bytes())
    address = f"{node.endpoint.host}:{node.endpoint.port}"
    with grpc.secure_channel(address, credentials, OPTIONS) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def proof(node: Node, token: str | None = None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {node.usual_token if token is None else token}"),)


def rows(values: numpy.ndarray[Any, Any], name: str = "x", datatype: str = "FP32") -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def request_of(model: str = "twice", version: str = "") -> Any:
    """A request in typed contents."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version, id="7")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    given.contents.fp32_contents.extend(ONE)
    return request


def refused(stub: Any, request: Any, node: Node, **more: Any) -> tuple[grpc.StatusCode, str, Any]:
    """Status, sentence and record of a prediction that is refused."""
    more.setdefault("metadata", proof(node))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=120, **more)
    told = {**dict(caught.value.initial_metadata()), **dict(caught.value.trailing_metadata())}
    return caught.value.code(), caught.value.details(), node.record(told["x-request-id"])


def test_the_published_client_of_triton_works_unmodified(
    node: Node, client: triton.InferenceServerClient
) -> None:
    headers = dict(proof(node))
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    about = client.get_server_metadata(headers=headers)
    assert (about.name, list(about.extensions)) == ("vedette", ["binary_tensor_data"])
    assert client.is_model_ready("twice", headers=headers)
    assert client.is_model_ready("twice", "1", headers=headers)
    told = client.get_model_metadata("twice", headers=headers)
    assert (told.name, list(told.versions)) == ("twice", ["1"])
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
        ("x", "FP32", [-1, WIDTH])
    ]
    values = numpy.arange(3 * WIDTH, dtype=numpy.float32).reshape(3, WIDTH)
    wanted = [triton.InferRequestedOutput("y")]
    answer = client.infer("twice", [rows(values)], outputs=wanted, request_id="9", headers=headers)
    assert (answer.as_numpy("y") == 2 * values).all()
    assert answer.as_numpy("best") is None
    assert answer.get_response().id == "9"
    answer = client.infer("twice", [rows(values)], "1", headers=headers)
    assert answer.as_numpy("best").tolist() == [WIDTH - 1] * 3


def test_a_large_tensor_arrives_whole_both_ways(
    node: Node, client: triton.InferenceServerClient
) -> None:
    values = numpy.random.default_rng(7).random((40_000, WIDTH), numpy.float32)
    answer = client.infer("twice", [rows(values)], headers=dict(proof(node)))
    assert (answer.as_numpy("y") == 2 * values).all()


def test_typed_contents_are_answered_in_typed_contents(node: Node, stub: Any) -> None:
    answer = stub.ModelInfer(request_of(), timeout=120, metadata=proof(node))
    assert (answer.model_name, answer.model_version, answer.id) == ("twice", "1", "7")
    outputs = {each.name: each for each in answer.outputs}
    assert list(outputs["y"].contents.fp32_contents) == [2 * each for each in ONE]
    assert list(outputs["best"].contents.int64_contents) == [WIDTH - 1]
    assert not answer.raw_output_contents


EVERY: dict[str, tuple[str, list[Any]]] = {
    "bool": ("bool_contents", [True, False]),
    "int8": ("int_contents", [-128, 127]),
    "int32": ("int_contents", [-(2**31), 2**31 - 1]),
    "int64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "uint8": ("uint_contents", [0, 255]),
    "uint64": ("uint64_contents", [0, 2**64 - 1]),
    "fp32": ("fp32_contents", [0.5, -1.5]),
    "fp64": ("fp64_contents", [0.1, -1e300]),
    "text": ("bytes_contents", ["grün".encode(), b""]),
}


def test_elements_of_every_type_come_back_as_they_went(node: Node, stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="every")
    for name, (field, values) in EVERY.items():
        datatype = "BYTES" if name == "text" else name.upper()
        given = request.inputs.add(name=name, datatype=datatype, shape=[2])
        getattr(given.contents, field).extend(values)
    answer = stub.ModelInfer(request, timeout=120, metadata=proof(node))
    told = {
        each.name.rstrip("_"): list(getattr(each.contents, EVERY[each.name.rstrip("_")][0]))
        for each in answer.outputs
    }
    assert told == {name: values for name, (_, values) in EVERY.items()}


def test_texts_come_raw_from_the_published_client(
    node: Node, client: triton.InferenceServerClient
) -> None:
    kinds = {"bool": "?", "uint8": "u1", "uint64": "u8", "int8": "i1", "int32": "i4", "int64": "i8"}
    kinds |= {"fp32": "f4", "fp64": "f8"}
    arrays = {name: numpy.array(EVERY[name][1], kind) for name, kind in kinds.items()}
    arrays["text"] = numpy.array(EVERY["text"][1], numpy.object_)
    inputs = [
        rows(values, name, "BYTES" if name == "text" else name.upper())
        for name, values in arrays.items()
    ]
    answer = client.infer("every", inputs, headers=dict(proof(node)))
    for name, values in arrays.items():
        assert answer.as_numpy(f"{name}_").tolist() == values.tolist()


def test_each_call_is_recorded_as_a_prediction_of_its_model(node: Node, stub: Any) -> None:
    _, call = stub.ModelInfer.with_call(request_of(), timeout=120, metadata=proof(node))
    told = dict(call.initial_metadata())
    line = node.record(told["x-request-id"])
    expected = {
        "model": "twice",
        "modelVersion": 1,
        "route": "model-twice",
        "path": "/inference.GRPCInferenceService/ModelInfer",
        "status": 200,
        "outcome": "served",
        "policies": ["node-token"],
    }
    assert expected.items() <= line.items()
    assert line["runMicros"] >= 0
    assert told["server-timing"].startswith("queue;dur=")


def test_who_may_not_ask_is_told_in_the_words_of_grpc(node: Node, stub: Any) -> None:
    code, sentence, line = refused(stub, request_of(), node, metadata=())
    assert (code, sentence) == (grpc.StatusCode.UNAUTHENTICATED, "Credentials are required")
    assert (line["cause"], line["status"], line["grpcStatus"]) == ("credentials_required", 401, 16)
    assert line["model"] == "twice"
    forbid = 'forbid (principal, action == Action::"predict", resource == Model::"twice")\n'
    node.set_policy(
        "no-mallory.cedar",
        forbid + 'when { principal is Subject && principal.subject == "mallory" };',
    )
    mallory = proof(node, node.token("mallory"))
    code, _, line = refused(stub, request_of(), node, metadata=mallory)
    assert (code, line["cause"]) == (grpc.StatusCode.PERMISSION_DENIED, "policy_denied")
    code, _, line = refused(stub, request_of(), node, metadata=proof(node, "no.token.at-all"))
    assert (code, line["cause"]) == (grpc.StatusCode.UNAUTHENTICATED, "token_malformed")
    for method in (stub.ServerLive, stub.ServerReady, stub.ServerMetadata):
        with pytest.raises(grpc.RpcError) as caught:
            method(_empty(method), timeout=120)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def _empty(method: Any) -> Any:
    name = method._method.decode().rsplit("/", 1)[1]
    return getattr(service_pb2, f"{name}Request")()


@pytest.mark.parametrize(
    ("change", "code", "cause"),
    [
        ({"model_name": "none"}, "NOT_FOUND", "model_not_found"),
        ({"model_name": ""}, "INVALID_ARGUMENT", "call_malformed"),
        ({"model_version": "2"}, "NOT_FOUND", "model_path_unknown"),
        ({"model_version": "1/../../../x"}, "NOT_FOUND", "model_not_found"),
        ({"inputs": []}, "INVALID_ARGUMENT", "model_request_invalid"),
        ({"raw_input_contents": [b"1"]}, "INVALID_ARGUMENT", "model_request_invalid"),
    ],
)
def test_what_does_not_fit_is_told_with_its_status(
    node: Node, stub: Any, change: dict[str, Any], code: str, cause: str
) -> None:
    request = request_of()
    for name, value in change.items():
        request.ClearField(name)
        if value:
            request.MergeFrom(service_pb2.ModelInferRequest(**{name: value}))
    told, sentence, line = refused(stub, request, node)
    assert (told, line["cause"]) == (grpc.StatusCode[code], cause)
    assert sentence
    assert line["outcome"] == "refused"


def test_a_message_that_names_two_models_is_run_by_none(node: Node) -> None:
    """The last of a field that comes twice counts: to a reader of the first alone it is another's."""
    one = service_pb2.ModelInferRequest(model_name="every").SerializeToString()
    message = one + request_of().SerializeToString()
    credentials = grpc.ssl_channel_credentials(node.ca_file.read_bytes())
    address = f"{node.endpoint.host}:{node.endpoint.port}"
    with grpc.secure_channel(address, credentials, OPTIONS) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        # What names both at the beginning is the last one's; what does later is nobody's.
        assert call(message, timeout=120, metadata=proof(node))
        late = request_of().SerializeToString() + one
        with pytest.raises(grpc.RpcError) as caught:
            call(late, timeout=120, metadata=proof(node))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_message_beyond_the_model_s_limit_is_refused_unread(node: Node, stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="every")
    request.raw_input_contents.append(bytes(70_000))
    code, _, line = refused(stub, request, node)
    assert (code, line["cause"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "request_too_large")


def test_compressed_messages_and_unknown_methods_are_not_implemented(node: Node, stub: Any) -> None:
    request = request_of()
    request.inputs[0].contents.fp32_contents.extend(
        [0.0] * 10_000
    )  # what gets no smaller is not compressed
    with pytest.raises(grpc.RpcError) as compressed:
        stub.ModelInfer(
            request, timeout=120, metadata=proof(node), compression=grpc.Compression.Gzip
        )
    told = compressed.value
    assert told.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "Compressed" in told.details()
    assert "grpc-encoding" in told.details()
    more = {**dict(told.initial_metadata()), **dict(told.trailing_metadata())}
    assert node.record(more["x-request-id"])["cause"] == "call_compressed"
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryIndex(
            service_pb2.RepositoryIndexRequest(), timeout=120, metadata=proof(node)
        )
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("encoding", "status", "cause", "accepted"),
    [
        ("gzip", "12", "call_compressed", "identity"),
        ("snappy", "12", "call_compressed", "identity"),
        ("identity", "3", "call_malformed", None),
    ],
)
def test_a_compressed_message_is_told_what_is_understood(
    node: Node, encoding: str, status: str, cause: str, accepted: str | None
) -> None:
    """gRPC's compression.md. Its clients keep to themselves what they read of it."""
    caller = Caller(node, HTTP_2)
    headers = {"content-type": "application/grpc", "te": "trailers", "grpc-encoding": encoding}
    path = "/inference.GRPCInferenceService/ModelInfer"
    answer = caller.ask(path, method="POST", body=b"\1\0\0\0\1x", headers=headers)
    caller.close()
    assert (answer.status, answer.headers["grpc-status"]) == (200, status)
    assert answer.headers.get("grpc-accept-encoding") == accepted
    assert node.record(answer.request_id)["cause"] == cause


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "ServerLive"])
def test_a_call_with_two_messages_is_answered_by_nobody(node: Node, stub: Any, method: str) -> None:
    messages = {
        "ModelInfer": request_of(),
        "ModelReady": service_pb2.ModelReadyRequest(name="twice"),
        "ModelMetadata": service_pb2.ModelMetadataRequest(name="twice"),
        "ServerLive": service_pb2.ServerLiveRequest(),
    }
    message = messages[method].SerializeToString()
    credentials = grpc.ssl_channel_credentials(node.ca_file.read_bytes())
    address = f"{node.endpoint.host}:{node.endpoint.port}"
    with grpc.secure_channel(address, credentials, OPTIONS) as channel:
        call = channel.stream_unary(f"/inference.GRPCInferenceService/{method}")
        assert call(iter([message]), timeout=120, metadata=proof(node))
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([message, message]), timeout=120, metadata=proof(node))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "The call has more than one message"
    told = {**dict(caught.value.initial_metadata()), **dict(caught.value.trailing_metadata())}
    line = node.record(told["x-request-id"])
    assert (line["cause"], line["outcome"], line["grpcStatus"]) == ("call_surplus", "refused", 13)


def test_how_a_caller_asks_to_be_scheduled_is_kept_or_refused_by_name(
    node: Node, client: triton.InferenceServerClient
) -> None:
    given = [rows(numpy.array([ONE], numpy.float32))]
    asked = {"headers": dict(proof(node))}
    client.infer("twice", given, timeout=60_000_000, parameters={"mine": "any"}, **asked)
    with pytest.raises(InferenceServerException, match="priority is not supported"):
        client.infer("twice", given, priority=1, **asked)
    pid = worker_of(node, "twice")
    client.infer("twice", given, **asked)
    started = time.monotonic()
    with pytest.raises(InferenceServerException) as caught:
        client.infer("twice", given, timeout=1, **asked)
    assert time.monotonic() - started < 60
    assert caught.value.status() in ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")
    assert worker_of(node, "twice") == pid


def test_the_caller_s_deadline_is_the_model_s(node: Node, stub: Any) -> None:
    """A process that is stopped answers nobody; whoever asks waits as long as it said, and no longer."""
    pid = worker_of(node, "twice")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request_of(), timeout=0.3, metadata=proof(node))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        # The node's own, where the client has none: 300 ms by the header alone.
        more = (*proof(node), ("x-vedette-deadline-ms", "300"))
        code, _, line = refused(stub, request_of(), node, metadata=more)
        assert (code, line["cause"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "model_timeout")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ask_with_http(node, "ready").status_code == 200


def test_a_refusal_becomes_the_exception_that_clients_know(
    node: Node, client: triton.InferenceServerClient
) -> None:
    values = numpy.zeros((1, WIDTH + 1), numpy.float32)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("twice", [rows(values)], headers=dict(proof(node)))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "shape" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("none", headers=dict(proof(node)))
    assert caught.value.status() == "StatusCode.NOT_FOUND"
