"""The engine's refusals of a snapshot, in the words of who wrote it: names of rules and files in place of numbers.

Owns: finding what a refusal is about. Pure. Must not: know how an error is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vedette.config.snapshot import Snapshot
from vedette.config.waf import WafExclusion, WafRule
from vedette.errors import ConfigError, VedetteError
from vedette.policy.rules import FIRST_OWN

# crates/engine/src/waf.rs, waf/sets.rs, crates/waf: `shop: custom rule 9000001:0: why`, `waf: own/shop.conf:12: why`.
_OWN_RULE: Final = re.compile(r"^(?P<whose>[^:]+): custom rule (?P<id>\d+):0: (?P<why>.*)$", re.S)
_OWN_FILE: Final = re.compile(
    r"^(?P<whose>[^:]+): own/(?P<file>.+?):(?P<line>\d+): (?P<why>.*)$", re.S
)
_TOO_MANY_SETS: Final = re.compile(
    r"^(?P<whose>[^:]+): (?P<why>more than \d+ different sets of rules on one node)$"
)
_SHARED: Final = (
    "Routes share a set of rules when paranoiaLevel, rules and ruleFiles are the same: "
    "write what several need in the Node, or the same in each."
)
_WHOSE: Final = re.compile(r"^(?P<whose>[a-z0-9-]{1,63}): ", re.S)
_NODES: Final = "waf"  # whose the node's own policy is, as the engine says it


@dataclass(frozen=True, slots=True)
class About:
    """What a refusal is about, where that is known."""

    error: VedetteError
    key: tuple[str, str] | None = None
    """Kind and name of the object of the snapshot."""
    rule: WafRule | None = None
    """A typed rule of a user's own."""


def about(error: VedetteError, snapshot: Snapshot) -> About:
    """The same refusal with rules and files by their names, and what it is about."""
    if error.code == "waf_invalid":
        return _of_firewall(error, snapshot)
    kinds = {
        "addresses_invalid": "AddressList",
        "authority_invalid": "ClientAuthority",
        "route_invalid": "Route",
        "upstream_invalid": "Upstream",
    }
    found = _WHOSE.match(error.message)
    if error.code == "admit_invalid" or (
        error.code == "addresses_invalid" and error.message.startswith("countries: ")
    ):
        return About(error, ("Node", "node"))
    if found is None or error.code not in kinds:
        return About(error)
    return About(error, (kinds[error.code], found["whose"]))


def is_named(exclusion: WafExclusion, message: str) -> bool:
    """Whether a refusal is about an exclusion: the engine names it by its rules (crates/waf, `Selected`)."""
    tags = (f"tag {re.escape(each[4:])}" for each in exclusion.rules if each.startswith("tag:"))
    ids = (f"rules? {each}" for each in exclusion.rules if not each.startswith("tag:"))
    return any(re.search(rf"the exclusion of {each}(?![\w/-])", message) for each in (*ids, *tags))


def _of_firewall(error: VedetteError, snapshot: Snapshot) -> About:
    text = error.message
    if found := _OWN_FILE.match(text):
        why, line = found["why"], int(found["line"])
        placed = ConfigError(error.code, f"{_who(found)}: {why}", file=found["file"], line=line)
        return About(placed, _key(found))
    if found := _OWN_RULE.match(text):
        rule = _typed_rule(snapshot, found["whose"], int(found["id"]) - FIRST_OWN)
        if rule is not None:
            message = f"{_who(found)}: rule {rule.name!r}: {found['why']}"
            return About(ConfigError(error.code, message), _key(found), rule)
    if found := _TOO_MANY_SETS.match(text):
        message = f"{_who(found)}: {found['why']}"
        return About(ConfigError(error.code, message, _SHARED), _key(found))
    found = _WHOSE.match(text)
    return About(error, _key(found) if found else None)


def _who(found: re.Match[str]) -> str:
    return "the Node" if found["whose"] == _NODES else f"route {found['whose']}"


def _key(found: re.Match[str]) -> tuple[str, str]:
    return ("Node", "node") if found["whose"] == _NODES else ("Route", found["whose"])


def _typed_rule(snapshot: Snapshot, whose: str, index: int) -> WafRule | None:
    """The engine numbers the node's rules first, then the route's own."""
    rules = snapshot.waf.policy.rules if snapshot.waf else ()
    route = None if whose == _NODES else snapshot.route(whose)
    if route is not None and route.waf is not None:
        rules += route.waf.rules
    return rules[index] if 0 <= index < len(rules) else None
