"""Puts what the spool has into the audit log, signs heads, and removes what there is no room for.

Owns: the order of records, durability (records, then index and head in one transaction), signed gaps. Must not: look
into a record, hold a key (it is given `sign`), or store a line twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vedette.clock import now, to_rfc3339
from vedette.observability import spool
from vedette.observability.audit.heads import Head, gaps_digest, joined
from vedette.observability.audit.segments import CHECK_BYTES, Piece, fingerprint, is_done, pieces
from vedette.observability.audit.tree import HASH_BYTES, Range, leaf_hash
from vedette.store.audit import AuditStore, BatchRow, HeadRow, SegmentRow

IDLE_BEAT: Final = 600.0
"""Seconds after which a head is signed though nothing is new, so that its age says something."""
STEP_BYTES: Final = 32 * 1024 * 1024
"""Most that one transaction takes in; after an hour without control there is more."""

_NO_INODE: Final = 0

log = logging.getLogger("vedette.observability.audit")


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step did. `is_behind`: there is more to take in."""

    records: int
    is_behind: bool
    head: Head | None


class Chain:
    """The audit log of a node, for the one process that writes it. Methods may be called from any thread.

    `folders` are the places of segments by name. `sign` gives the signature of a head's text. `ticks` gives monotonic
    seconds.
    """

    def __init__(
        self,
        store: AuditStore,
        folders: Mapping[str, Path],
        origin: str,
        sign: Callable[[str], bytes],
        *,
        clock: Callable[[], datetime] = now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._folders = folders
        self._origin = origin
        self._sign = sign
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.RLock()
        self._inodes: dict[int, int] = {}
        self._signed_at: float | None = None

    def step(self, *, beat: bool = False) -> Stepped:
        """Takes in what was finished since, and signs a head if that was anything, or a beat is due.

        Raises `UnavailableError`; nothing is changed then.
        """
        with self._lock:
            self._finish_removals()
            with contextlib.ExitStack() as opened, self._store.transaction():
                tree = self._tree()
                before = tree.end
                is_behind = self._take_in(tree, opened)
                due = self._signed_at is None or self._ticks() - self._signed_at >= IDLE_BEAT
                head = None
                if tree.end != before or beat or due:
                    self._store.set_tree(tree.end, b"".join(tree.nodes))
                    head = self._add_head(tree)
            if head is not None:
                self._signed_at = self._ticks()
            return Stepped(tree.end - before, is_behind, head)

    def prune(self, folder: str, limit_bytes: int) -> int:
        """Removes segments of a folder, oldest first, until they take at most `limit_bytes`; returns how many.

        Only what is in the log goes, and a signed head says that it is gone. One that is being written to stays.
        """
        with self._lock:
            while self.step().is_behind:
                pass
            going = self._outgrown(folder, limit_bytes)
            rows = [row for _, row in going if row is not None]
            if rows:
                self._make_gaps(rows, self._lost_before(rows))
            for path, row in going:
                if row is None:
                    path.unlink(missing_ok=True)
            self._finish_removals()
            return len(going)

    # --- taking in -------------------------------------------------------------------------------------------------

    def _tree(self) -> Range:
        size, nodes = self._store.tree()
        return Range.of(0, size, split(nodes))

    def _take_in(self, tree: Range, opened: contextlib.ExitStack) -> bool:
        """Adds finished records of every segment. The files stay open until all is written: their records must be on
        the disk before a head says that they are.
        """
        known = {(row.folder, row.name): row for row in self._store.segments()}
        room = STEP_BYTES
        for folder, place in self._folders.items():
            for path in spool.segments(place):
                row = known.get((folder, path.name))
                if row is not None and self._has_nothing_new(path, row):
                    continue
                if room <= 0:
                    return True
                room -= self._take_segment(tree, path, folder, row, opened)
        return False

    def _has_nothing_new(self, path: Path, row: SegmentRow) -> bool:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return True
        return facts.st_size == row.done and self._inodes.get(row.id) == facts.st_ino

    def _take_segment(
        self,
        tree: Range,
        path: Path,
        folder: str,
        row: SegmentRow | None,
        opened: contextlib.ExitStack,
    ) -> int:
        """Adds the finished records of one segment; returns how many bytes that were."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # removed meanwhile, or no file
            return 0
        opened.callback(os.close, descriptor)
        facts = os.fstat(descriptor)
        if row is not None and not self._is_same(descriptor, facts, row):
            log.warning("%s is another file than the one in the audit log", path)
            row = None
        start = position = 0 if row is None else row.done
        for piece in pieces(descriptor, position, lambda: not spool.is_written(path)):
            if row is None:
                row = self._store.add_segment(folder, path.name, fingerprint(descriptor))
                self._inodes[row.id] = facts.st_ino
            self._store.add_batch(_batch(tree, row.id, piece))
            position = piece.stop
            if position - start >= STEP_BYTES:
                break
        if row is not None and position > start:
            self._store.set_done(row.id, position)
            os.fdatasync(descriptor)
        return position - start

    def _is_same(self, descriptor: int, facts: os.stat_result, row: SegmentRow) -> bool:
        if self._inodes.get(row.id) == facts.st_ino and facts.st_size >= row.done:
            return True
        if fingerprint(descriptor) != row.fingerprint:
            return False
        self._inodes[row.id] = facts.st_ino
        return True

    # --- heads -----------------------------------------------------------------------------------------------------

    def _add_head(self, tree: Range, *, gaps: bytes | None = None) -> Head:
        last = self._store.newest_head()
        head = Head(
            origin=self._origin,
            size=tree.end,
            root=tree.root(),
            sequence=0 if last is None else last.sequence + 1,
            time=to_rfc3339(self._clock(), microseconds=True),
            previous=None if last is None else head_of(last, self._origin).digest(),
            gaps=gaps or (None if last is None else last.gaps),
        )
        self._store.add_head(
            HeadRow(
                head.sequence,
                head.size,
                head.root,
                head.time,
                head.previous,
                head.gaps,
                self._sign(head.text()),
            )
        )
        return head

    # --- removing --------------------------------------------------------------------------------------------------

    def _outgrown(self, folder: str, limit_bytes: int) -> list[tuple[Path, SegmentRow | None]]:
        """The segments that are to go, each with its row; None for one without records."""
        known = {row.name: row for row in self._store.segments() if row.folder == folder}
        present = spool.segments(self._folders[folder])
        sizes = {path: spool.allocated(path) for path in present}
        total, going = sum(sizes.values()), []
        for path in present:
            if total <= limit_bytes:
                break
            row = known.get(path.name)
            if spool.is_written(path):
                continue
            if not is_done(path, 0 if row is None else row.done):
                log.warning("%s stays: not all of it is in the audit log", path)
                continue
            going.append((path, row))
            total -= sizes[path]
        return going

    def _lost_before(self, rows: Iterable[SegmentRow]) -> list[SegmentRow]:
        """Segments that somebody took away or replaced, and whose time would be over now."""
        newest = {row.folder: row.id for row in rows}
        every = self._store.segments()
        of_name = {(row.folder, row.name): row.id for row in every}
        return [
            row
            for row in every
            if row.id < newest.get(row.folder, 0)
            and (of_name[row.folder, row.name] != row.id or not self._path(row).exists())
        ]

    def _make_gaps(self, rows: Iterable[SegmentRow], lost: Iterable[SegmentRow]) -> None:
        """Makes gaps of the records of these segments, signs a head that says so, and marks the files for removal."""
        with self._store.transaction():
            going = [*rows, *lost]
            new = [batch for row in going for batch in self._store.batches_of(row.id)]
            old = self._store.gaps()
            merged = merged_gaps([*old, *new])
            fresh = set(merged).difference(old)  # what people do is kept longer: there may be many
            self._store.remove_batches(one.first for one in {*old, *new}.difference(merged))
            for gap in fresh:
                self._store.add_batch(gap)
                self._store.forget_heads(gap.first, gap.first + gap.count)
            for row in lost:
                self._store.set_removing(row.id, _NO_INODE)
            for row in rows:
                self._store.set_removing(row.id, _inode(self._path(row)))
            bounds = joined((gap.first, gap.first + gap.count) for gap in merged)
            self._add_head(self._tree(), gaps=gaps_digest(bounds))

    def _finish_removals(self) -> None:
        """Removes the files of segments that are marked, also after a crash in between."""
        marked = [row for row in self._store.segments() if row.removing is not None]
        for row in marked:
            path = self._path(row)
            if _inode(path) == row.removing and not spool.is_written(path):
                path.unlink(missing_ok=True)
        if marked:
            with self._store.transaction():
                for row in marked:
                    self._store.forget_segment(row.id)
                    self._inodes.pop(row.id, None)

    def _path(self, row: SegmentRow) -> Path:
        return self._folders[row.folder] / row.name


def head_of(row: HeadRow, origin: str) -> Head:
    """The head that a row stands for."""
    return Head(origin, row.size, row.root, row.sequence, row.time, row.previous, row.gaps)


def split(nodes: bytes) -> list[bytes]:
    """Hashes that were stored as one."""
    return [nodes[at : at + HASH_BYTES] for at in range(0, len(nodes), HASH_BYTES)]


def merged_gaps(batches: Iterable[BatchRow]) -> list[BatchRow]:
    """Gaps in the place of batches, those that touch made one."""
    found: list[Range] = []
    for batch in sorted(batches, key=lambda one: one.first):
        part = Range.of(batch.first, batch.first + batch.count, split(batch.nodes))
        if found and found[-1].end == part.first:
            found[-1].extend(part)
        else:
            found.append(part)
    return [
        BatchRow(one.first, one.end - one.first, None, 0, 0, False, b"".join(one.nodes), b"")
        for one in found
    ]


def _batch(tree: Range, segment: int, piece: Piece) -> BatchRow:
    """Adds records to the tree; returns the row that says where they are."""
    leaves = [leaf_hash(record) for record in piece.records]
    part = Range(tree.end)
    for leaf in leaves:
        part.append(leaf)
    tree.extend(part)
    checks = b"".join(leaf[:CHECK_BYTES] for leaf in leaves)
    nodes = b"".join(part.nodes)
    return BatchRow(
        part.first, len(leaves), segment, piece.start, piece.stop, piece.is_raw, nodes, checks
    )


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return _NO_INODE
