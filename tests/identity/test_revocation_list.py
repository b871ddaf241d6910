"""The CRL: what is revoked is in it, signed by the CA, and goes when it would have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vedette.errors import ConfigError
from vedette.identity import revocation_list
from vedette.identity.authority import Authority
from vedette.identity.revocation_list import RevocationList
from vedette.store.identities import IdentityStore

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def read(authority: Authority, der: bytes) -> x509.CertificateRevocationList:
    crl = x509.load_der_x509_crl(der)
    key = authority.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    return crl


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials(crl: x509.CertificateRevocationList) -> list[int]:
    return [one.serial_number for one in crl]


def test_a_revoked_serial_is_in_the_list_and_the_number_grows(
    authority: Authority, store: IdentityStore
) -> None:
    revoked = RevocationList(lambda: (authority,), store)
    empty = read(authority, revoked.ders(NOON)[0])
    assert serials(empty) == []
    assert empty.issuer == authority.certificate.subject
    revoked.revoke([(77, NOON + timedelta(minutes=15))], NOON)
    crl = read(authority, revoked.ders(NOON + timedelta(seconds=1))[0])
    assert serials(crl) == [77]
    assert number(crl) > number(empty)
    entry = crl.get_revoked_certificate_by_serial_number(77)
    assert entry is not None
    assert entry.revocation_date_utc == NOON


def test_the_list_survives_a_restart_and_its_number_never_goes_back(
    authority: Authority, store: IdentityStore
) -> None:
    first = RevocationList(lambda: (authority,), store)
    first.revoke([(77, NOON + timedelta(minutes=15))], NOON)
    before = read(authority, first.ders(NOON)[0])
    after = read(
        authority, RevocationList(lambda: (authority,), store).ders(NOON + timedelta(seconds=5))[0]
    )
    assert serials(after) == [77]
    assert number(after) > number(before)


def test_the_list_is_signed_anew_only_when_it_must(
    authority: Authority, store: IdentityStore
) -> None:
    revoked = RevocationList(lambda: (authority,), store)
    first = revoked.ders(NOON)[0]
    assert revoked.ders(NOON + timedelta(hours=11))[0] is first
    later = NOON + timedelta(hours=13)
    again = read(authority, revoked.ders(later)[0])
    end = again.next_update_utc
    assert end is not None
    assert end > later + timedelta(hours=12)
    second = revoked.ders(later)[0]
    assert revoked.ders(later - timedelta(days=30))[0] is not second  # the clock went back


def test_a_serial_is_forgotten_when_its_certificate_has_ended(
    authority: Authority, store: IdentityStore
) -> None:
    revoked = RevocationList(lambda: (authority,), store)
    revoked.revoke([(77, NOON + timedelta(minutes=15))], NOON)
    revoked.revoke([(78, NOON + timedelta(hours=15))], NOON + timedelta(minutes=16))
    assert serials(read(authority, revoked.ders(NOON + timedelta(minutes=16))[0])) == [78]


def test_there_is_a_most_of_serials(
    authority: Authority, store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_list, "MAX_REVOKED", 2)
    revoked = RevocationList(lambda: (authority,), store)
    end = NOON + timedelta(minutes=15)
    revoked.revoke([(1, end), (2, end)], NOON)
    with pytest.raises(ConfigError, match="2 serials"):
        revoked.revoke([(3, end)], NOON)


def test_what_is_revoked_already_takes_no_room(
    authority: Authority, store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control tells at each start what ended while it was away, again and again until that has ended."""
    monkeypatch.setattr(revocation_list, "MAX_REVOKED", 2)
    revoked = RevocationList(lambda: (authority,), store)
    end = NOON + timedelta(minutes=15)
    for _ in range(3):
        revoked.revoke([(1, end), (2, end)], NOON)
    assert serials(read(authority, revoked.ders(NOON)[0])) == [1, 2]
