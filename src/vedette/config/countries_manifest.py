"""What a Route or a Function says of countries.

Owns: its shape. Must not: know a database.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from vedette.config.addresses import CountryCode, CountryRule
from vedette.config.model import Model


class CountriesSpec(Model):
    """From which countries callers may come; one of the two."""

    allow: tuple[CountryCode, ...] = Field(
        default=(),
        max_length=250,
        description="Only from these (ISO 3166-1 alpha-2), and not from an address without a country.",
    )
    block: tuple[CountryCode, ...] = Field(
        default=(), max_length=250, description="From all but these."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if bool(self.allow) == bool(self.block):
            raise ValueError("give it allow or block, one of the two")
        return self

    def rule(self) -> CountryRule:
        """The same as a snapshot says it."""
        return CountryRule(
            action="Allow" if self.allow else "Block",
            codes=tuple(sorted({*self.allow, *self.block})),
        )
