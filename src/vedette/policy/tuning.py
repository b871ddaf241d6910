"""From security events to exclusions that are worth a thought, each with what is known of it.

Owns: which events are alike, what they would score without a rule, and the exclusion proposed. Pure. Must not: judge
requests, or decide that a request was honest: a person does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from vedette.config.waf import WafExclusion
from vedette.policy.attacks import Attack, Place, exact
from vedette.policy.inspection import STOPPED, Judged

Event = Mapping[str, Any]
Key = tuple[int, str]  # a rule, and the part in which it found something

# Severity to points: REQUEST-901-INITIALIZATION of the Core Rule Set, rules 901140 to 901143.
_POINTS: Final = {0: 5, 1: 5, 2: 5, 3: 4, 4: 3, 5: 2}
# What sums scores up, decides by them, or makes the settings: without it the firewall is off.
_SCORING: Final = ((901_000, 901_999), (949_000, 949_999), (959_000, 959_999), (980_000, 980_999))
# Parts of requests that an exclusion can name.
_PART: Final = re.compile(
    r"^(ARGS|ARGS_GET|ARGS_POST|ARGS_NAMES|REQUEST_COOKIES|REQUEST_COOKIES_NAMES|REQUEST_HEADERS|FILES|FILES_NAMES|"
    r"REQUEST_BODY|REQUEST_FILENAME|REQUEST_BASENAME|REQUEST_LINE|REQUEST_URI|REQUEST_URI_RAW|QUERY_STRING|XML)"
    r"(:[\x20-\x7E]{1,200})?$"
)


@dataclass(frozen=True, slots=True)
class Group:
    """Events of one route in which one rule found something in one part of requests."""

    route: str
    rule: int
    message: str
    place: Place
    events: tuple[Event, ...] = ()

    @property
    def part(self) -> str:
        """The part, as the rule names it."""
        return self.place.part

    @property
    def key(self) -> Key:
        """Rule and part."""
        return self.rule, self.part

    @property
    def clients(self) -> int:
        """Different addresses."""
        return _clients(self.events)

    @property
    def would_pass(self) -> int:
        """Events that would score less than their threshold, had the rule not looked there."""
        return sum(_passes(each, {self.key}) for each in self.events)

    @property
    def parameter(self) -> str | None:
        """The part as an exclusion names it; None: nothing narrower than the rule can be named."""
        return exact(self.part) if _PART.match(self.part) else None

    def exclusion(self, until: date, reason: str) -> WafExclusion:
        """What would let them pass."""
        return WafExclusion(
            rules=(str(self.rule),), parameter=self.parameter, until=_end(until), reason=reason
        )


@dataclass(frozen=True, slots=True)
class Joint:
    """Groups of one route of which no single one, but all together let requests pass."""

    groups: tuple[Group, ...]
    events: tuple[Event, ...]

    @property
    def clients(self) -> int:
        """Different addresses."""
        return _clients(self.events)

    @property
    def would_pass(self) -> int:
        """Events that would score less than their threshold, had none of the rules looked there."""
        keys = {each.key for each in self.groups}
        return sum(_passes(each, keys) for each in self.events)

    def exclusions(self, until: date, reason: str) -> tuple[WafExclusion, ...]:
        """What would let them pass: one for each part, with all its rules."""
        rules: dict[str | None, set[str]] = defaultdict(set)
        for each in self.groups:
            rules[each.parameter].add(str(each.rule))
        return tuple(
            WafExclusion(
                rules=tuple(sorted(found)), parameter=parameter, until=_end(until), reason=reason
            )
            for parameter, found in sorted(rules.items(), key=lambda row: row[0] or "")
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """What an exclusion would have let through: of the attacks that were stopped, those that no longer are."""

    tried: int
    let_through: tuple[Attack, ...]

    def by_rule(self) -> dict[int, int]:
        """How many attacks of each rule's tests, most first."""
        return dict(Counter(each.rule for each in self.let_through).most_common())


def switches_scoring_off(rule: int) -> bool:
    """Whether the firewall decides nothing without this rule."""
    return any(low <= rule <= high for low, high in _SCORING)


def groups(events: Iterable[Event]) -> list[Group]:
    """Groups of the events that were stopped, most events first."""
    found: dict[tuple[str, int, str], list[Event]] = defaultdict(list)
    messages: dict[int, str] = {}
    for event in events:
        if event.get("action") not in STOPPED or not event.get("route"):
            continue
        violations = event.get("violations", ())  # what is turned away at the door has none
        parts = {(each["rule"], each.get("location", "")) for each in violations}
        messages |= {each["rule"]: each.get("message", "") for each in violations}
        for rule, part in parts:
            if not switches_scoring_off(rule):
                found[event["route"], rule, part].append(event)
    made = [
        Group(route, rule, messages[rule], _place(alike[-1], part), tuple(alike))
        for (route, rule, part), alike in found.items()
    ]
    return sorted(made, key=lambda each: (-len(each.events), each.route, each.rule, each.part))


def _place(event: Event, part: str) -> Place:
    url = urlsplit(str(event["url"]))
    return Place(str(event["method"]), url.netloc, url.path or "/", part)


def proof(attacks: Sequence[Attack], before: Sequence[Judged], after: Sequence[Judged]) -> Proof:
    """What changed for `attacks`, judged before and after."""
    stopped = [
        (attack, then["action"])
        for attack, now, then in zip(attacks, before, after, strict=True)
        if now["action"] in STOPPED
    ]
    return Proof(len(stopped), tuple(attack for attack, then in stopped if then not in STOPPED))


def as_now(events: Iterable[Event], is_in_force: Callable[[str, int, str], bool]) -> list[Event]:
    """The events without what exclusions in force (of a route, a rule, a part) have since taken away, and without those
    that would pass today.
    """
    found = []
    for event in events:
        route, violations = event.get("route"), event.get("violations", ())
        keys = {_key(each) for each in violations}
        gone = {key for key in keys if route and is_in_force(route, *key)}
        if not gone:
            found.append(event)
        elif not _passes(event, gone):
            left = [each for each in violations if _key(each) not in gone]
            found.append({**event, "violations": left, "score": _score_without(event, gone)})
    return found


def joint(found: Iterable[Group]) -> list[Joint]:
    """Groups that only help together, most events first."""
    of_event: dict[int, list[Group]] = defaultdict(list)
    events: dict[int, Event] = {}
    for group in found:
        for event in group.events:
            of_event[id(event)].append(group)
            events[id(event)] = event
    together: dict[tuple[str, frozenset[Key]], tuple[list[Group], list[Event]]] = {}
    for at, groups_of_it in of_event.items():
        needed = _needed(events[at], groups_of_it)
        if len(needed) > 1:
            name = needed[0].route, frozenset(each.key for each in needed)
            together.setdefault(name, (needed, []))[1].append(events[at])
    made = [Joint(tuple(each), tuple(alike)) for each, alike in together.values()]
    return sorted(made, key=lambda each: (-len(each.events), each.groups[0].route))


def _needed(event: Event, found: Iterable[Group]) -> list[Group]:
    """Fewest groups without which the event would pass, the heaviest first; none when nothing helps."""
    keys: set[Key] = set()
    needed: list[Group] = []
    for group in sorted(found, key=lambda each: (_score_without(event, {each.key}), each.key)):
        keys.add(group.key)
        needed.append(group)
        if _passes(event, keys):
            return needed
    return []


def _passes(event: Event, without: Set[Key]) -> bool:
    return _score_without(event, without) < int(event["threshold"])


def _score_without(event: Event, keys: Set[Key]) -> int:
    gone = (each for each in event["violations"] if _key(each) in keys)
    return int(event["score"]) - sum(_POINTS.get(each.get("severity"), 0) for each in gone)


def _key(violation: Mapping[str, Any]) -> Key:
    return int(violation["rule"]), str(violation.get("location", ""))


def _clients(events: Iterable[Event]) -> int:
    return len({str(each.get("client", "")).rpartition(":")[0] for each in events})


def _end(until: date) -> int:
    """The end of that day, in seconds since 1970."""
    return int((until - date(1970, 1, 1)) / timedelta(seconds=1)) + 86_400
