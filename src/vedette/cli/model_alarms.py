"""`vedette model alarms`: what detectors have found.

Owns: how an alarm is shown. Must not: look for them; `models.alarms` does.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.completing import ModelArgument
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.render import print_json, print_table, printable
from vedette.clock import to_rfc3339
from vedette.errors import ConfigError
from vedette.ids import require_name
from vedette.models.alarms import Alarm, follow_alarms, read_alarms


def alarms(
    name: ModelArgument,
    last: Annotated[int, typer.Option(min=1, max=100_000, help="How many, at most.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", help="Those from now on, one a line, until Ctrl-C.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show alarms of a detector: events that scored as high as its threshold.

    Of a storm of them the first 20 are kept, then one in 30 seconds, with how many were left out since.
    """
    log, name = home_of(home).models_log, require_name(name, "model")
    if follow:
        _require_streams(name, home)
        for each in follow_alarms(log, name):
            print_line(each, as_json)
        return
    found = read_alarms(log, name, last)
    if not found:
        _require_streams(name, home)
    if as_json:
        print_json([as_value(each) for each in found])
        return
    rows = [
        (
            _time(each),
            each.version,
            printable(each.stream or "-"),
            each.n,
            f"{each.score:.4f}",
            each.suppressed or "-",
        )
        for each in found
    ]
    print_table(("time", "version", "stream", "event", "score", "left out"), rows, "no alarms")


def _require_streams(name: str, home: Path | None) -> None:
    """That there may be alarms, where none were noted. Raises `ConfigError` model_unknown, model_streamless."""
    model = client_of(home).get(f"/v1/models/{name}")
    if model["format"] != "detector" and not model["stream"]:
        raise ConfigError("model_streamless", f"the model {name!r} takes no streams")


def as_value(alarm: Alarm) -> dict[str, Any]:
    """An alarm as JSON has it."""
    said = asdict(alarm)
    return {"time": _time(alarm), **{key: said[key] for key in said if key != "unix_millis"}}


def print_line(alarm: Alarm, as_json: bool) -> None:
    """One alarm, at once."""
    if as_json:
        print(json.dumps(as_value(alarm), ensure_ascii=False), flush=True)
        return
    stream = printable(alarm.stream or "-")
    text = f"{_time(alarm)}  {stream}  event {alarm.n}  score {alarm.score:.4f}"
    print(text + (f"  ({alarm.suppressed} left out)" if alarm.suppressed else ""), flush=True)


def _time(alarm: Alarm) -> str:
    return to_rfc3339(datetime.fromtimestamp(alarm.unix_millis / 1000, UTC), microseconds=True)
