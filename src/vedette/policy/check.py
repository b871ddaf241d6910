"""Checking policies before they go into a snapshot, and what they say at a glance.

Owns: the request to Cedar's validator and turning its findings into errors with file and line. Must
not: decide anything, or load the native module: the caller passes the check in, because the module
belongs to a floor above.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vedette.errors import ConfigError
from vedette.policy.schema import SCHEMA_NAME, schema_text

NativeCheck = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the validator says; line and column count from 1."""

    file: str
    line: int | None
    column: int | None
    message: str
    help: str | None

    def __str__(self) -> str:
        numbers = [str(number) for number in (self.line, self.column) if number is not None]
        return f"{':'.join([self.file, *numbers])}: {self.message}"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom or what a policy is about: a type, one entity of it, or (both None) anything."""

    type: str | None
    id: str | None

    def takes(self, kind: str, name: str) -> bool:
        """Whether the entity `kind::"name"` is in it."""
        return self.type in (None, kind) and self.id in (None, name)


def action_of(kind: str) -> str:
    """The action that policies are asked about: a model is to predict, all else is invoked."""
    return "predict" if kind == "Model" else "invoke"


@dataclass(frozen=True, slots=True)
class Outline:
    """What one policy says: its scope, whether it asks more than that, and the functions, models and routes
    it names, each as type and id. `actions` empty: every action.
    """

    id: str
    file: str
    line: int
    effect: str
    principal: Scope
    resource: Scope
    conditional: bool
    names: tuple[tuple[str, str], ...]
    actions: tuple[str, ...] = ()

    def is_about(self, kind: str, name: str) -> bool:
        """Whether the resource `kind::"name"` is ever judged by it."""
        is_action = not self.actions or action_of(kind) in self.actions
        return is_action and self.resource.takes(kind, name)


@dataclass(frozen=True, slots=True)
class Checked:
    """Policies without an error: what looks like a mistake in them, and what each says."""

    warnings: tuple[Finding, ...]
    outlines: tuple[Outline, ...]


class PolicyError(ConfigError):
    """A policy does not parse or does not fit the schema. `findings` has every error, `message`
    too.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        first = findings[0]
        message = first.message
        if len(findings) > 1:
            others = "; ".join(str(finding) for finding in findings[1:])
            message = f"{message} (and {len(findings) - 1} more: {others})"
        super().__init__("policy_invalid", message, first.help, first.file, first.line)
        self.findings = findings


def check(
    native_check: NativeCheck, policies: Mapping[str, str], schema: str | None = None
) -> Checked:
    """Validates policies, file name to text.

    `native_check` is `_native.check_policies`; `schema` is the node's own unless given. Raises
    `PolicyError` (a `ConfigError` policy_invalid) that names file and line.
    """
    request = {
        "schema": {"name": SCHEMA_NAME, "text": schema_text() if schema is None else schema},
        "policies": [{"name": name, "text": policies[name]} for name in sorted(policies)],
    }
    answer = json.loads(native_check(json.dumps(request).encode()))
    errors = _findings(answer["errors"])
    if errors:
        raise PolicyError(errors)
    return Checked(_findings(answer["warnings"]), tuple(map(_outline, answer["outlines"])))


def _outline(row: Mapping[str, Any]) -> Outline:
    return Outline(
        id=row["id"],
        file=row["file"],
        line=row["line"],
        effect=row["effect"],
        principal=Scope(**row["principal"]),
        resource=Scope(**row["resource"]),
        conditional=row["conditional"],
        names=tuple((each["type"], each["id"]) for each in row["names"]),
        actions=tuple(row["actions"]),
    )


def _findings(rows: list[dict[str, Any]]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            file=str(row.get("file") or "policy"),
            line=row.get("line"),
            column=row.get("column"),
            message=str(row["message"]),
            help=row.get("help"),
        )
        for row in rows
    )
