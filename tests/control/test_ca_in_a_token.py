"""A whole node whose CA is in a PKCS#11 token: it issues, rotates and comes back after control was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from tests.control.conftest import simulated_options
from tests.control.workload.raw_client import RawClient
from tests.identity.softhsm import PIN, softhsm_in

from vedette.control.client import ControlClient
from vedette.control.supervisor import launch
from vedette.errors import VedetteError
from vedette.store.home import Home

PATIENCE = 120.0


@pytest.fixture
def node(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    uri = softhsm_in(tmp_path_factory.mktemp("hsm")).token("whole")
    try:
        launch.launch(home, simulated_options(ca_key=uri))
        launch.wait_until_ready(home)
        yield home
    finally:
        launch.stop(home, patience=10.0)


def test_it_issues_rotates_and_comes_back(node: Home) -> None:
    admin = ControlClient(node)
    (ca, jwt) = admin.get("/v1/ca/keys")
    assert (ca["stored"], jwt["stored"]) == ("pkcs11", "file")
    assert not node.ca_key.exists()
    wish = {"path": "/shop", "selectors": [f"unix:uid:{os.getuid()}"]}
    admin.put("/v1/workloads/shop", wish)
    caller = RawClient(node.workload_socket)
    told = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse")
    caller.close()
    (leaf,) = (x509.load_der_x509_certificate(one.x509_svid) for one in told.svids)
    authority = x509.load_pem_x509_certificate(admin.get_bytes("/v1/ca"))
    leaf.verify_directly_issued_by(authority)
    rotated = admin.post("/v1/ca/rotate", {"now": True})
    assert [one["stored"] for one in rotated] == ["pkcs11", "pkcs11", "file"]
    pid = admin.get("/v1/status")["processes"]["control"]["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(VedetteError):
            if admin.get("/v1/status")["processes"]["control"]["pid"] != pid:
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert admin.get("/v1/ca/keys") == rotated
    logs = "".join(log.read_text() for log in node.log.glob("*.log"))
    assert PIN not in logs
