"""`vedette policy explain` and `vedette policy test`: what would be decided, and why.

Owns: the options of these commands and how an explanation reads. Must not: decide anything; the engine's code does, in
control.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, split_list
from vedette.cli.render import print_json
from vedette.errors import ConfigError


def register(policies: typer.Typer) -> None:
    """Adds the commands to `vedette policy`."""
    policies.command(
        "explain", epilog="Example: vedette policy explain --subject alice --path /hello"
    )(explain)
    policies.command("test", epilog="Example: vedette policy test expectations.yaml")(compare_table)


def explain(
    home: HomeOption = None,
    subject: Annotated[str | None, typer.Option(help="Caller: `sub` of a token.")] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Caller: nobody.")] = False,
    spiffe: Annotated[str | None, typer.Option(help="Caller: SPIFFE ID of a certificate.")] = None,
    authority: Annotated[str | None, typer.Option(help="Authority of the certificate.")] = None,
    certificate_subject: Annotated[
        str | None, typer.Option(help="Caller: subject of a certificate; with --authority.")
    ] = None,
    as_function: Annotated[
        str | None, typer.Option(help="Caller: a function that asks a model; with --model.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="`iss` of the token; default: node.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scopes, commas or repeated.")] = None,
    method: Annotated[str, typer.Option(help="Method.")] = "GET",
    host: Annotated[str, typer.Option(help="Host.")] = "localhost",
    path: Annotated[str, typer.Option(help="Path.")] = "/",
    function: Annotated[str | None, typer.Option(help="Function, whatever the path.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, whatever the path.")] = None,
    route: Annotated[str | None, typer.Option(help="Route, whatever the path.")] = None,
    source_ip: Annotated[str, typer.Option(help="Address of the client.")] = "127.0.0.1",
    posture: Annotated[
        list[str] | None, typer.Option(help="What is known of the caller; default: what is set.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a request is allowed, which policies decide, and why the others do not apply."""
    proved = [subject is not None, bool(spiffe or certificate_subject)]
    alone = [anonymous, as_function is not None]
    if sum(alone) + any(proved) != 1:
        who = "--subject, --spiffe, --as-function or --anonymous"
        raise ConfigError("request_invalid", f"say who calls: {who}")
    asked = {
        "subject": subject,
        "spiffe": spiffe,
        "authority": authority,
        "certificateSubject": certificate_subject,
        "asFunction": as_function,
        "issuer": issuer,
        "scopes": split_list(scope or []),
        "method": method,
        "host": host,
        "path": path,
        "function": function,
        "model": model,
        "route": route,
        "sourceIp": source_ip,
        "posture": None if posture is None else split_list(posture),
    }
    answer = client_of(home).post("/v1/explain", {"requests": [asked]})
    if as_json:
        print_json(answer)
        return
    print("\n".join(explained(answer["answers"][0])))


def explained(answer: dict[str, Any]) -> list[str]:
    """An explanation as lines for a person."""
    lines = [verdict(answer)]
    for name in ("principal", "resource"):
        if one := answer[name]:
            lines.append(f"  {name:10} {one['type']}::{one['id']!r} {_values(one['attributes'])}")
    if answer["route"]:
        lines.append(f"  {'route':10} {answer['route']}")
    if answer["context"]:
        lines.append(f"  {'context':10} {_values(answer['context'])}")
    return lines + [f"  {line}" for policy in answer["policies"] for line in judged(policy)]


def verdict(answer: dict[str, Any]) -> str:
    """What is decided, in one line."""
    by = f", decided by {', '.join(answer['decidedBy'])}" if answer["decidedBy"] else ""
    if answer["allowed"]:
        return f"allowed{by}"
    detail = f": {answer['detail']}" if answer["detail"] else ""
    why = by or (
        ", no policy permits it" if answer["stage"] in ("authorize", "authenticate") else ""
    )
    return f"denied with {answer['status']} {answer['cause']} ({answer['stage']}){detail}{why}"


def judged(policy: dict[str, Any]) -> list[str]:
    """One policy, and why it does not apply when it does not."""
    name = f"{policy['file']}:{policy['line']} {policy['effect']} {policy['id']}"
    if policy["applies"]:
        lower = " to the lower-cased path" if policy["lowerCased"] else ""
        decides = ", and decides" if policy["decided"] else ""
        return [f"{name}: applies{lower}{decides}"]
    failed = policy["failed"]
    if failed["error"]:
        return [f"{name}: fails", f"  {failed['part']} {failed['text']}: {failed['error']}"]
    truth = "true" if failed["part"] == "unless" else "false"
    condition = failed["part"] in ("when", "unless")
    text = f"{failed['part']} {failed['text']} is {truth}" if condition else f"not {failed['text']}"
    values = f" ({_values(failed['values'])})" if failed["values"] else ""
    return [f"{name}: does not apply", f"  {text}{values}"]


def _values(values: dict[str, Any]) -> str:
    import json

    return ", ".join(
        f"{key} = {json.dumps(one, ensure_ascii=False)}" for key, one in values.items()
    )


def compare_table(
    file: Annotated[Path, typer.Argument(help="YAML table of expectations.")],
    home: HomeOption = None,
    policies: Annotated[
        Path | None,
        typer.Option(help="Folder of .cedar files to ask instead of the active policies."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what is decided with a table of expectations; exit code 1 when something differs."""
    from vedette.policy.expectations import compare, junit_report, read_expectations

    table = read_expectations(file)
    asked: dict[str, Any] = {"requests": [one.asked() for one in table]}
    if policies is not None:
        asked["policies"] = _policies_in(policies)
    answer = client_of(home).post("/v1/explain", asked)
    results = compare(table, answer["answers"])
    failed = [one for one in results if one.problems]
    if junit is not None:
        junit.write_bytes(junit_report(str(file), results))
    if as_json:
        print_json([one.told() for one in results])
    else:
        for one in failed:
            print(f"FAIL {one.expectation.name} ({file}:{one.expectation.line})")
            print("\n".join(f"  {problem}" for problem in one.problems))
            print("\n".join(f"  {line}" for line in explained(one.answer)))
        print(f"{len(results) - len(failed)} of {len(results)} expectations hold", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _policies_in(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("*.cedar"))
    if not files:
        raise ConfigError("policy_unknown", f"there is no .cedar file in {folder}")
    return [{"name": one.name, "text": one.read_text("utf-8")} for one in files]
