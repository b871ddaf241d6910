"""Addresses as people write them: the kind AddressList, and when an address offends.

Owns: their shape. Must not: read the files they name.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from vedette.config.addresses import ListAction, OnBadLine
from vedette.config.manifest import Metadata
from vedette.config.model import Count, Model
from vedette.config.written import Duration, FileReference, NodeFile, millis


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("one address or CIDR in each item")
    return text


def _network(text: str) -> str:
    """Networks that somebody wrote by hand: a slip would open or close the door unseen."""
    address, slash, length = text.partition("/")
    try:
        most = ipaddress.ip_address(address).max_prefixlen
    except ValueError:
        raise ValueError(f"{text!r} is no address or network, such as 192.0.2.0/24") from None
    least = 8 if most == 32 else 16
    if slash and not (length.isdecimal() and least <= int(length) <= most):
        raise ValueError(f"{text!r}: the length is a number from {least} to {most}")
    return text


NetworkText = Annotated[
    str, Field(min_length=2, max_length=64), AfterValidator(_one_line), AfterValidator(_network)
]


MIN_INTERVAL_SECONDS: Final = 10
MAX_INTERVAL_SECONDS: Final = 86_400


class CrowdSecSource(Model):
    """Where control asks for the bans of a list; it is in no snapshot."""

    url: str = Field(max_length=2_048, description="URL of the Local API.")
    api_key_file: str = Field(max_length=4_096, description="File on the node with the key.")
    ca: str | None = Field(
        default=None, max_length=262_144, description="Certificates trusted, PEM, and no others."
    )
    interval_seconds: Count = Field(
        ge=MIN_INTERVAL_SECONDS, le=MAX_INTERVAL_SECONDS, description="Seconds between two polls."
    )


class CrowdSecSpec(Model):
    """Bans of a CrowdSec Local API, which control asks for as a bouncer in stream mode: decisions of
    type `ban` about addresses and ranges.
    """

    url: str = Field(
        max_length=2_048,
        description="URL of the Local API, such as `http://127.0.0.1:8080`: https, or http on the "
        "node's own machine.",
    )
    api_key_file: NodeFile = Field(
        description="File on the node, not beside the manifest, with the key that `cscli bouncers "
        "add` made: an absolute path, read at each poll and sent to nobody else."
    )
    ca_file: FileReference | None = Field(
        default=None,
        description="Certificates trusted for the URL, PEM, and no others; absent: those of the "
        "machine.",
    )
    interval: Duration = Field(
        default="1m", description="Time between two polls, from `10s` to `24h`."
    )

    @model_validator(mode="after")
    def _require_interval(self) -> Self:
        if not MIN_INTERVAL_SECONDS <= millis(self.interval) // 1_000 <= MAX_INTERVAL_SECONDS:
            raise ValueError("interval is from 10s to 24h")
        return self

    def source(self, ca: str | None) -> CrowdSecSource:
        """The same as control keeps it, with the certificates of `ca_file`."""
        return CrowdSecSource(
            url=self.url.rstrip("/"),
            api_key_file=self.api_key_file,
            ca=ca,
            interval_seconds=millis(self.interval) // 1_000,
        )


class AddressListSpec(Model):
    """Which addresses, and what becomes of them."""

    action: ListAction = Field(
        description="`Block`, or `Allow`: let in although another list blocks it."
    )
    file: FileReference | None = Field(
        default=None,
        description="A feed: an address or CIDR a line, `#` and `;` begin a comment (Spamhaus DROP, "
        "FireHOL).",
    )
    networks: tuple[NetworkText, ...] = Field(
        default=(), max_length=10_000, description="The same, here."
    )
    crowdsec: CrowdSecSpec | None = Field(
        default=None, description="Bans of a CrowdSec Local API; one of the three."
    )
    on_bad_line: OnBadLine = Field(
        default="LeaveOut",
        description="A line that is no address is left out and shown by `status`, or `Refuse`: then "
        "the whole list is.",
    )
    max_age: Duration | None = Field(
        default=None,
        description="Age of the file, or of the last answer of `crowdsec`, from which `status` calls "
        "the list expired.",
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if sum(map(bool, (self.file, self.networks, self.crowdsec))) != 1:
            raise ValueError("give it file, networks or crowdsec, one of the three")
        if self.max_age is not None and self.networks:
            raise ValueError("maxAge is for a file or crowdsec")
        if self.crowdsec is not None and self.action != "Block":
            raise ValueError("crowdsec tells who is banned; its action is Block")
        return self


class AddressListManifest(Model):
    """Addresses that are blocked, or let in although another list blocks them."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(description="Version of this shape.")
    kind: Literal["AddressList"] = Field(description="Always `AddressList`.")
    metadata: Metadata = Field(description="What it is called; records name it.")
    spec: AddressListSpec = Field(description="Which addresses.")


class OffendersSpec(Model):
    """Addresses that keep offending are blocked: firewall blocks, bad credentials, what is no HTTP,
    many answers of 4xx.
    """

    threshold: Count = Field(
        default=100,
        description="Points that get an address blocked. A request that the firewall blocks is 12, bad "
        "credentials and what is no HTTP 8, an answer of 4xx 1.",
    )
    half_life: Duration = Field(default="1m", description="Time in which points halve.")
    first_block: Duration = Field(
        default="1m", description="The first block; each further one is twice as long."
    )
    longest_block: Duration = Field(default="24h", description="No block is longer.")

    def resolve(self) -> dict[str, int]:
        """The same as a snapshot says it. Times are whole seconds, at least one."""
        times = {
            "halfLifeSeconds": self.half_life,
            "firstBlockSeconds": self.first_block,
            "longestBlockSeconds": self.longest_block,
        }
        seconds = {name: max(1, millis(text) // 1_000) for name, text in times.items()}
        return {"threshold": self.threshold, **seconds}
