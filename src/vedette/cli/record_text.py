"""How a line of the spool reads: a request, a call of a function, what the firewall found, a block, a move of pressure.

Owns: which fields a person sees of each kind, and how long a text of a caller's may be. Must not: read the spool.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from vedette.cli.render import printable, short

_WIDTH: Final = 200  # of a request or a reason, whatever the caller sent


def record_text(line: dict[str, Any]) -> str:
    """The line for a person: one row, and for a security event one more for each rule."""
    kind = line.get("kind")
    if kind == "security":
        return "\n".join(_security(line))
    if kind == "block":
        return _row(line, f"blocked for {line.get('seconds', '?')} s", *_block(line))
    if kind == "pressure":
        return _row(line, "pressure", *_pressure(line))
    if kind == "admin":
        return _row(line, str(line.get("outcome", "-")), *_admin(line))
    return _row(line, str(line.get("status", "-")), *_request(line))


def _row(line: dict[str, Any], *parts: str) -> str:
    return "  ".join(_short(part) for part in (line["time"], *parts)).rstrip()


def _request(line: dict[str, Any]) -> Iterator[str]:
    request = f"{line.get('method', '-')} {line.get('host', '-')}{line.get('path', '')}"
    if line.get("kind") == "egress":
        place = f"{line.get('scheme', '?')}://{line['host']}:{line.get('port', '?')}"
        who = line.get("function") or line.get("workload") or ""
        if "route" in line:
            who = f"{who} on route {line['route']}" if who else f"route {line['route']}"
        request = f"{who} calls {line['method']} {place}"
    if line.get("kind") == "predict":
        who = f"{line.get('function', '-')} on route {line.get('route', '-')}"
        request = f"{who} asks {line['method']} {line.get('model', '-')}{line.get('path', '')}"
    yield f"{line.get('totalUs', 0)} µs"
    yield request
    if "modelVersion" in line or ("model" in line and line.get("kind") != "predict"):
        yield _asked(line)
    yield line.get("principal", "-")
    yield _why(line)
    yield line.get("requestId", "")


def _asked(line: dict[str, Any]) -> str:
    """The model, its version, and what of the time went where, as far as the request came to it."""
    known = f" {line['modelVersion']}" if "modelVersion" in line else ""
    parts = [f"{line['model']}{known}"]
    for field, what in (("queueMicros", "waited"), ("runMicros", "ran")):
        if line.get(field) is not None:
            parts.append(f"{what} {line[field]} µs")
    if line.get("drift") == "drifted":
        parts.append("drifted")
    return ", ".join(parts)


def _why(line: dict[str, Any]) -> str:
    """What ended the request, if something did. A service is named where it was the reason: another stage's detail
    says nothing of it.
    """
    if line.get("reported"):
        return f"let go to be reported; the rule {line.get('wouldAllow', '-')} would allow it"
    if "cause" not in line:
        return ""
    cause = str(line["cause"])
    named = ("stage", "cause", "upstream") if cause.startswith("upstream_") else ("stage", "cause")
    why = " ".join(str(line[key]) for key in named if key in line)
    if "wouldAllow" in line:
        what = "policy" if line.get("kind") == "predict" else "rule"
        return f"{why}; the {what} {line['wouldAllow']} would allow it"
    return f"{why}: {line['detail']}" if "detail" in line else why


def _admin(line: dict[str, Any]) -> Iterator[str]:
    yield f"{line.get('actor', '-')} {line.get('action', '-')} {line.get('target', '')}".rstrip()
    if "generation" in line:
        yield f"generation {line['generation']}: {short(line.get('digest'))}"
    yield str(line.get("code", ""))


def _security(line: dict[str, Any]) -> Iterator[str]:
    score = f"score {line.get('score', '-')} of {line.get('threshold', '-')}"
    if "answerScore" in line:
        score += f", answer {line['answerScore']}"
    parts = [
        str(line.get("action", "-")),
        f"{line.get('method', '-')} {line.get('url', '-')}",
        score,
    ]
    parts.append(_client(line))
    parts += [f"route {line['route']}" if "route" in line else "", line.get("principal", "")]
    yield _row(line, *(part for part in (*parts, line.get("requestId", "")) if part))
    for each in line.get("violations", ()):
        found = [str(each.get("rule", "-")), each.get("message", ""), each.get("location", "")]
        found.append(repr(each["matched"]) if each.get("matched") else "")
        yield "  " + "  ".join(_short(part) for part in found if part)
    if line.get("moreViolations"):
        yield f"  and {line['moreViolations']} more"


def _block(line: dict[str, Any]) -> Iterator[str]:
    yield _client(line)
    yield f"strike {line.get('strike', '?')}"
    yield f"after {line.get('status', '-')} {line.get('cause', '')}".rstrip()
    yield line.get("requestId", "")


def _pressure(line: dict[str, Any]) -> Iterator[str]:
    yield f"{line.get('from', '?')} -> {line.get('to', '?')}"
    yield f"{line.get('gauge', '?')} at {line.get('percent', '?')} % for {line.get('seconds', '?')} s"


def _client(line: dict[str, Any]) -> str:
    return f"{line.get('client', '-')} {line.get('country', '')}".rstrip()


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"
