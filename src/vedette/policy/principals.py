"""How people write a principal, and what Cedar calls it.

Owns: the reading of `alice`, `ISSUER#SUBJECT`, a SPIFFE ID, `x509:AUTHORITY#SUBJECT`. Pure. Must not: know who exists.
"""

from __future__ import annotations

import re
from typing import Final

from vedette.errors import ConfigError

MAX_PRINCIPAL: Final = 4_096
_SPIFFE: Final = re.compile(r"spiffe://[^#]+\Z")


def read_principal(text: str, issuer: str) -> tuple[str, str]:
    """Type and id in Cedar; a bare name is a subject of `issuer`. Raises `ConfigError` principal_invalid."""
    if not 0 < len(text) <= MAX_PRINCIPAL or not text.isprintable():
        raise ConfigError("principal_invalid", "that is not a principal")
    if text == "anonymous":
        raise ConfigError("principal_invalid", "anonymous callers are nobody in particular")
    if text.rpartition("#")[2] in ("*", ""):
        raise ConfigError("principal_invalid", "there is no word for everybody: name one principal")
    if text.startswith("x509:") or _SPIFFE.match(text):
        return "Workload", text
    return "Subject", text if "#" in text else f"{issuer}#{text}"
