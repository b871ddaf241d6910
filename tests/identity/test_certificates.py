"""What may be trusted as an authority, and how pins and serial numbers are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.e2e.certificates import Authority

from vedette.errors import ConfigError
from vedette.identity.certificates import authority_pem, pin_of, serial_of


def test_only_the_certificates_of_an_authority_are_kept(tmp_path: Path) -> None:
    one, two = Authority(tmp_path, "One"), Authority(tmp_path, "Two")
    text = "words\n" + one.file.read_text() + two.file.read_text() + one.file.read_text()
    kept = authority_pem(text)
    assert kept.count("BEGIN CERTIFICATE") == 2
    assert "words" not in kept


def test_a_leaf_an_expired_authority_and_a_key_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    leaf = authority.issue()
    expired = authority.issue(ca=True, certifies=True, days=(-9, -1))
    for text, code in (
        (leaf.pem.decode(), "certificate_refused"),
        (expired.pem.decode(), "certificate_refused"),
        (leaf.file.read_text(), "certificate_refused"),
        ("nothing", "certificate_unreadable"),
    ):
        with pytest.raises(ConfigError) as caught:
            authority_pem(text)
        assert caught.value.code == code


def test_a_pin_is_the_digest_of_the_public_key(tmp_path: Path) -> None:
    leaf = Authority(tmp_path).issue()
    key = leaf.certificate.public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).hexdigest()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (leaf.pem.decode(), pem, digest, digest.upper(), f" {digest}\n"):
        assert pin_of(text) == digest
    with pytest.raises(ConfigError):
        pin_of(digest[:-1])


def test_a_serial_number_is_hex_without_leading_zeros(tmp_path: Path) -> None:
    leaf = Authority(tmp_path).issue()
    assert serial_of(leaf.pem.decode()) == f"{leaf.certificate.serial_number:x}"
    for text in ("0A1F", "0x0a1f", "0A:1F", "a1f", "00:00:0a:1f"):
        assert serial_of(text) == "a1f"
    for text in ("", "0", "00", "xyz", "1" * 41, "a:1f2", "-1"):
        with pytest.raises(ConfigError):
            serial_of(text)
