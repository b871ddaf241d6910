"""Listening sockets of a process are found in /proc, and those of others are not its."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vedette.verification import listening
from vedette.verification.listening import tcp_listeners, unix_listeners


def test_listeners_of_both_families_are_found_and_connections_are_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        six.listen(1)
        found = tcp_listeners([os.getpid()])
        assert four.getsockname() in found
        assert six.getsockname()[:2] in found
        with socket.create_connection(four.getsockname()) as client:
            assert client.getsockname() not in tcp_listeners([os.getpid()])


def test_sockets_of_another_process_are_not_this_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname() not in tcp_listeners([os.getppid()])


def test_sockets_of_a_process_that_cannot_be_looked_at_are_those_nobody_else_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
    code += "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        hidden = ("127.0.0.1", int(child.stdout.readline()))
        kept = listening._held
        monkeypatch.setattr(listening, "_held", lambda pid: None if pid == child.pid else kept(pid))
        with socket.create_server(("127.0.0.1", 0)) as own:
            found = tcp_listeners([child.pid])
            assert hidden in found
            assert own.getsockname() not in found
        child.communicate()


def test_unix_sockets_that_listen_are_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert path not in unix_listeners([os.getpid()])
        server.listen(1)
        assert path in unix_listeners([os.getpid()])
