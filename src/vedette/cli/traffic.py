"""`vedette routes`, `upstreams`: where requests go, who may send them, and how the services do.

Owns: the options of these commands and the short words of their tables. Must not: judge a request;
`vedette policy explain` has that done.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, printable
from vedette.clock import format_duration
from vedette.errors import ConfigError

_CALLERS = {
    "Subject": "tokens",
    "Workload": "client certificates",
    "Anonymous": "the anonymous",
    "Function": "functions",
}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette routes --host shop.example.com")(routes)
    app.command(epilog="Example: vedette upstreams --failing")(upstreams)


def routes(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Routes; default: all.")
    ] = None,
    home: HomeOption = None,
    host: Annotated[str | None, typer.Option(help="Only those that take this host.")] = None,
    to: Annotated[str | None, typer.Option(help="Only to this function or upstream.")] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Limits, countries and the challenge, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List routes: what they match, where requests go, and who may call, policy by policy."""
    found = _named(client_of(home).get("/v1/routes"), names, "route_unknown")
    if host is not None:
        from vedette.config.hosts import covers, normalise_host

        asked = normalise_host(host)
        found = [
            one for one in found if not one["hosts"] or any(covers(h, asked) for h in one["hosts"])
        ]
    if to is not None:
        found = [one for one in found if to in (each["name"] for each in one["backends"])]
    if as_json:
        print_json(found)
        return
    columns = ["name", "matches", "goes to", "firewall", "who may call"]
    rows = [
        [one["name"], matches(one), goes_to(one), inspected(one), callers(one)] for one in found
    ]
    if wide:
        columns += ["limits", "countries", "challenge"]
        rows = [[*row, *conditions(one)] for row, one in zip(rows, found, strict=True)]
    print_table(columns, rows, "There is no such route")


def upstreams(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Services; default: all.")
    ] = None,
    home: HomeOption = None,
    failing: Annotated[
        bool,
        typer.Option(
            "--failing", help="Only those with an endpoint that is not healthy or an open circuit."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the services behind the node, and how each of their endpoints does."""
    found = _named(client_of(home).get("/v1/upstreams"), names, "upstream_unknown")
    if failing:
        found = [one for one in found if _is_failing(one)]
    if as_json:
        print_json(found)
        return
    columns = (
        "name",
        "endpoint",
        "state",
        "checked",
        "in flight",
        "requests",
        "failed",
        "last error",
    )
    rows = [_endpoint(one, each) for one in found for each in one["endpoints"]]
    print_table(columns, rows, "There is no such service")


def _named(rows: list[dict[str, Any]], names: list[str] | None, code: str) -> list[dict[str, Any]]:
    """The rows of those names, all without any. Raises `ConfigError` with the code for another name."""
    known = [one["name"] for one in rows]
    for name in names or []:
        if name not in known:
            from vedette.config.manifests import nearest

            what = code.removesuffix("_unknown")
            raise ConfigError(code, f"there is no {what} {name!r}{nearest(name, known)}")
    return [one for one in rows if not names or one["name"] in names]


def matches(route: dict[str, Any]) -> str:
    """Hosts, path and conditions of a route in short: `shop.example.com /cart/* GET`."""
    path, kind = route["path"]["value"], route["path"]["type"]
    if kind == "PathPrefix":
        path = f"{path.rstrip('/')}/*"
    parts = [",".join(route["hosts"]) or "any host", path, route["method"] or ""]
    for sign, field in (("", "headers"), ("?", "query"), ("cookie ", "cookies")):
        parts += [f"{sign}{_match(one)}" for one in route[field]]
    return printable(" ".join(filter(None, parts)))


def _match(one: dict[str, Any]) -> str:
    return f"{one['name']}{'~' if one['type'] == 'RegularExpression' else '='}{one['value']}"


def goes_to(route: dict[str, Any]) -> str:
    """Who answers, with shares where there are several."""
    total = sum(one["weight"] for one in route["backends"]) or 1
    shown = []
    for one in route["backends"]:
        text = f"{one['kind']} {one['name'] or one['detail']}"
        if len(route["backends"]) > 1:
            text += f" {100 * one['weight'] / total:.3g} %"
        if one["ready"] is False:
            text += " (no healthy endpoint)"
        shown.append(text)
    copies = [f"copies to {route['mirror']}"] if route["mirror"] else []
    return printable(", ".join([*shown, *copies, *faults_of(route)]))


def inspected(route: dict[str, Any]) -> str:
    """How the firewall looks at it: `block 1`, `detect 2, 3 exclusions (1 ended)`, `off`."""
    waf = route["waf"]
    if waf["mode"] == "off":
        return "off"
    text, count = f"{waf['mode']} {waf['paranoiaLevel']}", waf["exclusions"]
    if count:
        text += f", {count} exclusion{'' if count == 1 else 's'}"
    return f"{text} ({waf['expired']} ended)" if waf["expired"] else text


def conditions(route: dict[str, Any]) -> tuple[str, str, str]:
    """Limits, countries and the challenge: `all`, `only CH, DE`, `suspicious`."""
    rule = route["countries"]
    countries = "all"
    if rule is not None:
        which = "only" if rule["action"] == "Allow" else "all but"
        countries = f"{which} {', '.join(rule['codes'])}"
    return ", ".join(route["limits"]) or "none", countries, route["challenge"].lower()


def callers(route: dict[str, Any]) -> str:
    """Who may call: `anybody (public-hello)`, `tokens if node-token, except anybody if no-robots`."""
    said = list(_said(route["callers"]))
    if not any(one["effect"] == "permit" for one in route["callers"]):
        return "nobody"
    return printable(", ".join(said))


def _said(policies: list[dict[str, Any]]) -> Iterator[str]:
    for one in policies:
        who = _CALLERS.get(one["principalType"], "anybody")
        if one["principalId"] is not None:
            is_function = one["principalType"] == "Function"
            who = f"the function {one['principalId']}" if is_function else one["principalId"]
        of = f"{who} if {one['policy']}" if one["conditional"] else f"{who} ({one['policy']})"
        yield f"except {of}" if one["effect"] == "forbid" else of


def _is_failing(service: dict[str, Any]) -> bool:
    circuit = service["circuit"]
    is_tripped = circuit is not None and circuit["state"] != "closed"
    return is_tripped or any(each["state"] != "healthy" for each in service["endpoints"])


def circuit_of(service: dict[str, Any]) -> str:
    """How its breaker stands where that matters: `, circuit open until … (3 failures in a row)`."""
    circuit = service["circuit"]
    if circuit is None or circuit["state"] == "closed":
        return ""
    until = f" until {circuit['openUntil']}" if circuit["openUntil"] else ""
    return printable(f", circuit {circuit['state']}{until} ({circuit['why']})")


def faults_of(route: dict[str, Any]) -> list[str]:
    """What goes wrong on purpose: `fault: 10 % wait 5s`, `fault: 0.1 % get 503`."""
    fault = route["fault"] or {}
    shown = []
    if delay := fault.get("delay"):
        time = format_duration(timedelta(milliseconds=delay["fixedMillis"]))
        shown.append(f"fault: {delay['perMillion'] / 10_000:g} % wait {time}")
    if abort := fault.get("abort"):
        shown.append(f"fault: {abort['perMillion'] / 10_000:g} % get {abort['status']}")
    return shown


def _endpoint(service: dict[str, Any], one: dict[str, Any]) -> tuple[object, ...]:
    host = f"[{one['host']}]" if ":" in one["host"] else one["host"]
    state = one["state"]
    if one["ejectedUntil"]:
        state += f" until {one['ejectedUntil']}"
    if one["failingSince"]:
        state += f", failing since {one['failingSince']}"
    state += circuit_of(service)
    asked = f"asked for {service['health']['path']}" if service["health"] else "by requests"
    last = one["lastError"]
    told = printable(f"{last['time']} {last['message']}") if last else "-"
    counts = (one["inFlight"], one["requests"], one["failures"])
    return (service["name"], f"{host}:{one['port']}", state, asked, *counts, told)
