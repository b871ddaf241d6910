"""Fetching the keys of an issuer (JWKS, RFC 7517) from its URL.

Owns: no redirect to another origin, and what the answer says about its age. Must not: keep anything, or accept a
symmetric or private key.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.keys import load_jwks
from vedette.identity.web import NoAnswerError, exchange, read_body, split_url

MAX_BYTES: Final = 256 * 1024
MAX_SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)
_NO_STORE: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL answered. `keys` is None when they are as before (304); `max_age` in seconds, when it was said."""

    keys: tuple[IssuerKey, ...] | None
    etag: str | None
    max_age: int | None


def require_url(url: str) -> SplitResult:
    """The parts of a URL that keys may come from. Raises `ConfigError` jwks_url."""
    try:
        return split_url(url)
    except NoAnswerError as error:
        raise ConfigError("jwks_url", str(error)) from None


def fetch(
    url: str,
    *,
    ca_pem: str | None = None,
    alg: str | None = None,
    etag: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Fetched:
    """Fetches the keys at `url`. Raises `ConfigError` jwks_url or key_…, `UnavailableError` jwks_unavailable."""
    deadline = clock() + MAX_SECONDS
    origin = _origin(require_url(url))
    headers = {
        "accept": "application/jwk-set+json, application/json",
        **({"if-none-match": etag} if etag else {}),
    }
    for _ in range(MAX_REDIRECTS + 1):
        parts = require_url(url)
        try:
            with exchange(parts, headers, ca_pem=ca_pem, seconds=deadline - clock()) as response:
                if response.status not in _REDIRECTS:
                    return _fetched(response, alg, lambda: deadline - clock())
                url = urljoin(url, response.getheader("location", ""))
        except NoAnswerError as error:
            raise _unavailable(str(error)) from error
        if _origin(require_url(url)) != origin:
            raise _unavailable(f"it redirects to {urlsplit(url).netloc[:200]}, another origin")
    raise _unavailable("it redirects too often")


def _fetched(
    response: http.client.HTTPResponse, alg: str | None, left: Callable[[], float]
) -> Fetched:
    control = response.getheader("cache-control", "")
    age = _MAX_AGE.search(control)
    max_age = 0 if _NO_STORE.search(control) else int(age[1]) if age else None
    etag = response.getheader("etag")
    etag = etag if etag and len(etag) <= 256 and etag.isascii() and etag.isprintable() else None
    if response.status == 304:
        return Fetched(None, etag, max_age)
    if response.status != 200:
        raise _unavailable(f"it answered {response.status}")
    body = read_body(response, MAX_BYTES, MAX_SECONDS, left)
    return Fetched(tuple(load_jwks(body, "the JWKS", alg)), etag, max_age)


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("jwks_unavailable", f"the keys cannot be fetched: {why}")
