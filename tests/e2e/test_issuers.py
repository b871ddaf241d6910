"""Tokens of other issuers: each algorithm, keys from PEM and JWKS files, and each key for its algorithm only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import GREETING, Node

ISSUER = "https://login.example.com"
AUDIENCE = "edge"
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]

ALLOW = """\
@id("partners")
permit(principal is Subject, action == Action::"invoke", resource == Function::"hello")
when { principal.issuer == "https://login.example.com" && principal.scopes.contains("call") };
"""

Keys = dict[str, tokens.PrivateKey]


def _generate() -> Keys:
    rsa_key = rsa.generate_private_key(65537, 2048)
    keys: Keys = {name: rsa_key for name in ALGORITHMS if name[1] == "S" and name[0] in "RP"}
    keys["ES256"] = ec.generate_private_key(ec.SECP256R1())
    keys["ES384"] = ec.generate_private_key(ec.SECP384R1())
    keys["EdDSA"] = ed25519.Ed25519PrivateKey.generate()
    return keys


@pytest.fixture(scope="module")
def keys(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """An issuer with a JWKS file of nine keys, and a policy for its callers."""
    keys = _generate()
    folder = tmp_path_factory.mktemp("issuer")
    jwks = {"keys": [tokens.public_jwk(key, name, name) for name, key in keys.items()]}
    file = folder / "jwks.json"
    file.write_text(json.dumps(jwks), "utf-8")
    add_issuer(node, "partner", ISSUER, file)
    node.set_policy("partners.cedar", ALLOW)
    yield keys
    node.run("policy", "remove", "partners.cedar")
    node.run("issuer", "remove", "partner")


def add_issuer(node: Node, name: str, issuer: str, file: Path, check: bool = True) -> int:
    """`vedette issuer add`; the exit code."""
    return node.run(
        "issuer",
        "add",
        name,
        "--issuer",
        issuer,
        "--audience",
        AUDIENCE,
        "--keys",
        str(file),
        check=check,
    ).returncode


def _claims(**changes: object) -> dict[str, object]:
    honest = {
        "iss": ISSUER,
        "aud": ["other", AUDIENCE],
        "sub": "carol",
        "exp": tokens.in_seconds(300),
        "scope": "call read",
    }
    return {**honest, **changes}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_another_issuer_is_believed(caller: Caller, keys: Keys, algorithm: str) -> None:
    header = {"alg": algorithm, "kid": algorithm, "typ": "JWT"}
    answer = caller.ask("/hello", token=tokens.signed(header, _claims(), keys[algorithm]))
    assert answer.body == GREETING
    record = caller.expect_recorded(answer, 200)
    assert record["principal"] == f"{ISSUER}#carol"
    assert record["policies"] == ["partners"]


def test_its_policy_decides_and_not_the_default(caller: Caller, keys: Keys) -> None:
    header = {"alg": "EdDSA", "kid": "EdDSA"}
    unscoped = tokens.signed(header, _claims(scope="read"), keys["EdDSA"])
    caller.expect_refused(caller.ask("/hello", token=unscoped), 403, "authorize", "policy_denied")
    elsewhere = tokens.signed(header, _claims(), keys["EdDSA"])
    answer = caller.ask("/hostile/method", token=elsewhere)
    caller.expect_refused(answer, 403, "authorize", "policy_denied")


@pytest.mark.parametrize(("algorithm", "kid"), [("PS256", "RS256"), ("RS256", "PS256")])
def test_a_key_serves_one_algorithm_only(
    caller: Caller, keys: Keys, algorithm: str, kid: str
) -> None:
    token = tokens.signed({"alg": algorithm, "kid": kid}, _claims(), keys[algorithm])
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_algorithm")


def test_hs256_with_another_issuers_public_key_is_refused(caller: Caller, keys: Keys) -> None:
    header = {"alg": "HS256", "kid": "RS256"}
    token = tokens.keyed(header, _claims(), tokens.public_pem(keys["RS256"]))
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_algorithm")


def test_the_nodes_own_audience_is_not_theirs(caller: Caller, node: Node, keys: Keys) -> None:
    _, own = tokens.parts_of(node.usual_token)
    token = tokens.signed({"alg": "ES256", "kid": "ES256"}, _claims(aud=own["aud"]), keys["ES256"])
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_audience")


def test_another_issuer_cannot_speak_for_the_node(caller: Caller, node: Node, keys: Keys) -> None:
    _, own = tokens.parts_of(node.usual_token)
    token = tokens.signed({"alg": "ES256", "kid": "ES256"}, own, keys["ES256"])
    answer = caller.ask("/hello", token=token)
    record = caller.node.record(answer.request_id)
    assert answer.status == 401
    assert record["cause"] in ("token_key_unknown", "token_signature")


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "EdDSA"])
def test_a_key_can_come_from_a_pem_file(
    caller: Caller, node: Node, tmp_path: Path, algorithm: str
) -> None:
    """A PEM file has no key id: the token need not name one."""
    key = _generate()[algorithm]
    file = tmp_path / "issuer.pem"
    file.write_bytes(tokens.public_pem(key))
    issuer = "https://pem.example.com"
    add_issuer(node, "pem", issuer, file)
    token = tokens.signed({"alg": algorithm}, _claims(iss=issuer), key)
    answer = caller.ask("/hello", token=token)
    record = caller.expect_refused(answer, 403, "authorize", "policy_denied")
    assert record["principal"] == f"{issuer}#carol"
    node.run("issuer", "remove", "pem")
    answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_issuer")


def test_a_private_or_symmetric_key_is_refused(node: Node, tmp_path: Path) -> None:
    symmetric = tmp_path / "hmac.json"
    symmetric.write_text(
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "x"}]}), "utf-8"
    )
    before = node.status()["snapshot"]
    assert add_issuer(node, "wrong", "https://x.example", symmetric, check=False) == 2
    assert node.status()["snapshot"] == before
