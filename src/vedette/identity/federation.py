"""Bundles of other trust domains, each for itself (SPIFFE Federation §5, Trust Domain and Bundle §4.2.2).

Owns: which document takes the place of which. Must not: fetch one, or let a bundle speak for a trust domain other than
the one it is kept for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Final

from vedette.errors import ConfigError, TrustError
from vedette.identity.bundle import Bundle, read_bundle
from vedette.store.identities import IdentityStore

_log = logging.getLogger(__name__)
MAX_FEDERATED: Final = 1_000


class Federation:
    """The trust domains that this node knows besides its own. Methods may be called from any thread."""

    def __init__(self, store: IdentityStore, own_domain: str) -> None:
        self._store = store
        self._own = own_domain
        self._lock = threading.Lock()
        self._bundles = dict(self._kept())

    def _kept(self) -> Iterator[tuple[str, Bundle]]:
        """What can be used of what was kept: one that cannot must not cost the node its start."""
        for domain, document in self._store.bundles().items():
            try:
                yield domain, read_bundle(document, domain)
            except ConfigError as error:
                _log.error("%s is not trusted: %s", domain, error)

    def bundles(self) -> dict[str, Bundle]:
        """The bundles, by trust domain."""
        with self._lock:
            return dict(self._bundles)

    def put(self, trust_domain: str, document: bytes) -> Bundle:
        """Takes a newer document of a trust domain; one without keys ends the trust in it (redaction).

        Raises `ConfigError` bundle_invalid, `TrustError` bundle_rollback for an older one.
        """
        bundle = read_bundle(document, trust_domain)
        if bundle.trust_domain == self._own:
            raise ConfigError("bundle_invalid", "a node makes the bundle of its own trust domain")
        with self._lock:
            held = self._bundles.get(bundle.trust_domain)
            if held is None and len(self._bundles) >= MAX_FEDERATED:
                raise ConfigError("bundle_invalid", f"{MAX_FEDERATED} trust domains are known")
            if held is not None:
                _require_newer(held, bundle)
            if bundle == held:
                return bundle
            self._store.put_bundle(bundle.trust_domain, bundle.to_jwks())
            self._bundles[bundle.trust_domain] = bundle
        return bundle

    def remove(self, trust_domain: str) -> None:
        """Forgets a trust domain, also how far its sequence had come. Raises `ConfigError` bundle_unknown."""
        with self._lock:
            if self._bundles.pop(trust_domain, None) is None:
                message = f"no bundle of {trust_domain[:80]!r} is kept"
                raise ConfigError("bundle_unknown", message)
            self._store.remove_bundle(trust_domain)


def _require_newer(held: Bundle, bundle: Bundle) -> None:
    """A bundle never goes back: its sequence grows, or is the same with the same keys."""
    if held.sequence is None:
        return
    same_keys = (held.x509_authorities, held.jwt_keys) == (bundle.x509_authorities, bundle.jwt_keys)
    newer = bundle.sequence is not None and bundle.sequence > held.sequence
    if not newer and not (bundle.sequence == held.sequence and same_keys):
        raise TrustError(
            "bundle_rollback",
            f"the bundle of {bundle.trust_domain} has the sequence {bundle.sequence}; "
            f"{held.sequence} is kept",
        )
