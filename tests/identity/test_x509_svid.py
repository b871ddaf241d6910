"""X509-SVIDs: each field read back by a library that did not make it, and a chain that OpenSSL builds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID
from cryptography.x509.verification import PolicyBuilder, Store
from tests.identity.conftest import DOMAIN

from vedette.errors import ConfigError
from vedette.identity.authority import Authority
from vedette.identity.domain import SpiffeId
from vedette.identity.x509_svid import BACKDATED, DEFAULT_TTL, X509Issuer, X509Svid

SHOP = SpiffeId(DOMAIN, "/shop")
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def mint(authority: Authority, dns: tuple[str, ...] = (), at: datetime = NOON) -> X509Svid:
    return X509Issuer(authority).mint(SHOP, DEFAULT_TTL, at, dns)


def leaf_of(svid: X509Svid) -> x509.Certificate:
    return x509.load_der_x509_certificate(svid.certificate)


def test_every_field_reads_back_as_it_was_meant(authority: Authority) -> None:
    svid = mint(authority, ("shop.example.com",))
    leaf = leaf_of(svid)
    assert leaf.version is x509.Version.v3
    assert leaf.serial_number == svid.serial > 0
    assert leaf.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256
    assert leaf.issuer == authority.certificate.subject
    assert leaf.subject == x509.Name([])
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (
        NOON - BACKDATED,
        NOON + timedelta(minutes=15),
    )
    assert (svid.not_before, svid.not_after) == (
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
    )
    leaf.verify_directly_issued_by(authority.certificate)


def test_the_extensions_are_those_of_the_specification_and_no_other(authority: Authority) -> None:
    found = {one.oid: one for one in leaf_of(mint(authority, ("shop.example.com",))).extensions}
    constraints = found.pop(x509.BasicConstraints.oid)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = found.pop(x509.KeyUsage.oid)
    assert usage.critical
    assert usage.value.public_bytes() == bytes.fromhex("03020780")  # digitalSignature alone
    purposes = found.pop(x509.ExtendedKeyUsage.oid).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    names = found.pop(x509.SubjectAlternativeName.oid)
    assert names.critical
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"spiffe://{DOMAIN}/shop"]
    assert names.value.get_values_for_type(x509.DNSName) == ["shop.example.com"]
    key_id = found.pop(x509.AuthorityKeyIdentifier.oid).value.key_identifier
    held = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert key_id == held.value.digest
    assert found == {}


def test_the_key_is_p256_pkcs8_and_the_leafs_own(authority: Authority) -> None:
    first, second = mint(authority), mint(authority)
    key = load_der_private_key(first.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == leaf_of(first).public_key()
    assert first.key != second.key
    assert first.serial != second.serial


def test_a_verifier_of_paths_accepts_the_leaf_while_it_lives(authority: Authority) -> None:
    at = authority.certificate.not_valid_before_utc + timedelta(
        hours=1
    )  # both certificates are checked
    leaf = leaf_of(mint(authority, ("shop.example.com",), at))
    store = Store([authority.certificate])
    verifier = PolicyBuilder().store(store).time(at).build_client_verifier()
    assert verifier.verify(leaf, []).chain[-1] == authority.certificate
    later = PolicyBuilder().store(store).time(at + timedelta(minutes=16)).build_client_verifier()
    with pytest.raises(x509.verification.VerificationError):
        later.verify(leaf, [])


def test_serials_and_times_at_the_edges_are_valid_der(authority: Authority) -> None:
    for year in (2049, 2050, 2051):
        moment = datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        leaf = leaf_of(mint(authority, at=moment))
        assert leaf.not_valid_before_utc == moment.replace(microsecond=0) - BACKDATED
    for _ in range(200):
        svid = mint(authority)
        assert leaf_of(svid).serial_number == svid.serial


def test_the_longest_id_and_most_names_still_encode(authority: Authority) -> None:
    identity = SpiffeId(DOMAIN, "/" + "a" * (2_048 - len(f"spiffe://{DOMAIN}/")))
    names = tuple(f"n{number}.{'b' * 60}.example.com" for number in range(16))
    svid = X509Issuer(authority).mint(identity, DEFAULT_TTL, NOON, names)
    held = leaf_of(svid).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert held.get_values_for_type(x509.UniformResourceIdentifier) == [str(identity)]
    assert held.get_values_for_type(x509.DNSName) == list(names)


def test_nothing_is_signed_for_another_trust_domain_or_the_node_itself(
    authority: Authority,
) -> None:
    issuer = X509Issuer(authority)
    for identity in (SpiffeId("other.example", "/shop"), SpiffeId(DOMAIN, "")):
        with pytest.raises(ConfigError, match="not a workload of this node"):
            issuer.mint(identity, DEFAULT_TTL, NOON)
    for ttl in (timedelta(seconds=9), timedelta(hours=1, seconds=1), timedelta(seconds=-1)):
        with pytest.raises(ConfigError, match="an SVID lives"):
            issuer.mint(SHOP, ttl, NOON)


def test_the_key_is_in_no_repr(authority: Authority) -> None:
    assert "key" not in repr(mint(authority)).replace("SpiffeId", "")
