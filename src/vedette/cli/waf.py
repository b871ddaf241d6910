"""`vedette waf …`: what the firewall says of requests, what to leave out, and which rules it has.

Owns: the options of these commands; how answers read is `waf_text`'s. Must not: judge; the engine does, in control.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.cli.waf_text import judged, not_proposed, proposed, proposed_together
from vedette.errors import ConfigError

_waf = typer.Typer(help="The firewall: try it, tune it, keep its rules.", no_args_is_help=True)
_rules = typer.Typer(help="The Core Rule Set of the node.", no_args_is_help=True)

_BATCH = 1_000
_BATCH_BYTES = 16 << 20

TrafficArgument = Annotated[
    Path, typer.Argument(help="Requests: raw HTTP, HAR, or one JSON object a line.")
]
AddressOption = Annotated[str, typer.Option(help="Address that the requests come from.")]
RouteOption = Annotated[str | None, typer.Option(help="The route, whatever host and path.")]
KeyOption = Annotated[Path | None, typer.Option(help="Public key of the publisher, PEM.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _waf.command(
        "test", epilog="Example: vedette waf test --curl \"curl 'https://localhost:8443/?q=1'\""
    )(try_out)
    _waf.command("tune", epilog="Example: vedette waf tune --route shop")(tune)
    _waf.command(
        "replay", epilog="Example: vedette waf replay traffic.har -f vedette.yaml --paranoia 2"
    )(replay)
    _rules.command("show", epilog="Example: vedette waf rules show")(show_rules)
    _rules.command(
        "update", epilog="Example: vedette waf rules update crs-4.26.json --key publisher.pem"
    )(update_rules)
    _rules.command(
        "sign",
        epilog="Example: vedette waf rules sign coreruleset.json --key publisher.key --out crs.json",
    )(sign_rules)
    _waf.add_typer(_rules, name="rules")
    app.add_typer(_waf, name="waf")


def try_out(
    file: Annotated[
        Path | None, typer.Argument(help="Requests: raw HTTP, HAR, or one JSON object a line.")
    ] = None,
    home: HomeOption = None,
    curl: Annotated[
        str | None, typer.Option(help="A command of curl, as browsers copy it.")
    ] = None,
    route: RouteOption = None,
    address: AddressOption = "192.0.2.1",
    expect: Annotated[
        Literal["pass", "stop"] | None,
        typer.Option(help="Exit with 1 when a request is stopped (pass) or is not (stop)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the firewall would make of requests, and what would refuse them before. Nothing is sent."""
    from vedette.cli.traffic_files import of_curl, read_requests

    if (file is None) == (curl is None):
        message = "give a file of requests, or --curl with a command"
        raise ConfigError("request_invalid", message, "See `vedette waf test --help`.")
    _require_address(address)
    asked = read_requests(file, address) if file else [of_curl(curl or "", address)]
    if route is not None:
        asked = [{**each, "route": route} for each in asked]
    told = [client_of(home).post("/v1/waf/judge", {"requests": batch}) for batch in _batches(asked)]
    answers = [one for each in told for one in each["answers"]]
    if as_json:
        print_json(answers)
    else:
        for request, answer in zip(asked, answers, strict=True):
            print("\n".join(judged(request, answer)))
    left = dict.fromkeys(one for each in told for one in each["notAsked"])
    if left:
        say(f"not asked: {'; '.join(left)}")
    stopped = [is_stopped(each) for each in answers]
    if (expect == "pass" and any(stopped)) or (expect == "stop" and not all(stopped)):
        raise typer.Exit(1)


def is_stopped(answer: dict[str, Any]) -> bool:
    """Whether the request scores too high, or a rule refuses it."""
    return answer["action"] in ("blocked", "detected", "refused")


def outcome(answer: dict[str, Any]) -> tuple[str, int | None]:
    """What the caller notices: rules that find something below the threshold change nothing."""
    goes_on = answer["action"] in ("passed", "noted")
    return ("passed" if goes_on else answer["action"], answer["status"])


def replay(
    file: TrafficArgument,
    home: HomeOption = None,
    manifests: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", help="Manifests whose firewall is compared; nothing is applied."
        ),
    ] = None,
    rules: Annotated[Path | None, typer.Option(help="A signed rule set; with --key.")] = None,
    key: KeyOption = None,
    mode: Annotated[
        Literal["block", "detect", "off"] | None, typer.Option(help="Mode of all routes.")
    ] = None,
    paranoia: Annotated[
        int | None, typer.Option(min=1, max=4, help="Paranoia level of all routes.")
    ] = None,
    address: AddressOption = "192.0.2.1",
    as_json: JsonOption = False,
) -> None:
    """Judge recorded requests by the active firewall and by another, and show what changes."""
    from vedette.cli.traffic_files import read_requests

    _require_address(address)
    candidate = _candidate(home, manifests or [], rules, key, mode, paranoia)
    asked = read_requests(file, address)
    changed, count = [], 0
    for batch in _batches(asked):
        wish = {"requests": batch, "candidate": candidate}
        answer = client_of(home).post("/v1/waf/replay", wish)
        for request, before, after in zip(batch, answer["before"], answer["after"], strict=True):
            count += 1
            if outcome(before) != outcome(after):
                changed.append({"request": request, "before": before, "after": after})
    if as_json:
        print_json({"requests": count, "changed": changed})
        return
    for one in changed:
        print("\n".join(_difference(one["request"], one["before"], one["after"])))
    print(f"{len(changed)} of {count} requests are judged otherwise", file=sys.stderr)


def _difference(
    request: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> list[str]:
    head, *rest = judged(request, after)
    known = {(each["rule"], each["location"]) for each in before["violations"]}
    new = {(each["rule"], each["location"]) for each in after["violations"]}
    gone = [f"  no longer {rule}  {location}" for rule, location in sorted(known - new)]
    return [f"{before['action']} -> {head}", *rest, *gone]


def _candidate(
    home: Path | None,
    manifests: list[Path],
    rules: Path | None,
    key: Path | None,
    mode: str | None,
    paranoia: int | None,
) -> dict[str, Any]:
    """The other firewall, as the admin API takes it."""
    found: dict[str, Any] = {"mode": mode, "paranoiaLevel": paranoia}
    if manifests:
        from vedette.cli.manifests import planned

        plan, _ = planned(client_of(home), [str(each) for each in manifests])
        if plan["payload"] is None:
            message = "the manifests name components to build first"
            hint = "Run `vedette build` in the project folder."
            raise ConfigError("request_invalid", message, hint)
        found |= {"payload": plan["payload"], "texts": plan["texts"]}
    if rules is not None:
        found |= _signed(rules, key)
    if not any(found.values()):
        message = "say what to compare with: -f, --rules, --mode or --paranoia"
        raise ConfigError("request_invalid", message, "See `vedette waf replay --help`.")
    return {name: value for name, value in found.items() if value is not None}


def tune(
    home: HomeOption = None,
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    events: Annotated[int, typer.Option(min=1, help="Look at the last so many events.")] = 10_000,
    min_requests: Annotated[int, typer.Option(min=1, help="Fewer propose nothing.")] = 3,
    min_clients: Annotated[int, typer.Option(min=1, help="Fewer addresses propose nothing.")] = 2,
    days: Annotated[int, typer.Option(min=1, help="Days until a proposal ends.")] = 90,
    rule: Annotated[
        int | None, typer.Option(help="Try leaving out this rule; with --route.")
    ] = None,
    parameter: Annotated[
        str | None, typer.Option(help="With --rule: the part, such as ARGS:comment.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose exclusions from the security events, each with what else it would let through."""
    if rule is not None and route is None:
        message = "say with --route of which route the rule is to be left out"
        raise ConfigError("request_invalid", message, "Run `vedette routes` to see the names.")
    if parameter is not None and rule is None:
        message = "--parameter is for --rule: the part in which that rule is not to look"
        raise ConfigError("request_invalid", message, "See `vedette waf tune --help`.")
    wish = {
        "route": route,
        "events": events,
        "minRequests": min_requests,
        "minClients": min_clients,
        "days": days,
        "rule": rule,
        "parameter": parameter,
    }
    said = {name: value for name, value in wish.items() if value is not None}
    answer = client_of(home).post("/v1/waf/tune", said)
    if as_json:
        print_json(answer)
        return
    for one in answer["proposals"]:
        print("\n".join(proposed(one)))
    for one in answer["joint"]:
        print("\n".join(proposed_together(one)))
    for line in not_proposed(answer["refused"]):
        say(line)
    if answer["settled"]:
        say(
            f"{answer['settled']} of those that were stopped would pass today: exclusions are in force"
        )
    say(
        f"{answer['stopped']} of {answer['events']} events are of a request that was stopped; "
        f"exclusions proposed: {len(answer['proposals']) + len(answer['joint'])}"
    )


def show_rules(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show which rule set is in force, since when the node has it, and which one is installed."""
    answer = client_of(home).get("/v1/waf/rules")
    if as_json:
        print_json(answer)
        return
    rows = [
        ("in force", answer["version"], answer["digest"], answer["storedAt"]),
        ("installed", answer["installed"], answer["installedDigest"], None),
    ]
    shown = [tuple(each or "-" for each in row) for row in rows]
    print_table(("rule set", "version", "digest", "here since"), shown, "")
    say(f"by default: {answer['mode'] or 'off'}, paranoia level {answer['paranoiaLevel'] or '-'}")


def update_rules(
    file: Annotated[
        Path | None, typer.Argument(help="A signed rule set; default: the installed one.")
    ] = None,
    home: HomeOption = None,
    key: KeyOption = None,
) -> None:
    """Put a signed rule set in force; `vedette waf replay --rules` shows first what it changes."""
    client = client_of(home)
    before = client.get("/v1/waf/rules")
    answer = client.put("/v1/waf/rules", _signed(file, key) if file else {})
    say_if_away(answer)
    now = client.get("/v1/waf/rules")
    if now["digest"] == before["digest"]:
        say(f"Core Rule Set {now['version']} was in force already; nothing changed")
        return
    old = before["version"] or "none"
    say(f"Core Rule Set {old} -> {now['version']}; `vedette rollback` brings the one before back")


def sign_rules(
    file: Annotated[Path, typer.Argument(help="A packed rule set.")],
    key: Annotated[Path, typer.Option(help="The publisher's Ed25519 key; made when absent.")],
    out: Annotated[Path, typer.Option(help="Where the signed rule set goes.")],
) -> None:
    """Sign a packed rule set, for `vedette waf rules update` on any node; needs no node itself."""
    from vedette.identity.signer import RULE_SET_TYPE, SnapshotSigner

    try:
        packed = file.read_bytes()
    except OSError as error:
        raise ConfigError("file_unreadable", f"cannot read {file}: {error.strerror}") from None
    signer = SnapshotSigner.ensure(key)
    public = key.with_name(f"{key.name}.pub")
    try:
        public.write_bytes(signer.public_pem)
        out.write_bytes(signer.sign(packed, RULE_SET_TYPE))
    except OSError as error:
        message = f"cannot write {error.filename}: {error.strerror}"
        raise ConfigError("file_unwritable", message) from None
    say(f"{out} is signed; nodes take it with --key {public}")


def _signed(file: Path, key: Path | None) -> dict[str, str]:
    """A signed rule set and its publisher's key, as the admin API takes them."""
    if key is None:
        message = "a signed rule set needs --key, its publisher's public key"
        raise ConfigError(
            "request_invalid", message, "Whoever signed it has it beside the key: .pub"
        )
    try:
        rules, public = file.read_bytes(), key.read_text()
    except OSError as error:
        message = f"cannot read {error.filename}: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    return {"rules": base64.b64encode(rules).decode(), "key": public}


def _require_address(text: str) -> None:
    """Raises `ConfigError` request_invalid."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        message = f"--address: {text!r} is no address"
        hint = "Write one such as 192.0.2.1 or 2001:db8::1."
        raise ConfigError("request_invalid", message, hint) from None


def _batches(requests: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many at once as one call to the admin API takes."""
    batch: list[dict[str, Any]] = []
    size = 0
    for each in requests:
        size += len(each["body"]) + len(each["target"])
        if batch and (len(batch) == _BATCH or size > _BATCH_BYTES):
            yield batch
            batch, size = [], len(each["body"]) + len(each["target"])
        batch.append(each)
    if batch:
        yield batch
