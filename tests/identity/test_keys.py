"""Issuers' public keys: each kind that is accepted, and each that must not be."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vedette.clock import now
from vedette.errors import ConfigError
from vedette.identity.key_files import private_pem
from vedette.identity.keys import load_keys, public_jwk, thumbprint

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
RSA = rsa.generate_private_key(65_537, 2_048)
WEAK_RSA = rsa.generate_private_key(65_537, 1_024)
ED25519 = ed25519.Ed25519PrivateKey.generate()


def _pem(key: Any) -> str:
    public = key.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def _jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def _code(source: str | Path, alg: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_keys(source, alg)
    return caught.value.code


@pytest.mark.parametrize(
    ("key", "alg", "kind"),
    [
        (P256, "ES256", "EC"),
        (P384, "ES384", "EC"),
        (RSA, "RS256", "RSA"),
        (ED25519, "EdDSA", "OKP"),
    ],
)
def test_the_algorithm_follows_from_the_key(key: Any, alg: str, kind: str) -> None:
    (loaded,) = load_keys(_pem(key))
    assert (loaded.alg, loaded.kid, loaded.jwk["kty"]) == (alg, None, kind)
    (again,) = load_keys(_jwks({**loaded.jwk, "kid": "k", "key_ops": ["verify"], "use": "sig"}))
    assert again.jwk == loaded.jwk
    assert again.kid == "k"


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_the_algorithm_of_an_rsa_key_can_be_chosen(alg: str) -> None:
    assert load_keys(_pem(RSA), alg)[0].alg == alg


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (P256, "ES384"),
        (P256, "RS256"),
        (RSA, "ES256"),
        (RSA, "HS256"),
        (RSA, "none"),
        (ED25519, "ES256"),
    ],
)
def test_a_key_serves_no_other_algorithm(key: Any, alg: str) -> None:
    assert _code(_pem(key), alg) == "key_algorithm"


def test_a_jwks_that_says_hmac_for_a_public_key_is_refused() -> None:
    assert _code(_jwks({**public_jwk(RSA.public_key()), "alg": "HS256"})) == "key_algorithm"


def test_an_option_may_not_contradict_the_jwks() -> None:
    jwk = {**public_jwk(RSA.public_key()), "alg": "RS512"}
    assert load_keys(_jwks(jwk))[0].alg == "RS512"
    assert _code(_jwks(jwk), "PS256") == "key_algorithm"


def test_secrets_are_refused_and_not_repeated() -> None:
    assert _code(private_pem(P256).decode()) == "key_refused"
    assert _code(_jwks({**public_jwk(P256.public_key()), "d": "c2VjcmV0"})) == "key_refused"
    assert _code(_jwks({"kty": "oct", "k": "c2VjcmV0"})) == "key_refused"
    with pytest.raises(ConfigError) as caught:
        load_keys(_jwks({"kty": "oct", "k": "c2VjcmV0"}))
    assert "c2VjcmV0" not in str(caught.value)


def test_one_secret_among_good_keys_refuses_all() -> None:
    assert _code(_jwks(public_jwk(P256.public_key()), {"kty": "oct", "k": "eA"})) == "key_refused"


def test_weak_rsa_is_refused() -> None:
    assert _code(_pem(WEAK_RSA)) == "key_refused"
    assert _code(_jwks(public_jwk(WEAK_RSA.public_key()))) == "key_refused"


@pytest.mark.parametrize(
    "key", [P521, ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate()]
)
def test_keys_of_other_kinds_are_refused(key: Any) -> None:
    assert _code(_pem(key)) == "key_algorithm"


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "EC", "crv": 5, "x": 1, "y": 2},
    ],
)
def test_a_point_that_is_on_no_curve_is_refused(jwk: dict[str, Any]) -> None:
    assert _code(_jwks(jwk)) == "key_unreadable"


def test_an_unknown_type_is_refused() -> None:
    assert _code(_jwks({"kty": "AKP"})) == "key_refused"
    assert _code(_jwks({"kty": ["EC"]})) == "key_refused"


def test_encryption_keys_are_left_out() -> None:
    usable = public_jwk(P256.public_key())
    encrypting = {**public_jwk(RSA.public_key()), "use": "enc"}
    assert [key.alg for key in load_keys(_jwks(encrypting, usable))] == ["ES256"]
    assert _code(_jwks(encrypting)) == "key_unreadable"


def test_the_first_certificate_of_a_chain_gives_the_key(tmp_path: Path) -> None:
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(now()).not_valid_after(now() + timedelta(days=1))
    chain = [
        builder.public_key(key.public_key()).sign(key, SHA256()).public_bytes(Encoding.PEM)
        for key in (P384, P256)
    ]
    (tmp_path / "chain.pem").write_bytes(b"# comment\n" + b"".join(chain))
    assert [key.alg for key in load_keys(tmp_path / "chain.pem")] == ["ES384"]


def test_keys_are_sorted_by_key_id() -> None:
    jwk = public_jwk(P256.public_key())
    keys = load_keys(_jwks({**jwk, "kid": "b"}, {**jwk, "kid": "a"}))
    assert [key.kid for key in keys] == ["a", "b"]


@pytest.mark.parametrize("text", ["{", "{}", '{"keys":5}', '{"keys":["x"]}', "-----BEGIN x-----"])
def test_what_holds_no_key_is_refused(text: str) -> None:
    assert _code(text) in ("key_unreadable", "key_refused")


def test_a_file_is_named_when_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    assert _code(tmp_path / "empty.pem") == "key_unreadable"
    assert _code(tmp_path / "absent.pem") == "key_unreadable"


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    jwk = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
