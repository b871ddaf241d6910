"""gRPC through the node, by the usual client and server: each kind of call, trailers, failures, deadlines."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.simulators.grpc_service import NAME, GrpcService

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: calls}}
spec: {{url: "http://127.0.0.1:{port}", protocol: http2}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: calls}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /{name}}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: calls}}]
"""


@pytest.fixture(scope="module")
def service() -> Iterator[GrpcService]:
    """The service."""
    service = GrpcService()
    yield service
    service.close()


@pytest.fixture(scope="module")
def gateway(start_node: StartNode, service: GrpcService) -> Node:
    """A node in front of it."""
    node = start_node()
    node.apply(MANIFEST.format(port=service.port, name=NAME))
    return node


@pytest.fixture(scope="module")
def channel(gateway: Node) -> Iterator[grpc.Channel]:
    """A client's connection to the node."""
    credentials = grpc.ssl_channel_credentials(gateway.ca_file.read_bytes())
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_http_proxy", 0)]
    address = f"{gateway.endpoint.host}:{gateway.endpoint.port}"
    with grpc.secure_channel(address, credentials, options) as channel:
        yield channel


def test_a_call_has_its_metadata_both_ways(channel: grpc.Channel, service: GrpcService) -> None:
    call = channel.unary_unary(f"/{NAME}/Echo")
    answer, told = call.with_call(
        b"hello", timeout=60, metadata=(("x-mine", "1"), ("x-raw-bin", b"\xff\0"))
    )
    assert answer == b"hello"
    assert service.metadata["x-mine"] == "1"
    assert service.metadata["x-raw-bin"] == b"\xff\0"
    assert service.metadata["x-vedette-principal"] == "anonymous"
    assert dict(told.initial_metadata())["x-begun"] == "yes"
    trailers = dict(told.trailing_metadata())
    assert (trailers["x-ended"], trailers["x-raw-bin"]) == ("yes", b"\0\xff")
    assert told.code() == grpc.StatusCode.OK


def test_a_large_message_arrives_whole(channel: grpc.Channel) -> None:
    message = bytes(range(256)) * 12_000
    assert channel.unary_unary(f"/{NAME}/Echo")(message, timeout=60) == message


def test_a_stream_of_answers_comes_in_order(channel: grpc.Channel) -> None:
    came = list(channel.unary_stream(f"/{NAME}/Count")(b"500", timeout=60))
    assert came == [str(number).encode() for number in range(500)]


def test_a_stream_of_messages_is_summed_up(channel: grpc.Channel) -> None:
    messages = (str(number).encode() for number in range(500))
    assert channel.stream_unary(f"/{NAME}/Sum")(messages, timeout=60) == b"124750"


def test_both_talk_in_turns(channel: grpc.Channel) -> None:
    """Each message waits for the answer to the one before: nothing may be held back on the way."""
    said: queue.Queue[bytes | None] = queue.Queue()
    answers = channel.stream_stream(f"/{NAME}/Talk")(iter(said.get, None), timeout=60)
    for word in (b"one", b"two", b"three"):
        said.put(word)
        assert next(answers) == word.upper()
    said.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_a_failure_keeps_its_status_and_its_words(channel: grpc.Channel, gateway: Node) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(f"/{NAME}/Fail")(b"", timeout=60)
    error = failed.value
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "nö: 100 % no"
    assert dict(error.trailing_metadata())["x-why"] == "because"
    [record] = gateway.requests.wait_for(lambda line: line["path"] == f"/{NAME}/Fail")
    assert (record["status"], record["outcome"]) == (200, "served"), (
        "a failure of the service's own"
    )


def test_a_failure_behind_answers_comes_behind_them(channel: grpc.Channel) -> None:
    answers = channel.unary_stream(f"/{NAME}/FailLate")(b"", timeout=60)
    assert [next(answers), next(answers)] == [b"one", b"two"]
    with pytest.raises(grpc.RpcError) as failed:
        next(answers)
    assert failed.value.code() == grpc.StatusCode.DATA_LOSS


def test_a_deadline_ends_the_call_at_the_service_too(
    channel: grpc.Channel, service: GrpcService
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(f"/{NAME}/Hang")(b"", timeout=0.5)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(10), "the service still works for nobody"


def test_a_refusal_is_a_failure_that_a_client_understands(channel: grpc.Channel) -> None:
    """It is a status of gRPC with the node's own sentence; that of a place where nothing is, as gRPC maps 404."""
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/vedette.test.Nobody/Call")(b"", timeout=60)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert failed.value.details() == "There is nothing here"
