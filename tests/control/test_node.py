"""The operations of a node against a simulated engine behind a real Unix socket."""

from __future__ import annotations

import base64
import json
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from tests.control.conftest import Running
from tests.simulators.native import COMPONENT, NativeSimulator

from vedette.clock import now
from vedette.config.snapshot import Snapshot, StaticBackend
from vedette.control import tls
from vedette.control.bootstrap import Wish, bootstrap
from vedette.control.messages import (
    AskedRequest,
    FunctionWish,
    IssuerWish,
    StaticRouteWish,
    TokenWish,
)
from vedette.control.reconcile import Reconciler
from vedette.errors import ConfigError, UnavailableError
from vedette.ids import digest_hex, digest_of
from vedette.policy import countries
from vedette.store.activation import read_active
from vedette.store.history import Applied, History
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore

DIGEST = digest_of(COMPONENT)


def upload(running: Running, content: bytes = COMPONENT) -> str:
    file = running.home.run / "upload"
    file.write_bytes(content)
    return running.node.store_component(digest_of(content), file).digest


def deploy(running: Running, name: str = "hello", **wish: object) -> int:
    component = upload(running)
    body = FunctionWish.model_validate({"component": component, **wish})
    return running.node.deploy(name, body, "test").generation


def test_a_new_node_has_one_snapshot_and_answers_to_localhost(running: Running) -> None:
    status = running.node.status()
    assert status.snapshot is not None
    assert status.snapshot.generation == 1
    assert status.trust_domain == "test-node.vedette.local"
    assert status.engine.digest == status.snapshot.digest
    _, snapshot = running.activator.active()
    assert {"localhost", "127.0.0.1", "::1"} <= set(snapshot.admit.hosts)


def test_what_an_installation_brings_is_put_in_force_once(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = tmp_path / "countries.mmdb"
    monkeypatch.setattr(countries, "PACKED", packed)
    old = running.activator.change(
        lambda active: active.with_(waf=None, addresses=None), "from before", "test"
    )
    packed.write_bytes(b"registries")
    done = running.node.adopt("test")
    after = running.activator.active()[1]
    assert after.waf is not None
    assert after.waf.policy.mode == "block"
    assert countries_of(running.home) == digest_of(b"registries")
    assert running.engine.status()["digest"] == done.digest
    assert [sentence.partition(" ")[0] for sentence in done.brought] == ["requests", "addresses"]
    again = running.node.adopt("test")
    assert (again.brought, again.generation) == ((), old.entry.generation + 1)


def test_a_firewall_that_is_there_keeps_its_rules(running: Running) -> None:
    def older(active: Snapshot) -> Snapshot:
        assert active.waf is not None
        return active.with_(waf=active.waf.model_copy(update={"version": "4.24.0"}))

    running.activator.change(older, "rules", "test")
    assert running.node.adopt("test").brought == ()
    waf = running.activator.active()[1].waf
    assert waf is not None
    assert waf.version == "4.24.0"


def countries_of(home: Home) -> str | None:
    """The database of countries of the node in `home`, by digest."""
    envelope = json.loads(SnapshotStore(home.snapshots).get(active_digest(home)))
    addresses = Snapshot.parse(base64.b64decode(envelope["payload"])).addresses
    return addresses.countries.blob if addresses and addresses.countries else None


def active_digest(home: Home) -> str:
    active = read_active(home)
    assert active is not None
    return active.digest


def test_a_node_has_the_countries_of_what_is_installed_now(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = tmp_path / "countries.mmdb"
    monkeypatch.setattr(countries, "PACKED", packed)
    bootstrap(home, Wish(name="test-node"))
    assert countries_of(home) is None
    for content in (b"one", b"another"):
        packed.write_bytes(content)
        bootstrap(home)
        assert countries_of(home) == digest_of(content)
        assert (home.blobs / digest_hex(digest_of(content))).read_bytes() == content


def test_where_the_nodes_manifest_says_which_countries_an_installation_does_not(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = tmp_path / "countries.mmdb"
    monkeypatch.setattr(countries, "PACKED", packed)
    bootstrap(home, Wish(name="test-node"))
    history = History(home.database)
    history.set_applied([Applied("Node", "node", "Node/node", "edge.yaml")])
    history.close()
    packed.write_bytes(b"one")
    bootstrap(home)
    assert countries_of(home) is None


def test_bootstrap_again_changes_nothing(running: Running) -> None:
    before = running.activator.active()[0]
    certificate = running.home.tls_certificate.read_bytes()
    bootstrap(running.home)
    assert running.activator.active()[0] == before
    assert running.home.tls_certificate.read_bytes() == certificate


def test_bootstrap_with_another_host_lets_that_host_in(running: Running) -> None:
    bootstrap(running.home, listen=["edge.example.com", "0.0.0.0"])
    entry, snapshot = running.activator.active()
    assert entry.generation == 2
    assert "edge.example.com" in snapshot.admit.hosts
    assert "0.0.0.0" not in snapshot.admit.hosts


def test_keys_are_for_their_owner_only_and_not_in_the_engines_folder(running: Running) -> None:
    home = running.home
    for key in (home.ca_key, home.signing_key, home.token_key, home.tls_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key
    secret = home.ca_key.read_bytes()
    assert all(file.read_bytes() != secret for file in home.engine.rglob("*") if file.is_file())


def test_a_deployed_function_is_durable_served_and_listed(running: Running) -> None:
    generation = deploy(running, env={"A": "1"})
    entry, snapshot = running.activator.active()
    assert (generation, entry.generation) == (2, 2)
    assert running.engine.digest == entry.digest
    active = read_active(running.home)
    assert active is not None
    assert active.digest == entry.digest
    [function] = running.node.functions()
    assert (function.name, function.digest, function.route) == ("hello", DIGEST, "/hello")
    assert function.url == "https://localhost:8443/hello"
    assert snapshot.functions[0].env == {"A": "1"}


def test_deploying_the_same_again_makes_no_generation(running: Running) -> None:
    assert deploy(running) == deploy(running) == 2


def test_domains_are_let_in_certified_and_let_go_with_the_function(running: Running) -> None:
    deploy(running, domains=["api.example.com"])
    [function] = running.node.functions()
    assert function.route == "/"
    assert function.url == "https://api.example.com:8443/"
    assert "api.example.com" in running.activator.active()[1].admit.hosts
    assert running.engine.tls_loads == 1
    running.node.remove("hello", "test")
    assert "api.example.com" not in running.activator.active()[1].admit.hosts
    assert running.node.functions() == []


def test_public_adds_a_policy_that_private_and_remove_take_away(running: Running) -> None:
    deploy(running, public=True)
    assert 'Function::"hello"' in running.node.policy("public-hello.cedar").text
    assert running.node.functions()[0].public
    deploy(running, public=False)
    with pytest.raises(ConfigError, match="public-hello"):
        running.node.policy("public-hello.cedar")
    deploy(running, public=True)
    running.node.remove("hello", "test")
    assert [policy.name for policy in running.node.policies()] == ["default.cedar"]


def test_two_functions_cannot_have_one_path(running: Running) -> None:
    deploy(running)
    with pytest.raises(ConfigError, match="already takes"):
        deploy(running, "other", route="/hello")
    assert [function.name for function in running.node.functions()] == ["hello"]


def test_a_component_that_was_not_uploaded_is_refused(running: Running) -> None:
    with pytest.raises(ConfigError) as refusal:
        running.node.deploy("hello", FunctionWish(component=digest_of(b"nothing")), "test")
    assert refusal.value.code == "blob_missing"


def test_an_upload_under_a_wrong_digest_is_refused(running: Running) -> None:
    file = running.home.run / "upload"
    file.write_bytes(COMPONENT)
    with pytest.raises(ConfigError) as refusal:
        running.node.store_component(digest_of(b"other"), file)
    assert refusal.value.code == "digest_mismatch"


def test_a_state_the_engine_refuses_is_taken_back_and_said(running: Running) -> None:
    deploy(running)
    before = running.activator.active()[0]
    wish = StaticRouteWish(path="/static", backend=StaticBackend(body="hi"))
    trial = running.home.engine / "refuse"
    real_apply = running.engine._apply

    def refuse_new(body: dict[str, object]) -> tuple[int, dict[str, object]]:
        trial.write_text("" if body["digest"] == before.digest else str(body["digest"]))
        if body["digest"] == before.digest:
            trial.unlink()
        return real_apply(body)

    running.engine._apply = refuse_new  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigError, match="told to refuse") as refusal:
        running.node.put_static_route("static", wish, "test")
    assert refusal.value.code == "engine_refused"
    entry = running.activator.active()[0]
    assert (entry.digest, entry.action) == (before.digest, "revert")
    assert running.engine.generation == entry.generation
    active = read_active(running.home)
    assert active is not None
    assert active.digest == before.digest


def test_a_change_without_an_engine_is_durable_and_applied_when_it_returns(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("engine_away", "gone")

    component = upload(running)
    with monkeypatch.context() as absent:
        absent.setattr(running.activator.engine, "apply", away)
        answer = running.node.deploy("hello", FunctionWish(component=component), "test")
    assert not answer.applied
    assert running.engine.generation == 1
    assert running.activator.reconcile() is not None
    assert running.engine.digest == answer.digest
    assert running.activator.reconcile() is None


def test_a_damaged_snapshot_file_is_healed_from_the_history(running: Running) -> None:
    deploy(running)
    entry = running.activator.active()[0]
    file = running.home.snapshots / f"{digest_hex(entry.digest)}.json"
    good = file.read_bytes()
    file.write_bytes(good[:-20] + b"X" + good[-19:])
    running.home.active_file.write_text("{}")
    Reconciler(running.home, running.activator, threading.Event()).step()
    assert file.read_bytes() == good
    assert json.loads(running.home.active_file.read_bytes())["digest"] == entry.digest


def test_machine_code_of_another_engine_is_compiled_anew(running: Running) -> None:
    deploy(running)
    code = running.home.compiled_file("simulated", DIGEST)
    code.unlink()
    running.engine.digest, running.engine.error = None, "no machine code"
    assert running.activator.reconcile() is not None
    assert code.is_file()
    assert running.engine.error is None


def test_a_node_of_which_nothing_changes_gets_an_analysis_of_its_rules(running: Running) -> None:
    waf = running.activator.active()[1].waf
    assert waf is not None
    analysis = running.home.analysis_file("simulated", "simulator", waf.rules)
    assert not analysis.exists()
    running.activator.reconcile()
    assert analysis.read_bytes().startswith(b"analysis of ")
    assert analysis.stat().st_mode & 0o777 == 0o600


def test_rules_that_cannot_be_analysed_are_served_as_they_are(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(_: NativeSimulator, rules: bytes) -> bytes:
        asked.append(rules)
        raise ValueError('{"code":"waf_invalid","message":"no"}')

    monkeypatch.setattr(NativeSimulator, "analyse_rules", refuse)
    deploy(running)
    running.activator.reconcile()
    assert len(asked) == 1
    assert not list(running.home.compiled.rglob("*.rules"))


def test_rollback_goes_back_and_a_second_one_forward_again(running: Running) -> None:
    deploy(running)
    deploy(running, "second")
    running.node.roll_back(None, "test")
    assert [function.name for function in running.node.functions()] == ["hello"]
    running.node.roll_back(None, "test")
    assert [function.name for function in running.node.functions()] == ["hello", "second"]


def test_rollback_takes_the_first_digits_of_a_digest(running: Running) -> None:
    first = running.activator.active()[0].digest
    deploy(running)
    running.node.roll_back(digest_hex(first)[:12], "test")
    assert running.activator.active()[0].digest == first
    with pytest.raises(ConfigError) as refusal:
        running.node.roll_back("0" * 12, "test")
    assert refusal.value.code == "snapshot_unknown"


def test_rollback_of_a_new_node_says_there_is_nothing(running: Running) -> None:
    with pytest.raises(ConfigError) as refusal:
        running.node.roll_back(None, "test")
    assert refusal.value.code == "nothing_to_roll_back"


def test_a_policy_with_a_mistake_is_refused_with_its_line(running: Running) -> None:
    with pytest.raises(ConfigError) as refusal:
        running.node.put_policy("team.cedar", "// fine\nmistake", "test")
    assert (refusal.value.file, refusal.value.line) == ("team.cedar", 2)
    assert [policy.name for policy in running.node.policies()] == ["default.cedar"]
    assert running.activator.active()[0].generation == 1


def test_the_nodes_own_issuer_cannot_be_changed(running: Running) -> None:
    [own] = running.node.issuers()
    wish = IssuerWish(issuer="https://other", audiences=("edge",), keys=own.keys)
    for act in (
        lambda: running.node.put_issuer(own.name, wish, "test"),
        lambda: running.node.remove_issuer(own.name, "test"),
    ):
        with pytest.raises(ConfigError) as refusal:
            act()
        assert refusal.value.code == "issuer_reserved"
    running.node.put_issuer("corp", wish, "test")
    assert [issuer.name for issuer in running.node.issuers()] == ["corp", own.name]


def test_a_token_lives_a_day_unless_more_is_asked_and_never_over_thirty(running: Running) -> None:
    token = running.node.mint(TokenWish(subject="me", ttl_seconds=2 * 24 * 3600))
    assert token.token.count(".") == 2
    with pytest.raises(ConfigError) as refusal:
        running.node.mint(TokenWish(subject="me", ttl_seconds=31 * 24 * 3600))
    assert refusal.value.code == "token_ttl"


def test_a_certificate_is_renewed_at_half_of_its_life(running: Running) -> None:
    facts, names = running.node._keys.authority, running.activator.active()[1].admit.hosts
    home = running.home
    assert not tls.renew_if_needed(home, facts, names, now())
    assert tls.renew_if_needed(home, facts, names, now() + timedelta(days=3, hours=13))


def test_the_certificate_is_for_no_host_of_the_mesh(running: Running) -> None:
    facts, names = running.node._keys.authority, running.activator.active()[1].admit.hosts
    home, more = running.home, (*names, "*.mesh", "billing.mesh")
    assert not tls.renew_if_needed(home, facts, more, now()), "nothing to show has changed"
    assert tls.renew_if_needed(home, facts, (*more, "billing.mesh.example"), now())
    shown = x509.load_pem_x509_certificate(home.tls_certificate.read_bytes())
    names_in = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names_in.get_values_for_type(x509.DNSName)
    assert "billing.mesh.example" in found
    assert not [name for name in found if name.endswith(".mesh")]


def test_a_key_that_does_not_fit_its_certificate_is_replaced(running: Running) -> None:
    other = running.home.token_key.read_bytes()
    running.home.tls_key.write_bytes(other)
    running.activator.renew_certificate(running.activator.active()[1])
    assert running.home.tls_key.read_bytes() != other
    assert running.engine.tls_loads == 1


def test_the_history_says_what_was_done_and_by_whom(running: Running) -> None:
    deploy(running)
    newest, first = running.node.history(10)
    assert (newest.action, newest.actor, newest.generation) == ("deploy hello", "test", 2)
    assert first.action == "bootstrap"


def test_a_home_whose_sockets_would_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        Home(tmp_path / ("x" * 100)).require_socket_paths()
    assert refusal.value.code == "socket_path_too_long"


def test_what_a_request_to_explain_leaves_open_is_filled_in(running: Running) -> None:
    asked = AskedRequest(subject="alice", path="/x")
    answer = running.node.explain([asked], None)
    assert answer.generation == running.activator.active()[0].generation
    assert [one.cause for one in answer.answers] == ["policy_denied"]
    with pytest.raises(ConfigError) as caught:
        running.node.explain([AskedRequest(spiffe="spiffe://nobody.example/x")], None)
    assert caught.value.code == "authority_unknown"


def test_an_issuer_has_keys_or_a_url_and_may_not_pass_for_a_certificate(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.put_issuer("x", IssuerWish(issuer="https://x", audiences=("a",)), "test")
    assert caught.value.code == "request_invalid"
    keys = running.node.issuers()[0].keys
    wish = IssuerWish(issuer="x509:corp", audiences=("a",), keys=keys)
    with pytest.raises(ConfigError, match="certificate"):
        running.node.put_issuer("x", wish, "test")
