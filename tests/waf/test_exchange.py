"""The way from the bytes of a request to what a firewall is shown, and the answers of the tests' backend."""

from __future__ import annotations

import base64
import json

from tests.waf.exchange import Response, read


def test_a_request_is_taken_apart_and_its_body_cut_at_its_length() -> None:
    exchange = read(b"POST /a?b=c HTTP/1.1\r\nHost:  x \r\nContent-Length: 2\r\n\r\nabc")
    assert (exchange.method, exchange.uri, exchange.version) == ("POST", "/a?b=c", "HTTP/1.1")
    assert exchange.headers == (("Host", "x"), ("Content-Length", "2"))
    assert exchange.body == b"ab"


def test_a_request_without_a_version_is_of_the_oldest() -> None:
    assert read(b"GET / \r\n\r\n").version == "HTTP/0.9"


def test_a_body_without_a_length_is_none() -> None:
    assert read(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nabc").body == b""


def test_chunks_are_joined_and_the_other_length_is_dropped() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange = read(head + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
    assert exchange.body == b"abcd"
    assert exchange.headers == (("Transfer-Encoding", "chunked"),)


def test_the_backend_answers_what_the_request_asks_for_under_reflect() -> None:
    wanted = json.dumps({"status": 500, "headers": {"X": "y"}, "body": "<?php"}).encode()
    raw = b"POST /reflect HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(wanted), wanted)
    answer = read(raw).response
    assert (answer.status, answer.body) == (500, b"<?php")
    assert ("X", "y") in answer.headers
    assert read(b"POST /reflect HTTP/1.1\r\nContent-Length: 1\r\n\r\n<").response == Response(400)
    assert read(raw.replace(b"/reflect", b"/post")).response == Response()


def test_a_line_holds_every_byte_of_both_bodies() -> None:
    exchange = read(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\x00\xff")
    line = json.loads(exchange.line())
    assert base64.b64decode(line["body_base64"]) == b"\x00\xff"
    assert line["response"]["status"] == 200
    assert "\n" not in exchange.line()
