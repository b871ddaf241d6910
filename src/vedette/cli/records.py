"""`vedette records`, `errors`: what happened, and what an error code means.

Owns: the options of these commands. How a line reads is `record_text`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vedette.cli.functions import FollowOption, TailOption
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.record_text import record_text
from vedette.cli.render import print_json, print_table, say
from vedette.errors import CATALOGUE, ConfigError


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
    kind: Annotated[
        Literal["request", "egress", "predict", "security", "block", "pressure", "admin"] | None,
        typer.Option(
            help="Only lines of this kind; `security`: what the firewall found; `admin`: what people did to the node."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show requests, refused or served, and what the firewall found; with the node down, too."""
    is_empty = not follow and tail > 0
    for line in _lines(home, follow, tail, request_id, failed, kind):
        is_empty = False
        print(json.dumps(line, ensure_ascii=False) if as_json else record_text(line), flush=True)
    if is_empty and request_id is not None:
        raise ConfigError("record_unknown", f"no such record of the request {request_id!r}")
    if is_empty:
        say("no such records" if failed or kind else "no records")


def _lines(
    home: Path | None,
    follow: bool,
    tail: int,
    request_id: str | None,
    failed: bool,
    kind: str | None,
) -> Iterable[dict[str, Any]]:
    from urllib.parse import urlencode

    from vedette.control.supervisor.launch import is_running, require_node
    from vedette.observability import spool

    here = home_of(home)
    if follow or is_running(here):
        asked: dict[str, str | int] = {"tail": tail, "follow": int(follow), "failed": int(failed)}
        if request_id is not None:
            asked["id"] = request_id
        if kind is not None:
            asked["kind"] = kind
        return client_of(home).lines(f"/v1/records?{urlencode(asked)}", follow=follow)
    require_node(here)
    keep = spool.records_like(request_id, failed, kind)
    folder = here.admin_records if kind == "admin" else here.spool_requests
    return spool.last_lines(folder, tail, keep)


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
