"""The Workload API of a whole node: through the supervisor's socket, over a restart of control."""

from __future__ import annotations

import base64
import os
import signal
import time

import pytest
from cryptography import x509
from tests.control.workload.raw_client import PATIENCE, RawClient

from vedette.control.client import ControlClient
from vedette.control.supervisor.state import read_state
from vedette.control.workload.grpc import Status
from vedette.errors import VedetteError
from vedette.store.home import Home

WISH = {"path": "/shop", "selectors": [f"unix:uid:{os.getuid()}"]}


def control_pid(home: Home) -> int | None:
    state = read_state(home.supervisor_file)
    return None if state is None else state.control.pid


def test_an_entry_outlives_control_and_callers_wait_for_its_return(whole_node: Home) -> None:
    admin = ControlClient(whole_node)
    assert admin.get("/v1/status")["workloadApi"] == f"unix://{whole_node.workload_socket}"
    assert whole_node.workload_socket.stat().st_mode & 0o777 == 0o666
    caller = RawClient(whole_node.workload_socket)
    assert caller.status(caller.open("FetchX509SVID")) == Status.PERMISSION_DENIED
    admin.put("/v1/workloads/shop", WISH)
    stream = caller.open("FetchX509SVID")
    first = caller.next_message(stream, "X509SVIDResponse")
    pid = control_pid(whole_node)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while not caller.closed:
        caller.read()
    again = RawClient(whole_node.workload_socket)  # waits in the supervisor's socket
    second = again.next_message(again.open("FetchX509SVID"), "X509SVIDResponse")
    assert second.svids[0].spiffe_id == first.svids[0].spiffe_id
    assert second.svids[0].bundle == first.svids[0].bundle
    again.close()


def test_what_was_out_before_control_died_is_revoked_after(whole_node: Home) -> None:
    admin = ControlClient(whole_node)
    admin.put("/v1/workloads/shop", WISH)
    admin.put("/v1/workloads/other", {**WISH, "path": "/other"})
    caller = RawClient(whole_node.workload_socket)
    svids = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse").svids
    serials = {
        one.spiffe_id.rpartition("/")[2]: x509.load_der_x509_certificate(
            one.x509_svid
        ).serial_number
        for one in svids
    }
    pid = control_pid(whole_node)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while not caller.closed:
        caller.read()
    again = RawClient(whole_node.workload_socket)
    stream = again.open("FetchX509SVID")
    again.next_message(stream, "X509SVIDResponse")
    admin.delete("/v1/workloads/shop")
    revoked: set[int] = set()
    while not revoked:
        (crl,) = again.next_message(stream, "X509SVIDResponse").crl
        revoked = {one.serial_number for one in x509.load_der_x509_crl(crl)}
    assert serials["shop"] in revoked
    assert serials["other"] not in revoked
    again.close()


def test_control_that_stops_tells_its_watchers_to_come_again(whole_node: Home) -> None:
    ControlClient(whole_node).put("/v1/workloads/shop", WISH)
    caller = RawClient(whole_node.workload_socket)
    stream = caller.open("FetchX509SVID")
    caller.next_message(stream, "X509SVIDResponse")
    pid = control_pid(whole_node)
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert caller.status(stream) == Status.UNAVAILABLE
    caller.close()


def test_no_key_and_no_token_is_in_a_log(whole_node: Home) -> None:
    ControlClient(whole_node).put("/v1/workloads/shop", WISH)
    caller = RawClient(whole_node.workload_socket)
    svid = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse").svids[0]
    asked = caller.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["a"])
    token = caller.next_message(asked, "JWTSVIDResponse").svids[0].svid
    wrong = caller.ask("ValidateJWTSVID", "ValidateJWTSVIDRequest", audience="b", svid=token)
    assert caller.status(wrong) == Status.INVALID_ARGUMENT
    assert token.encode() not in caller.trailers[wrong][b"grpc-message"]
    caller.close()
    ControlClient(whole_node).delete("/v1/workloads/shop")
    said = b"".join(file.read_bytes() for file in whole_node.log.iterdir())
    assert b"removed the workload shop" in said
    seal = whole_node.seal_key.read_bytes().strip()
    key = svid.x509_svid_key
    secrets = (token.encode(), token.split(".")[2].encode(), seal, base64.b64encode(key), key)
    assert [one for one in secrets if one in said] == []


def test_the_admin_api_keeps_lists_and_removes_entries_and_bundles(whole_node: Home) -> None:
    admin = ControlClient(whole_node)
    kept = admin.put("/v1/workloads/shop", {**WISH, "hint": "a"})
    assert kept["spiffeId"] == "spiffe://test-node.vedette.local/shop"
    assert admin.get("/v1/workloads") == [kept]
    assert admin.delete("/v1/workloads/shop") == []
    for path, code in (
        ("/v1/workloads/shop", "workload_unknown"),
        ("/v1/bundles/other.example", "bundle_unknown"),
    ):
        with pytest.raises(VedetteError) as caught:
            admin.delete(path)
        assert caught.value.code == code
    document = admin.get_bytes("/v1/bundle").decode()
    with pytest.raises(VedetteError) as refused:
        admin.put("/v1/bundles/test-node.vedette.local", {"document": document})
    assert refused.value.code == "bundle_invalid"
    (own,) = admin.get("/v1/bundles")
    assert (own["own"], own["sequence"], own["x509Authorities"], own["jwtKeys"]) == (True, 1, 1, 1)


def test_the_sequence_of_the_bundle_stays_over_restarts(whole_node: Home) -> None:
    admin = ControlClient(whole_node)
    before = admin.get_bytes("/v1/bundle")
    pid = control_pid(whole_node)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while control_pid(whole_node) in (pid, None) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert admin.get_bytes("/v1/bundle") == before
