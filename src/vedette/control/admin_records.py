"""Records of what people do to the node, kept before they get their answer.

Owns: control/admin/, segments as the engine's, written by control alone; and which requests to the admin API are
recorded: all that are no questions. Must not: keep anything of a request but who, what, on what and how it ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vedette.clock import now, to_rfc3339
from vedette.errors import VedetteError
from vedette.observability import spool
from vedette.store.atomic import disk_error, sync_folder

SEGMENT: Final = 1024 * 1024
LONGEST: Final = 8 * 1024
NOTE: Final = "vedette.admin"
"""Where a handler says what it is about, when the path does not: `scope[NOTE]["target"]`; and `["reason"]`."""

_TEXT: Final = 256
_QUESTIONS: Final = frozenset(
    {
        *("check_policy", "explain", "plan", "judge", "replay", "tune"),
        *("put_blob", "put_file", "put_model_file"),
        *("sign_model_files", "verify_model"),
    }
)
"""Handlers that change nothing of what the node does. What is uploaded does nothing until something names it."""

log = logging.getLogger("vedette.control.admin")


class AdminLog:
    """The segments of a node's admin records. Methods may be called from any thread; one process writes."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = now) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._used = 0

    def require_room(self) -> None:
        """Reserves room for one record. Raises `UnavailableError` disk_full: what cannot be recorded is not done."""
        with self._lock:
            self._ready()

    def write(self, **fields: str | int | None) -> None:
        """Keeps a record; when it returns, that survives a power cut. Raises `UnavailableError`."""
        told = {key: _short(value) for key, value in fields.items() if value is not None}
        line = {"kind": "admin", "time": to_rfc3339(self._clock(), microseconds=True), **told}
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            descriptor = self._ready()
            try:
                os.pwrite(descriptor, data, self._used)
                os.fdatasync(descriptor)
            except OSError as error:
                raise disk_error(error, self._folder) from error
            self._used += len(data)

    def close(self) -> None:
        """Cuts the segment to its records."""
        with self._lock:
            self._close()

    def _ready(self) -> int:
        """The segment to write to: reserved blocks, so that a full disk shows before anything is done."""
        try:
            if self._descriptor is not None and self._used + LONGEST > SEGMENT:
                self._close()
            if self._descriptor is None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._descriptor = self._continued() or self._begun()
            return self._descriptor
        except OSError as error:
            raise disk_error(error, self._folder) from error

    def _continued(self) -> int | None:
        """The last segment, if it has room: control was killed before it closed it."""
        last = max(self._folder.glob("admin-*.jsonl"), default=None)
        if last is None or last.stat().st_size != SEGMENT:
            return None
        descriptor = os.open(last, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            used = spool.data_end(descriptor)
            if used and os.pread(descriptor, 1, used - 1) != b"\n":
                os.pwrite(descriptor, b"\n", used)  # a torn line ends here
                used += 1
        except BlockingIOError:
            os.close(descriptor)
            return None
        if used + LONGEST > SEGMENT:
            os.ftruncate(descriptor, used)
            os.close(descriptor)
            return None
        self._used = used
        return descriptor

    def _begun(self) -> int:
        """A new segment, whole and locked before it has its name."""
        numbers = [
            int(path.stem.removeprefix("admin-")) for path in self._folder.glob("admin-*.jsonl")
        ]
        path = self._folder / f"admin-{max(numbers, default=0) + 1:08}.jsonl"
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, SEGMENT)
            os.fsync(descriptor)
            fresh.rename(path)
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self._used = 0
        return descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self._used)
            os.close(self._descriptor)
            self._descriptor = None


class Recorded:
    """ASGI wrapper: a request that changes something is answered once it is recorded, and not begun without room."""

    def __init__(self, app: ASGIApp, log_of: Callable[[], AdminLog]) -> None:
        self._app = app
        self._log_of = log_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            await asyncio.to_thread(self._log_of().require_room)
        except VedetteError as error:
            await _refuse(send, error)
            return
        answer = _Answer(scope, send)
        scope[NOTE] = {}
        try:
            await self._app(scope, receive, answer.take)
        except Exception:
            if answer.is_held or answer.is_of_change():
                await self._keep(scope, 500, b"")
            raise
        if answer.is_held:
            try:
                await self._keep(scope, answer.status, answer.body)
            except VedetteError as error:
                log.error("an admin record was lost: %s", error)
                await _refuse(send, error)
                return
            await answer.give()

    async def _keep(self, scope: Scope, status: int, body: bytes) -> None:
        await asyncio.to_thread(self._log_of().write, **_told(scope, status, body))


class _Answer:
    """An answer that is held back when it is to a change."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._messages: list[Message] = []
        self.is_held = False

    def is_of_change(self) -> bool:
        """Whether what answers is no question. Known once the request was routed."""
        handler = self._scope.get("endpoint")
        return handler is not None and handler.__name__ not in _QUESTIONS

    async def take(self, message: Message) -> None:
        """Takes a part of the answer."""
        if message["type"] == "http.response.start":
            self.is_held = self.is_of_change()
        if self.is_held:
            self._messages.append(message)
        else:
            await self._send(message)

    async def give(self) -> None:
        """Sends what was held back."""
        for message in self._messages:
            await self._send(message)

    @property
    def status(self) -> int:
        """Its status."""
        return int(self._messages[0]["status"])

    @property
    def body(self) -> bytes:
        """Its body."""
        return b"".join(message.get("body", b"") for message in self._messages)


def _told(scope: Scope, status: int, body: bytes) -> dict[str, str | int | None]:
    """What is recorded of a request. An answer may hold a secret (a token): only these of its fields are looked at."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    error = answer.get("error")
    params = scope.get("path_params") or {}
    target = scope[NOTE].get("target") or params.get("name") or params.get("digest")
    client = scope.get("client")
    return {
        "actor": client[0] if client else "unknown",
        "action": scope["endpoint"].__name__.replace("_", " "),
        "target": target,
        "reason": scope[NOTE].get("reason") or None,
        "outcome": "done" if status < 400 else "refused" if status < 500 else "failed",
        "status": status,
        "code": error.get("code") if isinstance(error, dict) else None,
        "digest": _of(answer, "digest", str),
        "generation": _of(answer, "generation", int),
    }


def _of(answer: dict[str, Any], key: str, kind: type) -> Any:
    value = answer.get(key)
    return value if isinstance(value, kind) else None


def _short(value: str | int) -> str | int:
    return value[:_TEXT] if isinstance(value, str) else value


async def _refuse(send: Send, error: VedetteError) -> None:
    body = json.dumps({"error": error.to_dict()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
