"""Bodies, whole and broken, as both engines read them.

Owns the rules that say aloud what a body gave, and the changed bodies. Each engine is asked with the same rules, so
that what they say can be compared word for word.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.waf.engines import Engine
from tests.waf.exchange import Exchange

JSON, FORM, XML = "application/json", "application/x-www-form-urlencoded", "text/xml"
MULTIPART = "multipart/form-data; boundary=b"

VARIABLES = (
    *("ARGS", "FILES", "FILES_NAMES", "FILES_SIZES", "XML:/*", "XML://@*", "URLENCODED_ERROR"),
    *("MULTIPART_BOUNDARY_QUOTED", "MULTIPART_BOUNDARY_WHITESPACE", "MULTIPART_DATA_BEFORE"),
    *("MULTIPART_DATA_AFTER", "MULTIPART_HEADER_FOLDING", "MULTIPART_LF_LINE"),
    *("MULTIPART_MISSING_SEMICOLON", "MULTIPART_INVALID_QUOTING", "MULTIPART_INVALID_PART"),
    *("MULTIPART_INVALID_HEADER_FOLDING", "MULTIPART_UNMATCHED_BOUNDARY"),
)
STRICT, REFUSED = 98, 99
# libmodsecurity writes control characters so.
ESCAPE = re.compile(r"\\x([0-9a-f]{2})")

SEEDS = {
    JSON: (
        b'{"a":1,"b":[1,2,{"c":"x\\n\\u0041"}],"":null}',
        b'[[[1]],"a",true]',
        b'{"a":{"b":{"c":-1.5e3}},"a":2}',
    ),
    FORM: (b"a=1&b=%41+c&d&=e&&f=%zz%", b"x=%u0041&y=a=b"),
    XML: (
        b'<?xml version="1.0"?><a b="1" c=\'&lt;x\'>t<!-- c --><d>u</d><![CDATA[<v>]]>&#65;</a>',
        b'<a xmlns="u" xmlns:p="q"><p:b p:c="d e"/>  <e>&amp;</e></a>',
    ),
    MULTIPART: (
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\n'
            b"Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
        ),
        b"--b\r\nContent-Disposition: form-data;\r\n name=q\r\n\r\nv\r\nw\r\n--b--",
    ),
}
MARKS = {
    JSON: (*b'{}[],:"\\1-.e 0', b"true", b"null", b"\\u", b"d800"),
    FORM: (*b"&=%+4;f", b"%41"),
    XML: (*b"<>/&;\"'= a:-x", b"<!--", b"-->", b"<?", b"?>", b"]]>", b"<![CDATA[", b"&#", b"&lt;"),
    MULTIPART: (*b"\r\n\"';=:\t \\b", b"\r\n", b"--", b"--b", b"--b--", b"name=x", b'filename="y"'),
}


@dataclass(frozen=True)
class Read:
    """What an engine read in a body."""

    found: tuple[str, ...]
    is_refused: bool
    is_odd: bool


def rules(folder: Path) -> Path:
    """Write the rules that say what a body gave."""
    lines = [
        "SecRuleEngine DetectionOnly\nSecRequestBodyAccess On",
        f'SecRule REQUEST_HEADERS:Content-Type "@streq {XML}" "id:1,phase:1,pass,nolog,ctl:requestBodyProcessor=XML"',
        f'SecRule REQUEST_HEADERS:Content-Type "@streq {JSON}" "id:2,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON"',
    ]
    for number, variable in enumerate(VARIABLES, 100):
        said = f"tx.a{number}"
        adds = f"setvar:'{said}=%{{{said}}}|%{{MATCHED_VAR_NAME}}~%{{MATCHED_VAR}}'"
        lines += [
            f'SecRule {variable} "@unconditionalMatch" "id:{number},phase:2,pass,nolog,t:hexEncode,{adds}"',
            f'SecRule &TX:a{number} "@eq 1" "id:{number + 100},phase:2,pass,log,msg:\'%{{{said}}}\'"',
        ]
    for number, variable in ((STRICT, "MULTIPART_STRICT_ERROR"), (REFUSED, "REQBODY_ERROR")):
        lines.append(
            f'SecRule {variable} "@eq 1" "id:{number},phase:2,pass,log,msg:\'{variable}\'"'
        )
    file = folder / "bodies.conf"
    file.write_text("\n".join(lines) + "\n")
    return file


def changed(media_type: str, count: int, seed: int) -> Iterator[bytes]:
    """The seeds of a media type, and changed copies of them."""
    chance = random.Random(seed)
    yield from SEEDS[media_type]
    for _ in range(count):
        body = bytearray(chance.choice(SEEDS[media_type]))
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            at = chance.randint(0, len(body))
            mark = chance.choice(MARKS[media_type])
            new = bytes([mark]) if isinstance(mark, int) else mark
            match chance.randrange(4):
                case 0:
                    body[at:at] = new
                case 1:
                    del body[at : at + chance.randint(1, 4)]
                case 2:
                    body[at : at + 1] = new
                case _:
                    start = chance.randint(0, len(body))
                    body[at:at] = body[start : start + chance.randint(1, 12)]
        yield bytes(body)


def read(engine: Engine, media_type: str, body: bytes) -> Read:
    """Ask an engine what it reads in a body."""
    headers = (("Host", "x"), ("Content-Type", media_type), ("Content-Length", str(len(body))))
    verdict = engine.judge(Exchange("POST", "/", "HTTP/1.1", headers, body))
    assert not verdict.died, body
    messages = (
        ESCAPE.sub(lambda code: chr(int(code[1], 16)), each["message"]) for each in verdict.matched
    )
    found = (part for message in messages for part in message.split("|")[1:])
    return Read(tuple(sorted(found)), REFUSED in verdict.ids, bool({STRICT, REFUSED} & verdict.ids))
