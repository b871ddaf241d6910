"""Requests that two servers could read in two ways, and the one way in which the node reads each.

Owns: the table. Each case is a kind of bug that HTTP servers have had, in bytes of our own. The canary stands where
only a wrong reading takes it for a request. Must not: start anything.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = b"host: localhost\r\n"
CANARY = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /in HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
OTHER_FIVE = b"\xd9\xa5"
"""A digit by Unicode, none by RFC 9112."""


@dataclass(frozen=True, slots=True)
class Served:
    """The service gets exactly one request: this one."""

    method: str = "POST"
    target: str = "/in"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Refused:
    """The service gets nothing whole."""

    status: int = 400


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, and what becomes of it."""

    name: str
    sent: bytes
    becomes: Served | Refused


def _get(rest: bytes, target: bytes = b"/in") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + rest + b"\r\n"


def _with(line: bytes) -> bytes:
    """A GET with one more line in its head."""
    return _get(HOST + line + b"\r\n")


def _length(value: bytes) -> bytes:
    """A POST whose length says this, with five bytes and the canary behind them."""
    return POST + b"content-length:" + value + b"\r\n\r\nhello" + CANARY


def _coding(lines: bytes) -> bytes:
    """A POST that is empty when it is chunked; what follows is the canary."""
    return POST + lines + b"\r\n\r\n" + LAST + CANARY


def _refused(cases: dict[str, bytes], status: int = 400) -> list[Case]:
    return [Case(name, sent, Refused(status)) for name, sent in cases.items()]


def _served(cases: dict[str, tuple[bytes, Served]]) -> list[Case]:
    return [Case(name, sent, served) for name, (sent, served) in cases.items()]


# --- RFC 9112 section 7.1: chunks

CHUNKS = _refused(
    {
        "a size with a prefix": CHUNKED + b"0x5\r\nhello\r\n" + LAST + CANARY,
        "a size with an underscore": CHUNKED + b"0_5\r\nhello\r\n" + LAST + CANARY,
        "a size with a plus": CHUNKED + b"+5\r\nhello\r\n" + LAST + CANARY,
        "a negative size": CHUNKED + b"-5\r\nhello\r\n" + LAST + CANARY,
        "a negative zero": CHUNKED + b"-0\r\n\r\n" + CANARY,
        "a size behind a space": CHUNKED + b" 5\r\nhello\r\n" + LAST + CANARY,
        "a size behind a tab": CHUNKED + b"\t5\r\nhello\r\n" + LAST + CANARY,
        "two sizes": CHUNKED + b"5 5\r\nhello\r\n" + LAST + CANARY,
        "no size": CHUNKED + b"\r\nhello\r\n" + LAST + CANARY,
        "an extension without a size": CHUNKED + b";a\r\nhello\r\n" + LAST + CANARY,
        "a size that is no number": CHUNKED + b"5g\r\nhello\r\n" + LAST + CANARY,
        "a size with a decimal point": CHUNKED + b"5.0\r\nhello\r\n" + LAST + CANARY,
        "a size with NUL": CHUNKED + b"5\0\r\nhello\r\n" + LAST + CANARY,
        "a size of 65 bits": CHUNKED + b"10000000000000005\r\nhello\r\n" + LAST + CANARY,
        "a size of 128 bits": CHUNKED + b"f" * 32 + b"\r\nhello\r\n" + LAST + CANARY,
        "a size in other digits": CHUNKED + OTHER_FIVE + b"\r\nhello\r\n" + LAST + CANARY,
        "a size ended by LF": CHUNKED + b"5\nhello\r\n" + LAST + CANARY,
        "a size ended by CR": CHUNKED + b"5\rhello\r\n" + LAST + CANARY,
        "a size ended by CR CR LF": CHUNKED + b"5\r\r\nhello\r\n" + LAST + CANARY,
        "a size ended by a vertical tab": CHUNKED + b"5\x0b\r\nhello\r\n" + LAST + CANARY,
        "an extension ended by LF": CHUNKED + b"5;a\nhello\r\n" + LAST + CANARY,
        "an extension with CR": CHUNKED + b"5;a\rb\r\nhello\r\n" + LAST + CANARY,
        "an extension in quotes over two lines": CHUNKED
        + b'5;a="\nx"\r\nhello\r\n'
        + LAST
        + CANARY,
        "a chunk ended by LF": CHUNKED + b"5\r\nhello\n" + LAST + CANARY,
        "a chunk ended by CR": CHUNKED + b"5\r\nhello\r" + LAST + CANARY,
        "a chunk that has no end": CHUNKED + b"5\r\nhello" + LAST + CANARY,
        "a chunk longer than its size": CHUNKED + b"5\r\nhello!\r\n" + LAST + CANARY,
        "any two bytes behind a chunk": CHUNKED + b"5\r\nhelloXX" + LAST + CANARY,
        "a last chunk ended by LF LF": CHUNKED + b"5\r\nhello\r\n0\n\n" + CANARY,
        "an extension of 20 kB": CHUNKED + b"5;" + b"a" * 20_000 + b"\r\nhello\r\n" + LAST,
        "trailers of 300 kB": CHUNKED + b"0\r\n" + b"x: " + b"a" * 300_000 + b"\r\n\r\n",
        "a trailer with a space before its colon": CHUNKED + b"0\r\nx : y\r\n\r\n" + CANARY,
        "a trailer without a colon": CHUNKED + b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    }
) + _served(
    {
        "an extension is taken off": (
            CHUNKED + b'5;name="value"\r\nhello\r\n' + LAST,
            Served(body=b"hello"),
        ),
        "sizes in capitals and with zeros in front": (
            CHUNKED + b"000A\r\n0123456789\r\n" + LAST,
            Served(body=b"0123456789"),
        ),
        "a size before a space": (CHUNKED + b"5 \r\nhello\r\n" + LAST, Served(body=b"hello")),
        "a hundred zeros are one": (CHUNKED + b"0" * 100 + b"\r\n\r\n", Served(body=b"")),
        "a trailer is no header field": (
            CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 50\r\nhost: evil\r\n"
            b"transfer-encoding: chunked\r\nx-vedette-principal: forged\r\n\r\n",
            Served(body=b"hello"),
        ),
        "behind a last chunk ended by CR LF LF everything is a trailer": (
            CHUNKED + b"5\r\nhello\r\n0\r\n\n" + CANARY,
            Served(body=b"hello"),
        ),
        "behind a trailer ended by LF everything is a trailer": (
            CHUNKED + b"5\r\nhello\r\n0\r\nx: y\n\r\n" + CANARY,
            Served(body=b"hello"),
        ),
        "chunks are chunked anew": (
            CHUNKED + b"1\r\nh\r\n1;x\r\ne\r\n3\r\nllo\r\n" + LAST,
            Served(body=b"hello"),
        ),
    }
)

# --- RFC 9112 section 6.1: codings

CODINGS = _refused(
    {
        "a coding nobody knows": _coding(b"transfer-encoding: xchunked"),
        "a coding behind chunked": _coding(b"transfer-encoding: chunked, identity"),
        "a coding in a second field": _coding(
            b"transfer-encoding: chunked\r\ntransfer-encoding: identity"
        ),
        "identity": _coding(b"transfer-encoding: identity"),
        "chunked in quotes": _coding(b'transfer-encoding: "chunked"'),
        "chunked with a parameter": _coding(b"transfer-encoding: chunked;q=1"),
        "chunked and a vertical tab": _coding(b"transfer-encoding: chunked\x0b"),
        "a vertical tab and chunked": _coding(b"transfer-encoding: \x0bchunked"),
        "chunked and NUL": _coding(b"transfer-encoding: chunked\0"),
        "chunked and CR": _coding(b"transfer-encoding: chunked\r"),
        "a no-break space and chunked": _coding(b"transfer-encoding: \xa0chunked"),
        "chunked cut by a space": _coding(b"transfer-encoding: chun ked"),
        "chunked on a line of its own": _coding(b"transfer-encoding:\r\n chunked"),
        "a space before the colon of a coding": _coding(b"transfer-encoding : chunked"),
        "a tab before the colon of a coding": _coding(b"transfer-encoding\t: chunked"),
        "a space before the name of a coding": _coding(b" transfer-encoding: chunked"),
        "an empty coding": _coding(b"transfer-encoding:"),
        "a coding in HTTP/1.0": b"POST /in HTTP/1.0\r\nhost: localhost\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + LAST + CANARY,
    }
)

# --- RFC 9112 section 6.2: lengths

LENGTHS = _refused(
    {
        "a length with a plus": _length(b" +5"),
        "a negative length": _length(b" -5"),
        "a length with a prefix": _length(b" 0x5"),
        "a length with an underscore": _length(b" 0_5"),
        "a length with a point": _length(b" 5.0"),
        "a length of two words": _length(b" 5 0"),
        "a list of lengths that differ": _length(b" 5, 6"),
        "an empty length": _length(b""),
        "a length of spaces": _length(b"   "),
        "a length that is no number": _length(b" five"),
        "a length with a parameter": _length(b" 5;q=1"),
        "a length with NUL": _length(b" 5\0"),
        "a length with a vertical tab": _length(b" 5\x0b"),
        "a length with CR": _length(b" 5\r"),
        "a length in other digits": _length(b" " + OTHER_FIVE),
        "a length of 65 bits": _length(b" 18446744073709551621"),
        "two lengths that differ": _length(b" 5\r\ncontent-length: 6"),
        "a length and an empty one": _length(b" 5\r\ncontent-length:"),
        "a length on a line of its own": _length(b"\r\n 5"),
        "a length that goes on on the next line": _length(b" 5\r\n 0"),
        "a space before the colon of a length": POST + b"content-length : 5\r\n\r\nhello" + CANARY,
        "a space before the name of a length": POST + b" content-length: 5\r\n\r\nhello" + CANARY,
    }
) + _served(
    {
        "the same length twice": (
            POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            Served(body=b"hello"),
        ),
        "a length with zeros in front": (
            POST + b"content-length: 0005\r\n\r\nhello",
            Served(body=b"hello"),
        ),
        "a length between tabs": (
            POST + b"content-length:\t5\t\r\n\r\nhello",
            Served(body=b"hello"),
        ),
        "a body that is a request": (
            POST + b"content-length: %d\r\n\r\n" % len(CANARY) + CANARY,
            Served(body=CANARY),
        ),
        "a GET with a body that is a request": (
            _get(HOST + b"content-length: %d\r\n" % len(CANARY)) + CANARY,
            Served("GET", body=CANARY),
        ),
        "an underscore is not a dash": (
            POST + b"content-length: 5\r\ncontent_length: 0\r\n\r\nhello",
            Served(body=b"hello"),
        ),
        "a coding and a length: the coding counts": (
            POST
            + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2c\r\n"
            + CANARY
            + b"x" * (0x2C - len(CANARY))
            + b"\r\n"
            + LAST,
            Served(body=CANARY + b"x" * (0x2C - len(CANARY))),
        ),
        "a length and a coding: the coding counts": (
            POST
            + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n2c\r\n"
            + CANARY
            + b"x" * (0x2C - len(CANARY))
            + b"\r\n"
            + LAST,
            Served(body=CANARY + b"x" * (0x2C - len(CANARY))),
        ),
    }
)

# --- RFC 9112 section 3: the request line

LINES = (
    _refused(
        {
            "two spaces": b"GET  /in HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "tabs between the parts": b"GET\t/in\tHTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a space in the target": b"GET /in /x HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a space in front": b" GET /in HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a version of one digit": b"GET /in HTTP/1\r\n" + HOST + b"\r\n" + CANARY,
            "no version": b"GET /in\r\n" + HOST + b"\r\n" + CANARY,
            "version 0.9": b"GET /in HTTP/0.9\r\n" + HOST + b"\r\n" + CANARY,
            "version 1.2": b"GET /in HTTP/1.2\r\n" + HOST + b"\r\n" + CANARY,
            "version 2.0": b"GET /in HTTP/2.0\r\n" + HOST + b"\r\n" + CANARY,
            "a version in small letters": b"GET /in http/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a version with zeros": b"GET /in HTTP/01.1\r\n" + HOST + b"\r\n" + CANARY,
            "something behind the version": b"GET /in HTTP/1.1x\r\n" + HOST + b"\r\n" + CANARY,
            "CR in the target": b"GET /in\r/x HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "NUL in the target": b"GET /in\0 HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "DEL in the target": b"GET /in\x7f HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a target that is a path without a slash": _get(HOST, b"in") + CANARY,
            "a target that is a star": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
            "an empty target": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a method with a colon": b"GET: /in HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a method with NUL": b"GE\0T /in HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a method in quotes": b'"GET" /in HTTP/1.1\r\n' + HOST + b"\r\n" + CANARY,
            "no method": b"/in HTTP/1.1\r\n" + HOST + b"\r\n" + CANARY,
            "a header field first": HOST + b"GET /in HTTP/1.1\r\n\r\n" + CANARY,
            "another host in the target": _get(HOST, b"http://evil.example/in"),
            "a user in the target": _get(HOST, b"http://localhost@evil.example/in"),
            "an escaped slash": _get(HOST, b"/in/..%2fsmuggled"),
            "a backslash": _get(HOST, b"/in\\..\\smuggled"),
            "an escaped line end": _get(HOST, b"/in%0d%0a"),
            "an escape that is none": _get(HOST, b"/in%zz"),
        }
    )
    + _refused(
        {
            "a method in small letters": b"get /in HTTP/1.1\r\n" + HOST + b"\r\n",
            "a method nobody knows": b"GETS /in HTTP/1.1\r\n" + HOST + b"\r\n",
            "TRACE": b"TRACE /in HTTP/1.1\r\n" + HOST + b"\r\n",
            "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n\r\n",
        },
        405,
    )
    + _served(
        {
            "empty lines in front": (b"\r\n\r\n" + _get(HOST), Served("GET")),
            "a target with its own host": (_get(HOST, b"http://localhost/in"), Served("GET")),
            "dots are taken out": (_get(HOST, b"/x/../in/./"), Served("GET", "/in/")),
            "a line end of LF is a line end": (
                b"GET /in HTTP/1.1\nhost: localhost\n\n",
                Served("GET"),
            ),
            "a query passes as it is": (
                _get(HOST, b"/in?a=%0d%0ahost:%20evil&b=/../c"),
                Served("GET", "/in?a=%0d%0ahost:%20evil&b=/../c"),
            ),
        }
    )
)

# --- RFC 9112 section 5: fields

FIELDS = (
    _refused(
        {
            "a line without a colon": _with(b"nothing") + CANARY,
            "a field without a name": _with(b": value") + CANARY,
            "a name with a space": _with(b"x y: z") + CANARY,
            "a space before the colon": _with(b"x : y") + CANARY,
            "a tab before the colon": _with(b"x\t: y") + CANARY,
            "a name with NUL": _with(b"x\0: y") + CANARY,
            "a name with a control byte": _with(b"x\x01: y") + CANARY,
            "a name beyond ASCII": _with(b"x\xe9: y") + CANARY,
            "a name in brackets": _with(b"(x): y") + CANARY,
            "a name in quotes": _with(b'"x": y') + CANARY,
            "a name with a slash": _with(b"x/y: z") + CANARY,
            "a value with NUL": _with(b"x: a\0b") + CANARY,
            "a value with CR": _with(b"x: a\rb") + CANARY,
            "a value with CR and a field": _with(b"x: a\rtransfer-encoding: chunked") + CANARY,
            "a value with DEL": _with(b"x: a\x7fb") + CANARY,
            "a value with a control byte": _with(b"x: a\x01b") + CANARY,
            "a value that goes on on the next line": _with(b"x: a\r\n b") + CANARY,
            "a value that goes on behind a tab": _with(b"x: a\r\n\tb") + CANARY,
            "a first field behind a space": _get(b" x: y\r\n" + HOST) + CANARY,
            "a field ended by CR CR LF": _with(b"x: y\r") + CANARY,
            "a head ended by CR CR LF": b"GET /in HTTP/1.1\r\n" + HOST + b"\r\r\n" + CANARY,
            "two hosts that differ": _with(b"host: evil.example") + CANARY,
            "the same host twice": _with(b"host: localhost"),
            "no host": b"GET /in HTTP/1.1\r\n\r\n",
            "no host in HTTP/1.0": b"GET /in HTTP/1.0\r\n\r\n",
            "an empty host": _get(b"host:\r\n"),
            "a host with a path": _get(b"host: localhost/x\r\n"),
            "a host with a user": _get(b"host: localhost@evil.example\r\n"),
            "a list of hosts": _get(b"host: localhost, evil.example\r\n"),
            "a host with a space": _get(b"host: local host\r\n"),
            "a host with a port that is none": _get(b"host: localhost:80x\r\n"),
            "a host behind a line end": _get(b"host:\r\n localhost\r\n") + CANARY,
            "a space before the colon of a host": _get(b"host : localhost\r\n") + CANARY,
        }
    )
    + _refused(
        {
            "a host that is not ours": _get(b"host: evil.example\r\n"),
            "a host with a port and more behind it": _get(b"host: evil.example:443\r\n"),
        },
        421,
    )
    + _served(
        {
            "a value without spaces around it": (_with(b"x:y"), Served("GET")),
            "an empty value": (_with(b"x:"), Served("GET")),
            "a host in capitals": (_get(b"host: LOCALHOST\r\n"), Served("GET")),
            "a length cannot be named away": (
                POST + b"connection: close, content-length, host\r\ncontent-length: 5\r\n\r\nhello",
                Served(body=b"hello"),
            ),
            "a coding cannot be named away": (
                POST
                + b"connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n"
                + b"5\r\nhello\r\n"
                + LAST,
                Served(body=b"hello"),
            ),
            "nothing is read behind a request that closes": (
                _get(HOST + b"connection: close\r\n") + CANARY,
                Served("GET"),
            ),
            "nothing is read behind a request of HTTP/1.0": (
                b"GET /in HTTP/1.0\r\nhost: localhost\r\n\r\n" + CANARY,
                Served("GET"),
            ),
            "who waits for 100 is answered by the node": (
                POST + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
                Served(body=b"hello"),
            ),
            "HTTP/2 is no protocol to change to": (
                _with(
                    b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"
                ),
                Served("GET"),
            ),
            "TLS is no protocol to change to": (
                _with(b"connection: upgrade\r\nupgrade: TLS/1.3, HTTP/1.1"),
                Served("GET"),
            ),
        }
    )
)

CASES = [*CHUNKS, *CODINGS, *LENGTHS, *LINES, *FIELDS]
