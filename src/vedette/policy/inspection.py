"""Asking the engine's own code what the firewall says of requests.

Owns: the query to `_native.judge`. Must not: judge, or load the native
module (see `policy.check`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vedette.config.model import wire_value
from vedette.config.waf import Waf, WafOverride
from vedette.policy.asking import NativeQuestion, ask

NativeJudge = NativeQuestion
Judged = dict[str, Any]

STOPPED: Final = ("blocked", "detected")
"""What a request is that scores too high: refused, or only told."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A firewall that is asked in place of the active one: the node's, and those of single routes."""

    waf: Waf | None = None
    routes: Mapping[str, WafOverride | None] = field(default_factory=dict)


def judge(
    native_judge: NativeJudge,
    engine_dir: str,
    digest: str,
    candidate: Candidate,
    requests: Sequence[Mapping[str, Any]],
) -> list[Judged]:
    """One answer (docs/waf.md) for each request, under the routes of the snapshot `digest`.

    Raises `ConfigError` request_invalid, route_unknown, snapshot_invalid.
    """
    query: dict[str, Any] = {"digest": digest, "requests": list(requests)}
    if candidate.waf is not None:
        query["waf"] = wire_value(candidate.waf)
    query["routes"] = {
        name: None if own is None else wire_value(own) for name, own in candidate.routes.items()
    }
    return ask(native_judge, query, engine_dir)
