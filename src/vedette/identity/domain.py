"""Trust domains and SPIFFE ids (SPIFFE-ID §2).

Owns: how a node, its gateway, its tokens and its workloads are named, and what a SPIFFE ID may look like. Must not:
hold a key.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final

from vedette.errors import ConfigError

DOMAIN_SUFFIX: Final = "vedette.local"
MAX_ID_BYTES: Final = 2_048  # SPIFFE-ID §2.3
MAX_DOMAIN_BYTES: Final = 255  # SPIFFE-ID §2.3
RESERVED_PATHS: Final = ("/gateway", "/fn")
"""The node itself and its functions: no workload is given a name there."""
_SCHEME: Final = "spiffe://"
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}\Z")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)*\Z")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID in its two parts; `path` is empty for the trust domain itself, else starts with a slash."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def parse_spiffe_id(text: str) -> SpiffeId:
    """Reads a SPIFFE ID as strictly as SPIFFE-ID §2 says: a lower-case trust domain without user, port or escapes, no
    empty or dot segment, no slash at the end, at most 2,048 bytes.

    Raises `ConfigError` spiffe_id_invalid.
    """
    if len(text) > MAX_ID_BYTES or not text.startswith(_SCHEME):
        raise ConfigError("spiffe_id_invalid", f"{text[:80]!r} is not a SPIFFE ID")
    domain, slash, rest = text.removeprefix(_SCHEME).partition("/")
    return SpiffeId(require_trust_domain(domain), require_path(slash + rest))


def require_trust_domain(name: str) -> str:
    """Returns the name of a trust domain (SPIFFE-ID §2.1). Raises `ConfigError` spiffe_id_invalid."""
    if not _DOMAIN.match(name):
        raise ConfigError("spiffe_id_invalid", f"{name[:80]!r} is not the name of a trust domain")
    return name


def require_path(path: str) -> str:
    """Returns the path of a SPIFFE ID, which may be empty (SPIFFE-ID §2.2). Raises `ConfigError` spiffe_id_invalid."""
    segments = path.split("/")
    if not _PATH.match(path) or "." in segments or ".." in segments:
        raise ConfigError("spiffe_id_invalid", f"{path[:80]!r} is not the path of a SPIFFE ID")
    return path


def workload_id(domain: str, path: str) -> SpiffeId:
    """The SPIFFE ID of a workload: with a path, and not one that the node has for itself.

    Raises `ConfigError` spiffe_id_invalid, spiffe_id_reserved.
    """
    found = parse_spiffe_id(f"{_SCHEME}{domain}{path}")
    if not found.path:
        raise ConfigError("spiffe_id_invalid", "a workload's SPIFFE ID has a path")
    if f"/{path.split('/')[1]}" in RESERVED_PATHS:
        raise ConfigError("spiffe_id_reserved", f"{path!r} belongs to the node itself")
    return found


def default_node_name() -> str:
    """The machine's host name made fit for a trust domain: one label of letters, digits and
    hyphens.
    """
    label = socket.gethostname().split(".")[0].lower()
    sanitised = re.sub(r"[^a-z0-9]+", "-", label).strip("-")[:63].strip("-")
    return sanitised or "node"


def trust_domain(name: str, site: str = DOMAIN_SUFFIX) -> str:
    """The trust domain of the node called `name` at `site`, a name in dotted labels.

    Raises `ConfigError` invalid_name.
    """
    if not _LABEL.match(name):
        raise ConfigError("invalid_name", f"{name!r} is not a valid node name")
    domain = f"{name}.{site}"
    if not all(_LABEL.match(label) for label in site.split(".")) or len(domain) > MAX_DOMAIN_BYTES:
        raise ConfigError("invalid_name", f"{site[:80]!r} is not a valid site name")
    return domain


def spiffe_id(domain: str, path: str = "") -> str:
    """The SPIFFE id of `path` (such as `/gateway`) in a trust domain; without a path, of the domain
    itself.
    """
    return f"spiffe://{domain}{path}"


def gateway_id(domain: str) -> str:
    """The SPIFFE id of the node's public listener."""
    return spiffe_id(domain, "/gateway")


def bundle_endpoint_id(domain: str) -> SpiffeId:
    """The SPIFFE ID that a node's bundle endpoint shows (https_spiffe)."""
    return SpiffeId(domain, "/gateway/bundle")


def token_audience(domain: str) -> str:
    """The audience that this node's own tokens are for: its gateway."""
    return gateway_id(domain)
