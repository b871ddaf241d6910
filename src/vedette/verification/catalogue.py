"""The checks, by number (docs/verify.md).

Owns: which there are, and in which order. Must not: run one.
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
    egress_limits,
    joining,
    lapses,
    leases,
    trail,
    transport,
    trust,
)
from vedette.verification.checks import Check

NOT_AVAILABLE: Final = "not available in this version"
_GROUPS: Final = (
    transport,
    custody,
    trust,
    decisions,
    leases,
    lapses,
    egress,
    egress_limits,
    joining,
    containment,
    trail,
)
ALL: Final[tuple[Check, ...]] = tuple(
    sorted(
        (check for group in _GROUPS for check in group.CHECKS),
        key=lambda check: check.id,
    )
)
WAITING: Final = (6, 14, 15, 16)
"""Those that wait for something to end by itself. They do so side by side: none sees what another does."""
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
    """The order in which they are run on the twin; those that wait come first."""
    return sorted(checks, key=lambda check: (_turn(check.id), check.id))


def _turn(number: int) -> int:
    if number in WAITING:
        return -2
    return LAST.index(number) if number in LAST else -1
