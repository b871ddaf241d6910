"""What the node's rules are, for telling people of exclusions that do nothing.

Owns: which texts of a snapshot hold rules. Must not: judge a request, or check a rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from vedette.clock import now
from vedette.config.snapshot import Snapshot
from vedette.config.waf import WafOverride
from vedette.policy.rules import NODES_OWN, Rule, own_rules, packed_rules, rules_of, without_effect
from vedette.store.blobs import BlobStore


def rules_in(blobs: BlobStore, snapshot: Snapshot, new: Mapping[str, str]) -> list[Rule]:
    """Every rule of a snapshot, those of single routes included; `new` has texts that are not stored yet, by digest."""
    waf = snapshot.waf
    if waf is None:
        return []
    typed = max((len(each.waf.rules) for each in snapshot.routes if each.waf), default=0)
    found = [Rule(id) for id in NODES_OWN]
    found += packed_rules(blobs.get(waf.rules))
    found += own_rules(len(waf.policy.rules) + typed)
    for digest in sorted(snapshot.rule_files()):
        text = new[digest] if digest in new else blobs.get(digest).decode(errors="replace")
        found += rules_of(text)
    return found


def exclusions_without_effect(
    blobs: BlobStore, snapshot: Snapshot, waf: WafOverride | None
) -> list[str]:
    """What of a route's own exclusions does nothing."""
    if waf is None or not waf.exclusions:
        return []
    known = rules_in(blobs, snapshot, {})
    return [why for each in waf.exclusions for why in without_effect(each, known, now())]
