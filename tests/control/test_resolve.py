"""Manifests and a snapshot give the next snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.config.samples import DIGEST, snapshot
from tests.control.manifest_texts import OUR, resolved

from vedette.config.addresses import CountryDatabase
from vedette.config.difference import difference
from vedette.config.manifests import Attachment, Component
from vedette.config.model import wire_value
from vedette.config.snapshot import IssuerKey, Mirror, Snapshot, StaticFile
from vedette.control.desired import guarded, with_list, with_revocations
from vedette.control.resolve import UNBUILT, Resolved
from vedette.errors import ConfigError
from vedette.identity.authority import Authority
from vedette.identity.revocation import Revocation
from vedette.store.history import Applied

INSTALLED = CountryDatabase(blob="sha256:" + "c" * 64, size=3)
KEY = IssuerKey(kid="k", alg="EdDSA", jwk={"kty": "OKP", "crv": "Ed25519", "x": "eA"})
COMPONENT = {"a.wasm": Attachment(component=Component(digest=DIGEST, size=100))}


def of(kind: str, spec: str, name: str = "one") -> str:
    return f"{OUR}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"


def made(kind: str, text: str, **more: Any) -> dict[str, Any]:
    """The first object of a kind after the manifests."""
    rows = getattr(resolved(text, **more).snapshot, kind)
    return dict(wire_value(rows[0]))


def refused(text: str, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolved(text, **more)
    return caught.value


@pytest.fixture(scope="module")
def ca_pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("ca")
    return Authority.ensure(
        folder / "ca.key", folder / "ca.crt", "ca.test"
    ).certificate_pem.decode()


def test_an_upstream_has_every_default_and_people_write_units() -> None:
    spec = (
        "{endpoints: [{url: 'https://b:8443', weight: 2}, {url: 'https://a'}], protocol: http2,"
        " timeouts: {connect: 1s, response: 2m}, health: {path: /ok, interval: 1s}}"
    )
    assert made("upstreams", of("Upstream", spec)) == {
        "name": "one",
        "endpoints": [
            {"host": "a", "port": 443, "weight": 1},
            {"host": "b", "port": 8443, "weight": 2},
        ],
        "protocol": "http2",
        "tls": {},
        "connectMillis": 1_000,
        "responseMillis": 120_000,
        "idleMillis": 60_000,
        "maxConnections": 1_024,
        "retryPercent": 20,
        "health": {
            "path": "/ok",
            "intervalMillis": 1_000,
            "timeoutMillis": 1_000,
            "healthyAfter": 2,
            "unhealthyAfter": 3,
        },
        "outlier": {"failures": 5, "ejectMillis": 10_000},
    }


def test_an_upstream_says_when_endpoints_and_all_of_it_are_left_alone() -> None:
    spec = """{url: 'http://a',
      outlier: {consecutiveFailures: 0, failurePercentage: 20, requestVolume: 10, interval: 30s, maxEjection: 1m},
      breaker: {slowDuration: 300ms, slowPercentage: 80, pause: 5s, trials: 2}}"""
    service = made("upstreams", of("Upstream", spec))
    assert service["outlier"] == {
        "failures": 0,
        "ejectMillis": 10_000,
        "maxEjectMillis": 60_000,
        "shares": {
            "intervalMillis": 30_000,
            "requestVolume": 10,
            "failurePercent": 20,
            "slowPercent": 50,
        },
    }
    assert service["breaker"] == {
        "failures": 5,
        "pauseMillis": 5_000,
        "trials": 2,
        "shares": {
            "intervalMillis": 10_000,
            "requestVolume": 50,
            "slowMillis": 300,
            "slowPercent": 80,
        },
    }


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("breaker: {consecutiveFailures: 0}", "it never opens"),
        ("breaker: {slowPercentage: 10}", "slowPercentage needs slowDuration"),
        ("outlier: {requestVolume: 10}", "requestVolume is about shares"),
        ("outlier: {interval: 30s}", "interval is about shares"),
        ("breaker: {requestVolume: 10}", "requestVolume is about shares"),
        ("outlier: {failurePercentage: 0}", "failurePercent"),
        ("outlier: {failurePercentage: 101}", "failurePercent"),
        ("outlier: {failurePercentage: 1, requestVolume: 10001}", "requestVolume"),
        ("breaker: {failurePercentage: 1, interval: 10ms}", "intervalMillis"),
        ("breaker: {trials: 0}", "trials"),
    ],
)
def test_what_leaves_nothing_alone_or_cannot_be_counted_is_refused(
    spec: str, sentence: str
) -> None:
    assert sentence in refused(of("Upstream", f"{{url: 'http://a', {spec}}}")).message


def test_certificates_are_certificates_and_never_keys(ca_pem: str) -> None:
    upstream = of("Upstream", "{url: 'https://a', tls: {caFile: ca.pem, serverName: b}}")
    with_ca = made("upstreams", upstream, attachments={"ca.pem": Attachment(text=ca_pem)})
    assert with_ca["tls"] == {"ca": ca_pem, "serverName": "b"}
    for text, sentence in {
        "hello": "no certificate in PEM",
        ca_pem + "-----BEGIN PRIVATE KEY-----\n": "holds a private key",
    }.items():
        error = refused(upstream, attachments={"ca.pem": Attachment(text=text)})
        assert sentence in error.message
        assert "BEGIN" not in error.message


def test_an_authority_is_normalised(ca_pem: str) -> None:
    pin = ":".join(["AB"] * 32)
    spec = f"{{caFile: ca.pem, trustDomain: a.test, pins: ['{pin}'], revoked: ['00:0A:FF']}}"
    base = resolved(of("ClientAuthority", spec), attachments={"ca.pem": Attachment(text=ca_pem)})
    (authority,) = base.snapshot.identity.authorities
    assert (authority.pins, authority.revoked) == (("ab" * 32,), ("aff",))


def test_what_is_revoked_by_command_stays_so_when_the_manifest_is_applied(ca_pem: str) -> None:
    text, files = of("ClientAuthority", "{caFile: ca.pem}"), {"ca.pem": Attachment(text=ca_pem)}
    base = resolved(text, attachments=files).snapshot
    (name,) = (each.name for each in base.identity.authorities)
    revoked = with_revocations(base, [Revocation("certificate", name, "b2")])
    again = resolved(text, base=revoked, attachments=files)
    assert [each.revoked for each in again.snapshot.identity.authorities] == [("b2",)]


def test_an_issuer_has_the_keys_of_its_file() -> None:
    spec = "{issuer: https://id, audiences: [b, a, a], jwksFile: k.json, leeway: 10s}"
    text = of("Issuer", spec, "corp")
    issuers = resolved(text, attachments={"k.json": Attachment(keys=(KEY,))}).snapshot.identity
    assert wire_value(issuers.issuers[0]) == {
        "name": "corp",
        "issuer": "https://id",
        "audiences": ["a", "b"],
        "leewaySeconds": 10,
        "keys": [{"kid": "k", "alg": "EdDSA", "jwk": KEY.jwk}],
    }
    assert "keys" in refused(text).message
    assert "is the node itself" in refused(of("Issuer", spec, "node")).message


def test_a_limit_is_for_every_route_that_its_manifest_makes() -> None:
    route = of("Route", "{rules: [{matches: [{method: GET}, {method: PUT}], static: {}}]}", "shop")
    spec = "{per: [Source, Principal], routes: [shop, health], rate: 100/s, burst: 5, quota: 9/day}"
    assert made("limits", of("Limit", spec) + route) == {
        "name": "one",
        "per": ["Principal", "Source"],
        "routes": ["health", "shop", "shop-2"],
        "rate": {"requests": 100, "periodMillis": 1_000, "burst": 5},
        "quota": {"requests": 9, "period": "Day"},
    }
    error = refused(of("Limit", "{rate: 1/s, routes: [helth]}"))
    assert "there is no route 'helth'; did you mean 'health'?" in error.message


def test_a_node_says_hosts_sizes_and_timers() -> None:
    spec = (
        "{hosts: [edge.example.org], limits: {headerSize: 16KB, requests: 10},"
        " timers: {idle: 5s, bodyRate: 1KB}}"
    )
    admit = resolved(of("Node", spec)).snapshot.admit
    assert admit.max_header_bytes == 16_384
    assert (admit.max_requests, admit.max_headers) == (10, 100)
    assert (admit.timers.idle_millis, admit.timers.body_bytes_per_second) == (5_000, 1_024)
    assert set(admit.hosts) == {
        "127.0.0.1", "::1", "api.example.com", "edge.example.org", "localhost"
    }  # fmt: skip
    assert refused(of("Node", "{limits: {headers: 1}}")).line == 4


def test_a_function_has_its_route_and_its_policy() -> None:
    spec = "{component: a.wasm, public: true, limits: {memory: 64MB}, domains: [f.example.org]}"
    next_ = resolved(of("Function", spec, "f"), attachments=COMPONENT).snapshot
    function, route = next_.function("f"), next_.route("f")
    assert function is not None
    assert route is not None
    assert function.limits.memory_bytes == 64 << 20
    assert (route.hosts, route.path.value) == (("f.example.org",), "/")
    assert "public-f.cedar" in [each.name for each in next_.policy.policies]
    assert "f.example.org" in next_.admit.hosts
    closed = resolved(
        of("Function", spec.replace("true", "false"), "f"), base=next_, attachments=COMPONENT
    )
    assert "public-f.cedar" not in [each.name for each in closed.snapshot.policy.policies]


def test_a_component_that_is_not_built_yet_is_said() -> None:
    found = resolved(of("Function", "{component: a.wasm}", "f"))
    assert found.unbuilt == ("f",)
    function = found.snapshot.function("f")
    assert function is not None
    assert function.component == UNBUILT


def test_a_route_of_the_functions_name_stands_for_its_own() -> None:
    route = of("Route", "{rules: [{backendRefs: [{kind: Function, name: f}]}]}", "f")
    function = of("Function", "{component: a.wasm}", "f")
    found = resolved(function + route.replace("rules", "hostnames: [f.example.org], rules"))
    made_route = found.snapshot.route("f")
    assert made_route is not None
    assert made_route.hosts == ("f.example.org",)
    error = refused(of("Function", "{component: a.wasm, route: /x}", "f") + route)
    assert "has the name of this function's own route" in error.message


def test_a_policy_knows_where_its_text_begins() -> None:
    inline = resolved(of("Policy", "{cedar: ''}", "a") + of("Policy", "{cedarFile: b.cedar}", "b"),
                      attachments={"b.cedar": Attachment(text="x")})  # fmt: skip
    assert {name: (one.file, one.line) for name, one in inline.policies.items()} == {
        "a.cedar": ("edge.yaml", 4),
        "b.cedar": ("b.cedar", 1),
    }


# --- whose is what

LIMITS = of("Limit", "{concurrency: 1}", "a") + of("Limit", "{concurrency: 2}", "b")


def _names(found: Resolved) -> list[str]:
    return [each.name for each in found.snapshot.limits]


def test_the_same_manifests_twice_change_nothing() -> None:
    first = resolved(LIMITS)
    again = resolved(LIMITS, base=first.snapshot, applied=first.applied, prune=True)
    assert again.snapshot == first.snapshot
    assert again.applied == first.applied


def test_what_is_gone_from_the_manifests_goes_only_with_prune() -> None:
    first = resolved(LIMITS)
    less = of("Limit", "{concurrency: 1}", "a")
    kept = resolved(less, base=first.snapshot, applied=first.applied)
    assert _names(kept) == ["a", "b"]
    assert kept.applied == first.applied
    assert (kept.absent, kept.notes) == ((("Limit/b", "edge.yaml"),), ())
    pruned = resolved(less, base=first.snapshot, applied=first.applied, prune=True)
    assert _names(pruned) == ["a"]
    assert [each.owner for each in pruned.applied] == ["Limit/a"]
    assert pruned.absent == ()


def test_what_others_made_is_never_pruned_and_is_taken_when_named() -> None:
    found = resolved(of("Limit", "{concurrency: 1}"), prune=True)
    assert found.snapshot.function("hello") is not None
    assert found.snapshot.route("health") is not None
    rule = "{matches: [{path: {type: Exact, value: /health}}], static: {body: new}}"
    taken = resolved(of("Route", f"{{rules: [{rule}]}}", "health"))
    (change,) = difference(snapshot(), taken.snapshot)
    assert (change.action, change.name) == ("update", "health")
    assert taken.applied == (Applied("Route", "health", "Route/health", "edge.yaml"),)


def test_a_match_that_is_gone_takes_its_route_with_it() -> None:
    def shop(*methods: str) -> str:
        matches = ", ".join(f"{{method: {each}}}" for each in methods)
        return of(
            "Route", f"{{public: true, rules: [{{matches: [{matches}], static: {{}}}}]}}", "s"
        )

    first = resolved(shop("GET", "PUT", "POST"))
    less = resolved(shop("GET").replace("public: true, ", ""), base=first.snapshot,
                    applied=first.applied)  # fmt: skip
    assert [each.name for each in less.snapshot.routes] == ["health", "hello", "s"]
    assert "public-route.s.cedar" not in [each.name for each in less.snapshot.policy.policies]
    assert [each.name for each in less.applied] == ["s"]


def test_a_pruned_node_goes_back_to_its_defaults() -> None:
    first = resolved(of("Node", "{hosts: [x.example.org], limits: {requests: 7}}"))
    back = resolved(LIMITS, base=first.snapshot, applied=first.applied, prune=True)
    assert back.snapshot.admit.max_requests == 4_096
    assert "x.example.org" not in back.snapshot.admit.hosts


def test_what_is_still_used_cannot_be_pruned() -> None:
    upstream = of("Upstream", "{url: 'http://a'}", "a")
    first = resolved(upstream)
    data = [each.model_copy() for each in first.snapshot.routes]
    mirrored = data[0].model_copy(update={"mirror": Mirror(upstream="a")})
    base: Snapshot = first.snapshot.with_(routes=(mirrored, data[1]))
    error = refused(LIMITS, base=base, applied=first.applied, prune=True)
    assert error.code == "snapshot_invalid"
    assert "there is no upstream 'a'" in error.message


def test_ten_thousand_manifests_are_no_burden() -> None:
    spec = "{rules: [{matches: [{path: {value: /%d}}], static: {}}]}"
    text = "".join(of("Route", spec % number, f"r{number}") for number in range(2_000))
    text += "".join(of("Limit", "{rate: 1/s, routes: [r1]}", f"l{number}") for number in range(500))
    found = resolved(text)
    assert len(found.snapshot.routes) == 2_002
    assert len(found.applied) == 2_500


def test_a_function_may_call_where_its_list_says_and_be_reused() -> None:
    spec = (
        "{component: a.wasm, allowedHosts: ['https://b.example.com:443', 'http://10.0.0.7:8080',"
        " b.example.com], reuse: {maxRequests: 50, maxAge: 10s}}"
    )
    function = made("functions", of("Function", spec, "a"), attachments=COMPONENT)
    assert function["allowedHosts"] == ["http://10.0.0.7:8080", "https://b.example.com"]
    assert function["reuse"] == {"maxRequests": 50, "maxAgeMillis": 10_000}


def test_a_function_calls_nowhere_and_is_fresh_by_default() -> None:
    text = of("Function", "{component: a.wasm}", "a")
    function = made("functions", text, attachments=COMPONENT)
    assert function["name"] == "a"
    assert function["allowedHosts"] == []
    assert "reuse" not in function


FEED = {
    "drop.txt": Attachment(
        files=(StaticFile(path="drop.txt", blob=DIGEST, size=9, content_type="text/plain"),),
        modified_at="2026-11-21T18:00:00Z",
    )
}
DATABASE = {
    "c.mmdb": Attachment(
        files=(StaticFile(path="c.mmdb", blob=DIGEST, size=7, content_type="application/x"),)
    )
}


def test_a_list_of_addresses_is_a_file_with_its_age() -> None:
    spec = "{action: Block, file: drop.txt, onBadLine: Refuse, maxAge: 2d}"
    found = resolved(of("AddressList", spec, "drop"), attachments=FEED)
    assert found.snapshot.addresses is not None
    (one,) = found.snapshot.addresses.lists
    assert dict(wire_value(one)) == {
        "name": "drop",
        "action": "Block",
        "blob": DIGEST,
        "size": 9,
        "onBadLine": "Refuse",
        "updatedAt": "2026-11-21T18:00:00Z",
        "maxAgeSeconds": 172_800,
    }
    assert DIGEST in found.snapshot.blobs()
    assert [each.kind for each in found.applied] == ["AddressList"]


def test_a_list_of_addresses_may_stand_in_its_manifest() -> None:
    spec = "{action: Allow, networks: [192.0.2.0/24, '2001:db8::1']}"
    found = resolved(of("AddressList", spec, "office"))
    assert found.snapshot.addresses is not None
    (one,) = found.snapshot.addresses.lists
    assert found.texts[one.blob] == "192.0.2.0/24\n2001:db8::1\n"
    assert (one.size, one.updated_at) == (25, None)
    for wrong, sentence in (
        ("{action: Allow}", "give it file, networks or crowdsec"),
        ("{action: Allow, networks: [192.0.2.1], file: x}", "give it file, networks or crowdsec"),
        ("{action: Allow, networks: ['1.2.3.4'], maxAge: 1d}", "maxAge is for a file"),
        ('{action: Allow, networks: ["1.2.3.4\\n5.6.7.8"]}', "one address or CIDR"),
        ("{action: Block, networks: [127.0.0.300]}", "'127.0.0.300' is no address"),
        ("{action: Block, networks: [1.2.3.4/33]}", "from 8 to 32"),
        ("{action: Block, networks: ['2001::/8']}", "from 16 to 128"),
        ("{action: Block, file: drop.txt}", "the file was not sent"),
    ):
        assert sentence in refused(of("AddressList", wrong)).message


def test_a_list_of_crowdsec_is_what_has_been_brought_so_far() -> None:
    spec = "{action: Block, maxAge: 1h, crowdsec: {url: 'http://[::1]:8080/', apiKeyFile: /k}}"
    found = resolved(of("AddressList", spec, "crowd"))
    assert found.snapshot.addresses is not None
    (one,) = found.snapshot.addresses.lists
    assert found.texts[one.blob] == "# CrowdSec http://[::1]:8080\n"
    assert (one.max_age_seconds, one.updated_at) == (3_600, None)
    source = found.feeds["crowd"]
    assert source is not None
    assert dict(wire_value(source)) == {
        "url": "http://[::1]:8080",
        "apiKeyFile": "/k",
        "intervalSeconds": 60,
    }
    assert "/k" not in found.snapshot.canonical_bytes().decode()
    brought = with_list(found.snapshot, "crowd", DIGEST, 9, "2026-11-21T18:00:00Z")
    text = of("AddressList", spec.replace("Block", "Block, onBadLine: Refuse"), "crowd")
    again = resolved(text, base=brought, fed={"crowd": "http://[::1]:8080"}).snapshot
    assert again.addresses is not None
    (one,) = again.addresses.lists
    assert (one.blob, one.size, one.on_bad_line) == (DIGEST, 9, "Refuse")
    (one,) = resolved(text, base=brought).snapshot.addresses.lists  # type: ignore[union-attr]
    assert one.blob != DIGEST, "what is there came from elsewhere"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("{url: 'http://10.0.0.1:8080', apiKeyFile: /k}", "http on this machine itself"),
        ("{url: 'https://a b', apiKeyFile: /k}", "is not a URL"),
        ("{url: 'https://u:p@a', apiKeyFile: /k}", "a password has no place in a URL"),
        ("{url: 'https://a', apiKeyFile: k}", "is not an absolute path"),
        ("{url: 'https://a', apiKeyFile: /k, interval: 9s}", "interval is from 10s to 24h"),
        ("{url: 'https://a', apiKeyFile: /k, interval: 2d}", "interval is from 10s to 24h"),
        ("{url: 'https://a', apiKeyFile: /k, caFile: ca.pem}", "it holds no certificate in PEM"),
    ],
)
def test_a_mistake_about_crowdsec_is_told(spec: str, sentence: str) -> None:
    text = of("AddressList", f"{{action: Block, crowdsec: {spec}}}")
    error = refused(text, attachments={"ca.pem": Attachment(text="nothing")})
    assert sentence in error.message


def test_bans_are_no_list_of_friends() -> None:
    spec = "{action: Allow, crowdsec: {url: 'https://a', apiKeyFile: /k}}"
    assert "its action is Block" in refused(of("AddressList", spec)).message


def test_a_list_goes_with_prune_and_its_neighbours_stay() -> None:
    lists = of("AddressList", "{action: Block, networks: [192.0.2.1]}", "a")
    more = of("AddressList", "{action: Block, networks: [192.0.2.2]}", "b")
    both = resolved(lists + more)
    left = resolved(lists, base=both.snapshot, applied=both.applied, prune=True).snapshot
    assert left.addresses is not None
    assert [each.name for each in left.addresses.lists] == ["a"]
    none = resolved(LIMITS, base=left, applied=both.applied, prune=True).snapshot
    assert none.addresses is None


def test_a_route_says_from_which_countries_once_the_node_has_a_database() -> None:
    node = of("Node", "{countryFile: c.mmdb}", "edge")
    route = of("Route", "{countries: {allow: [DE, CH, DE]}, rules: [{static: {}}]}", "shop")
    found = resolved(node + route, attachments=DATABASE).snapshot
    assert found.addresses is not None
    assert found.addresses.countries is not None
    assert (found.addresses.countries.blob, found.addresses.countries.size) == (DIGEST, 7)
    shop = found.route("shop")
    assert shop is not None
    assert shop.countries is not None
    assert (shop.countries.action, shop.countries.codes) == ("Allow", ("CH", "DE"))
    assert "no database of countries" in refused(route).message
    both = route.replace("allow: [DE, CH, DE]", "allow: [DE], block: [FR]")
    assert "give it allow or block" in refused(node + both, attachments=DATABASE).message


def test_a_node_that_names_no_database_any_more_has_none() -> None:
    with_one = resolved(of("Node", "{countryFile: c.mmdb}"), attachments=DATABASE)
    assert with_one.snapshot.addresses is not None
    without = resolved(of("Node", "{}"), base=with_one.snapshot, applied=with_one.applied)
    assert without.snapshot.addresses is None, "this installation brings none"
    other = resolved(LIMITS, base=with_one.snapshot, applied=with_one.applied)
    assert other.snapshot.addresses == with_one.snapshot.addresses, "no Node, nothing said"


def test_a_node_says_when_offenders_are_blocked() -> None:
    spec = "{offenders: {threshold: 50, halfLife: 90s, firstBlock: 1ms}}"
    offenders = resolved(of("Node", spec)).snapshot.admit.offenders
    assert offenders is not None
    assert dict(wire_value(offenders)) == {
        "threshold": 50,
        "halfLifeSeconds": 90,
        "firstBlockSeconds": 1,
        "longestBlockSeconds": 86_400,
    }
    assert resolved(of("Node", "{}")).snapshot.admit.offenders is None
    assert "threshold" in refused(of("Node", "{offenders: {threshold: 1}}")).message


def test_a_node_has_the_countries_that_are_installed_unless_it_says_otherwise() -> None:
    def countries(text: str, **more: Any) -> str | None:
        addresses = resolved(text, installed=INSTALLED, **more).snapshot.addresses
        return addresses.countries.blob if addresses and addresses.countries else None

    of_its_own = of("Node", "{countryFile: c.mmdb}")
    with_file = resolved(of_its_own, attachments=DATABASE)
    assert countries(of("Node", "{}")) == INSTALLED.blob
    assert countries(of("Node", "{countryData: None}")) is None
    assert countries(of_its_own, attachments=DATABASE) == DIGEST
    after = {"base": with_file.snapshot, "applied": with_file.applied}
    assert countries(LIMITS, **after) == DIGEST
    assert countries(LIMITS, prune=True, **after) == INSTALLED.blob
    both = of("Node", "{countryFile: c.mmdb, countryData: None}")
    assert "countryData says None" in refused(both, attachments=DATABASE).message


def test_who_decides_by_the_installed_countries_is_told_whose_they_are() -> None:
    route = of("Route", "{countries: {allow: [CH]}, rules: [{static: {}}]}", "shop")
    node = of("Node", "{}")
    assert any("registries" in note for note in resolved(node + route, installed=INSTALLED).notes)
    other = node.replace("{}", "{countryFile: c.mmdb}")
    found = resolved(other + route, installed=INSTALLED, attachments=DATABASE)
    assert not any("registries" in note for note in found.notes)
    plain = route.replace("countries: {allow: [CH]}, ", "")
    assert not any(
        "registries" in note for note in resolved(node + plain, installed=INSTALLED).notes
    )


def test_a_function_says_from_which_countries_as_its_route_does() -> None:
    function = of("Function", "{component: a.wasm, countries: {block: [FR]}}", "f")
    found = resolved(
        of("Node", "{}") + function, attachments=COMPONENT, installed=INSTALLED
    ).snapshot
    route = found.route("f")
    assert route is not None
    assert route.countries is not None
    assert (route.countries.action, route.countries.codes) == ("Block", ("FR",))
    of_its_own = of("Route", "{rules: [{static: {}}]}", "f")
    message = refused(function + of_its_own, attachments=COMPONENT).message
    assert "has the name of this function's own route" in message


def test_a_node_says_how_many_connections_a_source_may_have() -> None:
    usual = resolved(of("Node", "{}")).snapshot.admit.source_connections
    assert usual is not None
    rate = {"requests": 100, "periodMillis": 1_000, "burst": 1_000}
    assert dict(wire_value(usual)) == {"most": 1_000, "rate": rate}
    spec = "{limits: {sourceConnections: {most: 5, rate: 10/5m, burst: 7}}}"
    told = resolved(of("Node", spec)).snapshot.admit.source_connections
    assert told is not None
    rate = {"requests": 10, "periodMillis": 300_000, "burst": 7}
    assert dict(wire_value(told)) == {"most": 5, "rate": rate}
    assert "most" in refused(of("Node", "{limits: {sourceConnections: {most: 0}}}")).message


def test_a_route_limits_its_sources_in_one_line() -> None:
    rules = "rules: [{matches: [{path: {value: /a}}, {path: {value: /b}}], static: {body: a}}]"
    (limit,) = resolved(of("Route", f"{{rateLimit: {{}}, {rules}}}", "shop")).snapshot.limits
    assert (limit.name, limit.per, limit.routes) == (
        "shop-sources",
        ("Source",),
        ("shop", "shop-2"),
    )
    assert limit.rate is not None
    assert (limit.rate.requests, limit.rate.period_millis, limit.rate.burst) == (100, 60_000, None)
    spec = f"{{rateLimit: {{rate: 5/s, burst: 9}}, {rules}}}"
    (limit,) = resolved(of("Route", spec, "shop")).snapshot.limits
    assert limit.rate is not None
    assert (limit.rate.requests, limit.rate.burst) == (5, 9)


def test_a_node_says_which_tls_clients_are_let_in() -> None:
    one, other = (f"t13d1516h2_8daaf6152771_{digit * 12}" for digit in "ba")
    told = resolved(of("Node", f"{{tlsClients: {{allow: [{one}, {other}, {one}]}}}}"))
    rule = told.snapshot.admit.tls_clients
    assert rule is not None
    assert (rule.action, rule.ja4) == ("Allow", (other, one))
    both = f"{{tlsClients: {{allow: [{one}], block: [{other}]}}}}"
    assert "one of the two" in refused(of("Node", both)).message


def test_a_node_says_whether_models_have_to_be_signed() -> None:
    assert resolved(of("Node", "{}")).snapshot.admit.requires_signed_models is None
    for written, meant in (("true", True), ("false", None)):
        spec = f"{{models: {{requireSignature: {written}}}}}"
        assert resolved(of("Node", spec)).snapshot.admit.requires_signed_models is meant


def test_a_node_says_who_is_challenged_and_a_route_otherwise() -> None:
    usual = resolved(of("Node", "{}")).snapshot.admit
    assert usual.sheds is None
    assert usual.policy_holds_seconds is None
    assert usual.challenge is not None
    assert (usual.challenge.mode, usual.challenge.wait_seconds) == ("Pressure", 10)
    spec = (
        "{shed: false, policyHolds: 90m, challenge: {mode: always, pass: 2h, crawlers: ["
        "{name: zed, token: Zed, networks: [192.0.2.1]}, "
        "{name: abe, token: Abe, networks: [192.0.2.9, 192.0.2.2]}]}}"
    )
    told = resolved(of("Node", spec)).snapshot.admit
    assert told.sheds is False
    assert told.policy_holds_seconds == 5_400
    assert told.challenge is not None
    assert (told.challenge.mode, told.challenge.pass_seconds) == ("Always", 7_200)
    assert [one.name for one in told.challenge.crawlers] == ["abe", "zed"]
    assert told.challenge.crawlers[0].networks == ("192.0.2.2", "192.0.2.9")
    assert "waitSeconds" in refused(of("Node", "{challenge: {wait: 500ms}}")).message
    rules = "rules: [{static: {body: a}}]"
    (route,) = [
        each
        for each in resolved(
            of("Route", f"{{challenge: suspicious, {rules}}}", "s")
        ).snapshot.routes
        if each.name == "s"
    ]
    assert route.challenge == "Suspicious"


def test_a_snapshot_of_before_gets_what_a_node_lets_in_by_itself() -> None:
    before = snapshot()
    assert before.admit.source_connections is None
    after = guarded(before)
    assert after.admit.source_connections is not None
    assert after.admit.challenge is not None
    assert guarded(after) is after


def test_an_egress_policy_names_functions_that_there_are() -> None:
    spec = "{workloads: [b, a], functions: [one], allow: [{to: 'https://a.example.com'}]}"
    function = of("Function", "{component: a.wasm}")
    rule = {"to": "https://a.example.com", "methods": [], "peers": []}
    assert made("egress", function + of("EgressPolicy", spec), attachments=COMPONENT) == {
        "name": "one",
        "functions": ["one"],
        "workloads": ["a", "b"],
        "rules": [rule],
    }
    wrong = function + of("EgressPolicy", spec.replace("[one]", "[onee]"))
    assert "there is no function 'onee'; did you mean 'one'?" in str(
        refused(wrong, attachments=COMPONENT)
    )


ROUTE = """{rules: [
  {matches: [{path: {value: /x}}, {path: {value: /y}}], backendRefs: [{kind: Function, group: vedette.dev, name: one}]},
  {matches: [{path: {value: /z}}], backendRefs: [{kind: Function, group: vedette.dev, name: one}]},
]}"""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[pages]", ["pages", "pages-2", "pages-3"]),
        ("[pages-2]", ["pages-2"]),
        ("[pages-3, pages-2, pages-3, one]", ["one", "pages-2", "pages-3"]),
    ],
)
def test_an_egress_policy_is_for_routes_as_they_are_named(written: str, meant: list[str]) -> None:
    spec = f"{{routes: {written}, allow: [{{to: 'https://a.example.com'}}]}}"
    text = of("Function", "{component: a.wasm}") + of("Route", ROUTE, "pages")
    found = made("egress", text + of("EgressPolicy", spec), attachments=COMPONENT)
    assert found["routes"] == meant


def test_an_egress_policy_names_routes_that_there_are() -> None:
    spec = "{routes: [onee], allow: [{to: 'https://a.example.com'}]}"
    text = of("Function", "{component: a.wasm}") + of("EgressPolicy", spec)
    error = refused(text, attachments=COMPONENT)
    assert "there is no route 'onee'; did you mean 'one'?" in str(error)


def test_an_egress_policy_of_a_route_on_which_nothing_is_called_is_told() -> None:
    rule = {"to": "https://a.example.com"}
    static = next(each.name for each in snapshot().routes if each.backend.type == "Static")
    data = json.loads(snapshot().canonical_bytes())
    data["egress"] = [{"name": "p", "routes": sorted(["gone", static]), "rules": [rule]}]
    base = Snapshot.model_validate(data)
    text = of("Function", "{component: a.wasm}")
    notes = resolved(text, base=base, attachments=COMPONENT).notes
    assert "the EgressPolicy 'p' is for the route 'gone', which is not there" in notes
    told = (
        f"the EgressPolicy 'p' is for the route {static!r}, which no function and no tier answers: "
    )
    assert told + "nothing is called on it" in notes


def test_a_limit_can_be_for_one_route_of_several_that_the_same_files_make() -> None:
    text = of("Function", "{component: a.wasm}") + of("Route", ROUTE, "pages")
    spec = "{routes: [pages-2], rate: 1/s}"
    found = made("limits", text + of("Limit", spec), attachments=COMPONENT)
    assert found["routes"] == ["pages-2"]
