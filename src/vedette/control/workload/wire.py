"""The messages of the SPIFFE Workload API (SPIFFE Workload API §3 and its workload.proto, proto3, no package).

Owns: names, numbers and types of their fields, as a descriptor that reflection can hand out. Must not: know what a
message is for. Google's `protobuf` does the reading: hostile bytes are its business.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import DecodeError, Message

from vedette.errors import ConfigError

SERVICE: Final = "SpiffeWorkloadAPI"
ONE_OF: Final = "one"
_Field = descriptor_pb2.FieldDescriptorProto
_STRUCT: Final = ".google.protobuf.Struct"
Messages = dict[str, dict[str, tuple[int, str]]]
# name: (number, type); `*` repeats, of those with `?` there is one, `map` is from text to bytes, a capital letter
# begins the name of a message.
_MESSAGES: Final[Messages] = {
    "X509SVIDRequest": {},
    "X509SVIDResponse": {
        "svids": (1, "*X509SVID"),
        "crl": (2, "*bytes"),
        "federated_bundles": (3, "map"),
    },
    "X509SVID": {
        "spiffe_id": (1, "string"),
        "x509_svid": (2, "bytes"),
        "x509_svid_key": (3, "bytes"),
        "bundle": (4, "bytes"),
        "hint": (5, "string"),
    },
    "X509BundlesRequest": {},
    "X509BundlesResponse": {"crl": (1, "*bytes"), "bundles": (2, "map")},
    "JWTSVIDRequest": {"audience": (1, "*string"), "spiffe_id": (2, "string")},
    "JWTSVIDResponse": {"svids": (1, "*JWTSVID")},
    "JWTSVID": {"spiffe_id": (1, "string"), "svid": (2, "string"), "hint": (3, "string")},
    "JWTBundlesRequest": {},
    "JWTBundlesResponse": {"bundles": (1, "map")},
    "ValidateJWTSVIDRequest": {"audience": (1, "string"), "svid": (2, "string")},
    "ValidateJWTSVIDResponse": {"spiffe_id": (1, "string"), "claims": (2, _STRUCT)},
}
_METHODS: Final = {
    "FetchX509SVID": ("X509SVIDRequest", "X509SVIDResponse", True),
    "FetchX509Bundles": ("X509BundlesRequest", "X509BundlesResponse", True),
    "FetchJWTSVID": ("JWTSVIDRequest", "JWTSVIDResponse", False),
    "FetchJWTBundles": ("JWTBundlesRequest", "JWTBundlesResponse", True),
    "ValidateJWTSVID": ("ValidateJWTSVIDRequest", "ValidateJWTSVIDResponse", False),
}
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
}


def _file(name: str, messages: Messages) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=name, syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for title, fields in messages.items():
        message = file.message_type.add(name=title)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    return file


def _with_service(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    service = file.service.add(name=SERVICE)
    for name, (request, response, streams) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=f".{request}",
            output_type=f".{response}",
            server_streaming=streams,
        )
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    repeated = kind.startswith("*") or kind == "map"
    field = message.field.add(
        name=name,
        number=number,
        label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
    )
    if kind.startswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name=ONE_OF)
        field.oneof_index = 0
    kind = kind.lstrip("*?")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _Field.TYPE_MESSAGE
    field.type_name = kind if kind.startswith(".") else f".{kind}"
    if kind == "map":
        # The compiler names the type of a map's entries so (protobuf language guide, "Maps").
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, "bytes")
        field.type_name = f".{message.name}.{entry.name}"


def struct_file() -> descriptor_pb2.FileDescriptorProto:
    """The file of `google.protobuf.Struct`, on which the others stand."""
    file = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(file)
    return file


# Not the pool that everybody shares: there somebody else's workload.proto may be.
POOL: Final = descriptor_pool.DescriptorPool()
POOL.Add(struct_file())


def _classes(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Any]:
    POOL.Add(file)
    return {
        one.name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(one.name))
        for one in file.message_type
    }


FILE: Final = _with_service(_file("workload.proto", _MESSAGES))
_CLASSES: Final = _classes(FILE)


def classes(file: str, messages: Messages) -> dict[str, Any]:
    """Classes of further messages, by name."""
    return _classes(_file(file, messages))


def new(name: str, **fields: Any) -> Any:
    """A message by its name in the specification."""
    return _CLASSES[name](**fields)


def encode(name: str, **fields: Any) -> bytes:
    """A message on the wire."""
    message: Message = new(name, **fields)
    return message.SerializeToString()


def decode(name: str, data: bytes) -> Any:
    """A message from the wire. Raises `ConfigError` request_invalid."""
    return parsed(_CLASSES[name], data)


def parsed(kind: Any, data: bytes) -> Any:
    """A message of a class from the wire. Raises `ConfigError` request_invalid."""
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise ConfigError("request_invalid", f"this is not a {name}") from None
