"""Fetching the keys of an issuer (JWKS, RFC 7517) from its URL.

Owns: one careful GET: https (plain only on this machine), no redirect to another origin, no proxy, limits on size and
time, what the answer says about its age. Must not: keep anything, or accept a symmetric or private key.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from vedette import __version__
from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.keys import load_jwks

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
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("jwks_url", f"{url[:200]!r} is not a URL") from None
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError("jwks_url", f"{url[:200]!r} is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("jwks_url", "a URL of public keys needs no password")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return parts
    raise ConfigError("jwks_url", f"{parts.scheme}://{parts.netloc}: keys come over https only")


def require_ca(pem: str | None) -> None:
    """Raises `ConfigError` certificate_unreadable when `pem` is there and no certificate is in it."""
    if pem is not None:
        _context(pem)


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
    for _ in range(MAX_REDIRECTS + 1):
        with _exchange(require_url(url), ca_pem, etag, deadline - clock()) as response:
            if response.status not in _REDIRECTS:
                return _fetched(response, alg, lambda: deadline - clock())
            url = urljoin(url, response.getheader("location", ""))
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
    return Fetched(tuple(load_jwks(_body(response, left), "the JWKS", alg)), etag, max_age)


def _body(response: http.client.HTTPResponse, left: Callable[[], float]) -> bytes:
    body = bytearray()
    while chunk := response.read1(16 * 1024):
        body += chunk
        if len(body) > MAX_BYTES:
            raise _unavailable(f"it is larger than {MAX_BYTES // 1024} KiB")
    if left() <= 0:  # the connection was cut: what there is may be a part
        raise _unavailable(f"it took longer than {MAX_SECONDS:g} s")
    return bytes(body)


@contextlib.contextmanager
def _exchange(
    parts: SplitResult, ca_pem: str | None, etag: str | None, seconds: float
) -> Iterator[http.client.HTTPResponse]:
    host, port = parts.hostname or "", parts.port
    timeout = max(seconds, 0.01)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = _context(ca_pem)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    headers = {
        "accept": "application/jwk-set+json, application/json",
        "user-agent": f"vedette/{__version__}",
        **({"if-none-match": etag} if etag else {}),
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
        # A timeout of a socket is for one read; a server that sends a byte a second would have us for hours.
        cut = threading.Timer(timeout, _cut, (connection.sock,))
        cut.daemon = True
        cut.start()
        try:
            connection.request("GET", target, headers=headers)
            yield connection.getresponse()
        finally:
            cut.cancel()
    except ssl.SSLCertVerificationError as error:
        raise _unavailable(f"its certificate is not trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _cut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _context(ca_pem: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise ConfigError("certificate_unreadable", "the CA file holds no certificate") from None


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("jwks_unavailable", f"the keys cannot be fetched: {why}")
