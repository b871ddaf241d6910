"""The program that `vedette verify` starts in a box on its twin: it tries every way out and prints how each ended.

Run as a file: `python -I boxed.py WISH`, WISH a JSON object with `home`, `folder`, `proxy`, `listed`, `node` and
`unlisted`. Prints one JSON object: by name, `did it`, the name of an errno, or what the proxy said.

Owns: those tries, each in a process of its own. Must not: import anything of Vedette, which a box need not see; harm
anybody where nothing refuses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

DID_IT = "did it"
_PATIENCE = 3.0  # seconds of one connection
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_CHILD = 17  # SIGCHLD, for clone(2)
_SEIZE = 0x4206  # ptrace(2); attaches without stopping
_VSOCK = 40
_NUMBERS = {
    "x86_64": {
        "unshare": 272,
        "clone": 56,
        "setns": 308,
        "io_uring": 425,
        "ptrace": 101,
        "mount": 165,
    },
    "aarch64": {
        "unshare": 97,
        "clone": 220,
        "setns": 268,
        "io_uring": 425,
        "ptrace": 117,
        "mount": 40,
    },
}
_X32_SOCKET = 0x40000000 | 41


def main() -> int:
    """Tries all."""
    wish = json.loads(sys.argv[1])
    launcher = os.getppid()
    tries = {**_sockets(wish), **_kernel(launcher), **_files(wish, launcher)}
    found = {name: _apart(attempt) for name, attempt in tries.items()}
    print(json.dumps({**found, **{name: _ending(one) for name, one in _by_proxy(wish).items()}}))
    return 0


def _sockets(wish: dict[str, Any]) -> dict[str, Callable[[], object]]:
    stream, datagram, v4 = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_INET
    return {
        "a port of this machine": lambda: _connect(v4, stream, ("127.0.0.1", wish["listed"])),
        "a raw address": lambda: _connect(v4, stream, ("192.0.2.1", 443)),
        "metadata of a cloud": lambda: _connect(v4, stream, ("169.254.169.254", 80)),
        "an IPv6 address": lambda: _connect(socket.AF_INET6, stream, ("2001:db8::1", 443)),
        "a name server": lambda: _connect(v4, datagram, ("192.0.2.53", 53)),
        "the admin socket": lambda: _connect(
            socket.AF_UNIX, stream, wish["home"] + "/run/admin.sock"
        ),
        "an abstract socket": lambda: _connect(socket.AF_UNIX, stream, "\0anything"),
        "raw packets": lambda: socket.socket(v4, socket.SOCK_RAW, 1).close(),
        "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "vsock": lambda: socket.socket(_VSOCK, stream).close(),
    }


def _kernel(launcher: int) -> dict[str, Callable[[], object]]:
    numbers = _NUMBERS.get(platform.machine(), {})
    wanted = {
        "another namespace": ("unshare", _NEW_USER | _NEW_NET),
        "a process in another namespace": ("clone", _NEW_USER | _CHILD, 0, 0, 0, 0),
        "joining a namespace": ("setns", 0, 0),
        "io_uring": ("io_uring", 8, 0),
        "tracing its launcher": ("ptrace", _SEIZE, launcher, 0, 0),
        "mounting": ("mount", b"none", b"/nowhere-of-vedette", b"tmpfs", 0, 0),
    }
    found: dict[str, Callable[[], object]] = {
        name: partial(_call, numbers[str(call[0])], *call[1:])
        for name, call in wanted.items()
        if call[0] in numbers
    }
    found["signalling its launcher"] = lambda: os.kill(launcher, 0)
    if platform.machine() == "x86_64":
        found["a socket of the x32 way"] = lambda: _call(_X32_SOCKET, 1, 1, 0)
    return found


def _files(wish: dict[str, Any], launcher: int) -> dict[str, Callable[[], object]]:
    home, beside = wish["home"], os.path.join(wish["folder"], "left-by-the-boxed")
    return {
        "the key of the node's CA": lambda: _read(home + "/control/ca.key"),
        "the node's folder": lambda: os.listdir(home),
        "writing beside": lambda: _write(beside),
        "the passwords of this machine": lambda: _read("/etc/shadow"),
        "the memory of its launcher": lambda: _read(f"/proc/{launcher}/mem"),
        "the environment of its launcher": lambda: _read(f"/proc/{launcher}/environ"),
        "may write its own folder": lambda: _write(os.environ["TMPDIR"] + "/left"),
    }


def _by_proxy(wish: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """What is asked of the one way that there is. `listed` is a port of http, `node` one of https://localhost."""
    listed, node, unlisted = wish["listed"], wish["node"], wish["unlisted"]
    name = f"localhost:{node}"
    return {
        "may call a listed host": lambda: _call_over(wish, "GET", f"http://127.0.0.1:{listed}/"),
        "may open a listed tunnel": lambda: _tunnel(wish, name, "localhost"),
        "a call to another port": lambda: _call_over(wish, "GET", f"http://127.0.0.1:{unlisted}/"),
        "a call to a raw address": lambda: _call_over(wish, "GET", "http://192.0.2.1/"),
        "a call to a private address": lambda: _call_over(wish, "GET", "http://10.0.0.1/"),
        "a call to metadata of a cloud": lambda: _call_over(wish, "GET", "http://169.254.169.254/"),
        "a call to a name that leads inside": lambda: _call_over(
            wish, "GET", f"http://localhost:{wish['unlisted']}/"
        ),
        "a tunnel to a raw address": lambda: _tunnel(wish, "192.0.2.1:443", "localhost"),
        "a tunnel to a private address": lambda: _tunnel(wish, "10.0.0.1:443", "localhost"),
        "a tunnel with another name in TLS": lambda: _tunnel(wish, name, "unlisted.invalid"),
        "a tunnel without a name in TLS": lambda: _tunnel(wish, name, None),
        "a tunnel without TLS": lambda: _tunnel(wish, name, "", plain=True),
        "SOCKS to a raw address": lambda: _socks(wish, b"\1" + bytes((192, 0, 2, 1)), 443),
        "SOCKS to a name": lambda: _socks(wish, b"\3\x10unlisted.invalid", 443),
        "SOCKS to another port": lambda: _socks(wish, b"\1" + bytes((127, 0, 0, 1)), unlisted),
        "SOCKS over UDP": lambda: _socks(wish, b"\1" + bytes((192, 0, 2, 53)), 53, command=3),
    }


# --- ways ----------------------------------------------------------------------------------------------------------


def _connect(family: int, kind: int, place: Any) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(_PATIENCE)
        made.connect(place)
        if kind == socket.SOCK_DGRAM:
            made.send(b"x")


def _call(number: int, *arguments: object) -> None:
    ctypes.set_errno(0)
    ended = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if ended == -1:
        raise OSError(ctypes.get_errno(), "refused")
    if ended == 0 and number in {one["clone"] for one in _NUMBERS.values()}:
        os._exit(0)  # the copy that should not be


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")
    os.unlink(path)


def _proxy(wish: dict[str, Any]) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wish["proxy"]), 20)


def _call_over(wish: dict[str, Any], method: str, target: str) -> str:
    with _proxy(wish) as stream:
        head = f"{method} {target} HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n"
        stream.sendall(head.encode())
        return _status(stream)


def _tunnel(wish: dict[str, Any], place: str, name: str | None, *, plain: bool = False) -> str:
    """`did it` when the other end answered."""
    with _proxy(wish) as stream:
        stream.sendall(f"CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n\r\n".encode())
        said = _status(stream)
        if said != DID_IT:
            return said
        if plain:
            stream.sendall(b"anything else than a handshake")
            return DID_IT if stream.recv(1) else "closed"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with context.wrap_socket(stream, server_hostname=name):
                return DID_IT
        except (ssl.SSLError, ConnectionError):
            return "closed"


def _status(stream: socket.socket) -> str:
    """`did it` for 2xx and 3xx, else the number."""
    head = b""
    while b"\r\n\r\n" not in head and (more := stream.recv(4096)):
        head += more
    number = head[9:12].decode("ascii", "replace")
    return DID_IT if number[:1] in ("2", "3") else number


def _socks(wish: dict[str, Any], place: bytes, port: int, *, command: int = 1) -> str:
    """The reply of SOCKS5 (RFC 1928 §6), or `did it` for 0."""
    with _proxy(wish) as stream:
        stream.sendall(b"\5\1\0")
        stream.recv(2)
        stream.sendall(bytes((5, command, 0)) + place + port.to_bytes(2, "big"))
        code = stream.recv(10)[1:2]
        return DID_IT if code == b"\0" else f"SOCKS {code.hex()}"


# --- how each ends -------------------------------------------------------------------------------------------------


def _apart(attempt: Callable[[], object]) -> str:
    """How an attempt ends, in a process of its own: one that succeeds changes nothing for the next."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, _ending(attempt).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode()
    os.waitpid(child, 0)
    return said or "nothing"


def _ending(attempt: Callable[[], object]) -> str:
    try:
        said = attempt()
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return said if isinstance(said, str) else DID_IT


if __name__ == "__main__":
    sys.exit(main())
