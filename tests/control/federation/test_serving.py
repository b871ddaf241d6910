"""The bundle endpoint over real sockets: what it shows, whom it lets in, and what survives."""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from tests.control.federation.conftest import Peer, Web

from vedette.control.federation.messages import Profile
from vedette.control.federation.serving import BundleServing
from vedette.errors import ConfigError, TrustError, UnavailableError
from vedette.identity.bundle import Bundle, read_bundle
from vedette.identity.bundle_web import SpiffeEndpoint, fetch_bundle
from vedette.identity.domain import SpiffeId, bundle_endpoint_id
from vedette.identity.succession import OLD_FOR


def endpoint(peer: Peer, bundle: Bundle | None = None) -> SpiffeEndpoint:
    return SpiffeEndpoint(bundle_endpoint_id(peer.domain), bundle or peer.identities.own_bundle())


def anybody(peer: Peer, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that has the node's CA and no certificate."""
    context = ssl.create_default_context(cadata=peer.keys.ca_pem().decode())
    context.check_hostname = False
    context.maximum_version = version
    return context


def web_wish(web: Web, **more: Any) -> dict[str, Any]:
    files = {"certificate": str(web.certificate), "key": str(web.key)}
    return {"profile": Profile.HTTPS_WEB, **files, **more}


def shown(peer: Peer) -> x509.Certificate:
    host, _, port = peer.url.removeprefix("https://").partition("/")[0].rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain) as connected,
    ):
        return x509.load_der_x509_certificate(connected.getpeercert(binary_form=True) or b"")


def test_it_serves_the_newest_bundle_as_an_svid_of_the_node(one: Peer) -> None:
    assert one.serving.status() is None
    status = one.serve()
    assert status.endpoint_id == f"spiffe://{one.domain}/gateway/bundle"
    document = fetch_bundle(one.url, endpoint(one))
    assert read_bundle(document, one.domain) == one.identities.own_bundle()
    one.keys.jwt_svids.rotate(one.clock(), timedelta())
    one.identities.keys_changed()
    assert len(read_bundle(fetch_bundle(one.url, endpoint(one)), one.domain).jwt_keys) == 2


def test_it_answers_get_of_its_documents_and_nothing_else(one: Peer) -> None:
    one.serve()
    with httpx.Client(verify=anybody(one)) as client:
        answer = client.get(one.url)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"
        assert client.get(one.url + "?x=1").status_code == 200
        assert client.get(one.url + "/").status_code == 404
        assert client.get(one.url.replace("/bundle", "/keys")).status_code == 404
        refused = client.post(one.url, content=b"x" * 100_000)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
        head = client.head(one.url)
        assert (head.status_code, head.content) == (405, b"")


def test_it_speaks_no_tls_before_1_3_and_no_plain_http(one: Peer) -> None:
    one.serve()
    with (
        httpx.Client(verify=anybody(one, ssl.TLSVersion.TLSv1_2)) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get(one.url)
    with httpx.Client() as client, pytest.raises(httpx.TransportError):
        client.get(one.url.replace("https", "http"))


def test_a_restart_serves_on_the_same_port_and_off_means_off(one: Peer) -> None:
    one.serve()
    url = one.url
    one.serving._stop()
    again = BundleServing(one.home, one.identities)
    again.ensure()
    assert fetch_bundle(url, endpoint(one))
    again.remove()
    assert again.status() is None
    with pytest.raises(UnavailableError):
        fetch_bundle(url, endpoint(one))
    last = BundleServing(one.home, one.identities)
    last.ensure()
    assert last.status() is None


def test_what_cannot_be_served_leaves_what_was(one: Peer, web: Web) -> None:
    one.serve()
    url = one.url
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError) as caught:
            one.serve(listen=listen)
    assert caught.value.code == "address_in_use"
    web.key.chmod(0o644)
    with pytest.raises(TrustError):
        one.serve(**web_wish(web))
    web.key.chmod(0o600)
    web.key.write_text("no key")
    with pytest.raises(ConfigError) as unusable:
        one.serve(**web_wish(web))
    assert "no key" not in str(unusable.value)
    assert fetch_bundle(url, endpoint(one))


@pytest.mark.parametrize(
    "more",
    [
        {"profile": Profile.HTTPS_WEB},
        {"certificate": "/a.pem", "key": "/a.key"},
        {"profile": Profile.HTTPS_WEB, "certificate": "a.pem", "key": "a.key"},
        {"listen": "https://127.0.0.1:0"},
        {"oidc_issuer": "http://127.0.0.1"},
        {"oidc_issuer": "https://a.example/"},
        {"oidc_issuer": "https://a.example/?q"},
    ],
)
def test_what_makes_no_sense_is_refused(one: Peer, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        one.serve(**more)
    assert caught.value.code == "bundle_endpoint_invalid"
    assert not one.home.bundle_endpoint_file.exists()


def test_an_address_that_was_taken_at_the_start_is_tried_again(one: Peer) -> None:
    one.serve()
    wish = one.serving._wish
    one.serving._stop()
    assert wish is not None
    host, _, port = wish.listen.rpartition(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        again = BundleServing(one.home, one.identities)
        again.ensure()
        status = again.status()
        assert status is not None
        assert "another program" in (status.error or "")
    again.ensure()
    status = again.status()
    again._stop()
    assert status is not None
    assert status.error is None


def test_a_web_certificate_is_read_again_when_it_changes_and_kept_when_it_is_broken(
    one: Peer, web: Web
) -> None:
    one.serve(**web_wish(web))
    assert fetch_bundle(one.url, ca_pem=web.ca.read_text())
    serial = web.renew()
    assert shown(one).serial_number == serial
    web.certificate.write_text("half written")
    assert shown(one).serial_number == serial
    serial = web.renew()
    assert shown(one).serial_number == serial
    with pytest.raises(UnavailableError, match="not trusted"):
        fetch_bundle(one.url)  # the system's CAs do not vouch for it
    with pytest.raises(UnavailableError, match="not trusted"):
        fetch_bundle(one.url, endpoint(one))


def test_its_svid_is_made_anew_at_half_of_its_life(one: Peer) -> None:
    one.serve()
    first = shown(one)
    assert shown(one) == first
    one.clock.ahead = timedelta(minutes=31)
    second = shown(one)
    assert second.serial_number != first.serial_number
    one.clock.ahead = timedelta()  # the clock went back
    assert shown(one).serial_number not in (first.serial_number, second.serial_number)


def test_who_has_the_bundle_of_before_a_rotation_can_fetch_the_one_after(one: Peer) -> None:
    """Endpoints show the CA that others know as long as it is trusted; after that, who slept needs a file."""
    one.serve()
    before = one.identities.own_bundle()
    one.keys.ca.rotate(one.clock(), timedelta())
    one.keys.ca.step(one.clock())
    one.identities.keys_changed()
    document = fetch_bundle(one.url, endpoint(one, before))
    after = read_bundle(document, one.domain)
    assert len(after.x509_authorities) == 2
    later = one.clock() + OLD_FOR
    one.keys.ca.step(later)
    one.identities.keys_changed()
    assert fetch_bundle(one.url, endpoint(one, after))
    with pytest.raises(UnavailableError, match="not trusted"):
        fetch_bundle(one.url, endpoint(one, before))


def test_only_the_endpoint_that_was_named_is_believed(one: Peer, two: Peer) -> None:
    one.serve()
    named = SpiffeEndpoint(SpiffeId(one.domain, "/other"), one.identities.own_bundle())
    with pytest.raises(UnavailableError, match="gateway/bundle, not"):
        fetch_bundle(one.url, named)
    foreign = SpiffeEndpoint(bundle_endpoint_id(one.domain), two.identities.own_bundle())
    with pytest.raises(UnavailableError, match="not trusted"):
        fetch_bundle(one.url, foreign)
    redacted = SpiffeEndpoint(bundle_endpoint_id(one.domain), Bundle(one.domain))
    with pytest.raises(UnavailableError, match="no CA"):
        fetch_bundle(one.url, redacted)


def test_the_private_key_is_never_on_the_disk(one: Peer) -> None:
    before = {path for path in one.home.root.rglob("*") if path.is_file()}
    one.serve()
    fetch_bundle(one.url, endpoint(one))
    after = {path for path in one.home.root.rglob("*") if path.is_file()}
    added = {path.name for path in after - before}
    assert added <= {"bundle-endpoint.json", "identity.db-wal", "identity.db-shm"}


def test_what_is_kept_and_cannot_be_read_does_not_cost_the_start(one: Peer) -> None:
    one.home.bundle_endpoint_file.write_text('{"listen": 7}')
    assert BundleServing(one.home, one.identities).status() is None
