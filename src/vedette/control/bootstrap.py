"""What must exist before the engine starts: `python -m vedette.control.bootstrap --home HOME`.

Owns: node.json, the first keys, the first snapshot and the first certificate; brings an existing home up to what
`vedette up` asks for now. A process of its own, because the supervisor holds no key. Must not: talk to the engine.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from vedette.clock import now, to_rfc3339
from vedette.config.snapshot import Identity, Node, PolicyRef, PolicySet, Snapshot
from vedette.control import desired, tls
from vedette.control.audit import publish_key
from vedette.control.installed import brought
from vedette.errors import ConfigError, VedetteError
from vedette.identity.authority import Authority
from vedette.identity.domain import DOMAIN_SUFFIX, default_node_name, trust_domain
from vedette.identity.jwt_svid import JwtIssuer
from vedette.identity.key_files import reseal_p256
from vedette.identity.notes import NoteSigner
from vedette.identity.pkcs11_keys import Pkcs11Store, parse_uri
from vedette.identity.sealing import Seal
from vedette.identity.signer import SnapshotSigner, verify_envelope
from vedette.identity.succession import CaKind, JwtKind, Succession, key_files
from vedette.identity.tokens import TokenIssuer
from vedette.policy.defaults import DEFAULT_POLICY_NAME, default_policy
from vedette.policy.schema import schema_text
from vedette.store.activation import activate, heal
from vedette.store.atomic import read_json, write_atomic, write_json
from vedette.store.blobs import BlobStore
from vedette.store.history import History
from vedette.store.home import Home

LISTENER_MARGIN: Final = timedelta(minutes=3)
"""So long before a CA is trusted no more the listener shows a certificate of the next: renewal looks once a minute."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The content of node.json."""

    trust_domain: str
    location: str
    key_encryption_key: Path | None = None
    """What the operator named; None: control/seal.key."""
    ca_key: str | None = None
    """Where keys of the CA are made from now on: a PKCS#11 URI; None: in files."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Everything that signs: certificates, snapshots, tokens, JWT-SVIDs, heads of the audit log."""

    ca: Succession[Authority]
    signer: SnapshotSigner
    tokens: TokenIssuer
    jwt_svids: Succession[JwtIssuer]
    audit: NoteSigner

    @property
    def authority(self) -> Authority:
        """The CA that signs now."""
        return self.ca.active

    def listener_authority(self, at: datetime) -> Authority:
        """Who signs the listener's certificate: the CA that clients have known longest (ADR 0034)."""
        return self.ca.oldest(at, LISTENER_MARGIN)

    def ca_pem(self) -> bytes:
        """The certificates of all CAs that are trusted, the active one first."""
        return b"".join(one.certificate_pem for one in self.ca.trusted())


def read_facts(home: Home) -> NodeFacts | None:
    """What node.json says; None before the first start."""
    value = read_json(home.node_file)
    if not isinstance(value, dict):
        return None
    named = value.get("keyEncryptionKey")
    return NodeFacts(
        str(value["trustDomain"]),
        str(value["location"]),
        Path(named) if named else None,
        value.get("caKey"),
    )


def open_keys(home: Home, facts: NodeFacts) -> Keys:
    """The node's keys, made when there are none; those of the CA and of JWT-SVIDs are sealed if they were not.

    Raises `TrustError` key_permissions, `ConfigError` key_unreadable.
    """
    seal = _seal(home, facts)
    domain = facts.trust_domain
    token = None if facts.ca_key is None else Pkcs11Store(parse_uri(facts.ca_key))
    return Keys(
        Succession(home.control, CaKind(home.control, domain, seal), seal, token=token),
        SnapshotSigner.ensure(home.signing_key),
        TokenIssuer.ensure(home.token_key, domain),
        Succession(home.control, JwtKind(home.control, domain, seal), seal),
        NoteSigner.ensure(home.audit_key, f"{domain}/audit"),
    )


def _seal(home: Home, facts: NodeFacts) -> Seal:
    """A file that the operator named must be there; to make another would be to lock the operator out."""
    named = facts.key_encryption_key
    return Seal.ensure(home.seal_key) if named is None else Seal.load(named)


@dataclass(frozen=True, slots=True)
class Wish:
    """What `vedette up` was told for node.json; None: as it is, at first the default."""

    name: str | None = None
    site: str | None = None
    location: str | None = None
    key_encryption_key: Path | None = None
    ca_key: str | None = None
    """A PKCS#11 URI."""


def bootstrap(home: Home, wish: Wish | None = None, listen: Sequence[str] = ()) -> None:
    """Makes the home complete. Does nothing that was done before. Raises `VedetteError`."""
    home.create()
    facts = _ensure_facts(home, wish or Wish())
    keys = open_keys(home, facts)
    if (
        not home.signing_public.exists()
        or home.signing_public.read_bytes() != keys.signer.public_pem
    ):
        write_atomic(home.signing_public, keys.signer.public_pem)
    if not home.ca_certificate.exists() or home.ca_certificate.read_bytes() != keys.ca_pem():
        write_atomic(home.ca_certificate, keys.ca_pem(), 0o644)
    publish_key(home, keys.audit)
    if not home.challenge_key.exists():
        write_atomic(home.challenge_key, secrets.token_bytes(32))
    history = History(home.database)
    try:
        snapshot = _ensure_snapshot(home, history, facts, keys, desired.base_hosts(listen))
    finally:
        history.close()
    at = now()
    tls.renew_if_needed(home, keys.listener_authority(at), snapshot.admit.hosts, at)


def _ensure_facts(home: Home, wish: Wish) -> NodeFacts:
    known = read_facts(home)
    facts = NodeFacts(
        known.trust_domain if known else _first_domain(wish),
        wish.location or (known.location if known else "local"),
        wish.key_encryption_key or (known.key_encryption_key if known else None),
        _ca_key(wish, known),
    )
    if facts.key_encryption_key is not None and wish.key_encryption_key is not None:
        _seal_anew(home, known, facts)
    if facts != known:
        before = read_json(home.node_file) or {"createdAt": to_rfc3339(now())}
        told: dict[str, str] = {"trustDomain": facts.trust_domain, "location": facts.location}
        if facts.key_encryption_key is not None:
            told["keyEncryptionKey"] = str(facts.key_encryption_key)
        told |= {} if facts.ca_key is None else {"caKey": facts.ca_key}
        write_json(home.node_file, {**before, **told})
    return facts


def _ca_key(wish: Wish, known: NodeFacts | None) -> str | None:
    """A URI is tried before it is noted: a node that cannot reach its CA's key does not start."""
    before = known.ca_key if known else None
    if wish.ca_key is None:
        return before
    named = parse_uri(wish.ca_key)
    if before is not None:
        held = parse_uri(before)
        if (held.token, held.label) != (named.token, named.label):
            raise ConfigError("ca_key_invalid", "keys of the CA stay in the token where they are")
    Pkcs11Store(named).require()
    return wish.ca_key


def _first_domain(wish: Wish) -> str:
    return trust_domain(wish.name or default_node_name(), wish.site or DOMAIN_SUFFIX)


def _seal_anew(home: Home, known: NodeFacts | None, facts: NodeFacts) -> None:
    """Puts keys under another key-encryption key. node.json follows: who dies in between asks for the same again."""
    to = _seal(home, facts)
    from_ = _seal(home, known) if known is not None else to
    for name in (CaKind.name, JwtKind.name):
        for path in key_files(home.control, name):
            reseal_p256(path, (to, from_), to)
    if from_ is not to:
        home.seal_key.unlink(missing_ok=True)


def _ensure_snapshot(
    home: Home, history: History, facts: NodeFacts, keys: Keys, base: frozenset[str]
) -> Snapshot:
    entry = heal(home, history)
    if entry is None:
        first = _first_snapshot(home, facts, keys, base)
        first = brought(first, BlobStore(home.blobs), history)
        return _record(home, history, keys, first, "bootstrap")
    envelope = history.envelope(entry.digest)
    active = Snapshot.parse(verify_envelope(envelope, keys.signer.public_pem))
    wanted = desired.put_issuer(desired.with_hosts(active, base), keys.tokens.public_issuer())
    wanted = brought(wanted, BlobStore(home.blobs), history)
    if wanted.digest() == active.digest():
        return active
    return _record(home, history, keys, wanted, "up")


def _first_snapshot(home: Home, facts: NodeFacts, keys: Keys, base: frozenset[str]) -> Snapshot:
    blobs = BlobStore(home.blobs)
    schema = blobs.put(schema_text().encode())
    policy = blobs.put(default_policy(facts.trust_domain).encode())
    return Snapshot(
        node=Node(trust_domain=facts.trust_domain),
        admit=desired.first_admit(base),
        identity=Identity(issuers=(keys.tokens.public_issuer(),)),
        policy=PolicySet(
            schema=schema, policies=(PolicyRef(name=DEFAULT_POLICY_NAME, blob=policy),)
        ),
    )


def _record(home: Home, history: History, keys: Keys, snapshot: Snapshot, action: str) -> Snapshot:
    envelope = keys.signer.sign(snapshot.canonical_bytes())
    activate(
        home,
        history,
        digest=snapshot.digest(),
        envelope=envelope,
        action=action,
        actor="vedette up",
    )
    return snapshot


def main() -> int:
    """Runs a bootstrap; an error goes to stderr as one JSON line, for `vedette up` to show."""
    parser = argparse.ArgumentParser(prog="python -m vedette.control.bootstrap")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--name")
    parser.add_argument("--site")
    parser.add_argument("--location")
    parser.add_argument("--key-encryption-key", type=Path)
    parser.add_argument("--ca-key")
    parser.add_argument("--host", action="append", default=[])
    options = parser.parse_args()
    try:
        wish = Wish(
            options.name,
            options.site,
            options.location,
            options.key_encryption_key,
            options.ca_key,
        )
        bootstrap(Home(options.home), wish, options.host)
    except VedetteError as error:
        print(json.dumps(error.to_dict()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
