"""All that proves identities here: the issuers of this node's trust domain, its CRL, and bundles of others.

Owns: putting them together. Must not: decide who gets what; entries do.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from vedette.clock import now
from vedette.control.bootstrap import Keys
from vedette.control.workload.messages import BundleStatus
from vedette.identity.bundle import REFRESH_HINT, Bundle, own_authority
from vedette.identity.domain import SpiffeId
from vedette.identity.federation import Federation
from vedette.identity.jwt_svid import JwtIssuer, JwtSvid
from vedette.identity.revocation_list import RevocationList
from vedette.identity.x509_svid import X509Issuer
from vedette.store.home import Home
from vedette.store.identities import IdentityStore


class Identities:
    """The trust domain of a node and those it federates with. Methods may be called from any thread."""

    def __init__(self, home: Home, keys: Keys, clock: Callable[[], datetime] = now) -> None:
        self.store = IdentityStore(home.identity_database)
        self.trust_domain = keys.authority.trust_domain
        self.clock = clock
        self._keys = keys
        self.federation = Federation(self.store, self.trust_domain)
        self.revocations = RevocationList(keys.ca.signing, self.store)
        self._suspended: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._told_crls = self.crls()
        self._x509 = X509Issuer(keys.authority)
        self._of_endpoint = self._x509
        self.oidc_issuer: str | None = None
        """`iss` of JWT-SVIDs, where their keys are found (OIDC Discovery)."""
        self._own = self._made_bundle()

    def close(self) -> None:
        """Closes the store."""
        self.store.close()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when the CRL or a bundle changed, on the thread that changed it."""
        self._listeners.append(listener)

    @property
    def x509(self) -> X509Issuer:
        """Who mints X509-SVIDs: another object when another CA signs."""
        return self._x509

    @property
    def jwt(self) -> JwtIssuer:
        """Who mints JWT-SVIDs."""
        return self._keys.jwt_svids.active

    def mint_jwt(
        self,
        identity: SpiffeId,
        audiences: Sequence[str],
        ttl: timedelta,
        at: datetime,
        claims: Mapping[str, str | int] | None = None,
    ) -> JwtSvid:
        """A JWT-SVID by the key that signs now, with `iss` where there is an OIDC issuer.

        Raises as `JwtIssuer.mint`.
        """
        issuer = {} if self.oidc_issuer is None else {"iss": self.oidc_issuer}
        return self.jwt.mint(identity, audiences, ttl, at, {**(claims or {}), **issuer})

    def keys_changed(self) -> None:
        """Another key is trusted, signs, or is trusted no more: the bundle is another, and SVIDs may be."""
        self._own = self._made_bundle()
        if self._x509.authority is not self._keys.authority:
            self._x509 = X509Issuer(self._keys.authority)
        self._tell()

    def endpoint_issuer(self, at: datetime) -> X509Issuer:
        """Who mints the SVID of the bundle endpoint: the CA that others have known longest (ADR 0034)."""
        authority = self._keys.listener_authority(at)
        if self._of_endpoint.authority is not authority:
            self._of_endpoint = X509Issuer(authority)
        return self._of_endpoint

    def own_bundle(self) -> Bundle:
        """The bundle of this node's trust domain; its sequence grows when its keys change."""
        return self._own

    def bundles_for(self, domains: Iterable[str]) -> dict[str, Bundle]:
        """The node's own bundle and those of `domains` that are known, by trust domain, own first."""
        known = self.federation.bundles()
        wanted = sorted(set(domains) - self._suspended)
        others = {domain: known[domain] for domain in wanted if domain in known}
        return {self.trust_domain: self._own, **others}

    def crls(self) -> tuple[bytes, ...]:
        """The CRLs now, DER: one of each CA that has signed."""
        return self.revocations.ders(self.clock())

    def suspend(self, domains: Collection[str]) -> None:
        """Hands out no bundle of these trust domains, which are kept, and those of others again."""
        changed = self._suspended != frozenset(domains)
        self._suspended = frozenset(domains)
        if changed:
            self._tell()

    def revoke(self, serials: Iterable[tuple[int, datetime]]) -> None:
        """Takes back certificates, each with its end; those that ended are passed over."""
        at = self.clock()
        alive = [(serial, ends) for serial, ends in serials if ends + timedelta(minutes=5) > at]
        if alive:
            self.revocations.revoke(alive, at)
            self._tell()

    def refresh(self) -> None:
        """Signs the CRL anew when it is time, and tells of it."""
        if self.crls() != self._told_crls:
            self._tell()

    def put_bundle(self, trust_domain: str, document: bytes) -> BundleStatus:
        """Takes a bundle of another trust domain. Raises as `Federation.put`."""
        return _status(self.take_bundle(trust_domain, document), own=False)

    def take_bundle(self, trust_domain: str, document: bytes) -> Bundle:
        """As `put_bundle`; programs are told only when it is another."""
        before = self.federation.bundles().get(trust_domain)
        bundle = self.federation.put(trust_domain, document)
        if bundle != before:
            self._tell()
        return bundle

    def remove_bundle(self, trust_domain: str) -> None:
        """Forgets another trust domain. Raises `ConfigError` bundle_unknown."""
        self.federation.remove(trust_domain)
        self._tell()

    def statuses(self) -> list[BundleStatus]:
        """The trust domains that are known, the node's own first."""
        others = sorted(self.federation.bundles().items())
        return [_status(self._own, own=True)] + [_status(one, own=False) for _, one in others]

    def _made_bundle(self) -> Bundle:
        """The keys that are trusted now; the sequence grows when they are others than at the last time. They are in an
        order of their own: which of them signs makes no other bundle.
        """
        authorities = sorted(self._keys.ca.trusted(), key=lambda one: (one.begins, one.key_id))
        signers = sorted(self._keys.jwt_svids.trusted(), key=lambda one: one.key_id)
        bundle = Bundle(
            self.trust_domain,
            tuple(own_authority(one.certificate) for one in authorities),
            tuple(one.public for one in signers),
            refresh_hint=REFRESH_HINT,
        )
        content = hashlib.sha256(bundle.to_jwks()).hexdigest()
        return dataclasses.replace(bundle, sequence=self.store.number_of("bundle", content))

    def _tell(self) -> None:
        self._told_crls = self.crls()
        for listener in self._listeners:
            listener()


def _status(bundle: Bundle, *, own: bool) -> BundleStatus:
    return BundleStatus(
        trust_domain=bundle.trust_domain,
        own=own,
        sequence=bundle.sequence,
        x509_authorities=len(bundle.x509_authorities),
        jwt_keys=len(bundle.jwt_keys),
    )
