"""Check 25: what the suite did is in the audit log, once each, and nobody changes that unseen.

Owns: exporting a log, and damaging copies of it in every way. Must not: touch the log itself.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import time
from collections.abc import Callable
from typing import Final

from vedette.clock import now
from vedette.control.audit import log_of
from vedette.identity.notes import NoteKey
from vedette.observability.audit import export
from vedette.observability.audit.export import ExportFile
from vedette.observability.audit.heads import Head
from vedette.observability.audit.verify import Report, Verifier
from vedette.store.home import Home
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.place import Place
from vedette.verification.twin import Twin

_PATIENCE: Final = 10.0  # seconds; heads are signed each second
_FEWEST: Final = 20
_MOST: Final = 10_000  # records of the node's log that a copy is made of


def own_log(place: Place, trial: Trial) -> None:
    """The node's own log verifies with its public key, and a copy of its end with one byte changed does not."""
    home = place.home
    report = _whole(home)
    trial.control("the node's own audit log", report.is_good, _kinds(report))
    size = report.newest.size if report.newest else 0
    data = exported(home, max(0, size - _MOST))
    whole = verified(home, data)
    trial.control("a copy of its end", whole.is_good, _kinds(whole))
    damaged = verified(home, _edited(data))
    trial.attack("a record of the node's log with one byte changed", not damaged.is_good)
    trial.note(f"the node's log has {report.records:,} records and {report.heads:,} heads")


def every_damage(twin: Twin, trial: Trial) -> None:
    """Every request of the suite is in the log once; editing, removing, moving and cutting is found offline."""
    for _ in range(_FEWEST - len(twin.kept.get("requests", ()))):
        twin.ask("/orders")
    asked = list(twin.kept["requests"])
    home = twin.place.home
    anchor, data = _caught_up(twin, asked)
    report = verified(home, data, [anchor])
    trial.control("the log as it is", report.is_good, _kinds(report))
    trial.control("an anchored head", report.anchors == 1, report.anchors)
    trial.control("requests to look for", len(asked) >= _FEWEST, len(asked))
    wrong = [one for one in asked if data.count(f'"requestId":"{one}","traceparent"'.encode()) != 1]
    trial.record(f"{len(asked)} requests of the suite", not wrong, f"{len(wrong)} not there once")
    for what, damage in _DAMAGES.items():
        with contextlib.suppress(Exception):
            changed = damage(data)
            held = changed != data and not verified(home, changed, [anchor]).is_good
            trial.attack(what, held)
            continue
        trial.attack(what, False, "it could not be tried")
    other = verified(home, data.replace(b"\nhead ", b"\nhead A", 1))
    trial.attack("a forged head", not other.is_good)


def _caught_up(twin: Twin, asked: list[str]) -> tuple[Head, bytes]:
    """The newest head and the log, once everything that was asked is in it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        data = exported(twin.place.home)
        if all(one.encode() in data for one in asked) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    with log_of(twin.place.home) as log:
        note = log.newest_head()
    key = _key(twin.place.home)
    head = Head.parse(key.open(note or ""))
    # The head may be of records that came after; the log is written anew so that both agree.
    return head, exported(twin.place.home)


def _whole(home: Home) -> Report:
    """What the public key says of a whole log, a batch in memory at a time."""
    with log_of(home) as log:

        def judged() -> Report:
            verifier = Verifier(_key(home).open, log.gaps())
            verifier.take_all(log.entries())
            return verifier.finish(now())

        return log.read(judged)


def exported(home: Home, first: int = 0) -> bytes:
    """The audit log of a home as one file, from record `first` on."""
    out = io.BytesIO()
    with log_of(home) as log:
        log.read(lambda: export.write(log, _emptied(out), first))
    return out.getvalue()


def _emptied(out: io.BytesIO) -> io.BytesIO:
    """Reading may be tried again; what was written before is not wanted then."""
    out.seek(0)
    out.truncate()
    return out


def verified(home: Home, data: bytes, anchors: list[Head] | None = None) -> Report:
    """What the public key alone says of an exported log."""
    file = ExportFile(io.BytesIO(data), "the log")
    verifier = Verifier(_key(home).open, file.gaps, anchors or [])
    verifier.take_all(file.entries())
    return verifier.finish(now())


def _key(home: Home) -> NoteKey:
    return NoteKey.parse(home.audit_public.read_text("utf-8"))


def _kinds(report: Report) -> str:
    return ", ".join(finding.kind for finding in report.findings)


def _lines(data: bytes) -> tuple[list[bytes], list[int]]:
    """The lines of an export, and which of them are records."""
    lines = data.splitlines(keepends=True)
    return lines, [place for place, line in enumerate(lines) if line.startswith(b"record ")]


def _edited(data: bytes) -> bytes:
    lines, records = _lines(data)
    place = records[len(records) // 2]
    lines[place] = lines[place].replace(b'"time":"2', b'"time":"3', 1)
    return b"".join(lines)


def _removed(data: bytes) -> bytes:
    lines, records = _lines(data)
    del lines[records[len(records) // 2]]
    return b"".join(lines)


def _added(data: bytes) -> bytes:
    lines, records = _lines(data)
    place = records[len(records) // 2]
    lines.insert(place, lines[records[0]])
    return b"".join(lines)


def _moved(data: bytes) -> bytes:
    lines, records = _lines(data)
    pairs = (pair for pair in itertools.pairwise(records) if pair[1] == pair[0] + 1)
    first, second = next(pair for pair in pairs if lines[pair[0]] != lines[pair[1]])
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def _cut(data: bytes) -> bytes:
    """The end with its heads is gone: only the anchored head tells."""
    lines, _ = _lines(data)
    heads = [place for place, line in enumerate(lines) if line.startswith(b"head ")]
    return b"".join(lines[: heads[0] + 1])


_DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "an edited record": _edited,
    "a removed record": _removed,
    "an added record": _added,
    "two records in another order": _moved,
    "a log that was cut off, heads and all": _cut,
}

CHECKS: Final = (
    Check(
        25,
        "every decision is recorded, and no record is changed unseen",
        (Tenet.COLLECTED,),
        (Pillar.VISIBILITY, Pillar.DATA),
        "Run `vedette audit verify`: it names the records; compare with an export or an anchored head kept elsewhere.",
        on_node=own_log,
        on_twin=every_damage,
    ),
)
