"""The pure functions of the native engine, behind one type that tests can stand in for.

Owns: loading `_native` when it is first needed and turning its errors into ours. Must not: start an engine.
"""

from __future__ import annotations

from typing import Protocol

from vedette.errors import (
    CATALOGUE,
    ConfigError,
    UnavailableError,
    VedetteError,
    code_and_message,
    error_from_dict,
)


class Native(Protocol):
    """What control asks of the native module; `_native` itself has this shape."""

    def version(self) -> str: ...
    def engine_key(self) -> str: ...
    def check_snapshot(self, envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes: ...
    def check_policies(self, request: bytes) -> bytes: ...


class Questions(Protocol):
    """Those about a whole snapshot or rule set; `question.Apart` has this shape, too, and so does `_native`."""

    def check_snapshot(self, envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes: ...
    def analyse_rules(self, rules: bytes) -> bytes: ...
    def explain(self, query: bytes, engine_dir: str) -> bytes: ...
    def judge(self, query: bytes, engine_dir: str) -> bytes: ...


def load_native() -> Native:
    """The built module. Raises `UnavailableError` node_start_failed when it was not built."""
    try:
        from vedette.engine import _native
    except ImportError as error:
        raise UnavailableError(
            "node_start_failed",
            f"the native engine is not built: {error}",
            "Run `make engine` in the checkout, or install a wheel.",
        ) from error
    return _native


def refusal_of(error: ValueError) -> VedetteError:
    """The error that a refusal of the native module stands for.

    A code that nobody but the node itself can mend is told as snapshot_invalid.
    """
    told = code_and_message(error)
    if told is None:
        return ConfigError("snapshot_invalid", str(error))
    code, message = told
    if code in CATALOGUE:
        return error_from_dict({"code": code, "message": message})
    return ConfigError("snapshot_invalid", f"{message} ({code})")
