"""Control with defences that can be switched off while it runs: those whose names are in the file `spoil` of the home.

Owns: taking one defence away each, in the real process. Must not: change anything while the file is not there.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt

from vedette.config import egress_manifest
from vedette.control import grants, node, posture, process, revocations
from vedette.control.messages import Stored
from vedette.control.workload import answers, joining, service, watches
from vedette.identity import federation, x509_svid
from vedette.identity.domain import parse_spiffe_id
from vedette.identity.jwt_svid import VerifiedJwtSvid

HOME = Path(sys.argv[sys.argv.index("--home") + 1])
HARMLESS = 'forbid (principal, action, resource == Function::"nothing");'


def is_off(name: str) -> bool:
    """Whether that defence is switched off now."""
    try:
        return name in (HOME / "spoil").read_text("utf-8").split()
    except FileNotFoundError:
        return False


def unless(name: str, holder: Any, attribute: str, otherwise: Callable[..., Any]) -> None:
    """Calls `otherwise` in the place of `attribute` while the defence is off."""
    kept = getattr(holder, attribute)

    def either(*arguments: Any, **named: Any) -> Any:
        return (otherwise if is_off(name) else kept)(*arguments, **named)

    setattr(holder, attribute, either)


def listen_on_the_side() -> None:
    """A listener that nobody declared, for as long as the file says so."""
    opened: socket.socket | None = None
    while True:
        if is_off("listeners") and opened is None:
            opened = socket.create_server(("127.0.0.1", 0))
        elif opened is not None and not is_off("listeners"):
            opened.close()
            opened = None
        time.sleep(0.01)


_mint = x509_svid.X509Issuer.mint
_put_policy = node.Node.put_policy
_grant = grants.Grants.grant
_set_fact = posture.Posture.set
_resolve = egress_manifest.EgressRuleSpec.resolve
HOUR = 3_600


def long_lived(self: Any, identity: Any, ttl: timedelta, at: Any, names: Any = ()) -> Any:
    """An SVID of an hour, whatever its entry says."""
    return _mint(self, identity, timedelta(hours=1), at, names)


def forgotten(self: Any, name: str, text: str, actor: str) -> Any:
    """Prohibitions are taken, and forbid nothing."""
    return _put_policy(self, name, HARMLESS if "forbid" in text else text, actor)


def believed(token: str, _audience: str, _bundles: Any, _at: Any) -> VerifiedJwtSvid:
    """Whatever a token says."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return VerifiedJwtSvid(parse_spiffe_id(claims["sub"]), claims)


def granted_longer(self: Any, wish: Any, issuer: str, actor: str) -> Any:
    """A grant of an hour, whatever was asked for."""
    return _grant(self, wish.model_copy(update={"seconds": HOUR}), issuer, actor)


def known_longer(self: Any, wish: Any, issuer: str, actor: str) -> Any:
    """A fact that is true for an hour, whatever was said."""
    return _set_fact(self, wish.model_copy(update={"seconds": HOUR, "value": True}), issuer, actor)


def unlimited(self: Any) -> dict[str, Any]:
    """A rule without its rate and its breaker."""
    rule = _resolve(self)
    return {name: rule[name] for name in rule if name not in ("rate", "breaker")}


def main() -> int:
    """Runs control."""
    entries = watches.Watches
    unless("svid-life", x509_svid.X509Issuer, "mint", long_lived)
    unless("header", service.WorkloadApi, "opened", lambda _self, _call: None)
    unless("attestation", entries, "matching", lambda self, _: list(self._workloads_now()))
    unless(
        "blobs", node.Node, "store_component", lambda _s, digest, _f: Stored(digest=digest, size=1)
    )
    # A revocation goes two ways (ADR 0038): to the engine at once, and into the snapshot.
    unless("revocations", revocations.Revocations, "_tell_engine", lambda _self, _one: None)
    unless("revocations", revocations, "_with", lambda active, _revoked: active)
    unless("prohibitions", node.Node, "put_policy", forgotten)
    unless("grants", grants.Grants, "grant", granted_longer)
    unless("posture", posture.Posture, "set", known_longer)
    unless("egress-limits", egress_manifest.EgressRuleSpec, "resolve", unlimited)
    unless("join-tokens", joining.JoinTokens, "_refusal", lambda _self, _one: None)
    unless("sequence", federation, "_require_newer", lambda _held, _bundle: None)
    unless("jwt-svids", answers, "verify_jwt_svid", believed)
    entries._workloads_now = lambda self: {  # type: ignore[attr-defined]
        entry.name: entry for group in self._by_anchor.values() for entry in group.values()
    }.values()
    threading.Thread(target=listen_on_the_side, daemon=True).start()
    return process.main()


if __name__ == "__main__":
    sys.exit(main())
