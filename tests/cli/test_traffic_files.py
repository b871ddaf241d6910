"""Requests out of raw HTTP, HAR, lines of JSON and curl's words."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vedette.cli.traffic_files import of_curl, read_requests
from vedette.errors import ConfigError

ADDRESS = "192.0.2.1"


def read(folder: Path, content: str | bytes) -> list[dict[str, Any]]:
    file = folder / "traffic"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_requests(file, ADDRESS)


def body_of(request: dict[str, Any]) -> bytes:
    return base64.b64decode(request["body"])


def test_a_raw_request_keeps_its_body_byte_by_byte(tmp_path: Path) -> None:
    raw = b"POST /a?b=1 HTTP/1.1\r\nHost: shop.example.com\r\nX-A: b: c\r\n\r\na=\r\n\xff\n"
    (request,) = read(tmp_path, raw)
    assert (request["method"], request["host"], request["target"]) == (
        "POST",
        "shop.example.com",
        "/a?b=1",
    )
    assert body_of(request) == b"a=\r\n\xff\n"
    assert request["headers"] == [["X-A", "b: c"], ["Content-Length", "6"]]


def test_a_raw_request_may_have_the_line_ends_of_unix(tmp_path: Path) -> None:
    (request,) = read(tmp_path, "POST / HTTP/1.1\nHost: a\n\nq=1")
    assert (request["host"], body_of(request)) == ("a", b"q=1")


def test_each_line_of_json_is_a_request(tmp_path: Path) -> None:
    lines = [
        {"url": "https://a.example/x?y=z", "headers": {"Accept": "*/*"}},
        {"method": "PUT", "url": "/", "headers": [["Host", "b.example"]], "bodyBase64": "/w=="},
        {"url": "http://a.example", "address": "198.51.100.7"},
    ]
    found = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert [(each["method"], each["host"], each["target"]) for each in found] == [
        ("GET", "a.example", "/x?y=z"),
        ("PUT", "b.example", "/"),
        ("GET", "a.example", "/"),
    ]
    assert body_of(found[1]) == b"\xff"
    assert [each["address"] for each in found] == [ADDRESS, ADDRESS, "198.51.100.7"]


def test_an_archive_of_a_browser_is_its_entries(tmp_path: Path) -> None:
    asked = {
        "method": "POST",
        "url": "https://a.example/login",
        "headers": [
            {"name": ":authority", "value": "a.example"},
            {"name": "accept", "value": "*/*"},
        ],
        "postData": {"params": [{"name": "user", "value": "O'Brien"}]},
    }
    archive = {"log": {"version": "1.2", "entries": [{"request": asked}]}}
    for text in (json.dumps(archive), json.dumps(archive, indent=2)):
        (request,) = read(tmp_path, text)
        assert body_of(request) == b"user=O%27Brien"
        assert request["headers"][0] == ["accept", "*/*"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hello", "line 1"),
        ("GET / HTTP/1.1\nHost a\n\n", "line 2"),
        ('{"url":"/"}\n{"method":"GET"}\n', "line 2: 'url' is missing"),
        ('{"log":{}}', "'entries' is missing"),
        ('{"log":3}', "it is no HAR archive: `log.entries` is a list"),
        ('{"log":{"entries":[3]}}', "a part of it has not the form"),
        ('{"url":7}', "line 1: `url` is no text"),
        ('{"url":"/"}\n7\n', "line 2: a part of it has not the form"),
        ('{"log":', "Expecting value"),
    ],
)
def test_what_is_no_request_is_told_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        read(tmp_path, content)
    assert told.value.code == "traffic_unreadable"
    assert said in told.value.message


def test_a_command_of_curl_is_the_request_it_would_send() -> None:
    request = of_curl(
        "curl 'https://a.example:8443/x?q=1' \\\n -H 'Accept: text/html' -b 'theme=dark' "
        "--data-raw 'name=O%27Brien' --compressed",
        ADDRESS,
    )
    assert (request["method"], request["host"], request["target"]) == (
        "POST",
        "a.example:8443",
        "/x?q=1",
    )
    assert body_of(request) == b"name=O%27Brien"
    fields = dict(request["headers"])
    assert fields["Accept"] == "text/html"
    assert fields["Cookie"] == "theme=dark"
    assert fields["Content-Type"] == "application/x-www-form-urlencoded"


def test_curl_puts_data_into_the_query_when_told_so() -> None:
    request = of_curl("curl -G a.example/s --data-urlencode 'q=a b' -d page=2", ADDRESS)
    assert (request["method"], request["target"]) == ("GET", "/s?page=2&q=a+b")
    assert of_curl("curl -I http://a.example", ADDRESS)["method"] == "HEAD"
    posted = of_curl("curl --json '{\"a\":1}' a.example", ADDRESS)
    assert (posted["method"], body_of(posted)) == ("POST", b'{"a":1}')


def test_what_curl_does_beside_the_request_does_not_matter() -> None:
    plain = of_curl("curl http://a.example/x", ADDRESS)
    told = "curl -skL --http2 -o /dev/null -w '%{http_code}' -m 5 http://a.example/x --fail"
    assert of_curl(told, ADDRESS) == plain


@pytest.mark.parametrize(
    "command",
    [
        "curl",
        "curl --upload-file x http://a",
        "curl 'http://a",
        "wget http://a",
        "curl --compresse http://a",
        "curl -F a=b http://a",
    ],
)
def test_what_curl_would_do_otherwise_is_refused(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as told:
        of_curl(command, ADDRESS)
    assert told.value.code == "traffic_unreadable"
    assert capfd.readouterr() == ("", ""), "the error is told once"
