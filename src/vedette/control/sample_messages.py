"""What the admin API gives of samples.

Owns: the shapes. Must not: have room for an element of one.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Model
from vedette.config.served_samples import ServedSamples


class SampleVersion(Model):
    """What is kept of a version."""

    version: int = Field(description="The version.")
    count: int = Field(description="Requests.")
    bytes: int = Field(description="Bytes of their inputs.")
    oldest: str = Field(description="When the first of them came, RFC 3339.")
    newest: str = Field(description="When the last of them came.")


class ModelSamples(Model):
    """What is kept of what a model is asked."""

    name: str = Field(description="The model.")
    asked: ServedSamples | None = Field(
        description="What its manifest asks for; null: nothing more is kept."
    )
    left_out: int = Field(
        description="Requests that were drawn and not kept since control started: too large, or no room for them."
    )
    versions: tuple[SampleVersion, ...] = Field(description="What there is, by version.")


class SamplesRemoved(Model):
    """Samples that are gone."""

    name: str = Field(description="The model.")
    count: int = Field(description="How many there were.")
