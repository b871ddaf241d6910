"""The reader of go-ftw's YAML fills in what go-ftw does, and no more."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.waf import ftw


def head(raw: bytes) -> list[str]:
    return raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_a_bare_input_is_a_get_that_closes_its_connection() -> None:
    assert ftw.request({}) == b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


def test_a_body_gets_its_length_and_is_a_form_unless_it_says_otherwise() -> None:
    raw = ftw.request({"method": "POST", "data": "a=1"})
    assert head(raw)[1:] == [
        f"Content-Type: {ftw.FORM}",
        "Connection: close",
        "Content-Length: 3",
    ]
    typed = ftw.request(
        {"method": "POST", "headers": {"content-type": "text/plain"}, "data": "a=1"}
    )
    assert head(typed)[1] == "content-type: text/plain"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_has_a_body_gets_the_length_of_none(method: str) -> None:
    assert "Content-Length: 0" in head(ftw.request({"method": method}))


def test_nothing_is_filled_in_where_a_test_forbids_it() -> None:
    raw = ftw.request({"method": "POST", "data": "a b", "autocomplete_headers": "false"})
    assert raw == b"POST / HTTP/1.1\r\n\r\na b"


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("a=<b> c&d", b"a=%3Cb%3E+c&d"),
        ("a=b=c", b"a=b%3Dc"),
        ("a=%3C<", b"a=%3C<"),
        ("a+b=<", b"a+b=<"),
        ("a&", b"a"),
    ],
)
def test_a_form_is_encoded_pair_by_pair_unless_it_looks_encoded(data: str, sent: bytes) -> None:
    assert ftw.request({"method": "POST", "data": data}).endswith(b"\r\n\r\n" + sent)


def test_the_lines_of_a_multipart_body_end_as_they_must_and_count() -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    raw = ftw.request({"method": "POST", "headers": headers, "data": "--b\n--b--\n"})
    assert raw.endswith(b"\r\n\r\n--b\r\n--b--\r\n")
    assert "Content-Length: 12" in head(raw)


def test_the_template_of_repetition_is_known_and_another_is_an_error() -> None:
    assert ftw.body({"data": 'x{{ "ab" | repeat 3 }}'}) == b"xababab"
    with pytest.raises(ValueError, match="template"):
        ftw.body({"data": "{{ now }}"})


def test_an_encoded_request_is_sent_as_it_is() -> None:
    assert ftw.request({"encoded_request": base64.b64encode(b"\x00\xff").decode()}) == b"\x00\xff"


def test_a_scalar_stays_the_text_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "RULES").mkdir()
    (tmp_path / "RULES/1.yaml").write_text(
        "rule_id: 1\ntests:\n- test_id: 2\n  stages:\n  - input:\n"
        "      version: HTTP/1.0\n      headers: {X: 012, Y: yes}\n"
        "    output: {log: {expect_ids: [3], no_match_regex: 'a.c'}}\n"
    )
    (case,) = ftw.corpus(tmp_path)
    assert case.name == "1-2"
    assert case.stages[0].exchange.headers[:2] == (("X", "012"), ("Y", "yes"))
    assert case.stages[0].expected == ftw.Expected((3,), (), "", "a.c", None)
    assert not case.is_of_the_server


def test_the_pinned_corpus_is_read_whole() -> None:
    corpus = ftw.corpus()
    assert len(corpus) == 4674
    assert sum(len(case.stages) for case in corpus) == 4680
    assert sum(case.is_of_the_server for case in corpus) == 22
