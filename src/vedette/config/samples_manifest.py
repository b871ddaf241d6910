"""What is to be kept of what a model is asked, as people write it: `samples` of the kind Model.

Owns: the shape, in the units people write. Must not: say which inputs can be kept; `served_samples` does.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from vedette.config.model import Model, build
from vedette.config.quantities import parse_size
from vedette.config.served_media import TensorName
from vedette.config.served_samples import (
    LEAST_MILLIS,
    MILLION,
    MOST_INPUTS,
    MOST_MILLIS,
    MOST_PLACES,
    Place,
    ServedSamples,
)
from vedette.config.written import Duration, Size, checked, millis
from vedette.errors import ConfigError

_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,4}))?\s?%\Z", re.ASCII)


def share_of(text: str) -> int:
    """Of a million, what a share such as 1% or 0.05% is. Raises `ConfigError` manifest_invalid."""
    match = _PERCENT.match(text)
    if match is not None:
        whole, fraction = match.groups()
        found = int(whole) * 10_000 + int((fraction or "0").ljust(4, "0"))
        if 1 <= found <= MILLION:
            return found
    raise ConfigError("manifest_invalid", f"{text!r} is no share from 0.0001% to 100%")


Share = Annotated[str, checked(share_of, keep=True)]
Places = Annotated[tuple[Place, ...], Field(min_length=1, max_length=MOST_PLACES)]


class SamplesSpec(Model):
    """Some of the inputs of some requests, redacted, kept for a while (docs/models.md). Without it nothing is."""

    share: Share = Field(
        default="1%",
        description="Of requests that were answered, drawn by chance: 0.0001% to 100%.",
    )
    inputs: tuple[TensorName, ...] = Field(
        min_length=1,
        max_length=MOST_INPUTS,
        description="The inputs that are kept, by name; no word stands for all.",
    )
    redact: dict[TensorName, Places] = Field(
        default_factory=dict,
        max_length=MOST_INPUTS,
        description="Elements that are not: by input, places in its last dimension, from 0. They are zero, or an "
        "empty text.",
    )
    keep: Duration = Field(default="7d", description="How long each is kept: 1m to 365d.")
    bytes: Size = Field(
        default="64MB",
        description="What they may take on the disk, 1MB to 4GB; the oldest go first.",
    )

    @model_validator(mode="after")
    def _require_bounds(self) -> Self:
        if not LEAST_MILLIS <= millis(self.keep) <= MOST_MILLIS:
            raise ValueError("keep is 1m to 365d")
        try:
            build(ServedSamples, self.resolve(), code="manifest_invalid")
        except ConfigError as error:
            raise ValueError(error.message) from None
        return self

    def resolve(self) -> dict[str, Any]:
        """As a snapshot says it."""
        return {
            "perMillion": share_of(self.share),
            "inputs": list(self.inputs),
            "redact": [
                {"input": name, "places": sorted(set(places))}
                for name, places in sorted(self.redact.items())
            ],
            "keepMillis": millis(self.keep),
            "bytes": parse_size(self.bytes),
        }
