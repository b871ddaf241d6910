"""Which records of a place were touched, by the checks that were kept of them.

Owns: telling changed, removed, added and reordered records apart, also where they went to
another place. Must not: prove anything; only the tree does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from vedette.observability.audit.entries import Expected, checks_of

MAX_COMPARED: Final = 200_000
"""Most changed records that are looked for in other places."""
_RESTORE = "Compare with an earlier export or a copy of the spool; find out who could write there."


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks against a log: what, how to mend it, and which records (the first and the last).

    Of records that were changed, `was` has the checks of what should be in the `place`, `now` of what is there.
    """

    kind: str
    what: str
    mend: str
    first: int | None = None
    last: int | None = None
    place: str = field(default="", repr=False)
    was: bytes = field(default=b"", repr=False)
    now: bytes = field(default=b"", repr=False)


def damage(place: str, found: Expected) -> Iterator[Finding]:
    """What was done to the records of a place. At least one finding: it is asked where hashes differ."""
    wanted, here, numbers = found.checks, found.found, found.numbers
    if not here:
        yield _finding("removed", place, numbers, "are gone")
        return
    head = _common(wanted, here)
    tail = _common(wanted[head:][::-1], here[head:][::-1])
    missing, extra = wanted[head : len(wanted) - tail], here[head : len(here) - tail]
    touched = numbers[head : len(wanted) - tail]
    if len(missing) == len(extra):
        yield from _in_place(place, touched, missing, extra)
    elif len(missing) > len(extra):
        yield from _fewer(place, touched, missing, extra)
    else:
        before = numbers[min(head, len(numbers) - 1)] if numbers else 0
        count = len(extra) - len(missing)
        yield Finding(
            "added",
            f"{place}: {count} records were put in near record {before}",
            _RESTORE,
            before,
            before,
        )


def _in_place(
    place: str, numbers: Sequence[int], missing: Sequence[bytes], extra: Sequence[bytes]
) -> Iterator[Finding]:
    if not missing:
        what = f"{place}: the records are whole, and what is noted of them is not"
        yield Finding("index_altered", what, "Export again from the node; the index was changed.")
    elif sorted(missing) == sorted(extra):
        yield _finding("reordered", place, numbers, "are in another order")
    else:
        pairs = zip(numbers, missing, extra, strict=True)
        yield from _changed(place, [pair for pair in pairs if pair[1] != pair[2]])


def _changed(place: str, touched: Sequence[tuple[int, bytes, bytes]]) -> Iterator[Finding]:
    """One finding for each stretch of records: number, what it was, what it is now."""
    rest = iter(touched)
    for first, last in _runs([number for number, _, _ in touched]):
        part = list(islice(rest, last - first + 1))
        was = b"".join(before for _, before, _ in part)
        now = b"".join(after for _, _, after in part)
        what = f"{place}: {_said(first, last)} changed"
        yield Finding("changed", what, _RESTORE, first, last, place, was, now)


def with_moves(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings of a whole log: records that stand in each other's places were moved, not changed.

    They are told by their checks, which prove nothing.
    """
    known: dict[bytes, int] = {}
    for one in findings:
        if one.first is not None and len(known) < MAX_COMPARED:
            known.update(zip(checks_of(one.was), count(one.first), strict=False))
    for one in findings:
        if one.first is None or not one.now:
            yield one
            continue
        pairs = list(zip(count(one.first), checks_of(one.was), checks_of(one.now), strict=False))
        came = {number: known[now] for number, _, now in pairs if now in known}
        if not came:
            yield one
            continue
        for first, last in _runs(list(came)):
            there = _runs(sorted(came[number] for number in range(first, last + 1)))
            said = ", ".join(_called(*run) for run in there)
            what = f"{one.place}: {_said(first, last)} moved: in that place is {said}"
            yield Finding("reordered", what, _RESTORE, first, last)
        yield from _changed(one.place, [pair for pair in pairs if pair[0] not in came])


def _fewer(
    place: str, numbers: Sequence[int], missing: Sequence[bytes], extra: Sequence[bytes]
) -> Iterator[Finding]:
    """Records are missing; when the rest is in order, just these, else the whole stretch."""
    gone, at = [], 0
    for number, check in zip(numbers, missing, strict=True):
        if at < len(extra) and extra[at] == check:
            at += 1
        else:
            gone.append(number)
    if at == len(extra):
        for first, last in _runs(gone):
            yield _finding("removed", place, range(first, last + 1), "are gone")
    else:
        yield _finding(
            "removed", place, numbers, f"are not whole: {len(missing) - len(extra)} are gone"
        )


def _finding(kind: str, place: str, numbers: Sequence[int], verb: str) -> Finding:
    first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
    if first == last:
        verb = verb.replace("are ", "is ", 1)
    return Finding(kind, f"{place}: {_called(first, last)} {verb}", _RESTORE, first, last)


def _called(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _said(first: int, last: int) -> str:
    return f"{_called(first, last)} {'was' if first == last else 'were'}"


def _common(left: Sequence[bytes], right: Sequence[bytes]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow one another as first and last."""
    start: int | None = None
    last = 0
    for number in numbers:
        if start is not None and number == last + 1:
            last = number
            continue
        if start is not None:
            yield start, last
        start = last = number
    if start is not None:
        yield start, last
