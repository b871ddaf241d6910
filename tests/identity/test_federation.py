"""Bundles of other trust domains: kept apart, never older than before, gone when redacted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests.identity.conftest import DOMAIN

from vedette.errors import ConfigError, TrustError
from vedette.identity import federation
from vedette.identity.authority import Authority
from vedette.identity.bundle import Bundle, own_authority
from vedette.identity.federation import Federation
from vedette.identity.jwt_svid import JwtIssuer
from vedette.store.identities import IdentityStore

OTHER = "other.example"


def foreign(folder: Path, domain: str = OTHER, sequence: int | None = 5) -> Bundle:
    folder.mkdir(exist_ok=True)
    authority = Authority.ensure(folder / "ca.key", folder / "ca.crt", domain)
    keys = (JwtIssuer.ensure(folder / "jwt.key", domain).public,)
    return Bundle(domain, (own_authority(authority.certificate),), keys, sequence)


def test_a_bundle_is_kept_and_there_after_a_restart(tmp_path: Path, store: IdentityStore) -> None:
    bundle = foreign(tmp_path / "o")
    Federation(store, DOMAIN).put(OTHER, bundle.to_jwks())
    assert Federation(store, DOMAIN).bundles() == {OTHER: bundle}


def test_an_older_bundle_is_refused_and_the_newer_stays(
    tmp_path: Path, store: IdentityStore
) -> None:
    held = Federation(store, DOMAIN)
    bundle = foreign(tmp_path / "o")
    held.put(OTHER, bundle.to_jwks())
    changed = foreign(tmp_path / "p")
    for sequence in (4, 5, None):
        with pytest.raises(TrustError) as caught:
            held.put(OTHER, dataclasses.replace(changed, sequence=sequence).to_jwks())
        assert caught.value.code == "bundle_rollback"
    held.put(OTHER, bundle.to_jwks())  # the same again is no change
    assert held.bundles() == {OTHER: bundle}
    newer = dataclasses.replace(changed, sequence=6)
    held.put(OTHER, newer.to_jwks())
    assert held.bundles() == {OTHER: newer}


def test_redaction_replaces_keys_whole_and_cannot_be_taken_back_with_an_old_bundle(
    tmp_path: Path, store: IdentityStore
) -> None:
    held = Federation(store, DOMAIN)
    bundle = foreign(tmp_path / "o")
    held.put(OTHER, bundle.to_jwks())
    held.put(OTHER, Bundle(OTHER, sequence=6).to_jwks())
    assert held.bundles()[OTHER].x509_authorities == ()
    assert held.bundles()[OTHER].jwt_keys == ()
    with pytest.raises(TrustError):
        held.put(OTHER, bundle.to_jwks())


def test_trust_domains_are_never_merged(tmp_path: Path, store: IdentityStore) -> None:
    held = Federation(store, DOMAIN)
    first, second = foreign(tmp_path / "o"), foreign(tmp_path / "p", "third.example")
    held.put(OTHER, first.to_jwks())
    held.put("third.example", second.to_jwks())
    assert held.bundles() == {OTHER: first, "third.example": second}
    with pytest.raises(ConfigError, match="another trust domain"):
        held.put("third.example", first.to_jwks())


def test_nobody_brings_a_bundle_of_the_nodes_own_trust_domain(
    tmp_path: Path, store: IdentityStore
) -> None:
    with pytest.raises(ConfigError, match="its own trust domain"):
        Federation(store, DOMAIN).put(DOMAIN, foreign(tmp_path / "o", DOMAIN).to_jwks())


def test_there_is_a_most_of_trust_domains(
    tmp_path: Path, store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "MAX_FEDERATED", 1)
    held = Federation(store, DOMAIN)
    held.put(OTHER, foreign(tmp_path / "o").to_jwks())
    with pytest.raises(ConfigError, match="1 trust domains"):
        held.put("third.example", foreign(tmp_path / "p", "third.example").to_jwks())
    held.put(OTHER, foreign(tmp_path / "o", sequence=6).to_jwks())


def test_a_damaged_bundle_is_left_out_and_the_others_stay(
    tmp_path: Path, store: IdentityStore, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = foreign(tmp_path / "o")
    Federation(store, DOMAIN).put(OTHER, bundle.to_jwks())
    store.put_bundle("third.example", b"{")
    assert Federation(store, DOMAIN).bundles() == {OTHER: bundle}
    assert "third.example is not trusted" in caplog.text


def test_a_removed_trust_domain_can_start_again(tmp_path: Path, store: IdentityStore) -> None:
    held = Federation(store, DOMAIN)
    held.put(OTHER, foreign(tmp_path / "o").to_jwks())
    held.remove(OTHER)
    assert Federation(store, DOMAIN).bundles() == {}
    with pytest.raises(ConfigError) as caught:
        held.remove(OTHER)
    assert caught.value.code == "bundle_unknown"
    held.put(OTHER, foreign(tmp_path / "p", sequence=1).to_jwks())
