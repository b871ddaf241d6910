"""Signed snapshots as files, where the engine finds them.

Owns: engine/snapshots, one DSSE envelope per digest. Must not: sign, verify or parse; the engine
and `identity` do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vedette.errors import ConfigError
from vedette.ids import digest_hex, is_digest
from vedette.store.atomic import write_atomic


class SnapshotStore:
    """A folder of envelopes, named by the digest of their payload."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        """Where the envelope lies, whether or not it does. Raises `ConfigError` invalid_digest."""
        return self._folder / f"{digest_hex(digest)}.json"

    def put(self, digest: str, envelope: bytes) -> None:
        """Writes the envelope, unless exactly it is there. Raises `UnavailableError` for the disk."""
        path = self.path(digest)
        if not path.is_file() or path.read_bytes() != envelope:
            write_atomic(path, envelope)

    def get(self, digest: str) -> bytes:
        """The envelope, unverified. Raises `ConfigError` snapshot_unknown."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise ConfigError("snapshot_unknown", f"there is no snapshot {digest}") from None

    def has(self, digest: str) -> bool:
        """Whether an envelope of that digest lies there."""
        return self.path(digest).is_file()

    def digests(self) -> Iterator[str]:
        """The digests of all envelopes, in no order."""
        for entry in os.scandir(self._folder):
            digest = f"sha256:{entry.name.removesuffix('.json')}"
            if entry.name.endswith(".json") and is_digest(digest):
                yield digest

    def remove(self, digest: str) -> None:
        """Forgets an envelope; nothing happens when it is not there."""
        self.path(digest).unlink(missing_ok=True)
