"""A worker of models that speaks no protocol: its model's name says what it does, and each call how long it takes.

A call is one line with seconds; the answer is one line of JSON: which process, and what it was given.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _ignore(_number: int, _frame: object) -> None:
    """Whoever waits has it already."""


def say(config: dict[str, Any], line: bytes) -> None:
    """Writes to whoever waits for this process to be ready."""
    with os.fdopen(config["readyFd"], "wb") as ready:
        ready.write(line)


def fail(kind: str, config: dict[str, Any]) -> None:
    """Does what workers should not."""
    if kind == "exits":
        sys.exit(3)
    if kind == "garbled":
        say(config, b"\x1b[31mhello\n")
    if kind == "not-a-number":
        say(config, b'{"ready":true,"loadMillis":NaN}\n')
    if kind == "floods":
        say(config, b"x" * 70_000)
    if kind == "invalid":
        error = {"code": "model_invalid", "message": "there is no graph\x1b[31m in it"}
        say(config, json.dumps({"ready": False, "error": error}).encode() + b"\n")
    time.sleep(600)


def answer(connection: socket.socket, given: dict[str, Any]) -> None:
    """Answers one call."""
    with connection, connection.makefile("rw") as lines:
        asked = lines.readline() or "0"
        if asked.startswith("GET "):  # the keeper, who asks whether anybody is there
            return
        seconds = float(asked)
        if seconds < 0:
            os._exit(75)
        time.sleep(seconds)
        lines.write(json.dumps({"pid": os.getpid(), **given}) + "\n")
        lines.flush()


def main() -> int:
    """Serves until SIGTERM, then finishes what it has."""
    listed = os.listdir("/proc/self/fd")  # with a descriptor for the listing, which is closed again
    descriptors = sorted(int(name) for name in listed if os.path.lexists(f"/proc/self/fd/{name}"))
    config = json.loads(os.environ["VEDETTE_MODEL"])
    kind = config["model"]["name"]
    given = {"config": config, "names": sorted(os.environ), "descriptors": descriptors}
    given["arguments"] = sys.argv[1:]
    if kind in ("exits", "garbled", "not-a-number", "floods", "invalid", "mute"):
        fail(kind, config)
    while kind == "held" and not Path(sys.argv[-1], "go").exists():
        time.sleep(0.01)
    told, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "deaf" else _ignore)
    listener = socket.socket(fileno=config["listenFd"])
    say(config, b'{"ready":true,"loadMillis":12.5}\n')
    while True:
        ready, _, _ = select.select([told, listener], [], [])
        if told in ready:
            return 0
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # another process has taken it
            continue
        connection.setblocking(True)
        threading.Thread(target=answer, args=(connection, given)).start()


if __name__ == "__main__":
    sys.exit(main())
