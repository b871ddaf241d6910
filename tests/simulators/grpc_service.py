"""A gRPC service: bytes in, bytes out, each kind of call. Messages need no schema here.

Owns: what became of its calls. Must not: know what a test expects.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

NAME = "vedette.test.Calls"


class GrpcService:
    """Listens on a loopback port of its own until closed."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.metadata: dict[str, str | bytes] = {}
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self._fail_late),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(NAME, handlers),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        """Ends every call."""
        self._server.stop(grace=0).wait()

    def _echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-begun", "yes"),))
        context.set_trailing_metadata((("x-ended", "yes"), ("x-raw-bin", b"\0\xff")))
        return message

    def _count(self, message: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(message)):
            yield str(number).encode()

    def _sum(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        return str(sum(int(each) for each in messages)).encode()

    def _talk(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for each in messages:
            yield each.upper()

    def _fail(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö: 100 % no")
        raise AssertionError("abort raises")

    def _fail_late(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

    def _hang(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(20)
        return b""
