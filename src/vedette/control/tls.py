"""The server's certificate: issued when hosts change, renewed at half of its life.

Owns: engine/tls/, and that hosts of the mesh are not in it: no public listener answers to them. Must not: keep the CA
key; it is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from vedette.config.sidecar import is_mesh
from vedette.identity.authority import Authority
from vedette.store.atomic import write_atomic
from vedette.store.home import Home


def renew_if_needed(home: Home, authority: Authority, names: Sequence[str], at: datetime) -> bool:
    """Writes a new certificate and key when the present pair is missing, old or for other names; True when it did.
    `names`: the hosts that the node answers to.

    Raises `UnavailableError` when the disk refuses.
    """
    names = [name for name in names if not is_mesh(name)]
    if _is_current(home, authority, names, at):
        return False
    chain, key = authority.issue_server(names)
    # The key alone is harmless. Whoever dies between the two writes leaves a pair that does not fit, which
    # `_is_current` sees; the engine keeps what it has until it is told.
    write_atomic(home.tls_key, key)
    write_atomic(home.tls_certificate, chain)
    return True


def _is_current(home: Home, authority: Authority, names: Sequence[str], at: datetime) -> bool:
    try:
        chain = home.tls_certificate.read_bytes()
        key = home.tls_key.read_bytes()
    except FileNotFoundError:
        return False
    return _fits(chain, key) and not authority.needs_renewal(chain, names, at)


def _fits(chain: bytes, key: bytes) -> bool:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(chain)
        return load_pem_private_key(key, None).public_key() == certificate.public_key()
    except (ValueError, TypeError):  # TypeError: the key is encrypted
        return False
