"""Network namespaces (network_namespaces(7)): one with loopback and a counted way out, or several on a bridge.

Owns: making them and counting what leaves. Must not: touch the network of the machine; all is gone with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from vedette.errors import UnavailableError

T = TypeVar("T")
_NEW_USER: Final = 0x10000000
_NEW_NET: Final = 0x40000000
_ETH_P_ALL: Final = 0x0003
_IPV4: Final = 0x0800
_UDP: Final = 17
_DNS_PORTS: Final = (53, 853)
_OUT: Final = "out0"
BRIDGE: Final = "hub0"


def isolate() -> None:
    """Puts this process into a network namespace of its own, and into a user namespace first where it is not root.

    Called before any thread starts (unshare(2)). Raises `UnavailableError` namespace_refused.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _unshare(_NEW_NET)
        return
    _unshare(_NEW_USER | _NEW_NET)
    # user_namespaces(7): one's own ids stay what they are, so that files and peers look as before.
    Path("/proc/self/setgroups").write_text("deny", "ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", "ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", "ascii")


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        why = os.strerror(ctypes.get_errno())
        raise UnavailableError("namespace_refused", f"no network namespace can be had: {why}")


def _netlink() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def loopback_up() -> None:
    """Brings up loopback in the namespace of the calling thread."""
    with _netlink() as net:
        net.link("set", index=net.link_lookup(ifname="lo")[0], state="up")


class Outlet:
    """A way out that leads nowhere: every packet that would leave the namespace is counted there."""

    def __init__(self) -> None:
        """Call in the namespace. Raises `OSError` or netlink's own errors."""
        with _netlink() as net:
            net.link("add", ifname=_OUT, kind="veth", peer="out1")
            index = net.link_lookup(ifname=_OUT)[0]
            for name in (_OUT, "out1"):
                # The kernel's own IPv6 chatter would be counted else.
                with contextlib.suppress(OSError):
                    Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1", "ascii")
                net.link("set", index=net.link_lookup(ifname=name)[0], state="up", arp=False)
            net.addr("add", index=index, address="198.18.0.1", prefixlen=24)
            net.route("add", family=socket.AF_INET, dst="0.0.0.0/0", oif=index, scope=253)
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL)
        )
        self._socket.bind((_OUT, 0))
        self._lock = threading.Lock()
        self._packets = self._lookups = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def counted(self) -> tuple[int, int]:
        """Packets that left, and how many of them ask a name server."""
        with self._lock:
            return self._packets, self._lookups

    def close(self) -> None:
        """Stops counting."""
        self._socket.close()

    def _watch(self) -> None:
        while True:
            try:
                packet, place = self._socket.recvfrom(2048)
            except OSError:
                return
            if place[2] != socket.PACKET_OUTGOING:
                continue
            with self._lock:
                self._packets += 1
                self._lookups += _asks_names(packet)


def _asks_names(packet: bytes) -> bool:
    """Whether an Ethernet frame is IPv4 and goes to a port of DNS."""
    if len(packet) < 38 or struct.unpack_from(">H", packet, 12)[0] != _IPV4:
        return False
    start = 14 + (packet[14] & 0x0F) * 4
    if packet[23] not in (_UDP, 6) or len(packet) < start + 4:
        return False
    return struct.unpack_from(">H", packet, start + 2)[0] in _DNS_PORTS


class Segment:
    """A network namespace of its own, on the bridge of this process's; what runs in it is run by its own thread."""

    def __init__(self, number: int, address: str, prefix: int) -> None:
        """`number` names its interface. Call where the bridge is. Raises netlink's own errors."""
        self.address = address
        self._descriptor = _in_thread(_new_namespace)
        inner, outer = f"seg{number}", f"hub{number}p"
        with _netlink() as net:
            net.link("add", ifname=outer, kind="veth", peer=inner)
            bridge = net.link_lookup(ifname=BRIDGE)[0]
            net.link("set", index=net.link_lookup(ifname=outer)[0], master=bridge, state="up")
            net.link(
                "set",
                index=net.link_lookup(ifname=inner)[0],
                net_ns_fd=f"/proc/{os.getpid()}/fd/{self._descriptor}",
            )
        self.run(lambda: _configure(inner, address, prefix))

    def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in this namespace; processes that it starts stay there."""

        def entered() -> T:
            if ctypes.CDLL(None, use_errno=True).setns(self._descriptor, _NEW_NET) != 0:
                why = os.strerror(ctypes.get_errno())
                raise UnavailableError("namespace_refused", f"cannot enter a namespace: {why}")
            return work()

        return _in_thread(entered)

    def close(self) -> None:
        """Lets go of it; it is gone with its last process."""
        os.close(self._descriptor)


def make_bridge() -> None:
    """The bridge that segments are joined by, in the namespace of this process."""
    with _netlink() as net:
        net.link("set", index=net.link_lookup(ifname="lo")[0], state="up")
        net.link("add", ifname=BRIDGE, kind="bridge")
        net.link("set", index=net.link_lookup(ifname=BRIDGE)[0], state="up")


def _new_namespace() -> int:
    _unshare(_NEW_NET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _configure(interface: str, address: str, prefix: int) -> None:
    with _netlink() as net:
        index = net.link_lookup(ifname=interface)[0]
        net.link("set", index=net.link_lookup(ifname="lo")[0], state="up")
        net.addr("add", index=index, address=address, prefixlen=prefix)
        net.link("set", index=index, state="up")


def _in_thread(work: Callable[[], T]) -> T:
    """What `work` gives in a new thread: a namespace is entered by a thread, and left with it."""
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return given[0]
