"""What can be revoked, and how people and the engine spell it.

Owns: the four kinds (a token, a certificate, a SPIFFE ID, a trust domain), their one spelling and its reading. Pure.
Must not: see a token; its issuer and its id are enough.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from vedette.errors import ConfigError
from vedette.identity.certificates import serial_of
from vedette.identity.domain import parse_spiffe_id, require_trust_domain
from vedette.identity.tokens import facts_of
from vedette.ids import require_name

Kind = Literal["token", "certificate", "spiffeId", "trustDomain"]
MAX_ISSUER: Final = 2_048
_SCHEME: Final = "spiffe://"


@dataclass(frozen=True, slots=True, order=True)
class Revocation:
    """One thing that counts no more. `owner` is the issuer of a token, the authority of a certificate, else empty;
    `name` is the `jti`, the serial number in hex, the SPIFFE ID or the trust domain.
    """

    kind: Kind
    owner: str
    name: str

    @classmethod
    def of_token(cls, issuer: str, jti: str) -> Revocation:
        """A token. Raises `ConfigError` jti_unknown."""
        if not 0 < len(jti) <= 1_024 or not jti.isprintable() or len(issuer) > MAX_ISSUER:
            raise ConfigError("jti_unknown", "that is not the id of a token")
        return cls("token", issuer, jti)

    @classmethod
    def of_certificate(cls, authority: str, serial: str) -> Revocation:
        """A certificate. Raises `ConfigError` invalid_name, certificate_unreadable."""
        return cls("certificate", require_name(authority, "authority"), serial_of(serial))

    @classmethod
    def of_identity(cls, text: str) -> Revocation:
        """A SPIFFE ID; one without a path is a whole trust domain. Raises `ConfigError` spiffe_id_invalid."""
        found = parse_spiffe_id(text)
        if found.path:
            return cls("spiffeId", "", str(found))
        return cls("trustDomain", "", found.trust_domain)

    @classmethod
    def of_domain(cls, name: str) -> Revocation:
        """A trust domain. Raises `ConfigError` spiffe_id_invalid."""
        return cls("trustDomain", "", require_trust_domain(name))

    def __str__(self) -> str:
        match self.kind:
            case "token":
                return f"{self.owner}#{self.name}"
            case "certificate":
                return f"{self.owner}/{self.name}"
            case "trustDomain":
                return f"{_SCHEME}{self.name}"
        return self.name

    def to_engine(self) -> dict[str, str]:
        """The same in the words of the engine's socket (crates/engine/src/revoked.rs)."""
        match self.kind:
            case "token":
                return {"kind": self.kind, "issuer": self.owner, "id": self.name}
            case "certificate":
                return {"kind": self.kind, "authority": self.owner, "serial": self.name}
            case "trustDomain":
                return {"kind": self.kind, "name": self.name}
        return {"kind": self.kind, "id": self.name}


def from_engine(row: dict[str, str]) -> Revocation:
    """What `to_engine` gave. Raises `KeyError` for what it never gives."""
    match row["kind"]:
        case "token":
            return Revocation("token", row["issuer"], row["id"])
        case "certificate":
            return Revocation("certificate", row["authority"], row["serial"])
        case "trustDomain":
            return Revocation("trustDomain", "", row["name"])
    return Revocation("spiffeId", "", row["id"])


def parse_revocation(text: str, issuer: str, domains: Collection[str]) -> Revocation:
    """Reads what somebody wrote: `ISSUER#JTI`, `spiffe://DOMAIN/PATH`, `spiffe://DOMAIN`, `AUTHORITY/SERIAL`, the name
    of one of `domains`, or the id of a token of `issuer`.

    Raises `ConfigError` jti_unknown, spiffe_id_invalid, invalid_name, certificate_unreadable. None quotes a token.
    """
    if "#" in text:
        by, _, jti = text.partition("#")
        return Revocation.of_token(by, jti)
    if text.startswith(_SCHEME):
        return Revocation.of_identity(text)
    if "/" in text:
        authority, _, serial = text.partition("/")
        return Revocation.of_certificate(authority, serial)
    if text in domains:
        return Revocation.of_domain(text)
    facts = facts_of(text)
    return Revocation.of_token(facts.issuer or issuer, facts.jti)
