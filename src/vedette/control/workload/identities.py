"""All that proves identities here: the issuers of this node's trust domain, its CRL, and bundles of others.

Owns: putting them together. Must not: decide who gets what; entries do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta

from vedette.clock import now
from vedette.control.bootstrap import Keys
from vedette.control.workload.messages import BundleStatus
from vedette.identity.bundle import REFRESH_HINT, Bundle, own_authority
from vedette.identity.federation import Federation
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
        self.x509 = X509Issuer(keys.authority)
        self.jwt = keys.jwt_svids
        self.federation = Federation(self.store, self.trust_domain)
        self.revocations = RevocationList(keys.authority, self.store)
        self._suspended: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._told_crl = self.crl()
        self._own = self._numbered(
            Bundle(
                self.trust_domain,
                (own_authority(keys.authority.certificate),),
                (self.jwt.public,),
                refresh_hint=REFRESH_HINT,
            )
        )

    def close(self) -> None:
        """Closes the store."""
        self.store.close()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when the CRL or a bundle changed, on the thread that changed it."""
        self._listeners.append(listener)

    def own_bundle(self) -> Bundle:
        """The bundle of this node's trust domain; its sequence grows when its keys change."""
        return self._own

    def bundles_for(self, domains: Iterable[str]) -> dict[str, Bundle]:
        """The node's own bundle and those of `domains` that are known, by trust domain, own first."""
        known = self.federation.bundles()
        wanted = sorted(set(domains) - self._suspended)
        others = {domain: known[domain] for domain in wanted if domain in known}
        return {self.trust_domain: self._own, **others}

    def suspend(self, domains: Collection[str]) -> None:
        """Hands out no bundle of these trust domains, which are kept, and those of others again."""
        changed = self._suspended != frozenset(domains)
        self._suspended = frozenset(domains)
        if changed:
            self._tell()

    def crl(self) -> bytes:
        """The CRL now, DER."""
        return self.revocations.der(self.clock())

    def revoke(self, serials: Iterable[tuple[int, datetime]]) -> None:
        """Takes back certificates, each with its end; those that ended are passed over."""
        at = self.clock()
        alive = [(serial, ends) for serial, ends in serials if ends + timedelta(minutes=5) > at]
        if alive:
            self.revocations.revoke(alive, at)
            self._tell()

    def refresh(self) -> None:
        """Signs the CRL anew when it is time, and tells of it."""
        if self.crl() != self._told_crl:
            self._tell()

    def put_bundle(self, trust_domain: str, document: bytes) -> BundleStatus:
        """Takes a bundle of another trust domain. Raises as `Federation.put`."""
        bundle = self.federation.put(trust_domain, document)
        self._tell()
        return _status(bundle, own=False)

    def remove_bundle(self, trust_domain: str) -> None:
        """Forgets another trust domain. Raises `ConfigError` bundle_unknown."""
        self.federation.remove(trust_domain)
        self._tell()

    def statuses(self) -> list[BundleStatus]:
        """The trust domains that are known, the node's own first."""
        others = sorted(self.federation.bundles().items())
        return [_status(self._own, own=True)] + [_status(one, own=False) for _, one in others]

    def _numbered(self, bundle: Bundle) -> Bundle:
        content = hashlib.sha256(bundle.to_jwks()).hexdigest()
        number = self.store.number_of("bundle", content)
        return Bundle(
            bundle.trust_domain,
            bundle.x509_authorities,
            bundle.jwt_keys,
            number,
            bundle.refresh_hint,
        )

    def _tell(self) -> None:
        self._told_crl = self.crl()
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
