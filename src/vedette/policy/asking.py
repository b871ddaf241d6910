"""A question to the engine's own code about requests: JSON there, JSON back, refusals as errors.

Owns: the one way of asking. Must not: know what is asked, or load the native module (see `policy.check`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from vedette.errors import CATALOGUE, ConfigError, VedetteError, code_and_message, error_from_dict

NativeQuestion = Callable[[bytes, str], bytes]


def ask(native: NativeQuestion, query: Mapping[str, Any], engine_dir: str) -> list[dict[str, Any]]:
    """One answer for each request of `query`.

    Raises `ConfigError` with the engine's code, request_invalid, or snapshot_invalid for a code that is not ours.
    """
    try:
        answers: list[dict[str, Any]] = json.loads(native(json.dumps(query).encode(), engine_dir))
    except ValueError as error:
        raise _refusal(error) from error
    return answers


def _refusal(error: ValueError) -> VedetteError:
    told = code_and_message(error)
    if told is None:
        return ConfigError("request_invalid", str(error))
    code, message = told
    if code == "request_malformed":
        code = "request_invalid"
    code = code if code in CATALOGUE else "snapshot_invalid"
    return error_from_dict({"code": code, "message": message})
