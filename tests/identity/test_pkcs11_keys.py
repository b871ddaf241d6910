"""Keys of the CA in a PKCS#11 token (SoftHSM): they sign, follow one another, and do not leave it."""

from __future__ import annotations

import copy
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.identity.softhsm import PIN, SoftHsm, softhsm_in

from vedette.control.bootstrap import Keys, Wish, bootstrap, open_keys, read_facts
from vedette.errors import ConfigError, TrustError, UnavailableError
from vedette.identity.domain import SpiffeId
from vedette.identity.pkcs11_keys import Pkcs11Store, parse_uri
from vedette.identity.succession import OLD_FOR
from vedette.identity.x509_svid import DEFAULT_TTL, X509Issuer
from vedette.store.home import Home


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_in(tmp_path_factory.mktemp("hsm"))


def store_of(uri: str) -> Pkcs11Store:
    return Pkcs11Store(parse_uri(uri))


def keys_of(home: Home) -> Keys:
    facts = read_facts(home)
    assert facts is not None
    return open_keys(home, facts)


def labels(uri: str) -> list[str]:
    import pkcs11

    store = store_of(uri)
    kind = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
    return sorted(store._asked(lambda session: [one.label for one in session.get_objects(kind)]))


def test_a_uri_is_read_as_it_is_written() -> None:
    text = "pkcs11:token=my%20hsm;object=ca?module-path=/usr/lib/p.so&pin-source=file:/run/pin"
    uri = parse_uri(text)
    assert (uri.token, uri.label) == ("my hsm", "ca")
    assert (uri.module, uri.pin_file) == (Path("/usr/lib/p.so"), Path("/run/pin"))


@pytest.mark.parametrize(
    "text",
    [
        "file:/a",
        "pkcs11:token=a?module-path=/m&pin-source=/p",
        "pkcs11:token=a;object=b?module-path=/m",
        "pkcs11:token=a;object=b?module-path=m&pin-source=/p",
        "pkcs11:token=a;object=b?module-path=/m&pin-source=p",
        "pkcs11:token=a;object=b;token=c?module-path=/m&pin-source=/p",
        "pkcs11:token=a;object=b;id=%01?module-path=/m&pin-source=/p",
        "pkcs11:token=a;object=b;type=public?module-path=/m&pin-source=/p",
        "pkcs11:token=a;object=b?module-path=/m&pin-source=/p&pin-value=1234",
        "pkcs11:" + "a" * 2_000,
    ],
)
def test_what_names_no_key_is_refused_and_a_pin_is_not_told(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri(text)
    assert caught.value.code == "ca_key_invalid"
    assert "1234" not in str(caught.value)
    assert ("name a file" in caught.value.message) == ("pin-value" in text)


def test_a_key_signs_in_the_token_and_does_not_leave_it(hsm: SoftHsm) -> None:
    key = store_of(hsm.token("signs")).create("one")
    signature = key.sign(b"text", ec.ECDSA(SHA256()))
    key.public_key().verify(signature, b"text", ec.ECDSA(SHA256()))
    assert (key.key_size, key.curve.name, copy.copy(key)) == (256, "secp256r1", key)
    with pytest.raises(ConfigError):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigError):
        key.private_numbers()
    with pytest.raises(ValueError, match="SHA-256"):
        key.sign(b"text", ec.ECDSA(SHA384()))


def test_a_lost_session_is_opened_again(hsm: SoftHsm) -> None:
    store = store_of(hsm.token("lost"))
    key = store.create("one")
    store._session.close()
    key.public_key().verify(key.sign(b"x", ec.ECDSA(SHA256())), b"x", ec.ECDSA(SHA256()))


def test_a_token_that_is_away_or_not_ours_is_told_and_a_wrong_pin_is_not_tried_again(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    hsm.token("pinned")
    with pytest.raises(UnavailableError) as away:
        store_of(hsm.uri("no such token")).require()
    assert "NoSuchToken" in away.value.message
    assert away.value.code == "key_store_away"
    wrong = tmp_path / "pin"
    wrong.write_text("wrong-pin")
    wrong.chmod(0o600)
    store = store_of(hsm.uri("pinned", wrong))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="PinIncorrect") as caught:
            store.require()
        assert "wrong-pin" not in str(caught.value)
        wrong.write_text(PIN)  # whoever mends it starts the node again
    wrong.chmod(0o644)
    with pytest.raises(TrustError):
        store_of(hsm.uri("pinned", wrong)).require()
    bad = hsm.uri("pinned").replace(hsm.module, "/etc/hostname")
    with pytest.raises(UnavailableError):
        store_of(bad).require()


def test_a_new_home_has_its_ca_in_the_token_and_rotates_there(hsm: SoftHsm, tmp_path: Path) -> None:
    uri = hsm.token("edge 1")
    store_of(uri).create("somebody else's")
    home = Home(tmp_path / "n")
    bootstrap(home, Wish(name="edge-1", ca_key=uri))
    bootstrap(home)  # it is remembered
    assert not home.ca_key.exists()
    assert home.ca_certificate.exists()
    keys = keys_of(home)
    first, at = keys.authority, keys.authority.begins.astimezone(UTC) + timedelta(minutes=5)
    first.certificate.verify_directly_issued_by(first.certificate)
    svid = X509Issuer(first).mint(SpiffeId(first.trust_domain, "/a"), DEFAULT_TTL, at)
    assert svid.certificate
    assert first.issue_crl(1, [], at)
    keys.ca.rotate(at, timedelta())
    keys.ca.step(at)
    again = keys_of(home)
    assert again.authority.key_id == keys.authority.key_id != first.key_id
    assert len(labels(uri)) == 3
    again.ca.step(at + OLD_FOR)
    kept = [label for label in labels(uri) if label != "somebody else's"]
    assert kept == [again.ca.generations()[0].file.removeprefix("pkcs11:")]
    assert PIN not in home.node_file.read_text()


def test_a_home_with_a_ca_in_a_file_moves_with_its_next_rotation_and_stays(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    uri = hsm.token("moves")
    home = Home(tmp_path / "n")
    bootstrap(home, Wish(name="edge-1"))
    before = keys_of(home).authority.key_id
    bootstrap(home, Wish(ca_key=uri))
    keys = keys_of(home)
    assert (keys.authority.key_id, labels(uri)) == (before, [])
    at = keys.authority.begins + timedelta(minutes=5)
    keys.ca.rotate(at, timedelta())
    keys.ca.step(at)
    keys.ca.step(at + OLD_FOR)
    assert not home.ca_key.exists()
    assert len(labels(uri)) == 1
    for other in (uri.replace("moves", "spare"), uri.replace("vedette%20ca", "other")):
        with pytest.raises(ConfigError, match="stay in the token"):
            bootstrap(home, Wish(ca_key=other))


def test_a_token_that_cannot_be_reached_is_not_noted(hsm: SoftHsm, tmp_path: Path) -> None:
    home = Home(tmp_path / "n")
    bootstrap(home, Wish(name="edge-1"))
    with pytest.raises(UnavailableError):
        bootstrap(home, Wish(ca_key=hsm.uri("nowhere")))
    assert "caKey" not in home.node_file.read_text()
    bootstrap(home)
