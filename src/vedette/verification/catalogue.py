"""The checks, by number (docs/verify.md).

Owns: which there are, and which of them this version has no defence for yet. Must not: run one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vedette.errors import ConfigError
from vedette.verification import (
    containment,
    custody,
    decisions,
    egress,
    leases,
    trail,
    transport,
    trust,
)
from vedette.verification.checks import Check, Pillar, Tenet

NOT_AVAILABLE: Final = "not available in this version"
_NEWER: Final = "There is nothing to mend: a later version has this defence; see CHANGELOG.md."

_MISSING: Final = (
    Check(
        15,
        "a time-boxed grant ends by itself",
        (Tenet.DYNAMIC,),
        (Pillar.IDENTITY, Pillar.APPLICATIONS),
        _NEWER,
    ),
    Check(
        16,
        "a posture fact that goes stale closes what it opened",
        (Tenet.DYNAMIC, Tenet.INTEGRITY),
        (Pillar.DEVICES,),
        _NEWER,
    ),
    Check(
        19,
        "egress limits and breakers trip, and others go on",
        (Tenet.COLLECTED,),
        (Pillar.NETWORKS,),
        _NEWER,
    ),
    Check(
        22,
        "a join token counts once",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY, Pillar.DEVICES),
        _NEWER,
    ),
)

_GROUPS: Final = (transport, custody, trust, decisions, leases, egress, containment, trail)
ALL: Final[tuple[Check, ...]] = tuple(
    sorted(
        [*_MISSING, *(check for group in _GROUPS for check in group.CHECKS)],
        key=lambda check: check.id,
    )
)
LAST: Final = (25, 26, 21)
"""What looks at all that was done before comes last, and what ends the twin at the very end."""


def chosen(text: str | None) -> list[Check]:
    """The checks that `--only` names, such as `3,7`; all without it. Raises `ConfigError` check_unknown."""
    if text is None:
        return list(ALL)
    known = {str(check.id): check for check in ALL}
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError("check_unknown", f"there is no check {', '.join(unknown) or text!r}")
    return [check for check in ALL if str(check.id) in names]


def in_order(checks: Iterable[Check]) -> list[Check]:
    """The order in which they are run on the twin."""
    return sorted(
        checks, key=lambda check: (LAST.index(check.id) if check.id in LAST else -1, check.id)
    )
