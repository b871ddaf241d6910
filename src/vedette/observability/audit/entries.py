"""What an audit log is made of when it is read: batches of records, gaps and signed heads, in order.

Owns: these values and reading them from the home of a node. Must not: judge them; `verify` does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from vedette.errors import UnavailableError
from vedette.observability import spool
from vedette.observability.audit.chain import head_of, split
from vedette.observability.audit.heads import Gap
from vedette.observability.audit.segments import CHECK_BYTES, LONGEST, lines_of
from vedette.observability.audit.tree import leaf_hash
from vedette.store.audit import AuditStore, BatchRow, HeadRow, SegmentRow

MAX_SEGMENT_BYTES: Final = 64 * 1024 * 1024
ATTEMPTS: Final = 3

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a place should hold by its checks, and what it holds: for saying which record was touched.

    `numbers` are the places of the expected records in the log.
    """

    numbers: Sequence[int]
    checks: Sequence[bytes]
    found: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `first` to `first + count` by the hashes of their subtrees, and what is there of them now.

    `checks` are the first bytes of the hash of each; `place` names the segment or file, `whole` gives all of it.
    """

    first: int
    count: int
    nodes: tuple[bytes, ...]
    checks: bytes
    records: list[bytes]
    place: str
    whole: Callable[[], Expected] = field(repr=False)
    is_raw: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """A gap: records that were removed for want of room, or, when `is_omitted`, not exported."""

    first: int
    count: int
    nodes: tuple[bytes, ...]
    is_omitted: bool = False


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as the note that was signed."""

    note: str


Entry = Batch | Removed | SignedHead


def checks_of(data: bytes) -> list[bytes]:
    """Checks that were stored as one."""
    return [data[at : at + CHECK_BYTES] for at in range(0, len(data), CHECK_BYTES)]


def check_of(record: bytes) -> bytes:
    """The first bytes of a record's leaf hash: they find what was touched, and prove nothing."""
    return leaf_hash(record)[:CHECK_BYTES]


class HomeLog:
    """The audit log in the home of a node, running or not. `note_of` makes a note of a head's text and signature."""

    def __init__(
        self,
        store: AuditStore,
        folders: Mapping[str, Path],
        origin: str,
        note_of: Callable[[str, bytes], str],
    ) -> None:
        self._store = store
        self._folders = folders
        self._origin = origin
        self._note_of = note_of

    def read(self, work: Callable[[], Result]) -> Result:
        """What `work` gives of one state of the log; it is done again when records were removed meanwhile, whose files
        it then missed. Raises `UnavailableError` store_busy.
        """
        for _ in range(ATTEMPTS):
            before = self._removed()
            with self._store.reading():
                result = work()
            if self._removed() == before:
                return result
        raise UnavailableError("store_busy", "records were being removed while the log was read")

    def newest_head(self) -> str | None:
        """The head that was signed last, as a note."""
        row = self._store.newest_head()
        return None if row is None else self._note(row)

    def gaps(self) -> list[Gap]:
        """The records that were removed for want of room."""
        return [(gap.first, gap.first + gap.count) for gap in self._store.gaps()]

    def first_since(self, time: str) -> int:
        """The record from which on nothing older than the last head before `time` is left."""
        row = self._store.last_head_before(time)
        return 0 if row is None else row.size

    def entries(self, first: int = 0) -> Iterator[Entry]:
        """Batches, gaps and heads from record `first` on, each head right behind the records it is of."""
        segments = {row.id: row for row in self._store.segments()}
        heads = self._store.heads(first)
        head = next(heads, None)
        for row in self._store.batches(first):
            while head is not None and head.size <= row.first:
                yield SignedHead(self._note(head))
                head = next(heads, None)
            if row.segment is None:
                yield Removed(row.first, row.count, tuple(split(row.nodes)))
            else:
                yield self._batch(row, segments.get(row.segment))
        while head is not None:
            yield SignedHead(self._note(head))
            head = next(heads, None)

    def prefix(self, first: int) -> Iterator[BatchRow]:
        """The batches before record `first`."""
        for row in self._store.batches():
            if row.first >= first:
                return
            yield row

    def not_yet_in(self) -> int:
        """Bytes of finished segments, and of others up to their data's end, that are not in the log yet."""
        done = {(row.folder, row.name): row.done for row in self._store.segments()}
        total = 0
        for folder, place in self._folders.items():
            for path in spool.segments(place):
                with contextlib.suppress(FileNotFoundError), path.open("rb") as segment:
                    end = spool.data_end(segment.fileno())
                    total += max(end - done.get((folder, path.name), 0), 0)
        return total

    def _removed(self) -> bytes | None:
        row = self._store.newest_head()
        return None if row is None else row.gaps

    def _note(self, row: HeadRow) -> str:
        return self._note_of(head_of(row, self._origin).text(), row.signature)

    def _batch(self, row: BatchRow, segment: SegmentRow | None) -> Batch:
        place = "a segment that the index does not know"
        data = b""
        if segment is not None:
            place = f"{self._folders[segment.folder] / segment.name}"
            data = _read(Path(place), row.start, row.stop)
        records = [data] if row.is_raw else _records(data)
        whole = partial(self._whole, segment, row)
        nodes = tuple(split(row.nodes))
        return Batch(row.first, row.count, nodes, row.checks, records, place, whole, row.is_raw)

    def _whole(self, segment: SegmentRow | None, row: BatchRow) -> Expected:
        """All of a segment, as far as it is in the log: one line that is gone moves all after it."""
        rows = [row] if segment is None else self._store.batches_of(segment.id)
        numbers = [number for one in rows for number in _numbers(one)]
        checks = [check for one in rows for check in checks_of(one.checks)]
        if segment is None:
            return Expected(numbers, checks, [])
        path = self._folders[segment.folder] / segment.name
        if any(one.is_raw for one in rows):
            numbers, checks = list(_numbers(row)), checks_of(row.checks)
            data = _read(path, row.start, row.stop)
            records = [data] if row.is_raw else _records(data)
        else:
            # What was put in moves the end; what came after the end is not in the log yet.
            records = _records(_read(path, 0, segment.done + LONGEST))
            records = records[: _tail(records, checks)]
        return Expected(numbers, checks, [check_of(record) for record in records])


def _numbers(row: BatchRow) -> range:
    """The numbers of a batch's records; its count may be somebody else's."""
    return range(row.first, row.first + len(checks_of(row.checks)))


def _tail(records: Sequence[bytes], checks: Sequence[bytes]) -> int:
    """How many of the records are of the log: up to the last that is known, else as many as are expected."""
    known = set(checks)
    for at in range(len(records), 0, -1):
        if check_of(records[at - 1]) in known:
            return max(at, min(len(records), len(checks)))
    return min(len(records), len(checks))


def _records(data: bytes) -> list[bytes]:
    """The lines of a range that should end with one; what is left over shows as one more."""
    lines = lines_of(data)
    rest = data[data.rfind(b"\n") + 1 :]
    return [*lines, rest] if rest else lines


def _read(path: Path, start: int, stop: int) -> bytes:
    """The bytes of a range, empty when the file is gone."""
    try:
        with path.open("rb") as segment:
            segment.seek(start)
            return segment.read(max(0, min(stop - start, MAX_SEGMENT_BYTES)))
    except OSError:
        return b""
