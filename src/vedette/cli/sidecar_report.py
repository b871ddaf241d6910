"""`vedette sidecar --report`: who would break under strict, and what would mend it.

Owns: the sentences and the table. Must not: count; `observability.mesh` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vedette.cli.render import print_json, print_table, printable, say
from vedette.observability.mesh import MeshCalls, SidecarCalls

_NOT_KNOWN = "not there now"


def report_of(
    calls: MeshCalls,
    modes: Mapping[str, str | None],
    since: str,
    only_call: Collection[str] = frozenset(),
) -> dict[str, Any]:
    """What `--json` prints. `modes`: sidecars to tell of, and how strict each is now; `since`: as it was asked;
    `only_call`: those that nothing leads to.
    """
    rows = [
        {**_sidecar(name, calls.sidecars.get(name), mode), "onlyCalls": name in only_call}
        for name, mode in sorted(modes.items())
    ]
    return {
        "recordsSince": calls.since,
        "askedSince": since or None,
        "wouldBreak": sum(row["wouldBreak"] for row in rows),
        "untold": calls.untold,
        "sidecars": rows,
    }


def _sidecar(name: str, calls: SidecarCalls | None, mode: str | None) -> dict[str, Any]:
    calls = calls or SidecarCalls()
    callers = [
        {
            "caller": caller,
            "cause": cause,
            "requests": span.count,
            "first": span.first,
            "last": span.last,
            "mend": mend(name, caller, cause),
        }
        for (caller, cause), span in sorted(calls.breaking.items())
    ]
    return {
        "name": name,
        "mode": mode,
        "requests": calls.all.count,
        "fine": calls.fine,
        "refused": calls.refused,
        "wouldBreak": calls.broken,
        "first": calls.all.first or None,
        "last": calls.all.last or None,
        "callers": callers,
    }


def mend(sidecar: str, caller: str, cause: str) -> str:
    """What would let this caller in under strict."""
    if cause == "plain_http":
        return (
            f"it speaks plain HTTP: give it an SVID, and have it call http://{sidecar}.mesh through "
            "a sidecar of its own (vedette sidecar --as ITS-NAME --listen none)"
        )
    if cause == "no_certificate":
        return (
            "it shows no certificate: give it an SVID (vedette workload add) and have it show that, "
            "or call through a sidecar of its own"
        )
    if cause == "policy_denied" and caller.startswith("spiffe://"):
        return f"no policy permits it: add {caller} to callers of the Sidecar {sidecar}"
    if cause == "policy_denied":
        return "no policy permits it: write one"
    return "the engine of another version says why"


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Prints it: counts of each sidecar, then who would break."""
    if as_json:
        print_json(report)
        return
    sidecars = report["sidecars"]
    counts = [
        (
            one["name"],
            (one["mode"] or _NOT_KNOWN).lower(),
            one["requests"],
            one["fine"],
            one["refused"],
            one["wouldBreak"],
        )
        for one in sidecars
    ]
    columns = ("sidecar", "mode", "requests", "fine", "refused", "would break")
    print_table(columns, counts, "The node has no sidecar")
    breaking = [
        (
            one["name"],
            printable(each["caller"]),
            printable(each["cause"]),
            each["requests"],
            each["first"],
            each["last"],
            printable(each["mend"]),
        )
        for one in sidecars
        for each in one["callers"]
    ]
    if breaking:
        print()
        head = ("sidecar", "caller", "cause", "requests", "first", "last", "what mends it")
        print_table(head, breaking, "")
    _say_what_it_rests_on(report)


def _say_what_it_rests_on(report: dict[str, Any]) -> None:
    """An empty report is no proof when nobody called."""
    since = report["recordsSince"]
    if since is None:
        say("note: there are no records at all")
    else:
        asked = report["askedSince"]
        say(f"note: records go back to {since}" + (f"; asked for since {asked}" if asked else ""))
    if report["untold"]:
        say(f"note: {report['untold']:,} more calls would break, of callers beyond those listed")
    for one in report["sidecars"]:
        if not one["requests"] and not one["onlyCalls"]:
            say(f"note: nobody has called {one['name']}: that nobody would break says nothing")
