"""The node's own tokens.

Owns: minting ES256 JWTs (RFC 7519) and publishing the key they verify under. Must not: verify
tokens of callers; the engine does, from the snapshot.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from vedette.clock import format_duration, now, to_rfc3339
from vedette.config.snapshot import Issuer, IssuerKey
from vedette.errors import ConfigError
from vedette.identity.domain import spiffe_id, token_audience
from vedette.identity.key_files import ensure_p256, load_p256
from vedette.identity.keys import public_jwk, thumbprint

ISSUER_NAME: Final = "node"
DEFAULT_TTL: Final = timedelta(hours=1)
MAX_TTL: Final = timedelta(hours=24)
MAX_LONG_TTL: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token and when it ends. The token is a secret: it is not in the `repr`."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What names a token for its revocation; None where it is not known."""

    jti: str
    issuer: str | None
    expires_at: str | None


def facts_of(text: str) -> TokenFacts:
    """The facts of a token, unverified (who revokes may revoke anything), or of the `jti` alone.

    Raises `ConfigError` jti_unknown for what is neither; the error does not quote it.
    """
    if text.count(".") != 2:
        if not 0 < len(text) <= 255 or not text.isprintable():
            raise ConfigError("jti_unknown", "that is not the id of a token")
        return TokenFacts(text, None, None)
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
        jti, issuer = claims["jti"], claims["iss"]
        end = datetime.fromtimestamp(claims["exp"], UTC)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, OSError):
        raise ConfigError("jti_unknown", "the token has no jti, iss or exp") from None
    if not isinstance(jti, str) or not isinstance(issuer, str) or not jti:
        raise ConfigError("jti_unknown", "the token has no jti, iss or exp")
    return TokenFacts(jti, issuer, to_rfc3339(end))


class TokenIssuer:
    """Holds the key that signs this node's tokens."""

    def __init__(self, key: EllipticCurvePrivateKey, trust_domain: str) -> None:
        self._key = key
        self._trust_domain = trust_domain
        self._jwk = public_jwk(key.public_key())
        self._kid = thumbprint(self._jwk)

    def __repr__(self) -> str:
        return f"TokenIssuer({spiffe_id(self._trust_domain)!r}, kid={self._kid!r})"

    @classmethod
    def ensure(cls, path: Path, trust_domain: str) -> TokenIssuer:
        """Loads the key in `path`, made first when there is none. Raises as
        `key_files.ensure_p256`.
        """
        return cls(ensure_p256(path), trust_domain)

    @classmethod
    def load(cls, path: Path, trust_domain: str) -> TokenIssuer:
        """Loads the key in `path`. Raises `ConfigError` key_unreadable, `TrustError`
        key_permissions.
        """
        return cls(load_p256(path), trust_domain)

    def public_issuer(self) -> Issuer:
        """This node as an issuer in its own snapshot."""
        return Issuer(
            name=ISSUER_NAME,
            issuer=spiffe_id(self._trust_domain),
            audiences=(token_audience(self._trust_domain),),
            keys=(IssuerKey(kid=self._kid, alg="ES256", jwk=self._jwk),),
        )

    def mint(
        self,
        subject: str,
        ttl: timedelta = DEFAULT_TTL,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        long: bool = False,
    ) -> MintedToken:
        """A token for `subject` that lives for `ttl`: at most 24 h, or 30 days when `long` says
        that is meant.

        Raises `ConfigError` token_ttl, token_subject or token_scope.
        """
        _require_ttl(ttl, MAX_LONG_TTL if long else MAX_TTL)
        _require_claims(subject, scopes)
        issued = now().replace(microsecond=0)
        expires = issued + ttl
        claims = {
            "iss": spiffe_id(self._trust_domain),
            "aud": audience or token_audience(self._trust_domain),
            "sub": subject,
            "iat": issued,
            "nbf": issued,
            "exp": expires,
            "jti": str(uuid.uuid4()),
        }
        if scopes:
            claims["scope"] = " ".join(scopes)
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})
        return MintedToken(token, expires)


def _require_ttl(ttl: timedelta, most: timedelta) -> None:
    if not timedelta(seconds=1) <= ttl <= most:
        asked = format_duration(ttl) if ttl >= timedelta() else "less than nothing"
        raise ConfigError(
            "token_ttl", f"a token can live from 1s to {format_duration(most)}, not {asked}"
        )


def _require_claims(subject: str, scopes: Sequence[str]) -> None:
    if not 0 < len(subject) <= 255 or not subject.isprintable():
        raise ConfigError("token_subject", "a subject has 1 to 255 printable characters")
    for scope in scopes:
        # RFC 6749 §3.3: scope-token.
        if not scope or not all(0x21 <= ord(char) <= 0x7E and char not in '"\\' for char in scope):
            raise ConfigError("token_scope", f"{scope!r} is not a scope")
