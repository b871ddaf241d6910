"""Who a caller is: real processes, real executables, and what must not be believed about them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control.workload.conftest import Served
from tests.control.workload.raw_client import RawClient

from vedette.control.workload import attest
from vedette.control.workload.attest import Attestor, Peer, peer_of
from vedette.control.workload.grpc import Status
from vedette.processes import start_ticks

CONNECT = (
    "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
)
PYTHON = Path(sys.executable).resolve()
ROOT = os.getuid() == 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that every user reaches."""
    with tempfile.TemporaryDirectory(prefix="v-") as folder:
        os.chmod(folder, 0o711)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"{folder}/s")
            os.chmod(f"{folder}/s", 0o666)
            made.listen()
            yield made


@contextlib.contextmanager
def caller(
    listener: socket.socket, program: Path = PYTHON, user: int | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that has connected, and our end of its connection."""
    with subprocess.Popen(
        [str(program), "-S", "-c", CONNECT, listener.getsockname()],
        stdin=subprocess.PIPE,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        env={**os.environ, **environment},
        cwd="/",
    ) as process:
        connected, _ = listener.accept()
        with connected:
            yield process, connected
            process.kill()


def selectors_of(connected: socket.socket) -> frozenset[str]:
    attestor, peer = Attestor(), peer_of(connected)
    if attestor.selectors(peer) is None:
        attestor.learn(peer)
    found = attestor.selectors(peer)
    peer.close()
    assert found is not None
    return found


def copied(folder: Path) -> Path:
    """This Python as another file with other content, which works as well."""
    copy = folder / "python"
    shutil.copy(PYTHON, copy)
    with copy.open("ab") as file:
        file.write(b"changed")
    return copy


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_caller_is_its_user_group_executable_and_digest(listener: socket.socket) -> None:
    with caller(listener) as (_, connected):
        assert selectors_of(connected) == {
            f"unix:uid:{os.getuid()}",
            f"unix:gid:{os.getgid()}",
            f"unix:path:{PYTHON}",
            f"unix:sha256:{digest(PYTHON)}",
        }


def test_another_file_with_other_content_is_another_program(
    listener: socket.socket, tmp_path: Path
) -> None:
    copy = copied(tmp_path)
    with caller(listener, copy, PYTHONHOME=sys.base_prefix) as (_, connected):
        found = selectors_of(connected)
    assert f"unix:path:{copy}" in found
    assert f"unix:sha256:{digest(copy)}" in found
    assert f"unix:sha256:{digest(PYTHON)}" not in found


def test_a_removed_or_replaced_executable_has_its_digest_and_no_path(
    listener: socket.socket, tmp_path: Path
) -> None:
    copy = copied(tmp_path)
    was = digest(copy)
    with caller(listener, copy, PYTHONHOME=sys.base_prefix) as (_, connected):
        copy.unlink()
        for content in (None, b"an honest program"):
            if content is not None:
                copy.write_bytes(content)
                copy.rename(tmp_path / "python (deleted)")
            found = selectors_of(connected)
            assert f"unix:sha256:{was}" in found
            assert not [one for one in found if one.startswith("unix:path:")]


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_another_user_is_told_by_the_kernel(listener: socket.socket) -> None:
    program = Path("/usr/bin/python3").resolve()
    if not program.exists():
        program = _shared_python()
    with caller(listener, program, user=65_534) as (_, connected):
        found = selectors_of(connected)
    assert {"unix:uid:65534", "unix:gid:65534"} <= found
    assert "unix:uid:0" not in found


def _shared_python() -> Path:
    pytest.skip("there is no Python that another user can run")


def test_a_process_that_has_ended_has_no_executable(listener: socket.socket) -> None:
    with caller(listener) as (process, connected):
        peer = peer_of(connected)
        process.kill()
        process.wait()
        assert not peer.is_alive()
        found = Attestor().selectors(peer)
        peer.close()
    assert found == {f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}"}


def test_a_pid_that_another_process_has_by_now_says_nothing_about_it(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caller(listener) as (process, connected):
        gone = peer_of(connected)
        process.kill()
        process.wait()
    # What pid reuse would look like: the number is that of a living process, the handle is not.
    gone.pid = os.getpid()
    assert gone.pidfd is not None, "this kernel has no SO_PEERPIDFD"
    told = Attestor().selectors(gone)
    gone.close()
    old_kernel = Peer(os.getpid(), os.getuid(), os.getgid(), None, started=1)
    assert told == Attestor().selectors(old_kernel)
    assert told == {f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}"}


def test_without_a_handle_the_start_time_vouches(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest, "_SO_PEERPIDFD", 0x7FFF)  # as on a kernel before 6.5
    with caller(listener) as (process, connected):
        peer = peer_of(connected)
        assert peer.pidfd is None
        assert peer.started == start_ticks(process.pid)
        assert f"unix:path:{PYTHON}" in selectors_of(connected)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ESRCH])
def test_a_kernel_that_knows_no_such_process_any_more_is_not_an_old_kernel(
    listener: socket.socket, code: int
) -> None:
    class Reaped:
        def __init__(self, held: socket.socket) -> None:
            self._held = held

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if option == attest._SO_PEERPIDFD:
                raise OSError(code, os.strerror(code))
            return self._held.getsockopt(level, option, size)

    with caller(listener) as (_, connected), pytest.raises(OSError, match=os.strerror(code)):
        peer_of(Reaped(connected))  # type: ignore[arg-type]


def test_a_failure_to_read_is_not_remembered_but_a_refusal_is(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: OSError) -> None:
        def failing(*_: object) -> None:
            raise error

        monkeypatch.setattr(hashlib, "file_digest", failing)

    attestor = Attestor()
    with caller(listener) as (_, connected):
        peer = peer_of(connected)
        fails(OSError(errno.EMFILE, "too many files"))
        attestor.learn(peer)
        assert attestor.selectors(peer) is None
        fails(PermissionError(errno.EACCES, "not for you"))
        attestor.learn(peer)
        found = attestor.selectors(peer)
        peer.close()
    assert found is not None
    assert f"unix:path:{PYTHON}" in found
    assert "unix:sha256:" in found  # which no entry can name


def test_a_process_whose_user_changed_is_not_what_connected(listener: socket.socket) -> None:
    with caller(listener) as (_, connected):
        peer = peer_of(connected)
        peer.uid += 1
        assert Attestor().selectors(peer) == {f"unix:uid:{peer.uid}", f"unix:gid:{os.getgid()}"}
        peer.close()


def test_a_handle_is_not_inherited_and_is_given_back(listener: socket.socket) -> None:
    with caller(listener) as (_, connected):
        peer = peer_of(connected)
        assert peer.pidfd is not None
        assert not os.get_inheritable(peer.pidfd)
        held = peer.pidfd
        peer.close()
        peer.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(held)


def test_digests_are_remembered_in_a_table_of_fixed_size(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attest, "_REMEMBERED", 1)
    attestor = Attestor()
    copy = copied(tmp_path)
    with (
        caller(listener) as (_, first),
        caller(listener, copy, PYTHONHOME=sys.base_prefix) as (_, second),
    ):
        peers = [peer_of(first), peer_of(second)]
        for peer in peers:
            assert attestor.selectors(peer) is None
            attestor.learn(peer)
            assert attestor.selectors(peer) is not None
        assert attestor.selectors(peers[0]) is None
        for peer in peers:
            peer.close()


def test_an_entry_for_a_digest_is_for_that_program_alone(served: Served) -> None:
    served.put("this", f"unix:sha256:{digest(PYTHON)}", f"unix:path:{PYTHON}")
    served.put("other", f"unix:sha256:{'0' * 64}")
    caller = RawClient(served.home.workload_socket)
    response = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse")
    assert [svid.spiffe_id.rpartition("/")[2] for svid in response.svids] == ["this"]
    served.workloads.remove("this")
    assert caller.status(caller.open("FetchX509SVID")) == Status.PERMISSION_DENIED
    caller.close()
