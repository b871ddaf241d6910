"""Saved plans: everything that applying needs in one file, and nothing else than was reviewed.

Owns: the form of the file, canonical JSON with a checksum: one changed byte is noticed. Must not:
reach a node, or print.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from vedette.config.model import Model, build, wire_value
from vedette.control.messages import PlanAnswer
from vedette.errors import ConfigError, TrustError
from vedette.ids import digest_of

MAX_BYTES: Final = 512 << 20


class SavedPlan(Model):
    """A plan with the content it needs."""

    kind: str = Field(default="Plan", pattern="^Plan$", description="Always `Plan`.")
    plan: PlanAnswer = Field(description="The plan.")
    contents: dict[str, str] = Field(
        default_factory=dict, description="Components and files by digest, base64."
    )
    components: tuple[str, ...] = Field(default=(), description="Which of them are components.")


def seal(plan: PlanAnswer, contents: Mapping[str, bytes], components: set[str]) -> bytes:
    """The bytes of the file. Raises `ConfigError` plan_invalid when they would be too many."""
    if sum(map(len, contents.values())) > MAX_BYTES // 2:
        raise ConfigError(
            "plan_invalid",
            "the plan would hold more than 256 MiB of components and files",
            "Apply the manifests directly, or in parts.",
        )
    saved = SavedPlan(
        plan=plan,
        contents={digest: base64.b64encode(data).decode() for digest, data in contents.items()},
        components=tuple(sorted(components)),
    )
    return _sealed(json.loads(json.dumps(wire_value(saved))))


def unseal(data: bytes, file: str) -> tuple[SavedPlan, dict[str, bytes]]:
    """The plan and the contents of a file. Raises `ConfigError` plan_invalid, `TrustError`
    plan_altered.
    """
    if not data.lstrip().startswith(b"{"):
        raise ConfigError("plan_invalid", "it does not begin as a plan does", file=file)
    altered = TrustError("plan_altered", "its content does not have its checksum", file=file)
    try:
        document = json.loads(data)
        document.pop("checksum")
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise altered from None
    if _sealed(document) != data:
        raise altered
    saved = build(SavedPlan, document, code="plan_invalid", file=file)
    try:
        contents = {
            digest: base64.b64decode(text, validate=True) for digest, text in saved.contents.items()
        }
    except binascii.Error:
        raise altered from None
    if any(digest_of(content) != digest for digest, content in contents.items()):
        raise altered
    return saved, contents


def _sealed(document: dict[str, Any]) -> bytes:
    text = _canonical(document)
    return _canonical({**document, "checksum": digest_of(text)}) + b"\n"


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
