"""`vedette predict`: ask a model of the node, through its gateway.

Owns: where the input comes from, and how the answer looks. Must not: go around the gateway: what a caller would be
refused, this is refused.
"""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.completing import ModelArgument
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError, UnavailableError
from vedette.ids import require_name

if TYPE_CHECKING:
    from vedette.cli.asking import Answer
    from vedette.cli.tensors import Question
    from vedette.control.client import ControlClient

_MOST_INPUT = 1 << 30
_TOKEN_SECONDS = 60
_PATIENCE = 30.0
_PICTURES = ("image/jpeg", "image/png")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: vedette predict digits examples/05-model/seven.json")(predict)


def predict(
    name: ModelArgument,
    given: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A picture (.jpg, .png), a sound (.wav), JSON, a file of JSON or .npy, or - (standard input). "
            "JSON: a request of the Open Inference Protocol, values by input, or a list for the only one.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="A text, in place of INPUT.")] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write the picture with boxes to this .png.")
    ] = None,
    home: HomeOption = None,
    subject: Annotated[str, typer.Option(help="Who asks: the `sub` of the token.")] = "me",
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the body of the answer as it came.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a model, over TLS and with a token that lasts a minute, as any caller of the node asks."""
    from vedette.cli.answers import decoded, sayable, table

    if draw is not None:
        from vedette.cli.drawing import require_drawing

        require_drawing(draw)
    content = _content(given, text)
    client = client_of(home)
    model = client.get(f"/v1/models/{require_name(name, 'model')}")
    is_served = model["version"] is not None or model.get("remote", False)
    if model["url"] is None or not is_served:
        message = f"no version of {name!r} serves"
        hint = f"Serve one: vedette model promote {name} --version N"
        raise ConfigError("model_refused", message, hint)
    question = _question(content, model, is_text=text is not None)
    if draw is not None and question.headers["content-type"] not in _PICTURES:
        raise ConfigError("request_invalid", "--draw needs a picture to draw into")
    answer = _ask(client, home_of(home).ca_certificate, model, subject, question)
    if answer.status != 200:
        raise _refusal(answer)
    if raw:
        sys.stdout.buffer.write(answer.body)
        return
    try:
        told = decoded(answer.body, answer.headers)
        columns, rows = table(told)
    except ValueError:
        message = "the answer is none of the Open Inference Protocol"
        raise UnavailableError(
            "model_unavailable", message, "See it as it is with --raw."
        ) from None
    if as_json:
        print_json(sayable(told))
    else:
        shown = [tuple(printable(cell) for cell in row) for row in rows]
        print_table(columns, shown, "It found nothing")
    if draw is not None:
        _draw(content, told, draw)
    say(_timing(answer))


def _draw(picture: bytes, told: dict[str, Any], out: Path) -> None:
    from vedette.cli.answers import boxes
    from vedette.cli.drawing import draw

    if not any(each.get("name") == "box" for each in told["outputs"]):
        hint = "Say how the model's boxes are read: output.boxes (docs/models.md)."
        raise ConfigError("request_invalid", "the answer has no boxes to draw", hint)
    draw(picture, boxes(told), out)
    say(f"Wrote {out}")


def _question(content: bytes, model: dict[str, Any], *, is_text: bool) -> Question:
    """What is sent. Raises `ConfigError` request_invalid."""
    from vedette.cli.tensors import medium_of, question_beside, question_of

    medium = "text/plain; charset=utf-8" if is_text else medium_of(content)
    if medium is None:
        return question_of(content, model["inputs"])
    fed = model.get("input")
    kind = {"i": "Image", "a": "Audio", "t": "Text"}[medium[0]]
    if fed is None or fed["type"] != kind:
        takes = "tensors only" if fed is None else f"{fed['type'].lower()}s, or tensors"
        message = f"the model takes {takes}, and the input is {medium.split(';')[0]}"
        raise ConfigError("request_invalid", message, "docs/models.md says how to give it others.")
    return question_beside(content, medium)


def _content(given: str | None, text: str | None) -> bytes:
    """The input itself. Raises `ConfigError` file_unreadable, request_invalid."""
    if (given is None) == (text is None):
        raise ConfigError("request_invalid", "give one of INPUT and --text")
    if text is not None:
        return text.encode(errors="surrogateescape")
    assert given is not None
    if given.lstrip()[:1] in ("{", "["):
        return given.encode()
    try:
        if given == "-":
            content = sys.stdin.buffer.read(_MOST_INPUT + 1)
        else:
            _require_file(given)
            with Path(given).open("rb") as file:
                content = file.read(_MOST_INPUT + 1)
    except OSError as error:
        message = f"{given[:200]!r} is neither JSON nor a file: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    if len(content) > _MOST_INPUT:
        raise ConfigError("request_invalid", "the input is larger than 1 GiB")
    return content


def _require_file(given: str) -> None:
    """A pipe would be waited for, and a device has no end. Raises `ConfigError` file_unreadable, `OSError`."""
    mode = Path(given).stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no plain file"
        hint = "Give a file, or - and pipe it in."
        raise ConfigError("file_unreadable", f"{given[:200]!r} is {what}", hint)


def _ask(
    client: ControlClient, ca_file: Path, model: dict[str, Any], subject: str, question: Any
) -> Answer:
    from vedette.cli.asking import post

    listener = client.get("/v1/status")["listeners"][0]["url"]
    wish = {"subject": subject, "ttlSeconds": _TOKEN_SECONDS}
    token = client.post("/v1/tokens", wish)["token"]
    headers = {**question.headers, "authorization": f"Bearer {token}"}
    runs = model["limits"]["runMillis"] if model["limits"] else 0
    tiers = sum(each["timeoutMillis"] for each in model.get("tiers", ()))
    patience = _PATIENCE + (runs + tiers) / 1_000
    url = f"{model['url'].rstrip('/')}/infer"
    return post(url, listener, ca_file, question.body, headers, patience)


def _refusal(answer: Answer) -> ConfigError | UnavailableError:
    """What the gateway or the model said, and under which id it was recorded."""
    text = answer.body[:2_000].decode(errors="replace").strip()
    try:
        said = json.loads(answer.body)["error"]
        text = str(said.get("message", said) if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError):
        pass
    known = answer.headers.get("x-request-id")
    where = f" (vedette records --id {known})" if known else ""
    message = printable(f"answered {answer.status}: {text[:500] or 'nothing'}{where}")
    if answer.status >= 500 or answer.status == 429:
        return UnavailableError("model_unavailable", message)
    return ConfigError("model_refused", message)


def _timing(answer: Answer) -> str:
    """How long it took, as far as the answer tells: microseconds of the worker, or `server-timing` (W3C)."""
    parts = []
    timing = answer.headers.get("server-timing", "")
    for name in ("run", "queue"):
        micros = answer.headers.get(f"x-vedette-{name}-us", "")
        found = re.search(rf"(?:^|,)\s*{name};dur=(\d+(?:\.\d+)?)", timing)
        if micros.isdecimal():
            parts.append(f"{name} {int(micros) / 1_000:.2f} ms")
        elif found:
            parts.append(f"{name} {float(found[1]):.2f} ms")
    return ", ".join([*parts, f"total {answer.seconds * 1_000:.2f} ms"])
