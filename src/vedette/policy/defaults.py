"""The policies that the node itself writes.

Owns: what is allowed when nobody said anything (holders of this node's own tokens may call what is
deployed), and what `--public` means. Must not: allow anything that is not visible as a policy file.
"""

from __future__ import annotations

import json
from typing import Final

from vedette.ids import require_name

DEFAULT_POLICY_NAME: Final = "default.cedar"


def default_policy(trust_domain: str) -> str:
    """Who holds a token of this node may call every function; nobody else may call any."""
    issuer = json.dumps(f"spiffe://{trust_domain}")
    return f"""\
// Who holds a token of this node may call what is deployed. Everybody else is refused: Cedar denies by default.
@id("node-token")
permit (
  principal is Subject,
  action == Action::"invoke",
  resource
)
when {{ principal.issuer == {issuer} }};
"""


def public_policy_name(function: str) -> str:
    """The file name of the policy that makes a function public."""
    return f"public-{require_name(function)}.cedar"


def public_policy(function: str) -> str:
    """Anybody may call this function, without a token. Raises `ConfigError` invalid_name."""
    name = require_name(function)
    return f"""\
// Deployed with --public: anybody may call {name}, without a token.
@id("public-{name}")
permit (
  principal,
  action == Action::"invoke",
  resource == Function::"{name}"
);
"""
