"""The CA, and the server's certificate: read back with a library that did not make them."""

from __future__ import annotations

import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vedette.clock import now
from vedette.errors import ConfigError, TrustError
from vedette.identity.authority import Authority, certificate_expiry

DOMAIN = "edge-1.vedette.local"
NAMES = ["*.example.com", "localhost"]


def _leaf(authority: Authority) -> x509.Certificate:
    chain, _ = authority.issue_server(NAMES)
    return x509.load_pem_x509_certificate(chain)


def test_the_ca_is_made_once_and_loaded_after(tmp_path: Path, authority: Authority) -> None:
    again = Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", DOMAIN)
    loaded = Authority.load(tmp_path / "ca.key", tmp_path / "ca.crt")
    assert again.certificate_pem == loaded.certificate_pem == authority.certificate_pem
    assert loaded.trust_domain == DOMAIN
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_start_that_died_after_the_key_goes_on_with_that_key(
    tmp_path: Path, authority: Authority
) -> None:
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.crt").unlink()
    Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", DOMAIN)
    assert (tmp_path / "ca.key").read_bytes() == key


def test_the_ca_can_sign_certificates_and_nothing_below_it_can(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    leaf = _leaf(authority).extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not leaf.ca
    years = (certificate.not_valid_after_utc - now()).days / 365
    assert 1.9 < years < 2.1


def test_the_server_certificate_has_every_name_and_one_spiffe_id(authority: Authority) -> None:
    names = _leaf(authority).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES
    addresses = names.get_values_for_type(x509.IPAddress)
    assert [str(each) for each in addresses] == ["127.0.0.1", "::1"]
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"spiffe://{DOMAIN}/gateway"]


def test_openssl_accepts_the_chain_for_its_names(tmp_path: Path, authority: Authority) -> None:
    chain, key = authority.issue_server(NAMES)
    (tmp_path / "pair.pem").write_bytes(chain + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "pair.pem")
    client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    _shake_hands(server, client, "localhost")
    _shake_hands(server, client, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, client, "other.org")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_renewal_is_due_at_half_life_or_for_other_names(
    tmp_path: Path, authority: Authority
) -> None:
    chain, _ = authority.issue_server(NAMES, days=8)
    assert not authority.needs_renewal(chain, NAMES, now())
    assert not authority.needs_renewal(chain, list(reversed(NAMES)), now() + timedelta(days=3.9))
    assert authority.needs_renewal(chain, NAMES, now() + timedelta(days=4.1))
    assert authority.needs_renewal(chain, NAMES, now() - timedelta(days=1)), "the clock was ahead"
    assert authority.needs_renewal(chain, [*NAMES, "new.example.org"], now())
    assert authority.needs_renewal(b"damaged", NAMES, now())
    other = Authority.ensure(tmp_path / "other.key", tmp_path / "other.crt", DOMAIN)
    assert other.needs_renewal(chain, NAMES, now())


def test_the_expiry_is_seven_days_away(authority: Authority) -> None:
    chain, _ = authority.issue_server(NAMES)
    assert timedelta(days=6.9) < certificate_expiry(chain) - now() <= timedelta(days=7)
    with pytest.raises(ConfigError):
        certificate_expiry(b"no certificate")


def test_every_server_certificate_has_a_key_of_its_own(authority: Authority) -> None:
    keys = {authority.issue_server(NAMES)[1] for _ in range(3)}
    assert len(keys) == 3
    assert all(load_pem_private_key(key, None) for key in keys)


def test_a_key_that_others_can_read_is_not_trusted(tmp_path: Path, authority: Authority) -> None:
    os.chmod(tmp_path / "ca.key", 0o640)
    with pytest.raises(TrustError) as caught:
        Authority.load(tmp_path / "ca.key", tmp_path / "ca.crt")
    assert caught.value.code == "key_permissions"


def test_a_certificate_of_another_key_is_not_trusted(tmp_path: Path, authority: Authority) -> None:
    Authority.ensure(tmp_path / "other.key", tmp_path / "other.crt", DOMAIN)
    with pytest.raises(TrustError) as caught:
        Authority.load(tmp_path / "ca.key", tmp_path / "other.crt")
    assert caught.value.code == "key_mismatch"


def test_no_key_material_is_shown(tmp_path: Path, authority: Authority) -> None:
    assert repr(authority) == f"Authority('{DOMAIN}')"
    (tmp_path / "ca.key").write_bytes(b"-----BEGIN SECRET-----")
    os.chmod(tmp_path / "ca.key", 0o600)
    with pytest.raises(ConfigError) as caught:
        Authority.load(tmp_path / "ca.key", tmp_path / "ca.crt")
    assert "SECRET" not in str(caught.value)
