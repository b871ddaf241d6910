"""What `vedette up` makes of a home: names, and keys under their seal."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from vedette.clock import now
from vedette.control.bootstrap import Keys, Wish, bootstrap, open_keys, read_facts
from vedette.errors import ConfigError, TrustError
from vedette.identity.key_files import load_p256
from vedette.identity.sealing import Seal, is_sealed
from vedette.store.home import Home


def seal_file(folder: Path, text: str = "s" * 40) -> Path:
    path = folder / "operator.key"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def key_numbers(home: Home) -> int:
    facts = read_facts(home)
    assert facts is not None
    named = facts.key_encryption_key
    seal = Seal.load(home.seal_key if named is None else named)
    return load_p256(home.ca_key, seal).private_numbers().private_value


def test_the_site_is_the_rest_of_the_trust_domain_and_stays(home: Home) -> None:
    bootstrap(home, Wish(name="edge-1", site="plant.example.org"))
    bootstrap(home, Wish(name="other", site="elsewhere.org"))
    facts = read_facts(home)
    assert facts is not None
    assert facts.trust_domain == "edge-1.plant.example.org"
    assert open_keys(home, facts).authority.trust_domain == facts.trust_domain


def test_the_keys_of_the_ca_and_of_jwt_svids_are_sealed_from_the_start(home: Home) -> None:
    bootstrap(home)
    assert is_sealed(home.ca_key.read_bytes())
    assert is_sealed(home.jwt_svid_key.read_bytes())
    assert home.seal_key.stat().st_mode & 0o777 == 0o600


def test_a_home_of_before_is_sealed_at_its_next_start(home: Home) -> None:
    bootstrap(home)
    key = load_p256(home.ca_key, Seal.load(home.seal_key))
    home.ca_key.write_bytes(Path(_plain(home, key)).read_bytes())
    home.seal_key.unlink()
    home.jwt_svid_key.unlink()
    bootstrap(home)
    assert is_sealed(home.ca_key.read_bytes())
    assert key_numbers(home) == key.private_numbers().private_value


def _plain(home: Home, key: object) -> Path:
    from vedette.identity.key_files import private_pem

    path = home.root / "plain.pem"
    path.write_bytes(private_pem(key))  # type: ignore[arg-type]
    return path


def test_a_named_key_encryption_key_takes_the_place_of_the_one_in_the_home(
    home: Home, tmp_path: Path
) -> None:
    bootstrap(home)
    before = key_numbers(home)
    named = seal_file(tmp_path)
    for _ in range(2):
        bootstrap(home, Wish(key_encryption_key=named))
    bootstrap(home)  # it is remembered
    assert not home.seal_key.exists()
    assert key_numbers(home) == before
    named.unlink()
    with pytest.raises(ConfigError) as caught:
        bootstrap(home)
    assert caught.value.code == "key_unreadable"
    assert not home.seal_key.exists()
    assert not named.exists()


def test_a_start_that_died_before_it_noted_the_new_key_goes_on(home: Home, tmp_path: Path) -> None:
    bootstrap(home)
    before = key_numbers(home)
    noted, sealed_with = home.node_file.read_bytes(), home.seal_key.read_bytes()
    wish = Wish(key_encryption_key=seal_file(tmp_path))
    bootstrap(home, wish)
    home.node_file.write_bytes(noted)
    home.seal_key.write_bytes(sealed_with)
    home.seal_key.chmod(0o600)
    bootstrap(home, wish)
    assert key_numbers(home) == before


def test_a_node_can_start_with_a_named_key_and_move_to_another(home: Home, tmp_path: Path) -> None:
    first = seal_file(tmp_path)
    bootstrap(home, Wish(key_encryption_key=first))
    assert not home.seal_key.exists()
    before = key_numbers(home)
    second = tmp_path / "second.key"
    second.write_text("t" * 40)
    second.chmod(0o600)
    bootstrap(home, Wish(key_encryption_key=second))
    first.unlink()
    bootstrap(home)
    assert key_numbers(home) == before


def test_a_named_key_that_others_can_read_changes_nothing(home: Home, tmp_path: Path) -> None:
    bootstrap(home)
    named = seal_file(tmp_path)
    named.chmod(0o644)
    with pytest.raises(TrustError):
        bootstrap(home, Wish(key_encryption_key=named))
    bootstrap(home)
    assert home.seal_key.exists()


def test_keys_of_a_rotation_are_put_under_the_named_key_as_well(home: Home, tmp_path: Path) -> None:
    def keys() -> Keys:
        facts = read_facts(home)
        assert facts is not None
        return open_keys(home, facts)

    bootstrap(home)
    before = keys()
    for one in (before.ca, before.jwt_svids):
        one.rotate(now(), timedelta())
    bootstrap(home, Wish(key_encryption_key=seal_file(tmp_path)))
    assert not home.seal_key.exists()
    after = keys()
    assert after.ca.generations()[1].signer.key_id == before.ca.generations()[1].signer.key_id
    assert len(after.jwt_svids.trusted()) == 2
    assert home.ca_certificate.read_bytes() == after.ca_pem()
