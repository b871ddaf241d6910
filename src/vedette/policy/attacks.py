"""Attacks to try on a parameter: what the Core Rule Set's own tests send, and a request that carries one.

Owns: reading the packed attacks (`coreruleset.ATTACKS`), and putting one into a parameter as rules name it. Must not:
judge them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

from vedette.policy import coreruleset

_INDEX = re.compile(r"array_(\d+)")


@dataclass(frozen=True, slots=True)
class Attack:
    """A value that a rule is there to find."""

    rule: int
    value: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attack is put: a request as clients send it, and the part of it, such as `ARGS:comment`."""

    method: str
    host: str
    path: str
    part: str


def installed() -> list[Attack]:
    """The attacks of the installed rule set; none in a checkout in which `make crs` did not run."""
    try:
        packed: Mapping[str, list[str]] = json.loads(coreruleset.ATTACKS.read_bytes())
    except FileNotFoundError:
        return []
    return [Attack(int(rule), value) for rule, values in packed.items() for value in values]


def request(place: Place, value: str) -> dict[str, Any]:
    """A request with `value` in that part. A part that clients cannot name holds it in an argument."""
    kind, _, name = place.part.partition(":")
    asked: dict[str, Any] = {
        "method": place.method,
        "host": place.host,
        "target": place.path,
        "headers": [["User-Agent", "Mozilla/5.0"], ["Accept", "*/*"]],
        "address": "192.0.2.1",
    }
    if kind == "REQUEST_COOKIES" and name:
        asked["headers"].append(["Cookie", f"{name}={quote(value)}"])
    elif kind == "REQUEST_HEADERS" and name:
        held = [each for each in asked["headers"] if each[0].lower() != name.lower()]
        asked["headers"] = [*held, [name, _in_header(value)]]
    elif name.startswith("json") and kind.startswith("ARGS"):
        body = json.dumps(_document(name.split(".")[1:], value)).encode()
        _with_body(asked, "application/json", body)
    elif kind.endswith("_NAMES"):
        asked["target"] += f"?{quote_plus(value)}=1"
    elif place.method in ("POST", "PUT", "PATCH") and kind != "ARGS_GET":
        body = urlencode({name or "q": value}).encode()
        _with_body(asked, "application/x-www-form-urlencoded", body)
    else:
        asked["target"] += "?" + urlencode({name or "q": value})
    return asked


def _with_body(asked: dict[str, Any], media_type: str, body: bytes) -> None:
    asked["headers"] += [["Content-Type", media_type], ["Content-Length", str(len(body))]]
    asked["body"] = base64.b64encode(body).decode()
    if asked["method"] not in ("POST", "PUT", "PATCH"):
        asked["method"] = "POST"


def _in_header(value: str) -> str:
    return "".join(letter for letter in value if " " <= letter <= "~")


def _document(path: list[str], value: str) -> Any:
    """The JSON in which the engine finds `value` at that path."""
    if not path:
        return value
    inner = _document(path[1:], value)
    index = _INDEX.fullmatch(path[0])
    if index:
        return [*([None] * min(int(index[1]), 64)), inner]
    return {"" if path[0] == "empty-key" else path[0]: inner}


def exact(part: str) -> str:
    """The part as an exclusion names it: any element of a list, where it is one of a list."""
    kind, colon, name = part.partition(":")
    if not colon or not _INDEX.search(name):
        return part
    pieces: Iterator[str] = (re.escape(piece) for piece in _INDEX.split(name)[::2])
    return f"{kind}:/^{'array_[0-9]+'.join(pieces)}$/"
