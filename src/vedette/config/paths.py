"""Paths that a route can have: only those the engine's normal form leaves unchanged (RFC 3986
§6.2.2).

Owns: saying whether a route's path is normal. Must not: normalise a request's path; that is the
engine's.
"""

from __future__ import annotations

import re

from vedette.errors import ConfigError

# RFC 3986 pchar and "/", with escapes in upper case only.
_CHARACTERS = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})*\Z")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]\Z")
_FORBIDDEN = {"%2F", "%5C", "%7F"} | {f"%{byte:02X}" for byte in range(0x20)}


def require_route_path(text: str) -> str:
    """Returns `text`, or raises `ConfigError` invalid_path: a request in normal form could never
    match it.
    """
    segments = text.split("/")
    escapes = re.findall(r"%..", text)
    unescaped = any(_UNRESERVED.match(chr(int(each[1:], 16))) for each in escapes if _hex(each))
    if (
        not _CHARACTERS.match(text)
        or "//" in text
        or "." in segments
        or ".." in segments
        or unescaped
        or not _FORBIDDEN.isdisjoint(escapes)
    ):
        raise ConfigError("invalid_path", f"{text!r} is not a path in normal form")
    return text


def _hex(escape: str) -> bool:
    return re.fullmatch(r"%[0-9A-Fa-f]{2}", escape) is not None
