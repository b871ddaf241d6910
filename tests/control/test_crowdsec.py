"""One poll of a CrowdSec Local API, and what is known after it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vedette.config.addresses_manifest import CrowdSecSource
from vedette.control import crowdsec
from vedette.control.crowdsec import Bans, pull, read_answer
from vedette.errors import UnavailableError
from vedette.identity.web import NoAnswerError

NOW = datetime(2026, 11, 21, 18, 0, 0, tzinfo=UTC)
KEY = "837be58e22a28738066de1be8f53636b"


def row(value: str, duration: str = "4h", **more: Any) -> dict[str, Any]:
    return {"type": "ban", "scope": "Ip", "value": value, "duration": duration, **more}


def answer(new: list[Any] | None = None, deleted: list[Any] | None = None) -> bytes:
    return json.dumps({"new": new, "deleted": deleted}).encode()


def known(*answers: bytes, at: datetime = NOW) -> Bans:
    """What is known after answers, the first of which was whole."""
    bans = Bans()
    for index, body in enumerate(answers):
        bans.take(read_answer(body, whole=index == 0), at)
    return bans


class Server:
    """An API; a test says what it answers."""

    def __init__(self) -> None:
        self.status, self.body = 200, answer()
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["x-api-key"]))
                self.send_response(server.status)
                self.send_header("content-length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def source(self, key_file: Path) -> CrowdSecSource:
        url = f"http://127.0.0.1:{self.http.server_port}/lapi"
        return CrowdSecSource(url=url, api_key_file=str(key_file), interval_seconds=60)


@pytest.fixture
def server() -> Iterator[Server]:
    """An API on this machine."""
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with a key."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n", "ascii")
    return path


def failure(source: CrowdSecSource) -> str:
    with pytest.raises(UnavailableError) as caught:
        pull(source, whole=True)
    assert caught.value.code == "feed_unavailable"
    assert KEY not in str(caught.value)
    return caught.value.message


def test_a_poll_shows_the_key_and_asks_for_addresses_and_ranges(
    server: Server, key_file: Path
) -> None:
    server.body = answer([row("192.0.2.1")])
    pulled = pull(server.source(key_file), whole=True)
    assert [each.network for each in pulled.new] == ["192.0.2.1"]
    pull(server.source(key_file), whole=False)
    path = "/lapi/v1/decisions/stream?startup={}&scopes=ip,range"
    assert server.asked == [(path.format("true"), KEY), (path.format("false"), KEY)]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (403, b"{}", "it answered 403: it does not know the key"),
        (500, b"", "it answered 500"),
        (302, b"", "it answered 302"),
        (200, b"<html>", "it answered no JSON"),
        (200, b"[" * 100_000, "it answered no JSON"),
        (200, b"[]", "it answered no stream of decisions"),
        (200, b'{"message": "hello"}', "it answered no stream of decisions"),
        (200, b'{"new": {"a": 1}, "deleted": null}', "it answered no list of decisions"),
    ],
)
def test_what_is_no_answer_says_so(
    server: Server, key_file: Path, status: int, body: bytes, sentence: str
) -> None:
    server.status, server.body = status, body
    assert sentence in failure(server.source(key_file))


def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    server: Server, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowdsec, "MAX_BYTES", 4_096)
    server.body = answer([row(f"192.0.2.{one}") for one in range(200)])
    assert "it is larger than 4 KiB" in failure(server.source(key_file))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file or directory"),
        ("", "holds no key"),
        (f"{KEY}\r\nx-other: 1", "holds no key"),
        (f"{KEY} {KEY}", "holds no key"),
        (KEY + "\u00e9", "holds no key"),
        (KEY * 200, "holds no key"),
    ],
)
def test_a_file_without_a_key_is_told_by_its_path_and_not_by_what_is_in_it(
    server: Server, key_file: Path, content: str | None, sentence: str
) -> None:
    if content is None:
        key_file.unlink()
    else:
        key_file.write_bytes(content.encode())
    told = failure(server.source(key_file))
    assert sentence in told
    assert str(key_file) in told
    assert server.asked == []


def test_a_key_does_not_leave_this_machine_in_clear(key_file: Path) -> None:
    source = CrowdSecSource(
        url="http://192.0.2.1:8080", api_key_file=str(key_file), interval_seconds=60
    )
    assert "only https, or http on this machine itself" in failure(source)


def test_what_is_new_comes_what_is_deleted_goes_and_a_whole_answer_starts_anew() -> None:
    first = answer([row("192.0.2.1"), row("198.51.100.7/24", scope="Range"), row("2001:DB8::1")])
    bans = known(first)
    assert bans.networks() == ["192.0.2.1", "198.51.100.0/24", "2001:db8::1"]
    bans = known(first, answer([row("192.0.2.9")], [row("192.0.2.1", "-3s"), row("203.0.113.1")]))
    assert bans.networks() == ["192.0.2.9", "198.51.100.0/24", "2001:db8::1"]
    bans = known(first, answer([row("192.0.2.1")], [row("192.0.2.1", "-3s")]))
    assert "192.0.2.1" in bans.networks(), "the end of a ban that has begun anew is told again"
    bans.take(read_answer(answer([row("192.0.2.2")]), whole=True), NOW)
    assert bans.networks() == ["192.0.2.2"]


def test_only_bans_count_and_others_are_told() -> None:
    captcha = row("192.0.2.1", type="captcha")
    bans = known(answer([captcha, row("192.0.2.2"), row("192.0.2.3", simulated=True)]))
    assert (bans.networks(), bans.left_out()) == (["192.0.2.2"], {"captcha": 1})
    both = known(answer([captcha, row("192.0.2.1")]), answer([], [captcha]))
    assert both.networks() == ["192.0.2.1"], "the end of a captcha is not that of a ban"


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("3h59m55.756182786s", 14_395.756183),
        ("690.146601ms", 0.690147),
        ("1200µs", 0.0012),
        ("1h0m0s", 3_600),
    ],
)
def test_a_ban_ends_by_itself(duration: str, seconds: float) -> None:
    bans = known(answer([row("192.0.2.1", duration)]))
    bans.expire(NOW + timedelta(seconds=seconds * 0.99))
    assert bans.networks() == ["192.0.2.1"]
    bans.expire(NOW + timedelta(seconds=seconds * 1.01))
    assert bans.networks() == []


@pytest.mark.parametrize(
    "wrong",
    [
        row("example.com"),
        row("192.0.2.1/33"),
        row("192.0.2.1", "soon"),
        row("192.0.2.1", "4h later"),
        row("192.0.2.1", ""),
        {**row("192.0.2.1"), "value": 7},
        {**row("192.0.2.1"), "duration": None},
        {**row("192.0.2.1"), "type": ["ban"]},
    ],
)
def test_a_decision_about_no_address_or_without_an_end_is_none(wrong: dict[str, Any]) -> None:
    bans = known(answer([wrong, "no decision", row("192.0.2.2")]))
    assert (bans.networks(), bans.unreadable) == (["192.0.2.2"], 1)


def test_a_ban_for_ever_ends_in_ten_years() -> None:
    bans = known(answer([row("192.0.2.1", "9" * 300 + "h")]))
    assert max(bans.until.values()) - NOW == timedelta(days=3650)


def test_an_answer_needs_both_lists() -> None:
    with pytest.raises(NoAnswerError):
        read_answer(b'{"new": []}', whole=True)
