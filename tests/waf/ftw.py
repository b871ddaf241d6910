"""The Core Rule Set's regression tests (go-ftw's YAML): each as the exchanges it sends and what it expects.

Follows go-ftw: what it fills in (`Connection`, `Content-Length`, `Content-Type`), how it encodes a form and ends the
lines of a multipart body, and what an expectation means. Must not know engines.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import yaml
from tests.waf.exchange import Exchange, read

from vedette.policy import coreruleset as crs

FORM = "application/x-www-form-urlencoded"
WITH_BODY = re.compile("^POST|PUT|PATCH|DELETE$")
REPEAT = re.compile(r'\{\{ "([^"]*)" \| repeat (\d+) \}\}')

# Every scalar stays text, as go-ftw has it: a header's `22` is not a number, a version `1.1` no float.
Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class Expected:
    """What must be in the log, and what must not."""

    ids: tuple[int, ...]
    not_ids: tuple[int, ...]
    pattern: str
    not_pattern: str
    status: int | None

    @property
    def is_of_the_server(self) -> bool:
        """Whether the server before the firewall must refuse the request, so that no rule sees it."""
        return self.status == 400


@dataclass(frozen=True)
class Stage:
    """One exchange and what is expected of it."""

    exchange: Exchange
    expected: Expected


@dataclass(frozen=True)
class Case:
    """One test of one rule."""

    rule: int
    number: int
    description: str
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """`RULE-NUMBER`, as the Core Rule Set names its tests."""
        return f"{self.rule}-{self.number}"

    @property
    def is_of_the_server(self) -> bool:
        """Whether this tests the server, not the firewall: a library has no answer to it."""
        return any(stage.expected.is_of_the_server for stage in self.stages)


@cache
def corpus(folder: Path = crs.TESTS) -> tuple[Case, ...]:
    """Every test, in the order of the rules."""
    return tuple(case for file in sorted(folder.glob("*/*.y*ml")) for case in _cases(file))


def _cases(file: Path) -> Iterator[Case]:
    document = yaml.load(file.read_bytes(), Loader)
    if not document:  # 920539.yaml is a licence text and nothing else
        return
    rule = int(document["rule_id"])
    for test in document["tests"]:
        yield Case(
            rule,
            int(test["test_id"]),
            test.get("desc", "").strip(),
            tuple(
                Stage(read(request(stage["input"])), expected(stage["output"]))
                for stage in test["stages"]
            ),
        )


def expected(output: Mapping[str, Any]) -> Expected:
    """What an `output` asks for. `expect_error` and `retry_once` are about connections and log files: not here."""
    log = output.get("log") or {}
    return Expected(
        tuple(map(int, log.get("expect_ids", ()))),
        tuple(map(int, log.get("no_expect_ids", ()))),
        log.get("match_regex", ""),
        log.get("no_match_regex", ""),
        int(output["status"]) if "status" in output else None,
    )


def request(given: Mapping[str, Any]) -> bytes:
    """The bytes that go-ftw sends for an `input`."""
    if encoded := given.get("encoded_request"):
        return base64.b64decode(encoded)
    method = given.get("method", "GET")
    headers = dict(given.get("headers", {}))
    data = body(given)
    completes = given.get("autocomplete_headers", "true") == "true"
    if data and completes:
        if not _has(headers, "Content-Type"):
            headers["Content-Type"] = FORM
        if _value(headers, "Content-Type").lower() == FORM:
            data = _encoded(data)
    if "multipart/form-data;" in _value(headers, "Content-Type").lower():
        data = data.replace(b"\n", b"\r\n")
    if completes:
        headers |= _standard(method, headers, data)
    line = f"{method} {given.get('uri', '/')} {given.get('version', 'HTTP/1.1')}\r\n"
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{line}{fields}\r\n".encode() + data


def body(given: Mapping[str, Any]) -> bytes:
    """The `data` of an `input`, with the one template that the tests use."""
    text = REPEAT.sub(lambda found: found[1] * int(found[2]), given.get("data", ""))
    if "{{" in text:
        raise ValueError(f"a template that this reader does not know: {text[:200]!r}")
    return text.encode()


def _standard(method: str, headers: Mapping[str, str], data: bytes) -> dict[str, str]:
    added = {}
    if not _has(headers, "Connection"):
        added["Connection"] = "close"
    if not _has(headers, "Content-Length") and (data or WITH_BODY.search(method)):
        added["Content-Length"] = str(len(data))
    return added


def _encoded(data: bytes) -> bytes:
    if b"+" in data or b"%" in data:  # escaped already, as far as go-ftw can tell
        return data
    pairs = data.removesuffix(b"&").split(b"&")
    return b"&".join(
        b"=".join(quote_plus(side).encode() for side in pair.split(b"=", 1)) for pair in pairs
    )


def _has(headers: Mapping[str, str], name: str) -> bool:
    return any(known.lower() == name.lower() for known in headers)


def _value(headers: Mapping[str, str], name: str) -> str:
    return next((value for known, value in headers.items() if known.lower() == name.lower()), "")
