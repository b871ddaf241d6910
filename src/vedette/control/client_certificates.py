"""Certificates that services are shown, kept by name (`spec.tls.clientCertificate` of an Upstream).

Owns: engine/tls/clients/, the one place of their keys. Must not: put a key into a snapshot, an answer or a log.
"""

from __future__ import annotations

from pathlib import Path

from vedette.clock import to_rfc3339
from vedette.control.activate import Activator, Outcome
from vedette.control.messages import CertificateStatus, CertificateWish
from vedette.errors import ConfigError
from vedette.identity.client_certificates import client_pem, describe
from vedette.ids import require_name
from vedette.store.atomic import restore, write_atomic
from vedette.store.home import Home


class ClientCertificates:
    """The client certificates of a node. Methods may be called from any thread."""

    def __init__(self, home: Home, activator: Activator) -> None:
        self._folder = home.client_certificates
        self._activator = activator

    def names(self) -> frozenset[str]:
        """The names that upstreams can give."""
        return frozenset(file.stem for file in self._folder.glob("*.pem"))

    def list(self) -> list[CertificateStatus]:
        """The certificates, by name."""
        return [self._status(name) for name in sorted(self.names())]

    def put(self, name: str, wish: CertificateWish, actor: str) -> Outcome:
        """Keeps a certificate and its key; services that are shown `name` get it on their next connection.

        Raises `ConfigError` certificate_unreadable, certificate_refused, or engine_refused (what was there stays).
        """
        pem = client_pem(wish.pem.get_secret_value())
        file = self._file(name)
        with self._activator.lock:
            before = file.read_bytes() if file.exists() else None
            write_atomic(file, pem)
            try:
                return self._serve_again(name, actor)
            except ConfigError:
                restore(file, before)
                raise

    def remove(self, name: str) -> None:
        """Forgets a certificate. Raises `ConfigError` certificate_unknown, certificate_in_use."""
        file = self._file(name)
        with self._activator.lock:
            if not file.exists():
                raise ConfigError("certificate_unknown", f"there is no client certificate {name!r}")
            used = self._upstreams(name)
            if used:
                raise ConfigError("certificate_in_use", f"{name!r} is shown to {', '.join(used)}")
            restore(file, None)

    def _serve_again(self, name: str, actor: str) -> Outcome:
        """The snapshot only has the name, so it is the same: the engine reads the file when it is told of it again."""
        return self._activator.change(lambda active: active, f"certificate {name}", actor)

    def _status(self, name: str) -> CertificateStatus:
        leaf = describe(self._file(name).read_bytes())
        return CertificateStatus(
            name=name,
            subject=leaf.subject,
            issuer=leaf.issuer,
            not_after=to_rfc3339(leaf.not_after),
            upstreams=self._upstreams(name),
        )

    def _upstreams(self, name: str) -> tuple[str, ...]:
        return tuple(
            upstream.name
            for upstream in self._activator.active()[1].upstreams
            if upstream.tls is not None and upstream.tls.client_certificate == name
        )

    def _file(self, name: str) -> Path:
        return self._folder / f"{require_name(name, 'certificate')}.pem"
