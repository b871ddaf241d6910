"""Another user of the machine: reaches the socket and nothing else, and gets what is for that user alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.control.workload.conftest import DOMAIN, Served
from tests.control.workload.raw_client import RawClient

from vedette.control.workload.grpc import Status
from vedette.store.home import Home

NOBODY = 65_534
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a place that every user can pass to, as `/var/lib/vedette` would be."""
    folder = Path(tempfile.mkdtemp(prefix="v-"))
    folder.chmod(0o711)
    yield Home(folder / "h")
    shutil.rmtree(folder)


@contextmanager
def another_user() -> Iterator[None]:
    """This process as the kernel sees it while another user runs it."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_each_user_gets_what_is_for_that_user(served: Served) -> None:
    served.put("roots")
    served.put("theirs", f"unix:uid:{NOBODY}")
    served.put("groups", f"unix:gid:{NOBODY}")
    with another_user():
        caller = RawClient(served.home.workload_socket)
    response = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse")
    names = [svid.spiffe_id for svid in response.svids]
    assert names == [f"spiffe://{DOMAIN}/groups", f"spiffe://{DOMAIN}/theirs"]
    served.workloads.remove("theirs")
    served.workloads.remove("groups")
    assert caller.status(caller.open("FetchX509SVID")) == Status.PERMISSION_DENIED
    asked = caller.ask(
        "FetchJWTSVID", "JWTSVIDRequest", audience=["a"], spiffe_id=f"spiffe://{DOMAIN}/roots"
    )
    assert caller.status(asked) == Status.PERMISSION_DENIED
    caller.close()


def test_another_user_sees_nothing_on_the_way_to_the_socket(served: Served) -> None:
    home = served.home
    with another_user():
        for folder in (home.root, home.run, home.control, home.engine):
            with pytest.raises(PermissionError):
                os.listdir(folder)
        for file in (home.node_file, home.ca_key, home.ca_certificate, home.identity_database):
            with pytest.raises(PermissionError):
                file.open("rb")
        with pytest.raises(PermissionError):
            home.workload_socket.unlink()
