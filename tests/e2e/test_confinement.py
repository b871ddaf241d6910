"""The engine holds no secret of control: none of its keys in memory, no open file, and a kernel that would refuse."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1

LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
LANDLOCK_VERSION = 1
LARGEST_MAPPING = 1 << 28  # the instance pool reserves terabytes that hold nothing


def _landlock_version() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION))


def test_the_kernel_confines_the_engine(node: Node) -> None:
    told = node.status()["engine"]["landlock"]
    if _landlock_version() < 1:
        assert told == "unavailable", "the kernel has no Landlock, and the status must say so"
        pytest.skip("this kernel has no Landlock")
    assert told in ("enforced", "partial")
    status = Path(f"/proc/{node.pid('engine')}/status").read_text("ascii")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), "Landlock needs no_new_privs"


def test_the_engine_makes_no_socket_but_ip_ones_and_starts_no_program(node: Node) -> None:
    """Landlock does not cover connecting to `admin.sock`, which trusts the engine's user: seccomp must be on."""
    threads = list(Path(f"/proc/{node.pid('engine')}/task").iterdir())
    unfiltered = [
        (thread / "comm").read_text("ascii").strip()
        for thread in threads
        if not re.search(r"^Seccomp:\s+2$", (thread / "status").read_text("ascii"), re.MULTILINE)
    ]
    assert len(threads) > 1
    assert unfiltered == []
    assert node.status()["engine"]["seccomp"] == "enforced"


def test_the_engine_has_no_file_of_control_open(node: Node) -> None:
    forbidden = str(node.path("control"))
    opened = []
    for descriptor in Path(f"/proc/{node.pid('engine')}/fd").iterdir():
        try:
            opened.append(str(descriptor.readlink()))
        except OSError:
            continue
    assert opened
    assert [path for path in opened if path.startswith(forbidden)] == []
    assert [path for path in opened if path.endswith("admin.sock")] == []


def test_the_keys_of_control_are_not_in_the_engines_memory(node: Node) -> None:
    caller = Caller(node, HTTP_1)
    assert caller.ask("/hello").status == 200
    seal = node.path("control", "seal.key")
    secrets = {
        "ca.key": _scalar(node.path("control", "ca.key"), seal),
        "jwt-svid.key": _scalar(node.path("control", "jwt-svid.key"), seal),
        "signing.key": _scalar(node.path("control", "signing.key")),
        "token.key": _scalar(node.path("control", "token.key")),
        "audit.key": _scalar(node.path("control", "audit.key")),
        "seal.key": seal.read_bytes().strip(),
    }
    own = {"server.key": _scalar(node.path("engine", "tls", "server.key"))}
    found = _search(node.pid("engine"), {**secrets, **own})
    caller.close()
    assert found & set(secrets) == set(), "the engine has a key that only control may have"
    assert found == set(own), "the search itself must find the key that the engine does have"


def _scalar(path: Path, seal: Path | None = None) -> bytes:
    key = tokens.private_key(path, seal)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")


def _search(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """The names of the secrets that lie anywhere in the writable memory of a process, in either byte order."""
    found: set[str] = set()
    maps = Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines()
    if not os.access(f"/proc/{pid}/mem", os.R_OK):
        pytest.skip("this machine lets nobody read the memory of another process")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            start, end = (int(each, 16) for each in place.split("-"))
            if not rights.startswith("rw") or end - start > LARGEST_MAPPING:
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except OSError:
                continue
            for name, secret in wanted.items():
                if secret in content or secret[::-1] in content:
                    found.add(name)
    return found
