"""Checks 7, 23 and 24: who gets an identity, whose bundles count for whom, and which JWT-SVIDs prove nothing.

Owns: attacks on the Workload API and on trust bundles. Must not: change the node that is verified.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from vedette.control.workload import wire
from vedette.errors import VedetteError
from vedette.identity.key_files import load_p256
from vedette.identity.sealing import Seal
from vedette.verification import forgery
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.forgery import Forger, Leaf
from vedette.verification.place import Place
from vedette.verification.twin import Twin
from vedette.verification.workload_caller import (
    HEADER,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    calling,
    status_of,
    validated,
)

PARTNER: Final = "partner.invalid"
_AUDIENCE: Final = "verify"
_KID: Final = "partner-1"


# --- 7 -------------------------------------------------------------------------------------------------------------


def headers(place: Place, trial: Trial) -> None:
    """A call without the security header, with two, or with another value proves a proxy that was tricked: refused."""
    socket = place.home.workload_socket
    for what, sent in (
        ("a call without the security header", []),
        ("a call with the header twice", [*HEADER, *HEADER]),
        ("a call with another value", [(b"workload.spiffe.io", b"yes")]),
    ):
        status = status_of(socket, "FetchX509SVID", sent)
        trial.attack(what, status == INVALID_ARGUMENT, f"status {status}")
    status = status_of(socket, "FetchX509SVID")
    trial.control("a call with the header", status in (0, PERMISSION_DENIED), f"status {status}")


def attestation(twin: Twin, trial: Trial) -> None:
    """Who has no entry gets nothing, and nobody gets the identity of another user or another program."""
    socket, uid = twin.place.home.workload_socket, os.getuid()
    status = status_of(socket, "FetchX509SVID")
    trial.attack("a caller without an entry", status == PERMISSION_DENIED, f"status {status}")
    others = {
        "another user's": [f"unix:uid:{uid + 1}"],
        "another group's": [f"unix:uid:{uid}", f"unix:gid:{os.getgid() + 1}"],
        "another program's": [f"unix:uid:{uid}", "unix:path:/bin/true"],
        "another digest's": [f"unix:uid:{uid}", f"unix:sha256:{'0' * 64}"],
    }
    for number, (what, selectors) in enumerate(others.items()):
        with entry(twin, f"other-{number}", selectors):
            status = status_of(socket, "FetchX509SVID")
            trial.attack(
                f"asking for {what} identity", status == PERMISSION_DENIED, f"status {status}"
            )
    with entry(twin, "mine", [f"unix:uid:{uid}"]), entry(twin, "theirs", others["another user's"]):
        with calling(socket) as caller:
            caller.begin("FetchX509SVID", b"")
            answer = caller.next("X509SVIDResponse")
        found = [one.spiffe_id for one in answer.svids] if answer else []
        trial.control("a caller with an entry", found == [f"{twin.place.issuer}/mine"], found)


@contextmanager
def entry(twin: Twin, name: str, selectors: list[str], *federates: str) -> Iterator[None]:
    """An entry of workloads, for a while."""
    wish = {"path": f"/{name}", "selectors": selectors, "federatesWith": list(federates)}
    twin.client.put(f"/v1/workloads/{name}", wish)
    try:
        yield
    finally:
        twin.client.delete(f"/v1/workloads/{name}")


# --- 23 ------------------------------------------------------------------------------------------------------------


def federation(twin: Twin, trial: Trial) -> None:
    """A bundle counts for its own trust domain only, never goes back, and ends the trust when it is empty."""
    partner = Forger(twin.folder, PARTNER)
    own = twin.place.trust_domain
    ours = partner_token(partner, f"spiffe://{PARTNER}/shop")
    _refused(twin, trial, "a bundle for the node's own trust domain", own, partner.bundle(9))
    _refused(twin, trial, "a CA of another trust domain", "third.invalid", partner.bundle(1))
    put_bundle(twin, PARTNER, partner.bundle(2, _KID))
    with entry(twin, "federated", [f"unix:uid:{os.getuid()}"], PARTNER):
        _proves(twin, trial, ours, f"spiffe://{PARTNER}/shop")
        for domain in (own, "third.invalid"):
            forged = partner_token(partner, f"spiffe://{domain}/shop")
            _proves_nothing(twin, trial, f"a partner's token for {domain}", forged)
        forged_leaf = partner.issue(Leaf((f"{twin.place.issuer}/shop",)))
        answer = twin.ask("/orders", credential=forged_leaf.file)
        trial.attack("a partner's certificate at the listener", answer.status != 200, answer)
        _refused(twin, trial, "an older bundle", PARTNER, partner.bundle(1, _KID))
        _refused(
            twin,
            trial,
            "other keys under the same number",
            PARTNER,
            {"keys": [], "spiffe_sequence": 2},
        )
        put_bundle(twin, PARTNER, {"keys": [], "spiffe_sequence": 3})
        _proves_nothing(twin, trial, "a partner's token after its bundle was emptied", ours)
    twin.client.delete(f"/v1/bundles/{PARTNER}")


def partner_token(partner: Forger, subject: str) -> str:
    """A JWT-SVID that the partner signs for anybody."""
    return forgery.token(forgery.claims(subject, "", _AUDIENCE), partner.key, _KID)


def put_bundle(twin: Twin, domain: str, document: dict[str, Any]) -> None:
    """Gives the twin a trust bundle."""
    twin.client.put(f"/v1/bundles/{domain}", {"document": json.dumps(document)})


def _refused(twin: Twin, trial: Trial, what: str, domain: str, document: dict[str, Any]) -> None:
    try:
        put_bundle(twin, domain, document)
    except VedetteError as error:
        trial.attack(what, error.code in ("bundle_invalid", "bundle_rollback"), error.code)
    else:
        trial.attack(what, False, "it was taken")


def _proves(twin: Twin, trial: Trial, svid: str, subject: str) -> None:
    proved, told = validated(twin.place.home.workload_socket, _AUDIENCE, svid)
    trial.control(f"a token of {subject}", proved == subject, told or proved)


def _proves_nothing(twin: Twin, trial: Trial, what: str, svid: str) -> None:
    proved, _ = validated(twin.place.home.workload_socket, _AUDIENCE, svid)
    trial.attack(what, not proved, f"it proves {proved}")


# --- 24 ------------------------------------------------------------------------------------------------------------


def jwt_svids(twin: Twin, trial: Trial) -> None:
    """A JWT-SVID that is wrong in one thing proves nobody; also where the key is the CA's own."""
    with entry(twin, "bearer", [f"unix:uid:{os.getuid()}"]):
        right = _fetched(twin)
        subject = forgery.claims_of(right)["sub"]
        _proves(twin, trial, right, subject)
        for what, svid in _wrong_tokens(twin, right).items():
            _proves_nothing(twin, trial, what, svid)
        proved, _ = validated(twin.place.home.workload_socket, "somebody-else", right)
        trial.attack("a JWT-SVID for another audience", not proved, f"it proves {proved}")


def _fetched(twin: Twin) -> str:
    with calling(twin.place.home.workload_socket) as caller:
        caller.begin("FetchJWTSVID", wire.encode("JWTSVIDRequest", audience=[_AUDIENCE]))
        return str(caller.next("JWTSVIDResponse").svids[0].svid)


def _wrong_tokens(twin: Twin, right: str) -> dict[str, str]:
    """The right token with one thing changed; those that are signed are signed with the twin's own keys."""
    home = twin.place.home
    seal = Seal.load(home.seal_key)
    signing, ca = load_p256(home.jwt_svid_key, seal), load_p256(home.ca_key, seal)
    kid = forgery.header_of(right)["kid"]
    good = forgery.claims_of(right)
    stranger = ec.generate_private_key(ec.SECP256R1())
    endless = {name: value for name, value in good.items() if name != "exp"}
    head, body, signature = right.split(".")
    return {
        "a JWT-SVID without exp": forgery.token(endless, signing, kid),
        "an expired JWT-SVID": forgery.token({**good, "exp": good["iat"] - 60}, signing, kid),
        "a JWT-SVID of tomorrow": forgery.token(
            {**good, "iat": good["iat"] + 86_400, "exp": good["exp"] + 90_000}, signing, kid
        ),
        "the algorithm none": forgery.unsigned(good, kid),
        "HS256 under the public key": forgery.keyed(good, kid, signing.public_key()),
        "the key of X509-SVIDs": forgery.token(good, ca, kid),
        "a stranger's key": forgery.token(good, stranger, kid),
        "another key id": forgery.token(good, signing, "unknown"),
        "another trust domain": forgery.token(
            {**good, "sub": "spiffe://elsewhere.invalid/shop"}, signing, kid
        ),
        "another subject under the old signature": ".".join(
            (head, _rewritten(body, good), signature)
        ),
    }


def _rewritten(_body: str, good: dict[str, Any]) -> str:
    other = {**good, "sub": f"{good['sub']}-2"}
    return forgery.unsigned(other, None).split(".")[1]


CHECKS: Final = (
    Check(
        7,
        "the Workload API gives nobody another's identity",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY,),
        "Look at `vedette workload list` for an entry that is too wide; name user, path and digest.",
        on_node=headers,
        on_twin=attestation,
    ),
    Check(
        23,
        "a foreign bundle counts for its own trust domain only",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY,),
        "Do not federate with this version: install it again from a source that you trust.",
        on_twin=federation,
    ),
    Check(
        24,
        "a wrong JWT-SVID proves nobody",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY,),
        "Do not rely on JWT-SVIDs of this installation: install it again from a source that you trust.",
        on_twin=jwt_svids,
    ),
)
