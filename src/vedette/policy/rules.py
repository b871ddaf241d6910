"""What can be excluded: the rules of a rule set as far as exclusions name them, and exclusions that name none.

Owns: ids, tags and first targets of rules in SecLang. Pure. Must not: check a rule; the engine compiles what is
read here, and refuses what it cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from vedette.config.waf import WafExclusion

# crates/engine/src/waf/sets.rs: what a node sets before the Core Rule Set, and the ids of rules of a user's own.
NODES_OWN: Final = (200_000, 200_001, 200_002, 200_003)
FIRST_OWN: Final = 9_000_000

_DIRECTIVE: Final = re.compile(r"^\s*(SecRule|SecAction)\s+(.*)$", re.I | re.M | re.S)
_WORD: Final = re.compile(r'"((?:\\.|[^"\\])*)"|(\S+)', re.S)
_ID: Final = re.compile(r"(?:^|,)\s*id\s*:\s*'?(\d+)", re.I)
_TAG: Final = re.compile(r"(?:^|,)\s*tag\s*:\s*(?:'((?:\\.|[^'\\])*)'|([^,']+))", re.I)
_TARGET: Final = re.compile(r"([!&]*)([A-Za-z_]+)(?::(?:/(?:\\.|[^/\\])*/|'[^']*'|[^|,]*))?[|,]?")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by what exclusions know it by."""

    id: int
    tags: tuple[str, ...] = ()
    looks_at: frozenset[str] | None = None
    """Variables of its first condition; None: not known here."""


def packed_rules(packed: bytes) -> list[Rule]:
    """The rules of a packed rule set (`coreruleset`); none of one that is not of that shape."""
    try:
        archive: dict[str, Any] = json.loads(packed)
        texts = [str(archive["files"][name]) for name in archive["load"]]
    except (ValueError, KeyError, TypeError):
        return []
    return [rule for text in texts for rule in rules_of(text)]


def rules_of(text: str) -> Iterator[Rule]:
    """The rules of a file; the further conditions of a chain have no id and are left out."""
    for line in text.replace("\r\n", "\n").replace("\\\n", " ").splitlines():
        found = _DIRECTIVE.match(line)
        if found is None:
            continue
        words = [quoted or plain for quoted, plain in _WORD.findall(found[2])]
        is_rule = found[1].lower() == "secrule"
        actions = words[2:3] if is_rule else words[:1]
        named = _ID.search(actions[0]) if actions else None
        if named is not None:
            tags = tuple(quoted or plain for quoted, plain in _TAG.findall(actions[0]))
            yield Rule(int(named[1]), tags, _looked_at(words[0]) if is_rule else frozenset())


def own_rules(count: int) -> list[Rule]:
    """So many typed rules of a user's own: the engine numbers them."""
    return [Rule(FIRST_OWN + index) for index in range(count)]


def covers(exclusion: WafExclusion, rule: Rule, part: str) -> bool:
    """Whether an exclusion keeps a rule from looking at that part of requests, such as `ARGS:comment`."""
    if not any(_is_meant(selector, rule) for selector in exclusion.rules):
        return False
    if exclusion.parameter is None:
        return True
    wanted, _, pattern = exclusion.parameter.partition(":")
    kind, _, name = part.partition(":")
    if wanted != kind or not pattern:
        return wanted == kind
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        return _finds(f"(?i:{pattern[1:-1]})", name)
    return pattern.lower() == name.lower()


def without_effect(exclusion: WafExclusion, rules: Sequence[Rule], now: datetime) -> Iterator[str]:
    """Why an exclusion or a part of it does nothing, a sentence for each."""
    if exclusion.until is not None and exclusion.is_over(now.timestamp()):
        last = datetime.fromtimestamp(exclusion.until - 1, UTC).date()
        named = ", ".join(exclusion.rules)
        yield f"the exclusion of {named} has no effect: its last day was {last}"
        return
    for selector in exclusion.rules:
        meant = [rule for rule in rules if _is_meant(selector, rule)]
        shown = selector if selector.startswith("tag:") else f"rule {selector}"
        if not meant:
            yield f"the exclusion of {shown} has no effect: no rule of the node is that"
        elif exclusion.parameter is not None and not _looks(exclusion.parameter, meant):
            yield (
                f"the exclusion of {exclusion.parameter} from {shown} has no effect: "
                "it does not begin by looking there"
            )


def _is_meant(selector: str, rule: Rule) -> bool:
    if selector.startswith("tag:"):
        tag = selector.removeprefix("tag:")
        if len(tag) > 2 and tag.startswith("/") and tag.endswith("/"):
            return any(_finds(tag[1:-1], each) for each in rule.tags)
        return tag in rule.tags
    low, _, high = selector.partition("-")
    return int(low) <= rule.id <= int(high or low)


def _finds(pattern: str, text: str) -> bool:
    """As the engine matches; what only it can read is taken to match."""
    try:
        return re.search(pattern, text, re.S) is not None
    except re.error:
        return True


def _looks(parameter: str, rules: Iterable[Rule]) -> bool:
    kind = parameter.partition(":")[0]
    return any(rule.looks_at is None or kind in rule.looks_at for rule in rules)


def _looked_at(targets: str) -> frozenset[str]:
    found = _TARGET.findall(targets)
    return frozenset(name.upper() for sign, name in found if "!" not in sign)
