"""JWT-SVIDs: minting the node's own, verifying any under a bundle (SPIFFE JWT-SVID §2 to §4, RFC 7519, RFC 8725).

Owns: the key that signs them, which is never the CA's. Must not: fetch keys, or look for one outside the bundle of the
token's own trust domain.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from vedette.clock import now, to_rfc3339
from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError, TrustError
from vedette.identity.bundle import Bundle
from vedette.identity.domain import SpiffeId, parse_spiffe_id
from vedette.identity.key_files import ensure_p256, made_at
from vedette.identity.keys import public_jwk, thumbprint
from vedette.identity.sealing import Seal
from vedette.identity.x509_svid import require_ttl

DEFAULT_JWT_TTL: Final = timedelta(minutes=5)
MAX_JWT_TTL: Final = timedelta(hours=1)
KEY_LIFETIME: Final = timedelta(days=730)
"""As the CA's: it signs for about half of it (ADR 0034)."""
MAX_AUDIENCES: Final = 16
MAX_TOKEN_BYTES: Final = 16_384
_MAX_AUDIENCE: Final = 2_048
# JWT-SVID §2.2: no symmetric algorithm, no "none", and not EdDSA.
_ALGORITHMS: Final = frozenset(
    f"{family}{bits}" for family in ("RS", "ES", "PS") for bits in (256, 384, 512)
)
_TYPES: Final = (None, "JWT", "JOSE")
_LEEWAY: Final = timedelta(seconds=30)  # of `nbf` and `iat`; an ended token has ended


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A token, whose it is and when it ends, UTC. The token is a secret: it is not in the `repr`."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    not_after: datetime


@dataclass(frozen=True, slots=True)
class VerifiedJwtSvid:
    """What a token proved: who, and all its claims."""

    spiffe_id: SpiffeId
    claims: dict[str, Any]


class JwtIssuer:
    """Holds the key that signs this node's JWT-SVIDs."""

    def __init__(
        self,
        key: EllipticCurvePrivateKey,
        trust_domain: str,
        begins: datetime | None = None,
    ) -> None:
        self._key = key
        self._trust_domain = trust_domain
        self.begins = (begins or now()).replace(microsecond=0)
        """From when on it may sign, UTC."""
        jwk = public_jwk(key.public_key())
        self.public = IssuerKey(kid=thumbprint(jwk), alg="ES256", jwk=jwk)
        """The public key, as bundles give it."""

    def __repr__(self) -> str:
        return f"JwtIssuer({self._trust_domain!r}, kid={self.public.kid!r})"

    @classmethod
    def ensure(cls, path: Path, trust_domain: str, seal: Seal | None = None) -> JwtIssuer:
        """Loads the key in `path`, made first when there is none. Raises as `key_files.ensure_p256`."""
        return cls(ensure_p256(path, seal), trust_domain, made_at(path))

    @property
    def ends(self) -> datetime:
        """Until when it is to be used at most, UTC."""
        return self.begins + KEY_LIFETIME

    @property
    def key_id(self) -> str:
        """The `kid` of its tokens."""
        return str(self.public.kid)

    def told(self) -> dict[str, str]:
        """What, with the key, makes it again."""
        return {"begins": to_rfc3339(self.begins)}

    def mint(
        self,
        identity: SpiffeId,
        audiences: Sequence[str],
        ttl: timedelta,
        at: datetime,
        claims: Mapping[str, str | int] | None = None,
    ) -> JwtSvid:
        """A token (ES256) of `identity` for these audiences that ends at `at` + `ttl`, with `claims` besides those
        that every JWT-SVID has.

        Raises `ConfigError` svid_invalid for another trust domain, no audience, or a life that is too short or long.
        """
        if identity.trust_domain != self._trust_domain or not identity.path:
            raise ConfigError("svid_invalid", f"{identity} is not a workload of this node")
        require_audiences(audiences)
        require_ttl(ttl, MAX_JWT_TTL)
        issued = at.replace(microsecond=0)
        stated = {
            **(claims or {}),
            "sub": str(identity),
            "aud": list(audiences),
            "iat": issued,
            "exp": issued + ttl,
            "jti": str(uuid.uuid4()),
        }
        headers = {"kid": self.public.kid}
        token = jwt.encode(stated, self._key, algorithm="ES256", headers=headers)
        return JwtSvid(identity, token, issued + ttl)


def require_audiences(audiences: Sequence[str]) -> None:
    """Raises `ConfigError` svid_invalid unless there are 1 to 16 audiences of 1 to 2,048 characters."""
    if not 1 <= len(audiences) <= MAX_AUDIENCES:
        raise ConfigError("svid_invalid", f"a JWT-SVID is for 1 to {MAX_AUDIENCES} audiences")
    if not all(0 < len(one) <= _MAX_AUDIENCE and one.isprintable() for one in audiences):
        raise ConfigError("svid_invalid", "an audience has 1 to 2,048 printable characters")


def verify_jwt_svid(
    token: str, audience: str, bundles: Mapping[str, Bundle], at: datetime
) -> VerifiedJwtSvid:
    """Proves a JWT-SVID for `audience` under the bundle of its own trust domain (JWT-SVID §4, §5).

    `bundles` is by trust domain. Raises `TrustError` svid_refused, which never quotes the token.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise _refused("it is too long")
    try:
        header = jwt.get_unverified_header(token)
        stated = jwt.decode(token, options={"verify_signature": False})
        identity = parse_spiffe_id(_text(stated, "sub"))
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _refused("it is not a JWT") from None
    except ConfigError:
        raise _refused("its sub is no SPIFFE ID") from None
    bundle = bundles.get(identity.trust_domain)
    if bundle is None:
        raise _refused("its trust domain is not trusted")
    claims = _verified(token, _key(header, bundle), audience)
    _require_times(claims, at)
    return VerifiedJwtSvid(identity, claims)


def _key(header: Mapping[str, Any], bundle: Bundle) -> IssuerKey:
    """The one key that the header names, when it is for the algorithm that the header names."""
    if header.get("alg") not in _ALGORITHMS or header.get("typ") not in _TYPES:
        raise _refused("its alg or typ is not one of a JWT-SVID")
    for key in bundle.jwt_keys:
        if key.kid == header.get("kid") and key.alg == header["alg"]:
            return key
    raise _refused("no key of its trust domain has its kid and alg")


def _verified(token: str, key: IssuerKey, audience: str) -> dict[str, Any]:
    public = jwt.PyJWK(key.jwk, algorithm=key.alg)
    # Times are judged by `_require_times`, against the clock of the caller.
    options: Any = {
        "require": ["sub", "aud", "exp"],
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
    }
    try:
        return jwt.decode(token, public, algorithms=[key.alg], audience=audience, options=options)
    except jwt.InvalidAudienceError:
        raise _refused("it is for another audience") from None
    except jwt.MissingRequiredClaimError as error:
        raise _refused(f"it has no {error.claim}") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise _refused("its signature does not verify") from None


def _require_times(claims: Mapping[str, Any], at: datetime) -> None:
    if _moment(claims, "exp", at) <= at:
        raise _refused("it has ended")
    for name in ("nbf", "iat"):
        if _moment(claims, name, at) > at + _LEEWAY:
            raise _refused("it is not valid yet")


def _moment(claims: Mapping[str, Any], name: str, absent: datetime) -> datetime:
    value = claims.get(name, absent.timestamp())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused(f"its {name} is no time")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _refused(f"its {name} is no time") from None


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise ConfigError("spiffe_id_invalid", f"there is no {name}")
    return value


def _refused(why: str) -> TrustError:
    return TrustError("svid_refused", f"the JWT-SVID is refused: {why}")
