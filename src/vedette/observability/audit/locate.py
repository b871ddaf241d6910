"""Which records of a place were touched, by the checks that were kept of them.

Owns: telling changed, removed, added and reordered records apart. Must not: prove anything; only the tree does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vedette.observability.audit.entries import Expected

_RESTORE = "Compare with an earlier export or a copy of the spool; find out who could write there."


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks against a log: what, how to mend it, and which records (the first and the last)."""

    kind: str
    what: str
    mend: str
    first: int | None = None
    last: int | None = None


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
        for first, last in _runs([number for number, was, now in pairs if was != now]):
            yield _finding("changed", place, range(first, last + 1), "were changed")


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
    said = f"record {first}" if first == last else f"records {first} to {last}"
    one = {"are": "is", "were": "was"}
    if first == last:
        verb = " ".join(one.get(word, word) for word in verb.split())
    return Finding(kind, f"{place}: {said} {verb}", _RESTORE, first, last)


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
