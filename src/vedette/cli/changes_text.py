"""How the settings that a deployment changed look: one line each, in the words of `deploy`'s flags.

Owns: the names and units of settings on the command line. Must not: decide what is a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

from vedette.cli.render import printable
from vedette.clock import format_duration
from vedette.config.quantities import format_size

_NAMES: Final = {
    "limits.memoryBytes": "memory",
    "limits.cpuMillis": "cpu",
    "limits.wallMillis": "timeout",
    "limits.requestBytes": "requestSize",
    "limits.responseBytes": "responseSize",
    "limits.concurrency": "concurrency",
    "reuse.maxRequests": "reuse.maxRequests",
    "reuse.maxAgeMillis": "reuse.maxAge",
    "route.path.value": "route",
    "route.hosts": "domains",
}
_LONGEST: Final = 60


def changed_settings(changes: Iterable[dict[str, Any]]) -> Iterator[str]:
    """`memory: 64MB → 128MB` for each setting; what was not set, or is no more, is a dash."""
    for change in changes:
        path = change["path"]
        shown = [_value(path, change.get(side)) for side in ("old", "new")]
        yield printable(f"{_NAMES.get(path, path)}: {shown[0]} → {shown[1]}")


def _value(path: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if path.endswith("Bytes"):
        return format_size(value)
    if path.endswith("Millis"):
        return format_duration(timedelta(milliseconds=value))
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
