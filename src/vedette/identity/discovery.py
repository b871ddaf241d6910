"""OpenID Connect Discovery for JWT-SVIDs: where tokens of this node say their keys are (OIDC Discovery 1.0 §3, §4).

Owns: the two documents, and what an issuer's URL may be. Must not: serve them, or hold a private key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError
from vedette.identity.web import NoAnswerError, split_url

CONFIGURATION_PATH: Final = "/.well-known/openid-configuration"
KEYS_PATH: Final = "/keys"
_LONGEST: Final = 255


def require_issuer(url: str) -> str:
    """Returns an issuer: an https URL without user, query, fragment or slash at the end (§2).

    Raises `ConfigError` bundle_endpoint_invalid.
    """
    try:
        parts = split_url(url)
    except NoAnswerError as error:
        raise _invalid(str(error)) from None
    is_plain = parts.scheme == "https" and not parts.query and not parts.fragment
    if not is_plain or "?" in url or "#" in url or url.endswith("/") or len(url) > _LONGEST:
        raise _invalid(
            "an issuer is an https URL without query, fragment or slash at the end, 255 characters at most"
        )
    return url


def discovery_documents(issuer: str, keys: Sequence[IssuerKey]) -> dict[str, bytes]:
    """The configuration and the keys (RFC 7517), by their path below the issuer's."""
    configuration = {
        "issuer": issuer,
        "jwks_uri": issuer + KEYS_PATH,
        # Required, though nobody logs in here; SPIRE's discovery provider leaves it empty too.
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.alg for key in keys}) or ["ES256"],
    }
    jwks = {"keys": [{**key.jwk, "use": "sig", "alg": key.alg, "kid": key.kid} for key in keys]}
    return {CONFIGURATION_PATH: _json(configuration), KEYS_PATH: _json(jwks)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _invalid(why: str) -> ConfigError:
    return ConfigError("bundle_endpoint_invalid", f"the OIDC issuer cannot be used: {why}")
