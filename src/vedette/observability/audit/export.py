"""An audit log as one file, for somebody else to verify (docs/audit.md says how it looks).

Owns: writing and reading the format, line by line. Must not: judge what is in it; `verify` does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, Final

from vedette.errors import ConfigError
from vedette.observability.audit.chain import merged_gaps, split
from vedette.observability.audit.entries import (
    Batch,
    Entry,
    Expected,
    HomeLog,
    Removed,
    SignedHead,
    check_of,
    checks_of,
)
from vedette.observability.audit.heads import Gap
from vedette.observability.audit.tree import MAX_NODES, MAX_SIZE

FIRST_LINE: Final = b"vedette-audit 1\n"
MAX_LINE: Final = 16 * 1024 * 1024
MAX_BATCH_BYTES: Final = 64 * 1024 * 1024
MAX_GAPS: Final = 1_000_000
_NUMBER = re.compile(rb"(0|[1-9][0-9]{0,18})\Z")


def write(log: HomeLog, out: BinaryIO, first: int = 0) -> tuple[int, int]:
    """Writes the log from record `first` on; returns how many records and heads. Call within `AuditStore.reading`."""
    records = heads = 0
    out.write(FIRST_LINE)
    out.write(b"gaps" + b"".join(b" %d-%d" % gap for gap in log.gaps()) + b"\n")
    for row in merged_gaps(log.prefix(first)):
        out.write(_line(b"omitted", row.first, row.count, split(row.nodes)))
    for entry in log.entries(first):
        if isinstance(entry, SignedHead):
            out.write(b"head " + base64.b64encode(entry.note.encode()) + b"\n")
            heads += 1
        elif isinstance(entry, Removed):
            out.write(_line(b"gap", entry.first, entry.count, entry.nodes))
        else:
            _write_batch(out, entry)
            records += len(entry.records)
    return records, heads


def _write_batch(out: BinaryIO, batch: Batch) -> None:
    out.write(_line(b"batch", batch.first, batch.count, [batch.checks, *batch.nodes]))
    for record in batch.records:
        if batch.is_raw or b"\0" in record:
            out.write(b"raw " + base64.b64encode(record) + b"\n")
        else:
            out.write(b"record " + record + b"\n")


def _line(word: bytes, first: int, count: int, values: Sequence[bytes]) -> bytes:
    encoded = b"".join(b" " + base64.b64encode(value) for value in values)
    return b"%b %d %d%b\n" % (word, first, count, encoded)


class ExportFile:
    """An exported log, open for reading. Nothing in it is believed."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        """Raises `ConfigError` audit_unreadable when it does not begin as an export does."""
        self._source = source
        self._name = name
        self._number = 0
        if self._next() != FIRST_LINE:
            raise ConfigError("audit_unreadable", f"{name} is no export of an audit log")
        self.gaps: list[Gap] = self._gaps(self._next())

    def entries(self) -> Iterator[Entry]:
        """What is in the file, in order. Raises `ConfigError` audit_unreadable with the line that cannot be read."""
        line = self._next()
        while line:
            word, _, rest = line[:-1].partition(b" ")
            if word == b"head":
                yield SignedHead(self._decoded(rest).decode("utf-8", "replace"))
                line = self._next()
            elif word in (b"gap", b"omitted"):
                first, count, nodes = self._range(rest)
                yield Removed(first, count, nodes, is_omitted=word == b"omitted")
                line = self._next()
            elif word == b"batch":
                batch, line = self._batch(rest)
                yield batch
            else:
                raise self._unreadable()

    def _batch(self, rest: bytes) -> tuple[Batch, bytes]:
        """A batch with the records under it, and the line after them."""
        first, count, (checks, *nodes) = self._range(rest, 1)
        place = f"{self._name}:{self._number}"
        records: list[bytes] = []
        size = 0
        line = self._next()
        while line.startswith((b"record ", b"raw ")):
            word, _, record = line[:-1].partition(b" ")
            records.append(record if word == b"record" else self._decoded(record))
            size += len(line)
            if size > MAX_BATCH_BYTES:
                raise self._unreadable()
            line = self._next()
        whole = partial(_expected, first, checks, records)
        return Batch(first, count, tuple(nodes), checks, records, place, whole), line

    def _range(self, rest: bytes, more: int = 0) -> tuple[int, int, tuple[bytes, ...]]:
        """First record, count, and at least `more` values after them."""
        parts = rest.split(b" ", MAX_NODES + 3)
        if len(parts) < 2 + more:
            raise self._unreadable()
        first, count = self._int(parts[0]), self._int(parts[1])
        return first, count, tuple(self._decoded(one) for one in parts[2:])

    def _gaps(self, line: bytes) -> list[Gap]:
        word, *pairs = line[:-1].split(b" ", MAX_GAPS + 1)
        if word != b"gaps" or len(pairs) > MAX_GAPS:
            raise self._unreadable()
        bounds = [pair.partition(b"-") for pair in pairs]
        return [(self._int(first), self._int(end)) for first, _, end in bounds]

    def _int(self, digits: bytes) -> int:
        if not _NUMBER.match(digits) or int(digits) >= MAX_SIZE:
            raise self._unreadable()
        return int(digits)

    def _decoded(self, text: bytes) -> bytes:
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise self._unreadable() from None
        if base64.b64encode(data) != text:  # one spelling only
            raise self._unreadable()
        return data

    def _next(self) -> bytes:
        """The next line with its newline; empty at the end. A last line without one was cut."""
        line = self._source.readline(MAX_LINE)
        self._number += 1
        if line and not line.endswith(b"\n"):
            raise self._unreadable()
        return line

    def _unreadable(self) -> ConfigError:
        message = "the line is not one of an export"
        return ConfigError("audit_unreadable", message, file=self._name, line=self._number)


def _expected(first: int, checks: bytes, records: list[bytes]) -> Expected:
    wanted = checks_of(checks)
    return Expected(range(first, first + len(wanted)), wanted, [check_of(one) for one in records])
