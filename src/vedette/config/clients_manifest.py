"""Clients as people write them: what a Node says of TLS clients.

Owns: its shape. Must not: know a snapshot other than through the bounds of its fields.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vedette.config.clients import Ja4
from vedette.config.model import Model


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
