"""What the egress policies of a snapshot come to for each function.

Owns: which functions a policy is for, and which JWT-SVIDs rules add to their calls. Must not: check anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vedette.config.snapshot import Snapshot

Token = tuple[str, tuple[str, ...]]
"""The name of a function, and audiences, sorted."""


def tokens_of(snapshot: Snapshot) -> set[Token]:
    """The JWT-SVIDs that rules add to calls, also those of functions that are not there."""
    return {
        (function, rule.credential.jwt_svid.audience)
        for policy in snapshot.egress or ()
        for rule in policy.rules
        if rule.credential and rule.credential.jwt_svid
        for function in policy.functions
    }
