"""What a check is: an attack, the refusal and the record that are expected, and a control that the right thing works.

Owns: counting what was tried and what held. Must not: know any attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vedette.verification.place import Place
    from vedette.verification.twin import Twin

MAX_SHOWN: Final = 6
MAX_TEXT: Final = 200


class Tenet(StrEnum):
    """The tenets of zero trust (NIST SP 800-207 §2.1), shortened."""

    RESOURCES = "T1 everything is a resource"
    SECURED = "T2 all communication is secured, wherever it is"
    PER_SESSION = "T3 access is granted per session"
    DYNAMIC = "T4 policy is dynamic"
    INTEGRITY = "T5 integrity of what is owned is watched"
    ENFORCED = "T6 who and what is enforced before access, and again"
    COLLECTED = "T7 state is collected and used"


class Pillar(StrEnum):
    """Pillars and cross-cutting capabilities of the CISA Zero Trust Maturity Model, version 2."""

    IDENTITY = "Identity"
    DEVICES = "Devices"
    NETWORKS = "Networks"
    APPLICATIONS = "Applications and Workloads"
    DATA = "Data"
    VISIBILITY = "Visibility and Analytics"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check. `unavailable`: the defence is not in this version, so that nothing could be attacked."""

    passed: bool
    evidence: str
    unavailable: bool = False


@dataclass(slots=True)
class Trial:
    """One check under way. Each claim is told once; a check without an attack, or without a control, proves nothing."""

    attacks: int = 0
    controls: int = 0
    records: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: str | None = None
    may_be_empty: bool = False

    def attack(self, what: str, held: bool, saw: object = "") -> bool:
        """An attack: `held` when the defence refused it. `saw` is told when it did not."""
        self.attacks += 1
        if not held:
            self._fail(f"{what} was not refused", saw)
        return held

    def control(self, what: str, works: bool, saw: object = "") -> bool:
        """The same thing done rightly, which must work: a node that refuses everything does not pass."""
        self.controls += 1
        if not works:
            self._fail(f"{what} did not work", saw)
        return works

    def record(self, what: str, found: bool, saw: object = "") -> bool:
        """The record that an attack must leave."""
        self.records += 1
        if not found:
            self._fail(f"no right record of {what}", saw)
        return found

    def note(self, text: str) -> None:
        """Something that was seen, for the evidence."""
        self.notes.append(text[:MAX_TEXT])

    def nothing_here(self, text: str) -> None:
        """For a part on the node: it may have nothing to attack, where the same is attacked on the twin."""
        self.may_be_empty = True
        self.note(text)

    def unavailable(self, what: str) -> None:
        """A part of the check that this version has no defence for."""
        self.missing = what

    def outcome(self) -> Outcome:
        """The verdict. Failures come first; what is not available never passes."""
        if self.failures:
            more = len(self.failures) - MAX_SHOWN
            shown = "; ".join(self.failures[:MAX_SHOWN]) + (
                f"; and {more} more" if more > 0 else ""
            )
            return Outcome(False, shown)
        counted = f"{self.attacks} attacks refused, {self.controls} controls worked"
        if self.records:
            counted += f", {self.records} records found"
        text = "; ".join([counted, *self.notes])
        if not self.controls or not (self.attacks or self.may_be_empty):
            return Outcome(False, f"nothing was proved: {text}")
        if self.missing is not None:
            return Outcome(False, f"{text}; {self.missing}", unavailable=True)
        return Outcome(True, text)

    def _fail(self, sentence: str, saw: object) -> None:
        told = str(saw)[:MAX_TEXT]
        self.failures.append(f"{sentence} ({told})" if told else sentence)


@contextmanager
def attempting(trial: Trial, what: str) -> Iterator[None]:
    """An attack that could not be carried out is a failure of the check, not of the suite."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever broke, the check has not passed
        trial._fail(f"{what} could not be carried out", f"{type(error).__name__}: {error}")


OnNode = Callable[["Place", Trial], None]
OnTwin = Callable[["Twin", Trial], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One of the 26. `on_node` changes nothing on the node; `on_twin` may do anything to the twin. With neither, the
    defence is not in this version, and `mend` says so.
    """

    id: int
    name: str
    tenets: tuple[Tenet, ...]
    pillars: tuple[Pillar, ...]
    mend: str
    on_node: OnNode | None = None
    on_twin: OnTwin | None = None
    prepare: Callable[[Twin], None] | None = None
    """Done to the twin before any check: what takes time until it can be attacked."""

    @property
    def is_available(self) -> bool:
        """Whether there is anything to attack."""
        return self.on_node is not None or self.on_twin is not None
