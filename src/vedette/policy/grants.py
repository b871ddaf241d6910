"""What a grant says, as Cedar.

Owns: the text of its one policy, and which principals it can be for. Pure. Must not: know when it ends; the snapshot
does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from vedette.errors import ConfigError
from vedette.policy.check import action_of
from vedette.policy.principals import read_principal

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PREFIX: Final = "grant-"


@dataclass(frozen=True, slots=True)
class Grant:
    """One permit: `principal` as records name it, `kind` its type in Cedar; `methods` empty: all."""

    name: str
    kind: str
    principal: str
    resource: tuple[str, str]
    methods: tuple[str, ...]

    @classmethod
    def of(
        cls,
        name: str,
        principal: str,
        issuer: str,
        resource: tuple[str, str],
        methods: Collection[str],
    ) -> Grant:
        """Reads what somebody wrote; a bare name is a subject of `issuer`. Raises `ConfigError` grant_invalid,
        principal_invalid.
        """
        wanted = tuple(sorted({method.upper() for method in methods}))
        unknown = sorted(set(wanted) - set(METHODS))
        if unknown:
            raise ConfigError("grant_invalid", f"{unknown[0][:32]!r} is not a method")
        kind, named = read_principal(principal, issuer)
        return cls(name, kind, named, resource, wanted)


def grant_file(name: str) -> str:
    """The name of the policy file of a grant."""
    return f"{_PREFIX}{name}.cedar"


def is_grant_file(name: str) -> bool:
    """Whether a policy file has a name that grants have for themselves."""
    return name.startswith(_PREFIX)


def grant_text(grant: Grant) -> str:
    """The policy of a grant. The engine walks it: what ends must not need Cedar (ADR 0039)."""
    kind, name = grant.resource
    head = (
        f"@id({_quoted(f'grant {grant.name}')})\npermit (\n"
        f"  principal == {grant.kind}::{_quoted(grant.principal)},\n"
        f'  action == Action::"{action_of(kind)}",\n  resource == {kind}::{_quoted(name)}\n)'
    )
    if not grant.methods:
        return f"{head};\n"
    methods = ", ".join(map(_quoted, grant.methods))
    return f"{head}\nwhen {{ [{methods}].contains(context.method) }};\n"


def _quoted(text: str) -> str:
    """A string of Cedar; it holds no control character."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
