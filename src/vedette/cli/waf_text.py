"""How the firewall's answers read: what becomes of a request, and which exclusions are proposed.

Owns: the words and the lines of a manifest. Must not: ask the node anything.
"""

from __future__ import annotations

from typing import Any, Final

from vedette.cli.render import printable

_SHOWN: Final = 160
_PLACES: Final = 8


def judged(request: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """An answer as lines for a person."""
    route = f"  route {answer['route']}" if answer["route"] else ""
    status = f" with {answer['status']} {answer['cause']}" if answer["status"] else ""
    score = f"  score {answer['score']} of {answer['threshold']}" if answer["threshold"] else ""
    target = _short(f"{request['method']} {request['host']}{request['target']}")
    earlier = (
        ""
        if answer["status"]
        else "".join(
            f", but refused before with {each['status']} {each['cause']}"
            for each in answer["before"][:1]
        )
    )
    lines = [f"{answer['action']}{status}{earlier}  {target}{route}{score}"]
    if answer["detail"]:
        lines.append(f"  {answer['detail']}")
    for each in answer["before"]:
        refusal = f"{each['status']} {each['cause']} ({each['stage']})"
        lines.append(f"  refused before the firewall with {refusal}: {each['detail']}")
    for each in answer["violations"]:
        found = f"  {_short(each['matched'])!r}" if each["matched"] else ""
        lines.append(f"  {each['rule']}  {each['message']}  {each['location']}{found}")
    return lines


def proposed(one: dict[str, Any]) -> list[str]:
    """A proposal: what is known as comments, and the lines of a manifest."""
    what = f"{one['message'] or 'rule'} ({one['rule']}) in {one['location'] or 'any part'}"
    return [f"# route {one['route']}: {what}", *_known(one), *_written(one["exclusion"])]


def proposed_together(one: dict[str, Any]) -> list[str]:
    """Exclusions that only help together, in the same form."""
    rules = ", ".join(str(rule) for rule in one["rules"])
    written = [line for each in one["exclusions"] for line in _written(each)]
    return [
        f"# route {one['route']}: rules {rules}, which only help together",
        *_known(one),
        *written,
    ]


def not_proposed(refused: list[dict[str, Any]]) -> list[str]:
    """What is not proposed, by the reason; under it the rules of each part of requests in one line."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for each in refused:
        place = f"{each['location'] or 'any part'} of {each['route']}"
        reasons.setdefault(each["why"], {}).setdefault(place, []).append(str(each["rule"]))
    lines = []
    for why, places in reasons.items():
        told = [f"  {', '.join(rules)} in {place}" for place, rules in places.items()]
        lines += [f"not proposed: {why}", *told[:_PLACES]]
        if told[_PLACES:]:
            lines.append(f"  and in {len(told) - _PLACES} parts more: --json has them")
    return lines


def _known(one: dict[str, Any]) -> list[str]:
    by_rule = ", ".join(f"{rule} x{count}" for rule, count in one["letThroughByRule"].items())
    return [
        f"# {one['requests']} requests of {one['clients']} clients were stopped; {one['wouldPass']} would pass",
        f"# lets through {one['letThrough']} of {one['attacks']} attacks of the rule set's tests"
        + (f": {by_rule}" if by_rule else ""),
        *(f"#   {_short(each['value'])!r}" for each in one["examples"]),
    ]


def _written(exclusion: dict[str, Any]) -> list[str]:
    rules = ", ".join(f'"{rule}"' for rule in exclusion["rules"])
    parameter = exclusion["parameter"]
    return [
        f"- rules: [{rules}]",
        *([] if parameter is None else [f"  parameter: '{parameter}'"]),
        f"  until: {_day(exclusion['until'])}",
        f"  reason: {exclusion['reason']}",
    ]


def _day(seconds: int) -> str:
    """The last day that an exclusion holds."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds - 1, UTC).date().isoformat()


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
