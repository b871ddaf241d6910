"""Clients as people write them: what a Node says of TLS clients, of crawlers and of the challenge.

Owns: its shape. Must not: know a snapshot other than through the bounds of its fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config.clients import Ja4, Mode
from vedette.config.model import Count, Model
from vedette.config.written import Duration, millis
from vedette.ids import NAME_PATTERN

ModeText = Literal["never", "pressure", "suspicious", "always"]
MODES: Final[dict[str, Mode]] = {
    "never": "Never",
    "pressure": "Pressure",
    "suspicious": "Suspicious",
    "always": "Always",
}


class TlsClientsSpec(Model):
    """Which TLS clients are let in, by their JA4; one of the two. An allow list of addresses wins."""

    allow: tuple[Ja4, ...] = Field(default=(), max_length=10_000, description="Only these.")
    block: tuple[Ja4, ...] = Field(default=(), max_length=10_000, description="All but these.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if bool(self.allow) == bool(self.block):
            raise ValueError("give it allow or block, one of the two")
        return self

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        action = "Allow" if self.allow else "Block"
        return {"action": action, "ja4": sorted({*self.allow, *self.block})}


class CrawlerSpec(Model):
    """A crawler that is known by the addresses it comes from, and never asked."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(description="Its name.")
    token: str = Field(description="The word in its user agent, such as `Googlebot`; in any case.")
    networks: tuple[str, ...] = Field(
        min_length=1, description="Where it comes from: addresses or CIDR, as its operator says."
    )


class ChallengeSpec(Model):
    """When a browser is asked for a little work before it gets a page."""

    mode: ModeText = Field(
        default="pressure",
        description="For routes that do not say. `pressure`: while the node is under pressure; "
        "`suspicious`: then, and who looks like a program; `always`; `never`.",
    )
    suspicion: Count = Field(
        default=40, description="Points, 1 to 100, from which a client is suspicious."
    )
    difficulty: Count = Field(
        default=16, description="Zero bits that the work has to find, at most 24; each doubles it."
    )
    wait: Duration = Field(
        default="10s", description="How long who has no JavaScript waits instead."
    )
    pass_: Duration = Field(default="1h", alias="pass", description="How long a pass is good for.")
    crawlers: tuple[CrawlerSpec, ...] = Field(
        default=(), max_length=256, description="Crawlers that are never asked."
    )
    tool_clients: tuple[Ja4, ...] = Field(
        default=(),
        max_length=10_000,
        description="TLS clients (JA4) that no browser has: one that calls itself a browser is "
        "suspicious.",
    )

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it. Times are whole seconds."""
        crawlers = [
            {"name": one.name, "token": one.token, "networks": sorted(set(one.networks))}
            for one in sorted(self.crawlers, key=lambda each: each.name)
        ]
        return {
            "mode": MODES[self.mode],
            "suspicion": self.suspicion,
            "difficulty": self.difficulty,
            "waitSeconds": millis(self.wait) // 1_000,
            "passSeconds": millis(self.pass_) // 1_000,
            "crawlers": crawlers,
            "toolClients": sorted(set(self.tool_clients)),
        }
