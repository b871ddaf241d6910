"""Asking the engine's own code what it would decide about a request, and why.

Owns: the query to `_native.explain` and turning its refusals into errors. Must not: decide anything, or load the native
module (see `policy.check`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vedette.errors import CATALOGUE, ConfigError
from vedette.policy.schema import SCHEMA_NAME, schema_text

NativeExplain = Callable[[bytes, str], bytes]


def explain(
    native_explain: NativeExplain,
    engine_dir: str,
    digest: str,
    policies: Mapping[str, str],
    requests: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One explanation (docs/callers.md) for each request, under the routes of a snapshot and `policies`, name to text.

    Raises `ConfigError` function_unknown, route_unknown, policy_invalid or snapshot_invalid.
    """
    query = {
        "digest": digest,
        "schema": {"name": SCHEMA_NAME, "text": schema_text()},
        "policies": [{"name": name, "text": policies[name]} for name in sorted(policies)],
        "requests": list(requests),
    }
    try:
        answers: list[dict[str, Any]] = json.loads(
            native_explain(json.dumps(query).encode(), engine_dir)
        )
    except ValueError as error:
        raise _refusal(error) from error
    return answers


def _refusal(error: ValueError) -> ConfigError:
    try:
        body = json.loads(str(error))
        code, message = str(body["code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        return ConfigError("request_invalid", str(error))
    if code == "request_malformed":
        code = "request_invalid"
    return ConfigError(code if code in CATALOGUE else "snapshot_invalid", message)
