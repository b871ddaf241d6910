"""Verifies an audit log with a public key alone: whether its records are those that the signed heads are of.

Owns: the verdict, and saying what was touched and where. Must not: trust anything but a head whose signature holds, or
keep more than one batch in memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from vedette.clock import format_duration, from_rfc3339
from vedette.errors import ConfigError, TrustError
from vedette.observability.audit.entries import Batch, Entry, Removed, SignedHead
from vedette.observability.audit.heads import Gap, Head, gaps_digest
from vedette.observability.audit.locate import Finding, damage, with_moves
from vedette.observability.audit.segments import CHECK_BYTES
from vedette.observability.audit.tree import Range, leaf_hash

MAX_FINDINGS: Final = 100

_RESTORE = "Compare with an earlier export or a copy of the spool; find out who could write there."
_KEEP = (
    "Keep the file as it is; export again from the node, and compare the head with an anchored one."
)


@dataclass(slots=True)
class Report:
    """What was found. `records` were compared with what was signed; `removed` are gone for want of room, which is
    signed too; the first `omitted` are not in the file.
    """

    origin: str | None = None
    records: int = 0
    bytes: int = 0
    removed: int = 0
    omitted: int = 0
    heads: int = 0
    anchors: int = 0
    first_head: Head | None = None
    newest: Head | None = None
    not_yet_in: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against the log."""
        return not self.findings


class Verifier:
    """Takes the entries of a log in order. `open_note` gives the text of a head whose signature holds, or raises
    `TrustError`; `gaps`, in order, are the records that the log says were removed; `anchors` are heads kept elsewhere.
    """

    def __init__(
        self, open_note: Callable[[str], str], gaps: Sequence[Gap], anchors: Iterable[Head] = ()
    ) -> None:
        self.report = Report()
        self._open = open_note
        self._gaps = gaps
        self._anchors = sorted(anchors, key=lambda head: (head.size, head.sequence))
        self._tree = Range()
        self._signed = 0
        self._is_lost = False
        self._gap_since_head = False
        self._examined: set[str] = set()
        self._foreign: list[Finding] = []
        self._foreign_heads = 0

    def take(self, entry: Entry) -> None:
        """Judges the next entry."""
        if isinstance(entry, SignedHead):
            self._head(entry.note)
        elif entry.first != self._tree.end:
            self._misplaced(entry)
        elif isinstance(entry, Removed):
            self._removed(entry)
        else:
            self._batch(entry)

    def take_all(self, entries: Iterable[Entry]) -> None:
        """Judges entries until they end or cannot be read."""
        try:
            for entry in entries:
                self.take(entry)
        except ConfigError as error:
            if error.code != "audit_unreadable":
                raise
            self._find("malformed", str(error), _KEEP, self._tree.end, self._tree.end + 1)

    def finish(self, at: datetime, oldest: timedelta | None = None) -> Report:
        """The report. The newest head may be at most `oldest` old `at` that time."""
        report, newest = self.report, self.report.newest
        found, report.findings = report.findings, []
        for finding in with_moves(found):
            self._add(finding)
        self._tell_foreign()
        if newest is None:
            if not self._foreign:
                what = "no head of this key is in it"
                self._find("unsigned", what, "Give the key of the node that wrote it.")
            return report
        if self._tree.end > self._signed:
            what = f"records {self._signed} to {self._tree.end - 1} are behind the newest head: the end is missing"
            self._find("truncated", what, _KEEP, self._signed, self._tree.end)
        if gaps_digest(self._gaps) != newest.gaps:
            what = "the list of removed records is not the one that the newest head signs"
            self._find("gaps_altered", what, _KEEP)
        self._judge_anchors(newest)
        age = at - from_rfc3339(newest.time)
        if oldest is not None and age > oldest:
            what = f"the newest head is {_span(age)} old: newer records are missing, or control did not run"
            self._find(
                "too_old", what, "See whether control runs; else the end of the log was cut off."
            )
        return report

    # --- records ---------------------------------------------------------------------------------------------------

    def _batch(self, batch: Batch) -> None:
        leaves = [leaf_hash(record) for record in batch.records]
        part = Range(batch.first)
        for leaf in leaves:
            part.append(leaf)
        checks = b"".join(leaf[:CHECK_BYTES] for leaf in leaves)
        self.report.records += len(batch.records)
        self.report.bytes += sum(map(len, batch.records)) + len(batch.records)
        is_whole = part.end == batch.first + batch.count and part.nodes == batch.nodes
        if is_whole and checks == batch.checks:
            self._tree.extend(part)
            return
        if batch.place not in self._examined:
            self._examined.add(batch.place)
            for finding in damage(batch.place, batch.whole()):
                self._add(finding)
        stored = self._stored(batch)
        if stored is not None:  # what was signed: with it, everything else can still be proved
            self._tree.extend(stored)

    def _removed(self, gap: Removed) -> None:
        stored = self._stored(gap)
        if stored is None:
            return
        self._tree.extend(stored)
        self._gap_since_head = True
        end = gap.first + gap.count
        if gap.is_omitted:
            self.report.omitted += gap.count
            return
        self.report.removed += gap.count
        at = bisect.bisect_right(self._gaps, gap.first, key=_first) - 1
        if at < 0 or end > self._gaps[at][1]:
            what = f"records {gap.first} to {end - 1} are missing, and no head says that they were removed"
            self._find("removed", what, _RESTORE, gap.first, end)

    def _stored(self, entry: Batch | Removed) -> Range | None:
        try:
            return Range.of(entry.first, entry.first + entry.count, entry.nodes)
        except ValueError:
            self._misplaced(entry)
            return None

    def _misplaced(self, entry: Batch | Removed) -> None:
        if not self._is_lost:
            what = f"record {self._tree.end} is next, and what follows begins at {entry.first}"
            self._find("disordered", what, _KEEP, self._tree.end, max(entry.first, self._tree.end))
        self._is_lost = True

    # --- heads -----------------------------------------------------------------------------------------------------

    def _head(self, note: str) -> None:
        try:
            head = Head.parse(self._open(note))
        except TrustError as error:
            self._refused_head(error)
            return
        last = self.report.newest
        self.report.heads += 1
        self.report.origin = self.report.origin or head.origin
        if head.origin != self.report.origin:
            what = f"a head is of {head.origin}, the others of {self.report.origin}"
            self._find("head_foreign", what, _KEEP)
            return
        if last is not None:
            self._follows(last, head)
        self._compare(head)
        self.report.newest = head
        self.report.first_head = self.report.first_head or head
        self._signed = self._tree.end
        self._gap_since_head = False

    def _refused_head(self, error: TrustError) -> None:
        what = f"the head behind record {self._tree.end - 1} cannot be believed: {error.message}"
        finding = Finding("head_forged", what, error.hint, self._signed, self._tree.end - 1)
        if error.code != "note_foreign":
            self._add(finding)
            return
        self._foreign_heads += 1
        if not self._foreign:
            self._foreign = [finding]

    def _tell_foreign(self) -> None:
        """Heads of another key are one finding, however many: most often the wrong key was given."""
        for first in self._foreign:
            more = f", and {self._foreign_heads - 1} more" if self._foreign_heads > 1 else ""
            kind = "unsigned" if self.report.newest is None else first.kind
            self._add(Finding(kind, first.what + more, first.mend, first.first, first.last))

    def _follows(self, last: Head, head: Head) -> None:
        """One head after another: none between them may be missing but where records were removed."""
        if head.sequence == last.sequence + 1:
            if head.previous != last.digest():
                what = f"head {head.sequence} does not follow the head {last.sequence} that is before it"
                self._find("head_disordered", what, _KEEP)
        elif head.sequence <= last.sequence or not self._gap_since_head:
            what = f"head {head.sequence} comes after head {last.sequence}"
            self._find("heads_missing", what, _KEEP)
        back = from_rfc3339(last.time) - from_rfc3339(head.time)
        if back > timedelta(0):
            self.report.notes.append(
                f"the clock went back by {_span(back)} between head {last.sequence} and {head.sequence}"
            )

    def _compare(self, head: Head) -> None:
        if self._is_lost:
            return
        if head.size == self._tree.end and head.root == self._tree.root():
            self._check_anchors(head)
            return
        between = f"between record {self._signed} and the head at {head.time}"
        what = f"{between}: the records are not those that were signed (head {head.sequence}, size {head.size})"
        self._find("altered", what, _RESTORE, self._signed, self._tree.end)
        self._is_lost = True

    # --- anchors ---------------------------------------------------------------------------------------------------

    def _check_anchors(self, head: Head) -> None:
        """Anchors of exactly this size say the same root, or the log is not the one they were taken of."""
        while self._anchors and self._anchors[0].size <= head.size:
            anchor = self._anchors.pop(0)
            if anchor.size < head.size:
                self._unproved(anchor)
            elif anchor.root != head.root:
                what = f"the anchored head {anchor.sequence} has another root for the first {anchor.size} records"
                self._find(
                    "forked",
                    what,
                    "This is not the log that was anchored: it was replaced or rewritten.",
                )
            else:
                self.report.anchors += 1

    def _judge_anchors(self, newest: Head) -> None:
        for anchor in self._anchors:
            if anchor.size > newest.size:
                what = (
                    f"the anchored head is of {anchor.size} records; these are only {newest.size}"
                )
                self._find("truncated", what, _KEEP, newest.size, anchor.size)
            else:
                self._unproved(anchor)
        self._anchors = []

    def _unproved(self, anchor: Head) -> None:
        what = f"the anchored head {anchor.sequence} of {anchor.size} records cannot be compared: they are not all here"
        self._find("anchor_unproved", what, "Give a newer head, or an export that begins earlier.")

    # --- findings --------------------------------------------------------------------------------------------------

    def _find(
        self, kind: str, what: str, mend: str, first: int | None = None, end: int | None = None
    ) -> None:
        self._add(Finding(kind, what, mend, first, None if end is None else end - 1))

    def _add(self, finding: Finding) -> None:
        if len(self.report.findings) < MAX_FINDINGS:
            self.report.findings.append(finding)
        elif len(self.report.findings) == MAX_FINDINGS:
            self.report.findings.append(Finding("more", "and more", "Mend these first."))


def _first(gap: Gap) -> int:
    return gap[0]


def _span(duration: timedelta) -> str:
    return format_duration(timedelta(seconds=round(duration.total_seconds())))
