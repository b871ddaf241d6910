"""Following another node's bundle over real sockets: what is believed, what stays, and when it is asked again."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.control.federation.conftest import Peer, Web

from vedette.clock import from_rfc3339
from vedette.control.federation.following import CEILING, FLOOR, LONGEST_WAIT, Following
from vedette.control.federation.messages import FollowStatus, FollowWish, Profile
from vedette.errors import ConfigError, TrustError
from vedette.identity.bundle import MAX_BUNDLE_BYTES, Bundle
from vedette.identity.succession import OLD_FOR

SPIFFE, WEB = Profile.HTTPS_SPIFFE, Profile.HTTPS_WEB


def introduced(follower: Peer, other: Peer) -> None:
    """Gives the first bundle by hand, as an operator would."""
    follower.identities.put_bundle(other.domain, other.identities.own_bundle().to_jwks())


def held(follower: Peer, domain: str) -> Bundle | None:
    return follower.identities.federation.bundles().get(domain)


def spiffe(peer: Peer, **more: Any) -> FollowWish:
    return FollowWish(url=peer.url, profile=SPIFFE, **more)


def test_two_nodes_follow_each_other_through_a_rotation(one: Peer, two: Peer) -> None:
    for follower, other in ((one, two), (two, one)):
        other.serve()
        introduced(follower, other)
        told = follower.following.follow(other.domain, spiffe(other))
        assert (told.error, told.failures) == (None, 0)
        assert told.age_seconds is not None
        assert told.endpoint_id == f"spiffe://{other.domain}/gateway/bundle"
    steps: list[Callable[[], object]] = [
        lambda: one.keys.ca.rotate(one.clock(), timedelta()),
        lambda: one.keys.ca.step(one.clock()),
        lambda: one.keys.ca.step(one.clock() + OLD_FOR),
    ]
    counts = []
    for step in steps:
        step()
        one.identities.keys_changed()
        two.clock.ahead += timedelta(minutes=6)
        two.following.step()
        assert held(two, one.domain) == one.identities.own_bundle()
        counts.append(len(one.identities.own_bundle().x509_authorities))
    assert counts == [2, 2, 1]
    assert held(one, two.domain) == two.identities.own_bundle()


def test_it_is_asked_again_when_the_bundle_says_so_and_not_before(one: Peer, two: Peer) -> None:
    one.serve()
    introduced(two, one)
    told = two.following.follow(one.domain, spiffe(one))
    wait = from_rfc3339(told.next_at) - two.clock()
    assert timedelta(seconds=265) < wait <= timedelta(seconds=300)
    one.keys.jwt_svids.rotate(one.clock(), timedelta())
    one.identities.keys_changed()
    before = held(two, one.domain)
    two.clock.ahead = timedelta(seconds=200)
    two.following.step()
    assert held(two, one.domain) == before
    two.clock.ahead = timedelta(seconds=301)
    two.following.step()
    assert held(two, one.domain) == one.identities.own_bundle()
    two.clock.ahead = -timedelta(days=30)  # the clock went back: what was noted is far ahead
    assert two.following.statuses()[0].age_seconds == 0
    two.following.step()
    assert from_rfc3339(two.following.statuses()[0].next_at) < two.clock() + timedelta(minutes=6)


def test_programs_are_told_of_a_change_and_of_nothing_else(one: Peer, two: Peer) -> None:
    one.serve()
    introduced(two, one)
    told: list[int] = []
    two.identities.listen(lambda: told.append(1))
    two.following.follow(one.domain, spiffe(one))
    two.following.refresh(one.domain)
    assert told == []
    one.keys.jwt_svids.rotate(one.clock(), timedelta())
    one.identities.keys_changed()
    two.following.refresh(one.domain)
    assert told == [1]


def test_an_endpoint_that_is_away_costs_no_trust_and_is_asked_less_and_less(
    one: Peer, two: Peer
) -> None:
    one.serve()
    introduced(two, one)
    two.following.follow(one.domain, spiffe(one))
    one.serving._stop()
    waits = []
    for _ in range(7):
        two.clock.ahead += timedelta(hours=2)
        two.following.step()
        (told,) = two.following.statuses()
        waits.append(from_rfc3339(told.next_at) - two.clock())
    assert held(two, one.domain) == one.identities.own_bundle()
    assert (told.failures, "cannot be fetched" in (told.error or "")) == (7, True)
    assert told.age_seconds is not None
    assert told.age_seconds > 14 * 3_500
    assert waits[0] <= timedelta(minutes=5)
    assert waits[2] > waits[0] * 2
    assert LONGEST_WAIT * 0.85 < waits[-1] <= LONGEST_WAIT
    one.serving.ensure()
    assert two.following.refresh(one.domain).failures == 0


def test_a_lower_sequence_leaves_what_is_trusted(one: Peer, two: Peer) -> None:
    one.serve()
    newer = Bundle(one.domain, one.identities.own_bundle().x509_authorities, (), 9)
    two.identities.put_bundle(one.domain, newer.to_jwks())
    told = two.following.follow(one.domain, spiffe(one))
    assert "sequence 1" in (told.error or "")
    assert held(two, one.domain) == newer
    with pytest.raises(TrustError) as caught:
        two.following.refresh(one.domain)
    assert caught.value.code == "bundle_rollback"


def test_what_is_followed_survives_a_restart_and_unfollow_keeps_the_bundle(
    one: Peer, two: Peer
) -> None:
    one.serve()
    introduced(two, one)
    two.following.follow(one.domain, spiffe(one))
    again = Following(two.home, two.identities, clock=two.clock)
    assert again.statuses() == two.following.statuses()
    again.unfollow(one.domain)
    assert two.following.statuses() == []
    assert held(two, one.domain) is not None
    for act in (again.unfollow, again.refresh):
        with pytest.raises(ConfigError) as caught:
            act(one.domain)
        assert caught.value.code == "bundle_not_followed"


def test_without_a_first_bundle_an_https_spiffe_endpoint_proves_nothing(
    one: Peer, two: Peer
) -> None:
    one.serve()
    with pytest.raises(ConfigError) as caught:
        two.following.follow(one.domain, spiffe(one))
    assert caught.value.code == "bundle_unknown"
    assert "vedette federation set" in caught.value.hint
    assert two.following.statuses() == []


def test_an_endpoint_may_speak_for_a_trust_domain_it_is_not_in(
    one: Peer, two: Peer, make_peer: Callable[[str], Peer]
) -> None:
    """Not self-serving (§5.2.2.4): proved by the bundle of its own trust domain, which proves nothing else."""
    three = make_peer("edge-3")
    one.serve()
    introduced(two, one)
    wish = spiffe(one, endpoint_id=f"spiffe://{one.domain}/gateway/bundle")
    told = two.following.follow(three.domain, wish)
    assert f"the bundle of {three.domain} is refused" in (told.error or "")
    assert held(two, three.domain) is None


@pytest.mark.parametrize(
    "wish",
    [
        {"url": "http://127.0.0.1/bundle", "profile": WEB},
        {"url": "https://user:pw@127.0.0.1/bundle", "profile": WEB},
        {"url": "file:///etc/passwd", "profile": WEB},
        {"url": "https://a.example/", "profile": WEB, "endpoint_id": "spiffe://a/b"},
        {"url": "https://a.example/", "profile": SPIFFE, "ca": "x"},
        {"url": "https://a.example/", "profile": SPIFFE, "endpoint_id": "nobody"},
    ],
)
def test_what_makes_no_sense_is_refused(two: Peer, wish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        two.following.follow("edge-1.example.org", FollowWish(**wish))
    with pytest.raises(ConfigError):
        two.following.follow(two.domain, FollowWish(url="https://a.example/", profile=WEB))
    assert two.following.statuses() == []


class Site(http.server.BaseHTTPRequestHandler):
    """Somebody else's web server; `pages` says what it answers."""

    pages: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        status, fields, body = self.pages[self.path]
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(web: Web) -> Iterator[Callable[..., str]]:
    """Serves pages over HTTPS with a certificate of the web, or the one in a file; gives the URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(pages: dict[str, Any], pair: Path | None = None) -> str:
        handler = type("Pages", (Site,), {"pages": pages})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair or web.certificate, None if pair else web.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def follow_web(two: Peer, one: Peer, web: Web, url: str) -> FollowStatus:
    wish = FollowWish(url=url, profile=WEB, ca=web.ca.read_text())
    return two.following.follow(one.domain, wish)


def test_the_web_profile_needs_no_first_bundle_and_follows_redirects(
    one: Peer, two: Peer, web: Web, site: Callable[..., str]
) -> None:
    document = one.identities.own_bundle().to_jwks()
    url = site({"/b": (200, {}, document)})
    moved = site({"/a": (302, {"location": f"{url}/b"}, b""), "/c": (302, {"location": "/c"}, b"")})
    plain = site({"/p": (302, {"location": url.replace("https", "http") + "/b"}, b"")})
    with pytest.raises(ConfigError, match="only https"):
        two.following.follow(one.domain, FollowWish(url="http://localhost/b", profile=WEB))
    assert "too often" in (follow_web(two, one, web, f"{moved}/c").error or "")
    assert "only https" in (follow_web(two, one, web, f"{plain}/p").error or "")
    assert held(two, one.domain) is None
    assert follow_web(two, one, web, f"{moved}/a").error is None
    assert held(two, one.domain) == one.identities.own_bundle()
    untrusted = FollowWish(url=f"{url}/b", profile=WEB)
    assert "not trusted" in (two.following.follow(one.domain, untrusted).error or "")


def test_the_spiffe_profile_follows_no_redirect(
    one: Peer, two: Peer, site: Callable[..., str], tmp_path: Path
) -> None:
    introduced(two, one)
    one.serve()
    identity = f"spiffe://{one.domain}/gateway/bundle"
    chain, key = one.keys.authority.issue_server(["localhost"])
    pair = tmp_path / "pair.pem"
    pair.write_bytes(chain + key)
    url = site({"/a": (302, {"location": one.url}, b"")}, pair)
    gateway = FollowWish(
        url=f"{url}/a", profile=SPIFFE, endpoint_id=f"spiffe://{one.domain}/gateway"
    )
    assert "redirects" in (two.following.follow(one.domain, gateway).error or "")
    other = FollowWish(url=f"{url}/a", profile=SPIFFE, endpoint_id=identity)
    assert "it is spiffe://" in (two.following.follow(one.domain, other).error or "")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ((200, {}, b"x" * (MAX_BUNDLE_BYTES + 1)), "larger than 1024 KiB"),
        ((200, {}, b"no json"), "not JSON"),
        ((404, {}, b""), "answered 404"),
        ((200, {"content-length": "9"}, b"{}"), ""),
        ((200, {}, json.dumps({"keys": [{"use": "x509-svid", "x5c": ["x"]}]}).encode()), "refused"),
    ],
)
def test_a_document_that_cannot_be_used_leaves_what_is_trusted(
    one: Peer, two: Peer, web: Web, site: Callable[..., str], page: Any, why: str
) -> None:
    introduced(two, one)
    told = follow_web(two, one, web, site({"/b": page}) + "/b")
    assert told.failures == 1
    assert told.error
    assert why in told.error
    assert held(two, one.domain) == one.identities.own_bundle()


def test_a_bundle_without_keys_ends_the_trust_at_once(
    one: Peer, two: Peer, web: Web, site: Callable[..., str]
) -> None:
    introduced(two, one)
    redacted = Bundle(one.domain, sequence=2, refresh_hint=1)
    told = follow_web(two, one, web, site({"/b": (200, {}, redacted.to_jwks())}) + "/b")
    assert told.error is None
    assert held(two, one.domain) == redacted
    wait = from_rfc3339(told.next_at) - two.clock()
    assert FLOOR * 0.8 < wait <= FLOOR
    long = Bundle(one.domain, sequence=3, refresh_hint=10**15)
    told = follow_web(two, one, web, site({"/b": (200, {}, long.to_jwks())}) + "/b")
    assert from_rfc3339(told.next_at) - two.clock() <= CEILING


def test_a_defect_is_told_and_counted(one: Peer, two: Peer) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("secret")

    following = Following(two.home, two.identities, broken, two.clock)
    told = following.follow(one.domain, FollowWish(url="https://a.example/", profile=WEB))
    assert (told.failures, told.error) == (1, "a defect: RuntimeError")


def test_who_is_no_longer_followed_while_it_is_fetched_changes_nothing(
    one: Peer, two: Peer
) -> None:
    document = one.identities.own_bundle().to_jwks()

    def fetched(*_: object) -> bytes:
        following.forget(one.domain)
        return document

    following = Following(two.home, two.identities, fetched, two.clock)
    with pytest.raises(ConfigError):
        following.follow(one.domain, FollowWish(url="https://a.example/", profile=WEB))
    assert held(two, one.domain) is None
