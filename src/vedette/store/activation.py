"""Making a snapshot the active one, and mending the files after a crash in the middle of that.

Owns: the order of the three writes. Envelope file first (harmless alone), then the history (the
decision), then active.json (what the engine reads at start). Whoever dies in between leaves the old
snapshot active, or the new one with active.json behind, which `heal` brings forward at the next
start. Must not: verify; the caller did.
"""

from __future__ import annotations

from dataclasses import dataclass

from vedette.ids import is_digest
from vedette.store.atomic import read_json, write_json
from vedette.store.history import Entry, History
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore


@dataclass(frozen=True, slots=True)
class Active:
    """What active.json says."""

    digest: str
    generation: int


def activate(
    home: Home, history: History, *, digest: str, envelope: bytes, action: str, actor: str
) -> Entry:
    """Makes a verified snapshot the active one; when it returns, that survives a power cut.

    Raises `UnavailableError` when the disk refuses. If the history was written and active.json was
    not, the snapshot is active all the same: try `heal`.
    """
    SnapshotStore(home.snapshots).put(digest, envelope)
    generation = history.record(digest, action, actor, envelope)
    publish_active(home, digest, generation)
    entry = history.active()
    assert entry is not None
    return entry


def publish_active(home: Home, digest: str, generation: int) -> None:
    """Writes active.json. Raises `UnavailableError`."""
    write_json(home.active_file, {"digest": digest, "generation": generation})


def read_active(home: Home) -> Active | None:
    """What active.json says; None when it is absent or not what `publish_active` writes."""
    value = read_json(home.active_file)
    if not isinstance(value, dict):
        return None
    digest, generation = value.get("digest"), value.get("generation")
    if not isinstance(digest, str) or not is_digest(digest) or not isinstance(generation, int):
        return None
    return Active(digest, generation)


def heal(home: Home, history: History) -> Entry | None:
    """Makes the files say what the history says, and returns the active entry.

    Rewrites the envelope when it is missing or differs and active.json when it is behind. Raises
    `UnavailableError`.
    """
    entry = history.active()
    if entry is None:
        return None
    SnapshotStore(home.snapshots).put(entry.digest, history.envelope(entry.digest))
    if read_active(home) != Active(entry.digest, entry.generation):
        publish_active(home, entry.digest, entry.generation)
    return entry
