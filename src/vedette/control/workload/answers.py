"""What a caller with certain entries is answered (SPIFFE Workload API §5, §6).

Owns: the messages. Must not: know who asks, or keep a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedette.control.workload import wire
from vedette.control.workload.entries import Entry
from vedette.control.workload.grpc import CallError, Status
from vedette.control.workload.identities import Identities
from vedette.control.workload.svids import Svids
from vedette.errors import ConfigError, TrustError
from vedette.identity.bundle import Bundle
from vedette.identity.domain import parse_spiffe_id
from vedette.identity.jwt_svid import require_audiences, verify_jwt_svid

X509_SVID = "FetchX509SVID"
X509_BUNDLES = "FetchX509Bundles"
JWT_SVID = "FetchJWTSVID"
JWT_BUNDLES = "FetchJWTBundles"
VALIDATE = "ValidateJWTSVID"
STREAMS = frozenset({X509_SVID, X509_BUNDLES, JWT_BUNDLES})


def no_identity() -> CallError:
    """The answer to a caller that no entry matches, and to one whose last entry has gone."""
    return CallError(Status.PERMISSION_DENIED, "no identity is issued to this caller")


class Answers:
    """Makes messages. Methods may be called from any thread; they raise `CallError`."""

    def __init__(self, identities: Identities, svids: Svids) -> None:
        self._identities = identities
        self._svids = svids

    def stream(self, method: str, entries: Sequence[Entry]) -> bytes:
        """The full set, for one of `STREAMS`: what is not in it counts no more."""
        if not entries:
            raise no_identity()
        if method == X509_SVID:
            return self._x509_svids(entries)
        bundles = self._bundles(entries)
        if method == X509_BUNDLES:
            return wire.encode(
                "X509BundlesResponse",
                crl=self._identities.crls(),
                bundles={_key(domain): one.x509_der for domain, one in bundles.items()},
            )
        return wire.encode(
            "JWTBundlesResponse",
            bundles={_key(domain): one.jwt_jwks() for domain, one in bundles.items()},
        )

    def jwt_svids(self, data: bytes, entries: Sequence[Entry]) -> bytes:
        """JWT-SVIDs of a caller for the audiences it names; of all its identities, or of the one it names."""
        request = _decoded("JWTSVIDRequest", data)
        audiences = list(request.audience)
        try:
            require_audiences(audiences)
            wanted = request.spiffe_id and str(parse_spiffe_id(request.spiffe_id))
        except ConfigError as error:
            raise CallError(Status.INVALID_ARGUMENT, error.message) from None
        chosen = [one for one in entries if not wanted or str(one.spiffe_id) == wanted]
        if not chosen:
            raise no_identity()
        at = self._identities.clock()
        svids = []
        for entry, hint in _hinted(chosen):
            minted = self._identities.mint_jwt(entry.spiffe_id, audiences, entry.jwt_ttl, at)
            svids.append(
                wire.new("JWTSVID", spiffe_id=str(minted.spiffe_id), svid=minted.token, hint=hint)
            )
        return wire.encode("JWTSVIDResponse", svids=svids)

    def validated(self, data: bytes, entries: Sequence[Entry]) -> bytes:
        """What a JWT-SVID proves, under the bundles that the caller may have."""
        request = _decoded("ValidateJWTSVIDRequest", data)
        if not request.audience or not request.svid:
            raise CallError(Status.INVALID_ARGUMENT, "audience and svid must be given")
        if not entries:
            raise no_identity()
        bundles = self._bundles(entries)
        try:
            proved = verify_jwt_svid(
                request.svid, request.audience, bundles, self._identities.clock()
            )
        except TrustError as error:
            raise CallError(Status.INVALID_ARGUMENT, error.message) from None
        answer = wire.new("ValidateJWTSVIDResponse", spiffe_id=str(proved.spiffe_id))
        answer.claims.update(proved.claims)
        encoded: bytes = answer.SerializeToString()
        return encoded

    def _x509_svids(self, entries: Sequence[Entry]) -> bytes:
        own = self._identities.own_bundle().x509_der
        svids = []
        for entry, hint in _hinted(entries):
            svid = self._svids.current(entry)
            if svid is not None:
                svids.append(
                    wire.new(
                        "X509SVID",
                        spiffe_id=str(svid.spiffe_id),
                        x509_svid=svid.certificate,
                        x509_svid_key=svid.key,
                        bundle=own,
                        hint=hint,
                    )
                )
        if not svids:
            raise no_identity()
        bundles = self._bundles(entries)
        del bundles[self._identities.trust_domain]
        return wire.encode(
            "X509SVIDResponse",
            svids=svids,
            crl=self._identities.crls(),
            federated_bundles={_key(domain): one.x509_der for domain, one in bundles.items()},
        )

    def _bundles(self, entries: Sequence[Entry]) -> dict[str, Bundle]:
        return self._identities.bundles_for(
            domain for entry in entries for domain in entry.federates_with
        )


def _key(domain: str) -> str:
    return f"spiffe://{domain}"


def _hinted(entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """A hint stands for one SVID of an answer (§5.2.1): the first that has it keeps it."""
    seen: set[str] = set()
    found = []
    for entry in entries:
        found.append((entry, "" if entry.hint in seen else entry.hint))
        seen.add(entry.hint)
    return found


def _decoded(name: str, data: bytes) -> Any:
    try:
        return wire.decode(name, data)
    except ConfigError as error:
        raise CallError(Status.INVALID_ARGUMENT, error.message) from None
