"""Keys encrypted at rest: what is on the disk, what opens it, and what does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vedette.errors import ConfigError, TrustError
from vedette.identity.authority import Authority
from vedette.identity.key_files import ensure_p256, load_p256, reseal_p256
from vedette.identity.sealing import Seal


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    return Seal.ensure(tmp_path / "seal.key")


def test_a_sealed_key_is_not_in_the_clear_and_opens_with_its_seal_only(
    tmp_path: Path, seal: Seal
) -> None:
    path = tmp_path / "ca.key"
    key = ensure_p256(path, seal)
    pem = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        load_pem_private_key(pem, None)
    again = load_p256(path, Seal.load(tmp_path / "seal.key"))
    assert again.private_numbers() == key.private_numbers()
    for other in (Seal.ensure(tmp_path / "other.key"), None):
        with pytest.raises(ConfigError) as caught:
            load_p256(path, other)
        assert caught.value.code == "key_unreadable"


def test_a_plain_key_of_before_is_sealed_once_and_stays_the_same_key(
    tmp_path: Path, seal: Seal
) -> None:
    plain = Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", "a.test")
    secret = (tmp_path / "ca.key").read_bytes()
    sealed = Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", "a.test", seal)
    first = (tmp_path / "ca.key").read_bytes()
    assert b"ENCRYPTED" in first
    assert secret not in first
    assert sealed.certificate_pem == plain.certificate_pem
    Authority.ensure(tmp_path / "ca.key", tmp_path / "ca.crt", "a.test", seal)
    assert (tmp_path / "ca.key").read_bytes() == first


def test_a_key_is_put_under_another_seal_also_after_a_crash_in_between(
    tmp_path: Path, seal: Seal
) -> None:
    path = tmp_path / "ca.key"
    key = ensure_p256(path, seal)
    to = Seal.ensure(tmp_path / "other.key")
    for _ in range(2):  # the second finds it done
        reseal_p256(path, (to, seal), to)
        assert load_p256(path, to).private_numbers() == key.private_numbers()
    with pytest.raises(ConfigError):
        load_p256(path, seal)
    third = Seal.ensure(tmp_path / "third.key")
    with pytest.raises(ConfigError):
        reseal_p256(path, (third, seal), third)


def test_openssl_opens_a_sealed_key_with_the_file(tmp_path: Path, seal: Seal) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    ensure_p256(tmp_path / "ca.key", seal)
    told = subprocess.run(
        ["openssl", "pkey", "-in", "ca.key", "-passin", "file:seal.key", "-noout", "-text"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "prime256v1" in told.stdout, told.stderr


def test_a_seal_that_others_can_read_or_that_is_weak_is_refused(tmp_path: Path) -> None:
    Seal.ensure(tmp_path / "seal.key")
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "seal.key").chmod(0o640)
    with pytest.raises(TrustError) as caught:
        Seal.load(tmp_path / "seal.key")
    assert caught.value.code == "key_permissions"
    for text in (b"", b"short\n", b"x" * 2_000):
        (tmp_path / "weak.key").write_bytes(text)
        (tmp_path / "weak.key").chmod(0o600)
        with pytest.raises(ConfigError) as refused:
            Seal.load(tmp_path / "weak.key")
        assert refused.value.code == "key_unreadable"


def test_a_damaged_key_does_not_load_and_no_error_quotes_a_secret(
    tmp_path: Path, seal: Seal
) -> None:
    path = tmp_path / "ca.key"
    ensure_p256(path, seal)
    lines = path.read_bytes().splitlines()
    lines[2] = lines[2][::-1]
    path.write_bytes(b"\n".join(lines))
    password = (tmp_path / "seal.key").read_text("ascii").strip()
    with pytest.raises(ConfigError) as caught:
        load_p256(path, seal)
    assert password not in f"{caught.value!r}{caught.value}{seal!r}"
