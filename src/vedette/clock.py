"""Time: now, RFC 3339 text, and durations people write.

Owns: the only call of the wall clock and the spelling of durations. Must not: sleep, or import
anything but the standard library and `vedette.errors`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from vedette.errors import ConfigError

_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?\Z")
_LONGEST: Final = timedelta(days=36_500)


def now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


def to_rfc3339(moment: datetime, *, microseconds: bool = False) -> str:
    """RFC 3339 in UTC with a `Z`, such as 2026-11-20T12:00:00Z. Raises `ValueError` for a naive
    time.
    """
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    text = moment.astimezone(UTC).isoformat(timespec="microseconds" if microseconds else "seconds")
    return text.removesuffix("+00:00") + "Z"


def from_rfc3339(text: str) -> datetime:
    """The aware UTC time that `text` names. Raises `ConfigError` invalid_time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("invalid_time", f"{text!r} is not an RFC 3339 time") from None
    if moment.tzinfo is None or "T" not in text:
        raise ConfigError("invalid_time", f"{text!r} is not an RFC 3339 time")
    return moment.astimezone(UTC)


def parse_duration(text: str) -> timedelta:
    """A duration such as 500ms, 30s, 1h30m or 7d (units d h m s ms, largest first; the form of
    Gateway API GEP-2257).

    Raises `ConfigError` invalid_duration, also for anything longer than 100 years.
    """
    match = _DURATION.match(text)
    if not text or match is None or not text.isascii() or len(text) > 32:
        raise ConfigError("invalid_duration", f"{text!r} is not a duration")
    amounts = zip(match.groups(), _UNITS.values(), strict=True)
    milliseconds = sum(int(amount) * scale for amount, scale in amounts if amount)
    if milliseconds > _LONGEST / timedelta(milliseconds=1):
        raise ConfigError("invalid_duration", f"{text!r} is longer than 100 years")
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back, to the millisecond; `0s` for none."""
    rest = duration // timedelta(milliseconds=1)
    if rest < 0:
        raise ValueError("a duration is not negative")
    parts = []
    for unit, scale in _UNITS.items():
        amount, rest = divmod(rest, scale)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"


def to_milliseconds(duration: timedelta) -> int:
    """Whole milliseconds, the unit of every duration on the wire."""
    return duration // timedelta(milliseconds=1)
