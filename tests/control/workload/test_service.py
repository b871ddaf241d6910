"""What callers are answered, and what they are sent later: the semantics of the specification, call by call."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.control.workload.conftest import DOMAIN, ME, Served
from tests.control.workload.raw_client import HEADER, RawClient

from vedette.clock import now
from vedette.control.workload.attest import Attestor, Peer
from vedette.control.workload.grpc import Status
from vedette.errors import UnavailableError
from vedette.identity.authority import Authority
from vedette.identity.bundle import Bundle, own_authority
from vedette.identity.domain import SpiffeId
from vedette.identity.jwt_svid import JwtIssuer

STREAMS = {
    "FetchX509SVID": "X509SVIDResponse",
    "FetchX509Bundles": "X509BundlesResponse",
    "FetchJWTBundles": "JWTBundlesResponse",
}
OTHER = "other.example"


@pytest.fixture
def client(served: Served) -> Iterator[RawClient]:
    opened = RawClient(served.home.workload_socket)
    yield opened
    opened.close()


def ids(response: Any) -> list[str]:
    return [svid.spiffe_id.removeprefix(f"spiffe://{DOMAIN}") for svid in response.svids]


def leaf(response: Any, place: int = 0) -> x509.Certificate:
    return x509.load_der_x509_certificate(response.svids[place].x509_svid)


def revoked(response: Any) -> list[int]:
    (crl,) = response.crl
    return [one.serial_number for one in x509.load_der_x509_crl(crl)]


def foreign(folder: Path, sequence: int = 1) -> Bundle:
    folder.mkdir(exist_ok=True)
    authority = Authority.ensure(folder / "ca.key", folder / "ca.crt", OTHER)
    keys = (JwtIssuer.ensure(folder / "jwt.key", OTHER).public,)
    return Bundle(OTHER, (own_authority(authority.certificate),), keys, sequence)


# --- who is answered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*STREAMS, "FetchJWTSVID", "ValidateJWTSVID"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [*HEADER, *HEADER],
        [(b"workload.spiffe.io", b"True")],
        [(b"workload.spiffe.io", b"false")],
        [(b"workload.spiffe.io", b"")],
        [(b"x-workload.spiffe.io", b"true")],
    ],
)
def test_without_the_header_exactly_once_a_call_is_an_invalid_argument(
    served: Served, client: RawClient, method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    served.put("shop")
    assert client.status(client.open(method, headers)) == Status.INVALID_ARGUMENT


@pytest.mark.parametrize("method", STREAMS)
def test_a_caller_that_no_entry_matches_is_denied(
    served: Served, client: RawClient, method: str
) -> None:
    served.put("shop", ME, "unix:gid:4294967294")
    served.put("other", "unix:uid:4294967294")
    assert client.status(client.open(method)) == Status.PERMISSION_DENIED


def test_jwt_calls_of_a_caller_without_identity_are_denied(client: RawClient) -> None:
    asked = client.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["a"])
    assert client.status(asked) == Status.PERMISSION_DENIED
    asked = client.ask("ValidateJWTSVID", "ValidateJWTSVIDRequest", audience="a", svid="x")
    assert client.status(asked) == Status.PERMISSION_DENIED


@pytest.mark.parametrize("method", ["FetchWITSVID", "FetchWITBundles", "Other", ""])
def test_methods_that_are_not_there_are_unimplemented(
    served: Served, client: RawClient, method: str
) -> None:
    served.put("shop")
    assert client.status(client.open(method)) == Status.UNIMPLEMENTED
    assert client.status(client.open("FetchX509SVID", service="Other")) == Status.UNIMPLEMENTED


def test_a_request_that_is_malformed_missing_or_doubled_is_an_invalid_argument(
    served: Served, client: RawClient
) -> None:
    served.put("shop")
    broken = client.open("FetchJWTSVID", body=b"\0\0\0\0\1\xff")
    assert client.status(broken) == Status.INVALID_ARGUMENT
    assert client.status(client.open("FetchX509SVID", body=None)) == Status.INVALID_ARGUMENT
    twice = client.open("FetchX509SVID", body=b"\0\0\0\0\0" * 2)
    assert client.status(twice) == Status.INVALID_ARGUMENT


# --- X509-SVIDs -----------------------------------------------------------------------------------------------------


def test_the_first_message_comes_at_once_with_all_that_is_the_callers(
    served: Served, client: RawClient
) -> None:
    served.put("b-shop", hint="internal", dns_names=["shop.example.com"])
    served.put("a-billing")
    served.put("not-mine", "unix:uid:4294967294")
    response = client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse")
    assert ids(response) == ["/a-billing", "/b-shop"]
    assert [svid.hint for svid in response.svids] == ["", "internal"]
    for svid in response.svids:
        ca = x509.load_der_x509_certificate(svid.bundle)
        x509.load_der_x509_certificate(svid.x509_svid).verify_directly_issued_by(ca)
    assert revoked(response) == []
    assert dict(response.federated_bundles) == {}


def test_a_hint_stands_for_one_svid_of_an_answer(served: Served, client: RawClient) -> None:
    served.put("a", hint="same")
    served.put("b", hint="same")
    response = client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse")
    assert [svid.hint for svid in response.svids] == ["same", ""]


def test_each_change_of_entries_sends_the_full_set(served: Served, client: RawClient) -> None:
    served.put("a")
    stream = client.open("FetchX509SVID")
    first = client.next_message(stream, "X509SVIDResponse")
    served.put("b")
    both = client.next_message(stream, "X509SVIDResponse")
    assert ids(both) == ["/a", "/b"]
    assert leaf(both) == leaf(first)  # what did not change is not made anew
    served.put("c", "unix:uid:4294967294")  # somebody else's: nothing is sent
    served.put("b", path="/other")
    assert ids(client.next_message(stream, "X509SVIDResponse")) == ["/a", "/other"]


def test_what_an_entry_loses_is_left_out_and_its_serial_is_revoked(
    served: Served, client: RawClient
) -> None:
    served.put("a")
    served.put("b")
    stream = client.open("FetchX509SVID")
    before = client.next_message(stream, "X509SVIDResponse")
    served.workloads.remove("b")
    after = client.next_message(stream, "X509SVIDResponse")
    assert ids(after) == ["/a"]
    while revoked(after) == []:
        after = client.next_message(stream, "X509SVIDResponse")
    assert revoked(after) == [leaf(before, 1).serial_number]


def test_after_the_last_identity_the_stream_ends_with_permission_denied(
    served: Served, client: RawClient
) -> None:
    served.put("a")
    streams = {client.open(method): response for method, response in STREAMS.items()}
    for stream, response in streams.items():
        client.next_message(stream, response)
    served.workloads.remove("a")
    for stream in streams:
        assert client.status(stream) == Status.PERMISSION_DENIED
    served.put("a")
    again = client.open("FetchX509SVID")
    assert ids(client.next_message(again, "X509SVIDResponse")) == ["/a"]


def test_a_caller_that_only_watched_bundles_loses_them_with_its_entry(
    served: Served, client: RawClient
) -> None:
    served.put("a")
    streams = {client.open(method): STREAMS[method] for method in STREAMS if "Bundles" in method}
    for stream, response in streams.items():
        client.next_message(stream, response)
    served.workloads.remove("a")  # no SVID was out, so the CRL stays as it was
    for stream in streams:
        assert client.status(stream) == Status.PERMISSION_DENIED


def test_an_entry_that_no_longer_matches_is_redacted(served: Served, client: RawClient) -> None:
    served.put("a")
    stream = client.open("FetchX509SVID")
    client.next_message(stream, "X509SVIDResponse")
    served.put("a", ME, "unix:gid:4294967294")
    assert client.status(stream) == Status.PERMISSION_DENIED


def test_an_svid_is_renewed_at_half_of_its_life_with_another_key(
    served: Served, client: RawClient
) -> None:
    served.put("a", ttl_seconds=900)
    stream = client.open("FetchX509SVID")
    first = client.next_message(stream, "X509SVIDResponse")
    served.clock.ahead = timedelta(seconds=400)
    assert served.server._svids.due() == []  # 45 % is 405 s
    served.clock.ahead = timedelta(seconds=451)
    second = client.next_message(stream, "X509SVIDResponse")
    assert leaf(second).serial_number != leaf(first).serial_number
    assert second.svids[0].x509_svid_key != first.svids[0].x509_svid_key
    left = leaf(second).not_valid_after_utc - served.clock()
    assert timedelta(seconds=840) < left <= timedelta(seconds=900)
    assert revoked(second) == []


def test_a_clock_that_goes_back_does_not_leave_svids_that_are_not_valid_yet(
    served: Served, client: RawClient
) -> None:
    served.clock.ahead = timedelta(hours=10)
    served.put("a")
    stream = client.open("FetchX509SVID")
    client.next_message(stream, "X509SVIDResponse")
    served.clock.ahead = timedelta()
    response = client.next_message(stream, "X509SVIDResponse")
    assert leaf(response).not_valid_before_utc <= now()
    served.clock.ahead = timedelta(days=2)  # and forward again: nothing is out that has ended
    while leaf(response).not_valid_after_utc <= served.clock():
        response = client.next_message(stream, "X509SVIDResponse")


def test_another_life_of_svids_counts_from_the_next_one_which_is_made_at_once(
    served: Served, client: RawClient
) -> None:
    served.put("a", ttl_seconds=900)
    stream = client.open("FetchX509SVID")
    client.next_message(stream, "X509SVIDResponse")
    served.put("a", ttl_seconds=60)
    short = leaf(client.next_message(stream, "X509SVIDResponse"))
    assert short.not_valid_after_utc - served.clock() <= timedelta(seconds=60)


def test_many_serials_that_are_revoked_at_once_all_reach_the_watchers(
    served: Served, client: RawClient
) -> None:
    for number in range(20):
        served.put(f"a{number}")
    served.put("z")
    stream = client.open("FetchX509SVID")
    first = client.next_message(stream, "X509SVIDResponse")
    serials = {leaf(first, place).serial_number for place in range(20)}
    for number in range(20):
        served.workloads.remove(f"a{number}")
    told = client.next_message(stream, "X509SVIDResponse")
    # A message that is made while the last one goes may name it beside its revocation; the next does not.
    while set(revoked(told)) != serials or ids(told) != ["/z"]:
        told = client.next_message(stream, "X509SVIDResponse")


def test_while_the_disk_fails_callers_are_told_to_come_again_and_watchers_are_told_later(
    served: Served, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.put("a")
    stream = client.open("FetchX509SVID")
    client.next_message(stream, "X509SVIDResponse")

    def failing() -> bytes:
        raise UnavailableError("disk_failed", "the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(served.identities, "crls", failing)
        served.put("b")
        assert client.status(client.open("FetchX509SVID")) == Status.UNAVAILABLE
    assert ids(client.next_message(stream, "X509SVIDResponse")) == ["/a", "/b"]


def test_a_program_is_looked_at_once_however_many_of_a_user_ask(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.put("a")
    looked: list[int] = []
    learn = Attestor.learn

    def counted(self: Attestor, peer: Peer) -> None:
        looked.append(peer.uid)
        learn(self, peer)

    monkeypatch.setattr(Attestor, "learn", counted)
    clients = [RawClient(served.home.workload_socket) for _ in range(10)]
    streams = [client.open("FetchX509SVID") for client in clients]
    for client, stream in zip(clients, streams, strict=True):
        assert client.next_message(stream, "X509SVIDResponse").svids
        client.close()
    assert looked == [os.getuid()]


# --- bundles --------------------------------------------------------------------------------------------------------


def test_bundles_are_the_nodes_own_and_those_that_an_entry_federates_with(
    served: Served, client: RawClient, tmp_path: Path
) -> None:
    bundle = foreign(tmp_path / "o")
    served.identities.put_bundle(OTHER, bundle.to_jwks())
    served.put("a")
    x509_stream, jwt_stream = client.open("FetchX509Bundles"), client.open("FetchJWTBundles")
    own = {f"spiffe://{DOMAIN}"}
    assert set(client.next_message(x509_stream, "X509BundlesResponse").bundles) == own
    assert set(client.next_message(jwt_stream, "JWTBundlesResponse").bundles) == own
    served.put("a", federates_with=[OTHER])
    both = client.next_message(x509_stream, "X509BundlesResponse").bundles
    assert set(both) == {*own, f"spiffe://{OTHER}"}
    assert both[f"spiffe://{OTHER}"] == bundle.x509_authorities[0]
    jwks = client.next_message(jwt_stream, "JWTBundlesResponse").bundles
    for domain, keys in ((DOMAIN, (served.identities.jwt.public,)), (OTHER, bundle.jwt_keys)):
        told = json.loads(jwks[f"spiffe://{domain}"])["keys"]
        assert [key["kid"] for key in told] == [key.kid for key in keys]
    svids = client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse")
    assert dict(svids.federated_bundles) == {f"spiffe://{OTHER}": bundle.x509_authorities[0]}


def test_a_redacted_bundle_reaches_everybody_who_had_it(
    served: Served, client: RawClient, tmp_path: Path
) -> None:
    served.identities.put_bundle(OTHER, foreign(tmp_path / "o").to_jwks())
    served.put("a", federates_with=[OTHER])
    stream = client.open("FetchX509Bundles")
    client.next_message(stream, "X509BundlesResponse")
    served.identities.put_bundle(OTHER, Bundle(OTHER, sequence=2).to_jwks())
    assert client.next_message(stream, "X509BundlesResponse").bundles[f"spiffe://{OTHER}"] == b""
    served.identities.remove_bundle(OTHER)
    assert set(client.next_message(stream, "X509BundlesResponse").bundles) == {f"spiffe://{DOMAIN}"}


def test_the_last_of_many_changes_of_a_bundle_is_told(
    served: Served, client: RawClient, tmp_path: Path
) -> None:
    served.identities.put_bundle(OTHER, foreign(tmp_path / "o").to_jwks())
    served.put("a", federates_with=[OTHER])
    stream = client.open("FetchX509Bundles")
    client.next_message(stream, "X509BundlesResponse")
    for number in range(2, 12):
        bundle = foreign(tmp_path / f"o{number}", number)
        served.identities.put_bundle(OTHER, bundle.to_jwks())
    told = b""
    while told != bundle.x509_authorities[0]:
        message = client.next_message(stream, "X509BundlesResponse")
        told = message.bundles[f"spiffe://{OTHER}"]


# --- JWT-SVIDs ------------------------------------------------------------------------------------------------------


def test_a_jwt_svid_is_of_every_identity_or_of_the_one_named(
    served: Served, client: RawClient
) -> None:
    served.put("a", hint="x")
    served.put("b")
    asked = client.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["z"])
    both = client.next_message(asked, "JWTSVIDResponse")
    assert ids(both) == ["/a", "/b"]
    assert [svid.hint for svid in both.svids] == ["x", ""]
    assert client.status(asked) == Status.OK
    name = f"spiffe://{DOMAIN}/b"
    asked = client.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["z"], spiffe_id=name)
    assert ids(client.next_message(asked, "JWTSVIDResponse")) == ["/b"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, Status.INVALID_ARGUMENT),
        ({"audience": [""]}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"] * 17}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"], "spiffe_id": "shop"}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"], "spiffe_id": f"spiffe://{DOMAIN}/b"}, Status.PERMISSION_DENIED),
        ({"audience": ["a"], "spiffe_id": f"spiffe://{OTHER}/a"}, Status.PERMISSION_DENIED),
    ],
)
def test_a_jwt_svid_that_cannot_be(
    served: Served, client: RawClient, fields: dict[str, Any], status: Status
) -> None:
    served.put("a")
    served.put("b", "unix:uid:4294967294")
    assert client.status(client.ask("FetchJWTSVID", "JWTSVIDRequest", **fields)) == status


def test_a_jwt_svid_is_validated_with_its_claims_and_a_wrong_one_is_not(
    served: Served, client: RawClient
) -> None:
    served.put("a", jwt_ttl_seconds=60)
    asked = client.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["z"])
    token = client.next_message(asked, "JWTSVIDResponse").svids[0].svid

    def validate(audience: str, svid: str) -> int:
        return client.ask("ValidateJWTSVID", "ValidateJWTSVIDRequest", audience=audience, svid=svid)

    proved = client.next_message(validate("z", token), "ValidateJWTSVIDResponse")
    assert proved.spiffe_id == f"spiffe://{DOMAIN}/a"
    assert proved.claims["aud"][0] == "z"
    assert proved.claims["exp"] - proved.claims["iat"] == 60
    for audience, svid in (("y", token), ("z", token[:-8]), ("", token), ("z", "")):
        assert client.status(validate(audience, svid)) == Status.INVALID_ARGUMENT
    served.clock.ahead = timedelta(seconds=61)
    assert client.status(validate("z", token)) == Status.INVALID_ARGUMENT


def test_a_foreign_jwt_svid_counts_only_for_who_federates_with_its_trust_domain(
    served: Served, client: RawClient, tmp_path: Path
) -> None:
    served.identities.put_bundle(OTHER, foreign(tmp_path / "o").to_jwks())
    issuer = JwtIssuer.ensure(tmp_path / "o" / "jwt.key", OTHER)
    minted = issuer.mint(SpiffeId(OTHER, "/x"), ["z"], timedelta(minutes=5), served.clock())
    request = {"audience": "z", "svid": minted.token}
    served.put("a")
    asked = client.ask("ValidateJWTSVID", "ValidateJWTSVIDRequest", **request)
    assert client.status(asked) == Status.INVALID_ARGUMENT
    served.put("a", federates_with=[OTHER])
    asked = client.ask("ValidateJWTSVID", "ValidateJWTSVIDRequest", **request)
    told = client.next_message(asked, "ValidateJWTSVIDResponse")
    assert told.spiffe_id == f"spiffe://{OTHER}/x"
