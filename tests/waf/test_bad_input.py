"""Hostile bodies, encodings and rule files: each has its stated answer (docs/waf.md, "Bad input").

The engine is asked as a program (`crates/waf/examples/judge.rs`) with the Core Rule Set at level 1.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waf import engines, ftw, honest, run
from tests.waf.engines import Engine
from tests.waf.exchange import Exchange

from vedette.policy import coreruleset as crs

JSON, FORM, XML, MULTIPART = "application/json", ftw.FORM, "text/xml", "multipart/form-data"
BODY_REFUSED = (
    200002  # `REQBODY_ERROR`: the body is not what its media type says, or beyond a limit
)
MILLION = 1_000_000
ATTACK = b"1' union select password from users-- "
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'


@pytest.fixture(scope="module")
def judge() -> Iterator[Engine]:
    if not crs.FOLDER.exists():
        pytest.fail(crs.MISSING, pytrace=False)
    with run.engine("ours", mode="On", paranoia=1) as started:
        yield started


def post(media_type: str, body: bytes, **more: str) -> Exchange:
    fields = honest.BROWSER | {"Content-Type": media_type, "Content-Length": str(len(body))} | more
    return Exchange("POST", "/", "HTTP/1.1", tuple(fields.items()), body)


def get(target: str) -> Exchange:
    return Exchange("GET", target, "HTTP/1.1", tuple(honest.BROWSER.items()))


def entities() -> bytes:
    """Nine entities, each ten times the one before: a gigabyte, were they expanded."""
    told = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10))
    return b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "aaaaaaaaaa">' + told + b"]><a>&e9;</a>"


REFUSED_BODIES = {
    "JSON of 10,000 levels": post(JSON, b"[" * 10_000 + b"]" * 10_000),
    "JSON that ends early": post(JSON, b'{"a":1'),
    "JSON with bytes that are no UTF-8": post(JSON, b'{"a":"\xff\xfe"}'),
    "JSON in UTF-16": post(JSON, '{"a":1}'.encode("utf-16")),
    "a million values in JSON": post(JSON, b"[" + b",".join([b"1"] * MILLION) + b"]"),
    "XML entities that double": post(XML, entities()),
    "an XML entity that is a file": post(
        XML, b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
    ),
    "XML of 100,000 levels": post(XML, b"<a>" * 100_000 + b"</a>" * 100_000),
    "XML that ends early": post(XML, b"<a><b>"),
    "a multipart body with no end": post(f"{MULTIPART}; boundary=b", PART + b"x" * 20_000),
    "a multipart body with no boundary": post(MULTIPART, PART + b"x\r\n--b--\r\n"),
    "a part with 20,000 header fields": post(
        f"{MULTIPART}; boundary=b", b"--b\r\n" + b"X: y\r\n" * 20_000
    ),
    "20,000 parts": post(f"{MULTIPART}; boundary=b", (PART + b"x\r\n") * 20_000 + b"--b--\r\n"),
    "a million parameters": post(FORM, b"&".join(b"a%d=1" % n for n in range(MILLION))),
    "an attack behind a million parameters": post(FORM, b"a=1&" * MILLION + b"b=" + ATTACK),
    "an attack in a multipart body with no end": post(f"{MULTIPART}; boundary=b", PART + ATTACK),
    "an attack in JSON that ends early": post(JSON, b'{"a":"' + ATTACK + b'"'),
}

BLOCKED = {
    "a million parameters in the address": (
        get("/?" + "&".join(f"a{n}=1" for n in range(MILLION))),
        920380,
    ),
    "an attack in the second of two equal names": (
        post(JSON, b'{"a":1,"a":"' + ATTACK + b'"}'),
        942100,
    ),
    "NUL in an argument": (get("/?a=b%00c"), 920270),
    "NUL in a form": (post(FORM, b"a=b%00c"), 920270),
    "a path with overlong slashes": (get("/..%c0%af..%c0%afetc/passwd"), 930100),
    "a script with overlong brackets": (get("/?a=%c0%bcscript%c0%bealert(1)"), 941160),
    "a script encoded twice": (get("/?a=%253Cscript%253Ealert(1)%253C/script%253E"), 941110),
    "a script in %u": (get("/?a=%u003cscript%u003ealert(1)%u003c/script%u003e"), 941110),
    "a script in full width": (get("/?a=%EF%BC%9Cscript%EF%BC%9Ealert(1)"), 941100),
    "a script in HTML's entities": (
        get("/?a=%26lt;script%26gt;alert(1)%26lt;/script%26gt;"),
        941110,
    ),
    "SQL in mixed encodings": (
        get("/?a=1%2527%20%2575nion%20%73elect%20password%20from%20users"),
        942190,
    ),
    "a compressed body": (post(FORM, b"\x1f\x8b\x08\x00", **{"Content-Encoding": "gzip"}), 920450),
    "a form in EBCDIC": (post(f"{FORM}; charset=ibm037", b"a=1"), 920480),
    "a form in UTF-7": (post(f"{FORM}; charset=utf-7", b"a=%2BADw-script%2BAD4-"), 920480),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_body_that_cannot_be_read_whole_is_refused(name: str, judge: Engine) -> None:
    verdict = judge.judge(REFUSED_BODIES[name])
    assert verdict.interruption is not None
    assert (verdict.interruption["id"], verdict.interruption["status"]) == (BODY_REFUSED, 400)


@pytest.mark.parametrize("name", BLOCKED)
def test_what_is_written_oddly_is_blocked_by_its_rule(name: str, judge: Engine) -> None:
    exchange, rule = BLOCKED[name]
    verdict = judge.judge(exchange)
    assert verdict.is_blocked
    assert rule in verdict.ids


@pytest.mark.parametrize("target", ["/?a=%ff%fe", "/%ff%fe"])
def test_bytes_that_are_no_utf_8_add_to_the_score_and_do_not_block_by_themselves(
    target: str, judge: Engine
) -> None:
    verdict = judge.judge(get(target))
    assert 920250 in verdict.ids
    assert not verdict.is_blocked


def test_after_all_of_it_an_honest_request_still_passes(judge: Engine) -> None:
    for exchange in REFUSED_BODIES.values():
        judge.judge(exchange)
    assert not judge.judge(get("/?a=1")).is_blocked


def loaded(folder: Path, text: str, **others: str) -> tuple[int, str]:
    """What the engine says of a rule file: its exit code and its error."""
    for name, other in others.items():
        (folder / f"{name}.conf").write_text(other)
    file = folder / "rules.conf"
    file.write_text(text)
    done = subprocess.run(
        [engines.built_example("judge"), str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_pattern_of_12_kilobytes_is_taken(tmp_path: Path) -> None:
    words = "|".join(f"word{n}" for n in range(1500))
    assert len(words) > 12_000
    assert loaded(tmp_path, f'SecRule ARGS "@rx ^(?:{words})$" "id:1,phase:2,deny"\n') == (0, "")


def test_a_pattern_that_would_need_gigabytes_is_refused_with_its_line(tmp_path: Path) -> None:
    code, said = loaded(
        tmp_path, '\nSecRule ARGS "@rx (?:(?:\\w{1000}){1000}){1000}" "id:1,phase:2,deny"\n'
    )
    assert code == 1
    assert "rules.conf:2" in said


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    code, said = loaded(tmp_path, "Include other.conf\n", other="Include rules.conf\n")
    assert code == 1
    assert "other.conf:1" in said
    assert "include" in said.lower()


def test_an_id_that_is_taken_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    rule = 'SecRule ARGS "@rx x" "id:7,phase:2,pass"\n'
    code, said = loaded(tmp_path, rule + rule)
    assert code == 1
    assert "rules.conf:2" in said
    assert "7" in said
