"""Clients: what is known of the software that asks, as the snapshot says it.

Owns: the shape of the rule for TLS clients. Must not: know how people write it (`clients_manifest`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Model

# FoxIO's JA4 of a TLS client over TCP.
Ja4 = Annotated[
    str,
    StringConstraints(
        pattern=r"^t(13|12|11|10|s3|s2|00)[di][0-9]{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$"
    ),
]


class TlsClients(Model):
    """Which TLS clients are let in, by the fingerprint of what they say first (JA4)."""

    action: Literal["Allow", "Block"] = Field(
        description="`Allow`: only these; `Block`: all but these."
    )
    ja4: tuple[Ja4, ...] = Field(
        min_length=1, max_length=10_000, description="Fingerprints, sorted."
    )
