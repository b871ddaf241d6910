"""A caller that says what it is told, and knows an answer that ended from one that says nothing."""

from __future__ import annotations

import time

from tests.verification.dishonest import Dishonest

from vedette.verification.twin import Twin
from vedette.verification.web import Listener, Stream, ask, bearer, say_plainly, seconds_to_end


def test_an_answer_has_its_status_and_the_id_of_its_record(twin: Twin) -> None:
    answer = ask(twin.place.tls, "/orders", headers=[bearer(twin.token("alice"))])
    assert (answer.status, str(answer)) == (200, "answered 200")
    assert answer.request_id


def test_no_answer_is_status_0_and_says_why(twin: Twin) -> None:
    tls = twin.place.tls
    answer = ask(Listener(tls.host, 1, tls.ca_file), "/")
    assert answer.status == 0
    assert "refused" in str(answer)


def test_a_server_of_another_ca_is_not_asked(twin: Twin, dishonest: Dishonest) -> None:
    ca = twin.folder / "mesh-ca.pem"
    ca.write_text(twin.mesh.pem)
    host, port = dishonest.address
    assert ask(Listener(host, port, ca), "/").status == 0
    assert ask(Listener(host, port, twin.place.home.ca_certificate), "/").status == 200


def test_a_stream_that_says_nothing_has_not_ended(twin: Twin) -> None:
    proof = [bearer(twin.token("alice"))]
    upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "eA==")]
    stream = Stream(twin.place.tls, "/live/socket", headers=[*proof, *upgrade])
    assert stream.status == 101
    assert stream.echoes(b"hello")
    assert seconds_to_end(stream, time.monotonic(), 0.2) is None
    stream.close()


def test_a_stream_that_ended_has(twin: Twin, dishonest: Dishonest) -> None:
    tls = twin.place.tls
    stream = Stream(Listener(*dishonest.address, tls.ca_file), "/short")
    took = seconds_to_end(stream, time.monotonic(), 60.0)
    assert took is not None
    stream.close()


def test_what_a_plain_port_says_is_read_to_its_end() -> None:
    plain = Dishonest()
    said = say_plainly(plain.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    plain.close()
    assert say_plainly(plain.address, b"GET / HTTP/1.1\r\n\r\n") == b""
