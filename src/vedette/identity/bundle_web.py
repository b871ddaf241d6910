"""Fetching a trust bundle from its endpoint (SPIFFE Federation §5.2.1.4, §5.2.2.4).

Owns: who the endpoint must prove to be, in both profiles. Must not: keep anything, or believe the document; `bundle`
reads it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin

from cryptography import x509

from vedette.errors import ConfigError, UnavailableError
from vedette.identity.bundle import MAX_BUNDLE_BYTES, Bundle
from vedette.identity.domain import SpiffeId
from vedette.identity.web import NoAnswerError, Peer, exchange, read_body, split_url

MAX_SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_ACCEPT: Final = {"accept": "application/json"}


@dataclass(frozen=True, slots=True)
class SpiffeEndpoint:
    """Who an https_spiffe endpoint is, and the bundle of its trust domain that proves it."""

    identity: SpiffeId
    bundle: Bundle


def require_bundle_url(url: str) -> SplitResult:
    """The parts of an endpoint's URL: https, without user. Raises `ConfigError` bundle_url."""
    try:
        parts = split_url(url)
    except NoAnswerError as error:
        raise ConfigError("bundle_url", str(error)) from None
    if parts.scheme != "https":
        raise ConfigError("bundle_url", f"{parts.scheme}://{parts.netloc[:200]}: only https")
    return parts


def fetch_bundle(
    url: str,
    endpoint: SpiffeEndpoint | None = None,
    ca_pem: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """The document at `url`, at most 1 MiB; of `endpoint` in the profile https_spiffe, else (https_web) of whom the
    CAs in `ca_pem` or of this system vouch for.

    https_web follows up to three redirects to other https URLs; https_spiffe follows none. Raises `ConfigError`
    bundle_url, certificate_unreadable, `UnavailableError` bundle_unavailable.
    """
    deadline = clock() + MAX_SECONDS
    peer = None if endpoint is None else _peer(endpoint)
    for _ in range(MAX_REDIRECTS + 1):
        parts = require_bundle_url(url)
        left = deadline - clock()
        try:
            with exchange(parts, _ACCEPT, ca_pem=ca_pem, seconds=left, peer=peer) as answer:
                if answer.status not in _REDIRECTS:
                    return _document(answer, lambda: deadline - clock())
                url = urljoin(url, answer.getheader("location", ""))
        except NoAnswerError as error:
            raise _unavailable(str(error)) from error
        if endpoint is not None:
            raise _unavailable("it redirects, which is not followed with https_spiffe")
    raise _unavailable("it redirects too often")


def _document(answer: http.client.HTTPResponse, left: Callable[[], float]) -> bytes:
    if answer.status != 200:
        raise _unavailable(f"it answered {answer.status}")
    return read_body(answer, MAX_BUNDLE_BYTES, MAX_SECONDS, left)


def _peer(endpoint: SpiffeEndpoint) -> Peer:
    """TLS 1.2 or newer, the chain to the bundle's own certificates, and then its name (X509-SVID §5.2)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the name is a SPIFFE ID, which `verify` looks at
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A bundle's certificate is trusted by itself, whether it is self-signed or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not endpoint.bundle.x509_authorities:
        message = f"the bundle of {endpoint.identity.trust_domain} has no CA to prove it by"
        raise _unavailable(message)
    context.load_verify_locations(cadata=endpoint.bundle.x509_der)

    def verify(der: bytes) -> None:
        if (found := svid_identity(der)) != str(endpoint.identity):
            raise NoAnswerError(f"it is {found[:200] or 'no SVID'}, not {endpoint.identity}")

    return Peer(context, verify)


def svid_identity(der: bytes) -> str:
    """The SPIFFE ID in a leaf: its only URI name; empty when there is not one, or for a CA (X509-SVID §5.2)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    is_leaf = usage.digital_signature and not (usage.key_cert_sign or usage.crl_sign)
    return uris[0] if len(uris) == 1 and is_leaf and not _is_ca(extensions) else ""


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("bundle_unavailable", f"the bundle cannot be fetched: {why}")
