"""An audit log over a real folder of segments, for the tests: written, pruned, tampered with and verified.

Owns: a chain with a key of its own and a clock that a test moves. Must not: know what a test expects.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vedette.identity.notes import NoteSigner, note_of
from vedette.observability.audit import export
from vedette.observability.audit.chain import Chain
from vedette.observability.audit.entries import HomeLog
from vedette.observability.audit.heads import Head
from vedette.observability.audit.verify import Report, Verifier
from vedette.store.audit import AuditStore

ORIGIN = "node.test/audit"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def record(number: int, **fields: object) -> bytes:
    """A line as the engine writes it."""
    return json.dumps({"time": "2026-01-01T00:00:00Z", "n": number, **fields}).encode() + b"\n"


class Log:
    """An audit log in `root`. Each step of it is a second later."""

    def __init__(
        self, root: Path, key: Ed25519PrivateKey | None = None, origin: str = ORIGIN
    ) -> None:
        self.root = root
        self.folders = {"requests": root / "requests", "admin": root / "admin"}
        for folder in self.folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        self.signer = NoteSigner(origin, key or Ed25519PrivateKey.generate())
        self.moment = EPOCH
        self.ticks = 0.0
        self.open()

    def open(self) -> None:
        """Begins as control does after a start."""
        self.store = AuditStore(self.root / "audit.db")
        self.chain = Chain(
            self.store,
            self.folders,
            self.signer.public.name,
            self.signer.signature,
            clock=lambda: self.moment,
            ticks=lambda: self.ticks,
        )

    def again(self) -> None:
        """Ends and begins again, without a step in between."""
        self.store.close()
        self.open()

    def segment(self, name: str, folder: str = "requests") -> Path:
        """The path of a segment."""
        return self.folders[folder] / f"{name}.jsonl"

    def write(self, name: str, lines: Iterable[bytes], folder: str = "requests") -> Path:
        """Appends to a segment."""
        path = self.segment(name, folder)
        with path.open("ab") as file:
            file.write(b"".join(lines))
        return path

    def step(self) -> int:
        """A step a second later; returns how many records it took in."""
        self.moment += timedelta(seconds=1)
        self.ticks += 1
        return self.chain.step().records

    def age(self, name: str, seconds: int, folder: str = "requests") -> None:
        """Sets the time of a segment's last write."""
        os.utime(self.segment(name, folder), (1_700_000_000 + seconds,) * 2)

    def home_log(self) -> HomeLog:
        """The log as it is read."""
        key = self.signer.public
        return HomeLog(
            self.store, self.folders, key.name, lambda text, sig: note_of(text, key, sig)
        )

    def head(self) -> Head:
        """The newest head."""
        note = self.home_log().newest_head()
        assert note is not None
        return Head.parse(self.signer.public.open(note))

    def verify(self, anchors: Iterable[Head] = (), oldest: timedelta | None = None) -> Report:
        """Verifies the home."""
        log = self.home_log()
        with self.store.reading():
            verifier = Verifier(self.signer.public.open, log.gaps(), anchors)
            verifier.take_all(log.entries())
            return verifier.finish(self.moment, oldest)

    def exported(self, first: int = 0) -> bytes:
        """An export."""
        out = io.BytesIO()
        with self.store.reading():
            export.write(self.home_log(), out, first)
        return out.getvalue()

    def verify_export(
        self, data: bytes, anchors: Iterable[Head] = (), oldest: timedelta | None = None
    ) -> Report:
        """Verifies an export."""
        file = export.ExportFile(io.BytesIO(data), "export")
        verifier = Verifier(self.signer.public.open, file.gaps, anchors)
        verifier.take_all(file.entries())
        return verifier.finish(self.moment, oldest)


def kinds(report: Report) -> set[str]:
    """What was found."""
    return {finding.kind for finding in report.findings}


def places(report: Report) -> list[tuple[str, int | None, int | None]]:
    """What was found, and in which records."""
    return [(finding.kind, finding.first, finding.last) for finding in report.findings]
