"""The sockets of a program in the mesh, which the engine serves until their launcher is told to stop.

Owns: binding them, handing each over with its side, and the signals that end it. Must not: know who may call; the
engine's snapshot says so.
"""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Literal

from vedette.engine.registration import Registration, Wish
from vedette.errors import ConfigError, UnavailableError

Side = Literal["inbound", "outbound"]
STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BACKLOG: Final = 4_096
_LOOK: Final = 0.2  # seconds within which it is seen that the engine has no such sidecar any more
_NONE_LIKE_IT: Final = "there is no sidecar of that name"  # the engine's sentence
_HINT: Final = "Choose another with --listen or --outbound; port 0 is any that is free."


def listening(ip: str, port: int) -> socket.socket:
    """A listening socket at an IP address; port 0 is any that is free.

    Raises `UnavailableError` address_in_use, `ConfigError` address_invalid.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((ip, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        shown = shown_address((ip, port))
        if error.errno == errno.EADDRINUSE:
            message = f"another program listens on {shown}"
            raise UnavailableError("address_in_use", message, _HINT) from error
        message = f"cannot listen on {shown}: {error.strerror}"
        raise ConfigError("address_invalid", message, _HINT) from error
    return made


def shown_address(name: tuple[object, ...]) -> str:
    """The address of a socket as people write it: `127.0.0.1:80`, `[::1]:80`."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def serve(
    engine_socket: Path,
    name: str,
    sockets: Mapping[Side, socket.socket],
    begun: Callable[[], None],
    on_turn: Callable[[Side, str | None], None],
) -> None:
    """Has the engine serve the sockets of the sidecar `name` until one of `STOPS` comes; then what is open is cut.

    `begun` is called when both are served; `on_turn`, on a thread of its own, with why a side is served no more, and
    with None when it is again. Raises `UnavailableError` engine_away, sidecar_not_served, `ConfigError`
    sidecar_unknown when it is taken away meanwhile.
    """
    over = threading.Event()
    # Blocked before there are threads, which inherit it: a signal then waits until it is asked for.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        with ExitStack() as registered:
            for side, listener in sockets.items():
                says = {"sidecar": name, "side": side}
                wish = Wish(engine_socket, says, "sidecar_not_served", _NONE_LIKE_IT)
                turn = partial(on_turn, side)
                one = Registration(wish, listener, on_turn=turn, on_over=over.set)
                registered.callback(one.end)
            begun()
            while not over.is_set() and signal.sigtimedwait(STOPS, _LOOK) is None:
                pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if over.is_set():
        raise ConfigError("sidecar_unknown", f"the sidecar {name} was taken away")
