"""Addresses: which are let in, from which countries, as the snapshot says it.

Owns: the shape of lists of addresses, of the database of countries, and of what a route says of
countries. Must not: read a list; the engine does, and refuses one that it cannot read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Count, Model
from vedette.ids import DIGEST_PATTERN, NAME_PATTERN

ListAction = Literal["Allow", "Block"]
OnBadLine = Literal["LeaveOut", "Refuse"]
Moment = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]

MAX_BLOB_BYTES = 67_108_864
"""Of a list and of a database: what the admin API stores as one file."""


class AddressList(Model):
    """Addresses that are let in or not, from a plain file."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the list, unique on the node; in records."
    )
    action: ListAction = Field(description="What becomes of its addresses; `Allow` wins.")
    blob: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of the file: an address or CIDR a line."
    )
    size: Count = Field(ge=0, le=MAX_BLOB_BYTES, description="Its size, in bytes.")
    on_bad_line: OnBadLine = Field(
        default="LeaveOut", description="What becomes of a line that is no address."
    )
    updated_at: Moment | None = Field(
        default=None, description="When the file was last changed, RFC 3339; absent: there is none."
    )
    max_age_seconds: Count | None = Field(
        default=None,
        ge=1,
        le=315_360_000,
        description="Age from which `status` calls it expired; it is used all the same.",
    )


class CountryDatabase(Model):
    """Which country an address is in: a file in MaxMind's format."""

    blob: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of the file."
    )
    size: Count = Field(ge=1, le=MAX_BLOB_BYTES, description="Its size, in bytes.")


class Addresses(Model):
    """What is known of addresses."""

    lists: tuple[AddressList, ...] = Field(description="Lists, sorted by name.")
    countries: CountryDatabase | None = Field(
        default=None, description="The database of countries; absent: no address has one."
    )


class CountryRule(Model):
    """From which countries a route may be asked."""

    action: ListAction = Field(description="`Allow`: only these; `Block`: all but these.")
    codes: tuple[CountryCode, ...] = Field(
        min_length=1, max_length=250, description="Countries (ISO 3166-1 alpha-2), sorted."
    )


class Offenders(Model):
    """When an address that keeps offending is blocked, and for how long."""

    threshold: Count = Field(ge=10, le=1_000_000, description="Points that get it blocked.")
    half_life_seconds: Count = Field(
        ge=1, le=86_400, description="Seconds in which its points halve."
    )
    first_block_seconds: Count = Field(
        ge=1,
        le=604_800,
        description="Length of its first block; each further one is twice as long.",
    )
    longest_block_seconds: Count = Field(ge=1, le=2_592_000, description="No block is longer.")
