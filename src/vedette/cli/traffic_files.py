"""Requests out of files and command lines: raw HTTP, HAR, one JSON object a line, or curl's words.

Owns: these four forms, each into what the admin API takes. Must not: send anything, or judge.
"""

from __future__ import annotations

import argparse
import base64
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from vedette.errors import ConfigError

Request = dict[str, Any]

MAX_BYTES = 256 << 20
_FORM = "application/x-www-form-urlencoded"


# What curl does beside the request itself.
_NO_MATTER = (
    *(
        "-s",
        "--silent",
        "-S",
        "--show-error",
        "-k",
        "--insecure",
        "-L",
        "--location",
        "-i",
        "--include",
    ),
    *("-v", "--verbose", "-f", "--fail", "--compressed", "--http1.1", "--http2"),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong to whoever asked, and nothing to the terminal."""

    def error(self, message: str) -> NoReturn:
        """Raises `ValueError`."""
        raise ValueError(message)


def read_requests(file: Path, address: str) -> list[Request]:
    """The requests of a file. Raises `ConfigError` file_unreadable, traffic_unreadable with file and line."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError("traffic_unreadable", "it is larger than 256 MiB", file=str(file))
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError("file_unreadable", f"cannot read {file}: {error.strerror}") from None
    start = raw.lstrip()[:1]
    try:
        if start != b"{":
            return [_of_message(raw, address)]
        first = raw.lstrip().split(b"\n", 1)[0]
        if _is_line(first):
            return list(_of_lines(raw, address))
        return list(_of_archive(json.loads(raw), address))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("traffic_unreadable", _why(error), file=str(file)) from None


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, TypeError | AttributeError):  # Python's words are about Python
        return "a part of it has not the form that is expected there"
    return str(error)


def _is_line(first: bytes) -> bool:
    """Whether the first line is a whole object, and a request: then each line is one."""
    try:
        value = json.loads(first)
    except ValueError:
        return False
    return isinstance(value, dict) and "log" not in value


def _of_lines(raw: bytes, address: str) -> Iterator[Request]:
    for number, line in enumerate(raw.splitlines(), 1):
        if line.strip():
            try:
                yield _of_object(json.loads(line), address)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"line {number}: {_why(error)}") from None


def _of_object(value: dict[str, Any], address: str) -> Request:
    """`{"method","url","headers","body"}`; headers as an object or as pairs, the body as text."""
    if not isinstance(value["url"], str):
        raise ValueError("`url` is no text")
    headers = value.get("headers", [])
    pairs = list(headers.items()) if isinstance(headers, dict) else [(n, v) for n, v in headers]
    if "bodyBase64" in value:
        body = base64.b64decode(value["bodyBase64"], validate=True)
    else:
        body = str(value.get("body", "")).encode()
    method = str(value.get("method", "GET"))
    return _request(method, str(value["url"]), pairs, body, str(value.get("address", address)))


def _of_archive(archive: dict[str, Any], address: str) -> Iterator[Request]:
    """HAR 1.2, as browsers and proxies save it."""
    if not isinstance(archive["log"], dict) or not isinstance(archive["log"]["entries"], list):
        raise ValueError(
            "it is no HAR archive: `log.entries` is a list of requests with their answers"
        )
    for entry in archive["log"]["entries"]:
        asked = entry["request"]
        pairs = [(each["name"], each["value"]) for each in asked["headers"]]
        content = asked.get("postData") or {}
        text = content.get("text")
        if text is None:
            params = [(each["name"], each.get("value", "")) for each in content.get("params", [])]
            text = urlencode(params)
        own = [(name, value) for name, value in pairs if not name.startswith(":")]
        yield _request(asked["method"], asked["url"], own, text.encode(), address)


def _of_message(raw: bytes, address: str) -> Request:
    """An HTTP/1.1 request as it is on the wire; ends of lines may be those of Unix."""
    head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
    if b"\r\n\r\n" in raw:
        body = raw.partition(b"\r\n\r\n")[2]
    first, *lines = head.decode("utf-8", "surrogateescape").split("\n")
    words = first.split(" ")
    if len(words) < 2 or not words[0].isalpha():
        raise ValueError("line 1: a request begins with METHOD TARGET HTTP/1.1")
    pairs = []
    for number, line in enumerate(lines, 2):
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"line {number}: a header field is NAME: VALUE")
        pairs.append((name, value.strip()))
    return _request(words[0], words[1], pairs, body, address)


def of_curl(command: str, address: str) -> Request:
    """The request that a `curl` command line would send, as browsers copy it.

    Raises `ConfigError` traffic_unreadable for an option that is not known here.
    """
    parser = _Parser(prog="curl", add_help=False, exit_on_error=False, allow_abbrev=False)
    add = parser.add_argument
    add("url", nargs="?")
    add("--url", dest="named")
    add("-X", "--request")
    add("-H", "--header", action="append", default=[])
    for name in ("-d", "--data", "--data-raw", "--data-binary", "--data-ascii"):
        add(name, dest="data", action="append", default=[])
    add("--data-urlencode", dest="encoded", action="append", default=[])
    add("--json", dest="json_body")
    add("-b", "--cookie")
    add("-A", "--user-agent")
    add("-e", "--referer")
    add("-u", "--user")
    add("-I", "--head", action="store_true")
    add("-G", "--get", action="store_true")
    for name in _NO_MATTER:
        add(name, action="store_true", dest="ignored")
    for name in ("-o", "--output", "-w", "--write-out", "-m", "--max-time", "--cacert"):
        add(name, dest="ignored")
    try:
        words = shlex.split(command.replace("\\\n", " "))
        given = parser.parse_args(words[1:] if words[:1] == ["curl"] else words)
    except (ValueError, argparse.ArgumentError) as error:
        raise ConfigError("traffic_unreadable", f"not a command of curl: {error}") from None
    url = given.named or given.url
    if not url:
        raise ConfigError("traffic_unreadable", "the command of curl names no URL")
    return _of_curl(given, url if "://" in url else f"http://{url}", address)


def _of_curl(given: argparse.Namespace, url: str, address: str) -> Request:
    pairs = [tuple(part.strip() for part in each.split(":", 1)) for each in given.header]
    pairs = [each for each in pairs if len(each) == 2]
    named = {name.lower() for name, _ in pairs}
    body = "&".join([*given.data, *map(_encoded, given.encoded)])
    own = [
        ("User-Agent", given.user_agent or "curl/8"),
        ("Accept", "application/json" if given.json_body else "*/*"),
        ("Cookie", given.cookie),
        ("Referer", given.referer),
    ]
    if given.user:
        own.append(("Authorization", "Basic " + base64.b64encode(given.user.encode()).decode()))
    if given.json_body is not None:
        body = given.json_body
        own.append(("Content-Type", "application/json"))
    elif body and not given.get:
        own.append(("Content-Type", _FORM))
    if given.get and body:
        url, body = f"{url}{'&' if '?' in url else '?'}{body}", ""
    pairs += [(name, value) for name, value in own if value and name.lower() not in named]
    method = given.request or ("HEAD" if given.head else "POST" if body else "GET")
    return _request(method, url, pairs, body.encode(), address)


def _encoded(text: str) -> str:
    """`name=text` with the text escaped, as `--data-urlencode` has it."""
    name, equals, value = text.partition("=")
    return urlencode({name: value}) if equals and name else urlencode({"": value or name})[1:]


def _request(
    method: str, url: str, pairs: list[tuple[str, str]], body: bytes, address: str
) -> Request:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    hosts = [value for name, value in pairs if name.lower() == "host"]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = [[name, value] for name, value in pairs if name.lower() != "host"]
    if body and not any(name.lower() == "content-length" for name, _ in fields):
        fields.append(["Content-Length", str(len(body))])
    return {
        "method": method.upper(),
        "host": host or (hosts[0] if hosts else "localhost"),
        "target": target,
        "headers": fields,
        "body": base64.b64encode(body).decode(),
        "address": address,
    }
