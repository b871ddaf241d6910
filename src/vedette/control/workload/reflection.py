"""Server reflection: which services and messages there are, for tools such as grpcurl (grpc/doc/server-reflection.md).

Owns: grpc.reflection.v1 and the same as v1alpha. It tells what the specification has published, so it asks for neither
header nor identity. Must not: tell of anything but the Workload API.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import struct_pb2

from vedette.control.workload import wire
from vedette.control.workload.grpc import Call, CallError, Status
from vedette.errors import ConfigError

_METHOD: Final = "ServerReflection/ServerReflectionInfo"
PATHS: Final = frozenset(
    f"/grpc.reflection.{version}.{_METHOD}".encode() for version in ("v1", "v1alpha")
)
_NOT_FOUND: Final = 5  # grpc/doc/statuscodes.md
_UNIMPLEMENTED: Final = 12
# Both versions have the same messages on the wire; only names differ.
_MESSAGES: Final[wire.Messages] = {
    "ServerReflectionRequest": {
        "host": (1, "string"),
        "file_by_filename": (3, "?string"),
        "file_containing_symbol": (4, "?string"),
        "list_services": (7, "?string"),
    },
    "ServerReflectionResponse": {
        "valid_host": (1, "string"),
        "original_request": (2, "ServerReflectionRequest"),
        "file_descriptor_response": (4, "FileDescriptorResponse"),
        "list_services_response": (6, "ListServiceResponse"),
        "error_response": (7, "ErrorResponse"),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, "*bytes")},
    "ListServiceResponse": {"service": (1, "*ServiceResponse")},
    "ServiceResponse": {"name": (1, "string")},
    "ErrorResponse": {"error_code": (1, "int32"), "error_message": (2, "string")},
}
_KINDS: Final = wire.classes("reflection.proto", _MESSAGES)


def answer(call: Call, data: bytes) -> None:
    """Answers one request of a reflection stream. Raises `CallError` for what is no request."""
    try:
        request = wire.parsed(_KINDS["ServerReflectionRequest"], data)
    except ConfigError as error:
        raise CallError(Status.INVALID_ARGUMENT, error.message) from None
    response = _KINDS["ServerReflectionResponse"](valid_host=request.host)
    response.original_request.CopyFrom(request)
    _fill(response, request)
    call.push(response.SerializeToString(), replaces=False)


def _fill(response: Any, request: Any) -> None:
    asked = request.WhichOneof(wire.ONE_OF)
    if asked == "list_services":
        response.list_services_response.service.add(name=wire.SERVICE)
    elif asked is None:
        _refuse(response, _UNIMPLEMENTED, "that cannot be asked here")
    else:
        find = _files_named if asked == "file_by_filename" else _files_with
        files = find(getattr(request, asked))
        if files:
            response.file_descriptor_response.file_descriptor_proto.extend(files)
        else:
            _refuse(response, _NOT_FOUND, "that is not here")


def _refuse(response: Any, code: int, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message


def _files_named(name: str) -> list[bytes]:
    known = (wire.FILE, wire.struct_file())
    return [one.SerializeToString() for one in known if one.name == name]


def _files_with(symbol: str) -> list[bytes]:
    """A symbol is a message, a service, or a part of one. The file that another needs comes with it."""
    first = symbol.partition(".")[0]
    known = {one.name for one in wire.FILE.message_type} | {wire.SERVICE}
    if first in known:
        return [*_files_named(wire.FILE.name), *_files_named(struct_pb2.DESCRIPTOR.name)]
    if symbol.startswith("google.protobuf."):
        return _files_named(struct_pb2.DESCRIPTOR.name)
    return []
