"""Asking the engine's own code what it would decide about a request, and why.

Owns: the query to `_native.explain`. Must not: decide anything, or load the native
module (see `policy.check`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vedette.policy.asking import NativeQuestion, ask
from vedette.policy.schema import SCHEMA_NAME, schema_text

NativeExplain = NativeQuestion


def explain(
    native_explain: NativeExplain,
    engine_dir: str,
    digest: str,
    policies: Mapping[str, str],
    requests: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One explanation (docs/callers.md) for each request, under the routes of a snapshot and `policies`, name to text.

    Raises `ConfigError` function_unknown, model_unknown, route_unknown, policy_invalid or snapshot_invalid.
    """
    query = {
        "digest": digest,
        "schema": {"name": SCHEMA_NAME, "text": schema_text()},
        "policies": [{"name": name, "text": policies[name]} for name in sorted(policies)],
        "requests": list(requests),
    }
    return ask(native_explain, query, engine_dir)
