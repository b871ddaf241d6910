"""A tensor as the Open Inference Protocol (KServe V2) names it.

Owns: the shape. Must not: hold elements.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vedette.config.model import Count, Model

# fmt: off
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
]
# fmt: on
"""Element types of the Open Inference Protocol."""


class Tensor(Model):
    """One input or output of a model."""

    name: str = Field(min_length=1, max_length=256, description="Its name in the model's file.")
    datatype: Datatype = Field(description="Type of its elements.")
    shape: tuple[Annotated[Count, Field(ge=0, le=2**40)], ...] = Field(
        max_length=16, description="Its dimensions; 0: any."
    )
