"""Clients: what is known of the software that asks, as the snapshot says it.

Owns: the shape of the rule for TLS clients, of crawlers and of the challenge. Must not: know how people write it
(`clients_manifest`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Count, Model
from vedette.ids import NAME_PATTERN

# FoxIO's JA4 of a TLS client over TCP.
Ja4 = Annotated[
    str,
    StringConstraints(
        pattern=r"^t(13|12|11|10|s3|s2|00)[di][0-9]{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$"
    ),
]

Mode = Literal["Never", "Pressure", "Suspicious", "Always"]


class TlsClients(Model):
    """Which TLS clients are let in, by the fingerprint of what they say first (JA4)."""

    action: Literal["Allow", "Block"] = Field(
        description="`Allow`: only these; `Block`: all but these."
    )
    ja4: tuple[Ja4, ...] = Field(
        min_length=1, max_length=10_000, description="Fingerprints, sorted."
    )


class Crawler(Model):
    """A crawler that is known by the addresses it comes from."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(description="Its name.")
    token: str = Field(
        min_length=3,
        max_length=64,
        pattern=r"^[\x21-\x7E]+$",
        description="The word in its user agent, in any case.",
    )
    networks: tuple[str, ...] = Field(
        min_length=1, max_length=10_000, description="Where it comes from, as its operator says."
    )


class Challenge(Model):
    """When a browser is asked for a little work before it gets a page."""

    mode: Mode = Field(
        description="For routes that do not say. `Pressure`: while the node is under pressure; "
        "`Suspicious`: also who looks like a program; `Always`: everybody."
    )
    suspicion: Count = Field(
        default=40, ge=1, le=100, description="Points from which a client is suspicious."
    )
    difficulty: Count = Field(
        default=16, ge=1, le=24, description="Zero bits that the work has to find; each doubles it."
    )
    wait_seconds: Count = Field(
        default=10, ge=1, le=120, description="How long who has no JavaScript waits instead."
    )
    pass_seconds: Count = Field(
        default=3_600, ge=60, le=604_800, description="How long a pass is good for."
    )
    crawlers: tuple[Crawler, ...] = Field(
        default=(), max_length=256, description="Crawlers that are never asked, sorted by name."
    )
    tool_clients: tuple[Ja4, ...] = Field(
        default=(), max_length=10_000, description="TLS clients that no browser has, sorted."
    )
