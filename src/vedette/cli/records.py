"""`vedette records`, `errors`: what happened, and what an error code means.

Owns: the options of these commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.functions import FollowOption, TailOption
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.render import print_json, print_table
from vedette.errors import CATALOGUE, ConfigError

_WIDTH = 200  # of a request or a reason, whatever the caller sent


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette records --failed --follow")(records)
    app.command(epilog="Example: vedette errors policy_invalid")(errors)


def records(
    home: HomeOption = None,
    follow: FollowOption = False,
    tail: TailOption = 20,
    request_id: Annotated[
        str | None, typer.Option("--id", help="Only the request with this id (x-request-id).")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what was refused or failed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the record of each request, refused or served; the spool itself when the node is down."""
    for line in _lines(home, follow, tail, request_id, failed):
        print(json.dumps(line, ensure_ascii=False) if as_json else _row(line), flush=True)


def _lines(
    home: Path | None, follow: bool, tail: int, request_id: str | None, failed: bool
) -> Iterable[dict[str, Any]]:
    from urllib.parse import urlencode

    from vedette.control.supervisor.launch import is_running
    from vedette.observability import spool

    here = home_of(home)
    if follow or is_running(here):
        asked: dict[str, str | int] = {"tail": tail, "follow": int(follow), "failed": int(failed)}
        if request_id is not None:
            asked["id"] = request_id
        return client_of(home).lines(f"/v1/records?{urlencode(asked)}", follow=follow)
    return spool.last_lines(here.spool_requests, tail, spool.records_like(request_id, failed))


def _row(line: dict[str, Any]) -> str:
    request = f"{line.get('method', '-')} {line.get('host', '-')}{line.get('path', '')}"
    if line.get("kind") == "egress":
        place = f"{line.get('scheme', '?')}://{line['host']}:{line.get('port', '?')}"
        request = f"{line['function']} calls {line['method']} {place}"
    why = " ".join(str(line[key]) for key in ("stage", "cause", "upstream") if key in line)
    if "cause" not in line:
        why = ""
    elif "detail" in line:
        why += f": {line['detail']}"
    parts = [line["time"], str(line.get("status", "-")), f"{line.get('totalUs', 0)} µs"]
    parts += [_short(request), line.get("principal", "-"), _short(why), line.get("requestId", "")]
    return "  ".join(parts).rstrip()


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def errors(
    code: Annotated[str | None, typer.Argument(help="Only this code.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the codes of errors, what each means and how to mend it."""
    found = [entry for entry in CATALOGUE.values() if code in (None, entry.code)]
    if not found:
        raise ConfigError(
            "request_invalid",
            f"there is no code {code!r}",
            "Run `vedette errors` for all of them; causes of refused requests are in docs/request.md.",
        )
    rows = [(entry.code, entry.family, entry.sentence, entry.hint) for entry in found]
    if as_json:
        names = ("code", "family", "sentence", "hint")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(("code", "family", "means", "mend"), rows, "")
