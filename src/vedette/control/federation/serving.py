"""The node's bundle endpoint: whether, where and as whom it serves (SPIFFE Federation §5.2, ADR 0035).

Owns: control/bundle-endpoint.json, the listening socket, the certificate that is shown, and which documents there are.
Must not: make a bundle, or put a key of an SVID on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import ssl
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from vedette.config.model import build
from vedette.control.federation.endpoint import HttpsServer
from vedette.control.federation.messages import EndpointStatus, Profile, ServeWish
from vedette.control.supervisor.sockets import parse_address, resolve
from vedette.control.workload.identities import Identities
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.identity.discovery import discovery_documents, require_issuer
from vedette.identity.domain import bundle_endpoint_id
from vedette.identity.sealing import read_private
from vedette.identity.x509_svid import MAX_TTL, X509Svid
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

INTERVAL: Final = 1.0
BUNDLE_PATH: Final = "/bundle"
_BACKLOG: Final = 128
_SVID_TTL: Final = MAX_TTL

log = logging.getLogger("vedette.control.bundles")


class BundleServing:
    """The bundle endpoint of a node, off until it is asked for. Methods may be called from any thread."""

    def __init__(self, home: Home, identities: Identities) -> None:
        self._file = home.bundle_endpoint_file
        self._identities = identities
        self._lock = threading.RLock()
        self._server: HttpsServer | None = None
        self._addresses: list[str] = []
        self._error: str | None = None
        self._wish = self._kept()
        self._tell_issuer()

    def status(self) -> EndpointStatus | None:
        """How it stands; None when the node serves no bundle."""
        with self._lock:
            wish = self._wish
            if wish is None:
                return None
            is_spiffe = wish.profile is Profile.HTTPS_SPIFFE
            identity = bundle_endpoint_id(self._identities.trust_domain)
            return EndpointStatus(
                **wish.model_dump(),
                address=", ".join(self._addresses) or wish.listen,
                endpoint_id=str(identity) if is_spiffe else None,
                error=self._error,
            )

    def put(self, wish: ServeWish) -> EndpointStatus:
        """Serves as asked from now on, also after a restart.

        Raises `ConfigError` bundle_endpoint_invalid, address_invalid, key_unreadable, `TrustError` key_permissions,
        `UnavailableError` address_in_use; what was served before is served then.
        """
        _require_valid(wish)
        with self._lock:
            before = self._wish
            self._stop()
            try:
                self._wish = self._start(wish)
                write_json(self._file, _kept_form(self._wish))
            except VedetteError:
                self._stop()
                self._wish = before
                self.ensure()
                raise
            self._tell_issuer()
        status = self.status()
        assert status is not None
        return status

    def remove(self) -> None:
        """Serves no more."""
        with self._lock:
            self._file.unlink(missing_ok=True)
            self._wish = None
            self._stop()
            self._tell_issuer()

    def ensure(self) -> None:
        """Serves what is wished for, if it does not: the address was taken, a file was missing."""
        with self._lock:
            if self._wish is None or self._server is not None:
                return
            try:
                self._start(self._wish)
            except VedetteError as error:
                if self._error != error.message:
                    log.warning("the bundle endpoint does not serve: %s", error)
                self._error = error.message

    def run(self, stopping: threading.Event) -> None:
        """Looks once a second until `stopping` is set, and then serves no more."""
        while True:
            self.ensure()
            if stopping.wait(INTERVAL):
                break
        with self._lock:
            self._stop()

    def _kept(self) -> ServeWish | None:
        value = read_json(self._file)
        if value is None:
            return None
        try:
            return build(ServeWish, value, code="bundle_endpoint_invalid")
        except ConfigError as error:
            log.error("the bundle endpoint is not served: %s", error)
            return None

    def _start(self, wish: ServeWish) -> ServeWish:
        """Serves; returns the wish with the port that was taken."""
        certificates = _certificates(wish, self._identities)
        certificates.context()
        listeners = _bound(wish.listen)
        port = listeners[0].getsockname()[1]
        server = HttpsServer(self._documents, certificates.context)
        server.start(listeners)
        self._server, self._error = server, None
        self._addresses = [_shown(one.getsockname()) for one in listeners]
        host = wish.listen.rpartition(":")[0]
        return wish.model_copy(update={"listen": f"{host}:{port}"})

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server, self._addresses, self._error = None, [], None

    def _documents(self) -> dict[str, bytes]:
        """By path. The newest bundle each time (§5.2.1.3)."""
        bundle = self._identities.own_bundle()
        issuer = self._identities.oidc_issuer
        found = {BUNDLE_PATH: bundle.to_jwks()}
        if issuer is not None:
            base = urlsplit(issuer).path.rstrip("/")
            for path, document in discovery_documents(issuer, bundle.jwt_keys).items():
                found[base + path] = document
        return found

    def _tell_issuer(self) -> None:
        self._identities.oidc_issuer = None if self._wish is None else self._wish.oidc_issuer


class _WebCertificate:
    """https_web: files of the operator's, read again when they change. Ones that cannot be used do not take the place
    of those that could.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._places = (certificate, key)
        self._context: ssl.SSLContext | None = None
        self._seen: object = None

    def context(self) -> ssl.SSLContext:
        """The certificate to show now. Raises `ConfigError` key_unreadable, `TrustError` key_permissions at first."""
        try:
            seen = [(one.stat().st_mtime_ns, one.stat().st_ino) for one in self._places]
            if self._context is None or seen != self._seen:
                self._context = self._loaded()
                self._seen = seen
        except (OSError, VedetteError) as error:
            if self._context is None:
                raise _unusable(self._places[0], error) from None
            log.warning("the certificate of the bundle endpoint stays: %s", error)
        return self._context

    def _loaded(self) -> ssl.SSLContext:
        certificate, key = self._places
        return _context_with(certificate.read_bytes(), read_private(key))


class _SpiffeCertificate:
    """https_spiffe: an SVID of the node's own, made anew at half of its life and when another CA is to be shown."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._held: tuple[X509Svid, object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """The certificate to show now."""
        at = self._identities.clock()
        issuer = self._identities.endpoint_issuer(at)
        if self._held is not None:
            svid, by, context = self._held
            if by is issuer and _is_fresh(svid, at):
                return context
        identity = bundle_endpoint_id(self._identities.trust_domain)
        svid = issuer.mint(identity, _SVID_TTL, at)
        leaf = x509.load_der_x509_certificate(svid.certificate)
        key = load_der_private_key(svid.key, None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        context = _context_with(leaf.public_bytes(Encoding.PEM), pem)
        self._held = (svid, issuer, context)
        return context


def _certificates(wish: ServeWish, identities: Identities) -> _WebCertificate | _SpiffeCertificate:
    if wish.profile is Profile.HTTPS_SPIFFE:
        return _SpiffeCertificate(identities)
    assert wish.certificate is not None
    assert wish.key is not None
    return _WebCertificate(Path(wish.certificate), Path(wish.key))


def _is_fresh(svid: X509Svid, at: datetime) -> bool:
    """Before half of its life, and not of a time that has not come: the clock went back."""
    half = svid.not_before + (svid.not_after - svid.not_before) / 2
    return svid.not_before <= at + timedelta(seconds=5) and at < half


def _context_with(chain: bytes, key: bytes) -> ssl.SSLContext:
    """A server's context with this certificate, PEM. OpenSSL wants a file: this one is in memory only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with contextlib.ExitStack() as opened:
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        opened.callback(os.close, descriptor)
        os.write(descriptor, key.rstrip() + b"\n" + chain)
        try:
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                "key_unreadable", f"certificate and key cannot be used together: {_reason(error)}"
            ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)[:80]


def _unusable(file: Path, error: OSError | VedetteError) -> VedetteError:
    if isinstance(error, VedetteError):
        return error
    return ConfigError("key_unreadable", f"cannot read {error.filename or file}: {error.strerror}")


def _require_valid(wish: ServeWish) -> None:
    files = (wish.certificate, wish.key)
    if wish.profile is Profile.HTTPS_WEB and None in files:
        raise _invalid("https_web needs a certificate and its key")
    if wish.profile is Profile.HTTPS_SPIFFE and files != (None, None):
        raise _invalid("https_spiffe shows an SVID of the node, and takes no certificate")
    if any(one is not None and not Path(one).is_absolute() for one in files):
        raise _invalid("the paths of certificate and key are absolute")
    if "://" in wish.listen:
        raise _invalid("write HOST:PORT, without a scheme")
    if wish.oidc_issuer is not None:
        require_issuer(wish.oidc_issuer)


def _bound(listen: str) -> list[socket.socket]:
    """Sockets at every address of the host, on one port. Raises `ConfigError` address_invalid, `UnavailableError`
    address_in_use.
    """
    address = parse_address(listen)
    port, bound = address.port, []
    try:
        for ip in resolve(address.host):
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            one = socket.socket(family, socket.SOCK_STREAM)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((ip, port))
            one.listen(_BACKLOG)
            port = one.getsockname()[1]
    except OSError as error:
        for one in bound:
            one.close()
        raise _not_bound(listen, error) from error
    return bound


def _not_bound(listen: str, error: OSError) -> VedetteError:
    if error.errno == errno.EADDRINUSE:
        return UnavailableError("address_in_use", f"another program listens on {listen}")
    return ConfigError("address_invalid", f"cannot listen on {listen}: {error.strerror}")


def _shown(name: Any) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _kept_form(wish: ServeWish) -> Any:
    return json.loads(wish.model_dump_json(by_alias=True, exclude_none=True))


def _invalid(why: str) -> ConfigError:
    return ConfigError("bundle_endpoint_invalid", why)
