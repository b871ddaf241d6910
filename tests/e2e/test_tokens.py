"""Who may call: every token that must not work, by the cause the record names (RFC 7515, 7519, 8725)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import GREETING, Node

Claims = Mapping[str, Any]


class Forge:
    """Makes tokens from an honest one, with the node's own key where only the claims are to be wrong."""

    def __init__(self, node: Node) -> None:
        self.header, self.claims = tokens.parts_of(node.usual_token)
        self.own_key = tokens.private_key(node.path("control", "token.key"))
        self.other_key = ec.generate_private_key(ec.SECP256R1())

    def honest(self, **claims: Any) -> str:
        """Signed by the node's key, with some claims replaced; None removes one."""
        merged = {k: v for k, v in {**self.claims, **claims}.items() if v is not None}
        return tokens.signed(self.header, merged, self.own_key)

    def headed(self, **header: Any) -> str:
        """Signed by the node's key under another header."""
        return tokens.signed({**self.header, **header}, self.claims, self.own_key)


@pytest.fixture(scope="module")
def forge(node: Node) -> Forge:
    """Makes tokens against the shared node."""
    return Forge(node)


def _tampered(forge: Forge) -> str:
    header, _, signature = forge.honest().split(".")
    claims = tokens.encode(json.dumps({**forge.claims, "sub": "root"}).encode())
    return f"{header}.{claims}.{signature}"


CASES: dict[str, tuple[Callable[[Forge], str], str]] = {
    "expired": (lambda f: f.honest(exp=tokens.in_seconds(-60)), "token_expired"),
    "not yet valid": (lambda f: f.honest(nbf=tokens.in_seconds(60)), "token_not_yet_valid"),
    "forged with another key": (
        lambda f: tokens.signed(f.header, f.claims, f.other_key),
        "token_signature",
    ),
    "claims changed after signing": (_tampered, "token_signature"),
    "expired and forged": (
        lambda f: tokens.signed(f.header, {**f.claims, "exp": tokens.in_seconds(-60)}, f.other_key),
        "token_signature",
    ),
    "foreign audience": (lambda f: f.honest(aud="spiffe://elsewhere/gateway"), "token_audience"),
    "no audience": (lambda f: f.honest(aud=None), "token_claims"),
    "foreign issuer": (lambda f: f.honest(iss="https://elsewhere.example"), "token_issuer"),
    "alg none": (
        lambda f: tokens.unsigned({**f.header, "alg": "none"}, f.claims),
        "token_algorithm",
    ),
    "alg nOnE": (
        lambda f: tokens.unsigned({**f.header, "alg": "nOnE"}, f.claims),
        "token_algorithm",
    ),
    "HS256 with the public key": (
        lambda f: tokens.keyed(
            {**f.header, "alg": "HS256"}, f.claims, tokens.public_pem(f.own_key)
        ),
        "token_algorithm",
    ),
    "another algorithm than the key's": (
        lambda f: tokens.signed(
            {**f.header, "alg": "ES384"}, f.claims, ec.generate_private_key(ec.SECP384R1())
        ),
        "token_algorithm",
    ),
    "unknown key id": (lambda f: f.headed(kid="nobody"), "token_key_unknown"),
    "no expiry": (lambda f: f.honest(exp=None), "token_claims"),
    "no subject": (lambda f: f.honest(sub=None), "token_claims"),
    "expiry that is no number": (lambda f: f.honest(exp="never"), "token_claims"),
    "not a token": (lambda f: "abc", "token_malformed"),
    "three empty parts": (lambda f: "..", "token_malformed"),
    "a header that is no JSON": (lambda f: f"{tokens.encode(b'{')}.e30.AA", "token_malformed"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_token_is_refused_before_policy_runs(caller: Caller, forge: Forge, case: str) -> None:
    make, cause = CASES[case]
    answer = caller.ask("/hello", token=make(forge))
    record = caller.expect_refused(answer, 401, "authenticate", cause)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert record["timingsUs"].get("authorize", 0) == 0
    assert "principal" not in record or record["principal"] == "anonymous"


def test_a_request_without_a_token_is_refused(caller: Caller) -> None:
    answer = caller.ask("/hello", anonymous=True)
    caller.expect_refused(answer, 401, "authenticate", "credentials_required")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_critical_header_nobody_understands_is_refused(caller: Caller, forge: Forge) -> None:
    """RFC 7515 section 4.1.11: a `crit` that is not understood makes the signature invalid."""
    answer = caller.ask("/hello", token=forge.headed(crit=["b64"], b64=False))
    assert answer.status == 401
    assert caller.node.record(answer.request_id)["stage"] == "authenticate"


def test_two_authorization_headers_are_refused(caller: Caller, node: Node) -> None:
    doubled = [("authorization", f"Bearer {node.usual_token}"), ("authorization", "Bearer abc")]
    answer = caller.send("/hello", headers=doubled, anonymous=True)
    assert answer.status in (400, 401)
    assert node.record(answer.request_id)["outcome"] == "refused"
    caller.expect_neighbour_served()


def test_an_honest_token_is_served_and_recorded(caller: Caller, node: Node) -> None:
    answer = caller.ask("/hello")
    assert answer.body == GREETING
    record = caller.expect_recorded(answer, 200)
    _, claims = tokens.parts_of(node.usual_token)
    assert record["principal"] == f"{claims['iss']}#tester"
    assert record["outcome"] == "served"
    assert "stage" not in record
    assert "cause" not in record


def test_a_remembered_token_is_refused_once_it_expired(caller: Caller, forge: Forge) -> None:
    """Within the leeway (5 s) an expired token still works; remembering it must not lengthen that."""
    token = forge.honest(exp=tokens.in_seconds(-3), jti=f"short-{caller.protocol}")
    assert caller.ask("/hello", token=token).status == 200
    deadline = time.monotonic() + 6
    answer = caller.ask("/hello", token=token)
    while answer.status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = caller.ask("/hello", token=token)
    caller.expect_refused(answer, 401, "authenticate", "token_expired")


def test_the_answer_does_not_tell_a_forger_what_was_wrong(caller: Caller, forge: Forge) -> None:
    """Only a caller with a genuine token learns that it is too early, too late or for somebody else."""
    genuine = {"token_expired", "token_not_yet_valid", "token_audience"}
    told = {
        json.loads(caller.ask("/hello", token=make(forge)).body)["error"]
        for make, cause in CASES.values()
        if cause not in genuine
    }
    assert len(told) == 1, told


def test_a_token_as_padded_base64_is_malformed(caller: Caller, forge: Forge) -> None:
    """RFC 7515 section 2: no padding, URL-safe alphabet only."""
    header, claims, signature = forge.honest().split(".")
    answer = caller.ask("/hello", token=f"{header}.{claims}=.{signature}")
    caller.expect_refused(answer, 401, "authenticate", "token_malformed")
