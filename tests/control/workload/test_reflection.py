"""Reflection, asked by gRPC's own library: what it tells is enough to call the API."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from tests.control.workload.conftest import Served

from vedette.control.workload import reflection, wire

REQUEST = reflection._KINDS["ServerReflectionRequest"]
RESPONSE = reflection._KINDS["ServerReflectionResponse"]


def asked(served: Served, version: str, *requests: Any) -> list[Any]:
    with grpc.insecure_channel(f"unix:{served.home.workload_socket}") as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=REQUEST.SerializeToString,
            response_deserializer=RESPONSE.FromString,
        )
        return list(call(iter(requests)))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_the_service_is_listed_and_its_files_describe_it(served: Served, version: str) -> None:
    listed, found, missing, odd = asked(
        served,
        version,
        REQUEST(list_services=""),
        REQUEST(file_containing_symbol="SpiffeWorkloadAPI.FetchX509SVID"),
        REQUEST(file_by_filename="etc/passwd"),
        REQUEST(host="x"),
    )
    assert [one.name for one in listed.list_services_response.service] == ["SpiffeWorkloadAPI"]
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(one)
        for one in found.file_descriptor_response.file_descriptor_proto
    ]
    assert [one.name for one in files] == ["workload.proto", "google/protobuf/struct.proto"]
    assert files[0] == wire.FILE
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert odd.error_response.error_code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert odd.original_request.host == "x"


def test_a_caller_may_ask_much_and_leave(served: Served) -> None:
    names = [REQUEST(file_by_filename="google/protobuf/struct.proto")] * 1_000
    with grpc.insecure_channel(f"unix:{served.home.workload_socket}") as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=REQUEST.SerializeToString,
            response_deserializer=RESPONSE.FromString,
        )(iter(names))
        try:
            first = next(call)
        except grpc.RpcError as error:
            # It asked more quickly than it read: what waits for a caller has an end.
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - or no error
        else:
            assert first.file_descriptor_response.file_descriptor_proto
        call.cancel()
    (listed,) = asked(served, "v1", REQUEST(list_services="*"))
    assert listed.list_services_response.service
