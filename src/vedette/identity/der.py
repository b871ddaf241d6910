"""The few DER forms (X.690) of which certificates are put together.

Owns: tag, length and value. Must not: read DER; `cryptography` does, also in the tests of this module.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

SEQUENCE: Final = 0x30
OCTET_STRING: Final = 0x04
BIT_STRING: Final = 0x03
INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


def tlv(tag: int, *parts: bytes) -> bytes:
    """One value with its tag and definite length (X.690 §8.1, §10.1)."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def integer(value: int) -> bytes:
    """A number that is not negative."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def time(moment: datetime) -> bytes:
    """A time in UTC, to the second, in the form that RFC 5280 §4.1.2.5 asks for at that year."""
    if moment.year < 2050:
        return tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())
