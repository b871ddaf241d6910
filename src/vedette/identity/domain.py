"""Trust domains and SPIFFE ids (SPIFFE-ID §2).

Owns: how a node, its gateway and its tokens are named. Must not: hold a key.
"""

from __future__ import annotations

import re
import socket
from typing import Final

from vedette.errors import ConfigError

DOMAIN_SUFFIX: Final = "vedette.local"
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def default_node_name() -> str:
    """The machine's host name made fit for a trust domain: one label of letters, digits and
    hyphens.
    """
    label = socket.gethostname().split(".")[0].lower()
    sanitised = re.sub(r"[^a-z0-9]+", "-", label).strip("-")[:63].strip("-")
    return sanitised or "node"


def trust_domain(name: str) -> str:
    """The trust domain of the node called `name`. Raises `ConfigError` invalid_name."""
    if not _LABEL.match(name):
        raise ConfigError("invalid_name", f"{name!r} is not a valid node name")
    return f"{name}.{DOMAIN_SUFFIX}"


def spiffe_id(domain: str, path: str = "") -> str:
    """The SPIFFE id of `path` (such as `/gateway`) in a trust domain; without a path, of the domain
    itself.
    """
    return f"spiffe://{domain}{path}"


def gateway_id(domain: str) -> str:
    """The SPIFFE id of the node's public listener."""
    return spiffe_id(domain, "/gateway")


def token_audience(domain: str) -> str:
    """The audience that this node's own tokens are for: its gateway."""
    return gateway_id(domain)
