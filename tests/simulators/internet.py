"""An internet of its own, in the network namespace that it is started in: `python internet.py FOLDER`.

Every address of IPv4 and IPv6 is answered on port 80; names lead where `FOLDER/names.json` says (name: addresses), with
a life of 0 s. `asked` has a line for each question, `connected` one for each address that was connected to.

Owns: the name server (RFC 1035, over UDP and TCP) and the web server. Must not: be started outside a namespace.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from pyroute2 import IPRoute

_A, _AAAA = 1, 28
_MOST_UDP = 512
_TRUNCATED = 0x0200
_TABLE_LOCAL, _SCOPE_HOST = 255, 254


class Internet:
    """The names as they are now, and what came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def answer(self, question: bytes, most: int) -> bytes:
        """The answer to a question; truncated when it is larger than `most` bytes."""
        number, flags = struct.unpack_from(">HH", question)
        end = question.index(b"\0", 12) + 5  # its name, type and class
        name = _name(question[12 : end - 4])
        kind = struct.unpack_from(">H", question, end - 4)[0]
        self._note("asked", name)
        addresses = json.loads((self._folder / "names.json").read_text("utf-8")).get(name)
        records = b"".join(_records(addresses or [], kind))
        code = 3 if addresses is None else 0
        reply = 0x8180 | (flags & 0x0100) | code
        count = len(records) // (28 if kind == _AAAA else 16)
        if end + len(records) > most:
            reply, records, count = reply | _TRUNCATED, b"", 0
        return struct.pack(">6H", number, reply, 1, count, 0, 0) + question[12:end] + records

    def connected(self, address: str) -> None:
        """Keeps that this address was connected to."""
        self._note("connected", str(ipaddress.ip_address(address)))

    def _note(self, file: str, line: str) -> None:
        with self._lock, (self._folder / file).open("a", encoding="utf-8") as out:
            out.write(line + "\n")


def _name(labels: bytes) -> str:
    found, at = [], 0
    while labels[at]:
        found.append(labels[at + 1 : at + 1 + labels[at]].decode().lower())
        at += 1 + labels[at]
    return ".".join(found)


def _records(addresses: list[str], kind: int) -> list[bytes]:
    family = {_A: socket.AF_INET, _AAAA: socket.AF_INET6}.get(kind)
    if family is None:
        return []
    wanted = [it for it in addresses if (":" in it) == (family == socket.AF_INET6)]
    data = [socket.inet_pton(family, it) for it in wanted]
    return [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(it)) + it for it in data]


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        question, server = self.request
        server.sendto(INTERNET.answer(question, _MOST_UDP), self.client_address)


class _Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        (size,) = struct.unpack(">H", self.rfile.read(2))
        answer = INTERNET.answer(self.rfile.read(size), 65_535)
        self.wfile.write(struct.pack(">H", len(answer)) + answer)


class _Web(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        INTERNET.connected(self.request.getsockname()[0].removeprefix("::ffff:"))
        while self.rfile.readline().strip():
            pass
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\n"
        self.wfile.write(head + b"reached")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


class _Everywhere(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _all_addresses_are_here() -> None:
    with IPRoute() as net:
        (loopback,) = net.link_lookup(ifname="lo")
        net.link("set", index=loopback, state="up")
        for family, everything in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
            told = {"type": "local", "table": _TABLE_LOCAL, "scope": _SCOPE_HOST}
            net.route("add", family=family, dst=everything, oif=loopback, **told)


if __name__ == "__main__":
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "not in a namespace of its own"
    FOLDER = Path(sys.argv[1])
    INTERNET = Internet(FOLDER)
    _all_addresses_are_here()
    (FOLDER / "resolv.conf").write_text("nameserver 127.0.0.1\n", "ascii")
    subprocess.run(["mount", "--bind", str(FOLDER / "resolv.conf"), "/etc/resolv.conf"], check=True)
    servers = [
        socketserver.ThreadingUDPServer(("127.0.0.1", 53), _Udp),
        _Server(("127.0.0.1", 53), _Tcp),
        _Everywhere(("::", 80), _Web),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    while True:
        time.sleep(3_600)
