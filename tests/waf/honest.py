"""Honest requests, and which of them each engine takes for an attack.

Owns the reading of `honest.yaml`, a browser's header fields, and what counts as a false positive: an exchange that is
blocked though it must not be. Must not know rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import yaml
from tests.waf import ftw
from tests.waf.engines import Engine, Verdict
from tests.waf.exchange import Exchange

CORPUS = Path(__file__).with_name("honest.yaml")
METHODS = ("get", "post", "put", "patch", "delete")
BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
BROWSER = {
    "Host": "shop.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
}


@dataclass(frozen=True)
class Honest:
    """A request that must pass, and the rules by which the Core Rule Set blocks it all the same."""

    name: str
    exchange: Exchange
    rules: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Blocked:
    """What an engine said of an honest request that it blocks."""

    honest: Honest
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.honest.name}: blocked, rules {sorted(self.verdict.ids)}"


def corpus() -> list[Honest]:
    """The requests of `honest.yaml`."""
    return [
        Honest(entry["name"], request(entry), frozenset(entry.get("rules", ())))
        for entry in yaml.safe_load(CORPUS.read_text())
    ]


def request(entry: dict[str, Any]) -> Exchange:
    """An entry as a server reads it."""
    method = next(each for each in METHODS if each in entry)
    media_type, body = _body(entry)
    headers = dict(BROWSER)
    if body or method in ("post", "put", "patch"):
        headers |= {"Content-Type": media_type, "Content-Length": str(len(body))}
    fields = tuple((headers | entry.get("headers", {})).items())
    target = quote(entry[method], safe="/?&=%:;,.()[]@!$'*+-_~")
    return Exchange(method.upper(), target, "HTTP/1.1", fields, body)


def _body(entry: dict[str, Any]) -> tuple[str, bytes]:
    if "form" in entry:
        return ftw.FORM, urlencode(entry["form"]).encode()
    if "json" in entry:
        return "application/json", json.dumps(entry["json"], ensure_ascii=False).encode()
    if "files" in entry:
        return f"multipart/form-data; boundary={BOUNDARY}", _multipart(entry["files"])
    return entry.get("type", ftw.FORM), entry.get("text", "").encode()


def _multipart(parts: Iterable[dict[str, str]]) -> bytes:
    """As browsers write it (WHATWG, multipart/form-data encoding): a quote in a name is %22."""
    body = b""
    for part in parts:
        file = f'; filename="{part["file"].replace(chr(34), "%22")}"' if "file" in part else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{part["name"]}"{file}\r\n'
        if "type" in part:
            head += f"Content-Type: {part['type']}\r\n"
        value = bytes.fromhex(part["bytes"]) if "bytes" in part else part["text"].encode()
        body += head.encode() + b"\r\n" + value + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def negatives(cases: Iterable[ftw.Case]) -> Iterator[Honest]:
    """The exchanges of the Core Rule Set's tests that only say which rules must not match."""
    for case in cases:
        for number, stage in enumerate(case.stages):
            if stage.expected.not_ids and not stage.expected.ids:
                yield Honest(f"{case.name}/{number}", stage.exchange)


def values(lines: Iterable[str]) -> Iterator[Honest]:
    """Each line as the value of an argument, as libinjection's `data/false_positives.txt` has them."""
    for line in lines:
        value = line.rstrip("\n")
        if value and not value.startswith("#"):
            headers = tuple(BROWSER.items())
            yield Honest(
                value, Exchange("GET", f"/search?q={quote_plus(value)}", "HTTP/1.1", headers)
            )


def blocked(engine: Engine, asked: Iterable[Honest]) -> list[Blocked]:
    """The requests that an engine, switched on, blocks."""
    judged = (Blocked(each, engine.judge(each.exchange)) for each in asked)
    return [each for each in judged if each.verdict.is_blocked or each.verdict.died]


def more_than(theirs: Iterable[Blocked], ours: Iterable[Blocked]) -> list[Blocked]:
    """What ours blocks and theirs does not."""
    known = {each.honest.name for each in theirs}
    return [each for each in ours if each.honest.name not in known]
