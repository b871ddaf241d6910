"""Names and identifiers: what a valid one looks like, and how a new one is made.

Owns: function names, digests, request ids, certificate serials. Must not: import anything but the
standard library and `vedette.errors`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Final

from vedette.errors import ConfigError

NAME_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_DIGEST = re.compile(DIGEST_PATTERN.replace("$", r"\Z"))
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def is_name(text: str) -> bool:
    """Whether `text` may name a function, a route or an issuer (a DNS label that starts with a
    letter).
    """
    return _NAME.match(text) is not None


def require_name(text: str, what: str = "function") -> str:
    """Returns `text`, or raises `ConfigError` invalid_name."""
    if not is_name(text):
        raise ConfigError("invalid_name", f"{text!r} is not a valid {what} name")
    return text


def digest_of(data: bytes) -> str:
    """The digest that names `data`: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is a digest in the one accepted form."""
    return _DIGEST.match(text) is not None


def require_digest(text: str) -> str:
    """Returns `text`, or raises `ConfigError` invalid_digest."""
    if not is_digest(text):
        raise ConfigError("invalid_digest", f"{text!r} is not a digest")
    return text


def digest_hex(digest: str) -> str:
    """The 64 hexadecimal digits of a digest; they name files. Raises `ConfigError` invalid_digest."""
    return require_digest(digest).removeprefix("sha256:")


def new_request_id() -> str:
    """A ULID: 26 characters, ordered by time in milliseconds, 80 random bits
    (github.com/ulid/spec).
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def new_serial() -> int:
    """A certificate serial: positive, 159 random bits (RFC 5280 §4.1.2.2 allows at most 20 octets)."""
    return secrets.randbits(158) | 1 << 158
