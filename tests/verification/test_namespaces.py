"""Namespaces of their own: members of a bridge reach each other and nobody else, and the machine notices nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import socket, sys
from vedette.errors import VedetteError
from vedette.verification import namespaces
try:
    namespaces.isolate()
except (OSError, VedetteError):
    sys.exit(77)
namespaces.make_bridge()
one, two = (namespaces.Segment(number, f"10.83.0.{number + 1}", 24) for number in range(2))
server = one.run(lambda: socket.create_server((one.address, 0)))
there = server.getsockname()
print(two.run(lambda: socket.create_connection(there, 10).getpeername()) == there)
def refused():
    try:
        socket.create_connection((two.address, there[1]), 10)
    except ConnectionRefusedError:
        return True
    return False
print(one.run(refused))
def nowhere():
    try:
        socket.create_connection(("192.0.2.1", 80), 1)
    except OSError as error:
        return error.errno
print(one.run(nowhere))
"""


def test_segments_reach_each_other_and_nobody_else() -> None:
    before = Path("/proc/net/dev").read_text("ascii").count("\n")
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this machine gives no network namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "101"]  # ENETUNREACH
    assert Path("/proc/net/dev").read_text("ascii").count("\n") == before
