"""The audit log of a running node: the thread that takes in what was written, and room for more.

Owns: when that happens, and the public key's file. Must not: serve anything, or let a fault of the log stop control;
records wait in their segments until it is mended, and none is removed meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vedette.control.messages import AuditStatus
from vedette.errors import ConfigError, VedetteError
from vedette.identity.notes import NoteKey, NoteSigner, note_of
from vedette.observability import spool
from vedette.observability.audit.chain import Chain
from vedette.observability.audit.entries import HomeLog
from vedette.observability.audit.heads import Head
from vedette.store.atomic import write_atomic
from vedette.store.audit import AuditStore
from vedette.store.home import Home

INTERVAL: Final = 1.0
"""Seconds from one look at the spool to the next: the most that a record waits for its head."""

log = logging.getLogger("vedette.control.audit")


class Auditor:
    """Keeps the audit log of the node at `home`. Methods may be called from any thread."""

    def __init__(self, home: Home, signer: NoteSigner) -> None:
        self._home = home
        self._signer = signer
        self._lock = threading.Lock()
        self._chain: Chain | None = None
        self._store: AuditStore | None = None
        self._head: Head | None = None
        self._error: str | None = None

    def run(self, stopping: threading.Event) -> None:
        """Takes in records once a second until `stopping` is set, and then once more. An error is logged once."""
        while not stopping.is_set():
            if not self._step():
                stopping.wait(INTERVAL)
        self._step(beat=True)
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = self._chain = None

    def prune(self) -> None:
        """Removes the oldest records beyond what is kept. Raises `UnavailableError`; nothing is removed then."""
        chain = self._opened()
        chain.prune("requests", spool.REQUESTS_LIMIT)
        chain.prune("admin", spool.ADMIN_LIMIT)

    def status(self) -> AuditStatus:
        """How it stands with the log."""
        head = self._head
        if head is None:
            return AuditStatus(error=self._error)
        return AuditStatus(
            records=head.size, head=head.sequence, signed_at=head.time, error=self._error
        )

    def _step(self, *, beat: bool = False) -> bool:
        """Whether there is more to take in at once."""
        try:
            stepped = self._opened().step(beat=beat)
        except VedetteError as error:
            self._say(f"{error}: {error.hint}")
        except Exception as error:
            if self._error is None:
                log.exception("the audit log failed")
            self._error = f"a defect: {type(error).__name__}"
        else:
            self._error = None
            self._head = stepped.head or self._head
            return stepped.is_behind
        return False

    def _say(self, message: str) -> None:
        if message != self._error:
            log.error("the audit log waits: %s", message)
        self._error = message

    def _opened(self) -> Chain:
        with self._lock:
            if self._chain is None:
                publish_key(self._home, self._signer)
                self._store = AuditStore(self._home.audit_database)
                self._chain = Chain(
                    self._store,
                    audit_folders(self._home),
                    self._signer.public.name,
                    self._signer.signature,
                )
            return self._chain


def audit_folders(home: Home) -> dict[str, Path]:
    """Where the records of the audit log lie, by the names that its index has for these folders."""
    return {"admin": home.admin_records, "requests": home.spool_requests}


def publish_key(home: Home, signer: NoteSigner) -> None:
    """Writes the public key, for whoever verifies. Raises `UnavailableError`."""
    text = f"{signer.public}\n".encode()
    if not home.audit_public.exists() or home.audit_public.read_bytes() != text:
        write_atomic(home.audit_public, text)


@contextlib.contextmanager
def log_of(home: Home) -> Iterator[HomeLog]:
    """The audit log in a home, for reading, whether its node runs or not. Raises `ConfigError` audit_unreadable."""
    if not home.audit_public.is_file():
        raise ConfigError("audit_unreadable", f"there is no audit log in {home.root}")
    own = NoteKey.parse(home.audit_public.read_text("utf-8"))
    store = AuditStore(home.audit_database, read_only=True)

    def note(text: str, signature: bytes) -> str:
        return note_of(text, own, signature)

    with contextlib.closing(store):
        yield HomeLog(store, audit_folders(home), own.name, note)
