"""The messages, beside the descriptors that a published client was generated with."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from spiffe._proto import workload_pb2

from vedette.control.workload import wire
from vedette.errors import ConfigError


def fields(message: Descriptor) -> dict[str, tuple[int, int, bool, str]]:
    """Each field: number, type, whether it repeats, and the message it holds."""
    return {
        field.name: (field.number, field.type, _repeats(field), _held(field))
        for field in message.fields
    }


def _repeats(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _held(field: FieldDescriptor) -> str:
    return "" if field.message_type is None else str(field.message_type.full_name)


@pytest.mark.parametrize("name", sorted(wire._MESSAGES))
def test_a_message_has_the_fields_of_the_specification(name: str) -> None:
    theirs = workload_pb2.DESCRIPTOR.message_types_by_name[name]
    assert fields(wire.POOL.FindMessageTypeByName(name)) == fields(theirs)


def test_the_methods_are_those_of_the_specification_but_for_what_is_optional() -> None:
    theirs = workload_pb2.DESCRIPTOR.services_by_name[wire.SERVICE]
    ours = wire.POOL.FindServiceByName(wire.SERVICE)
    optional = {"FetchWITSVID", "FetchWITBundles"}
    assert {one.name for one in ours.methods} == {one.name for one in theirs.methods} - optional
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.server_streaming == other.server_streaming
        assert not method.client_streaming


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        wire.decode("JWTSVIDRequest", data)
    assert caught.value.code == "request_invalid"


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert list(wire.decode("JWTSVIDRequest", b"\x0a\x01a\xf8\x07\x01").audience) == ["a"]
