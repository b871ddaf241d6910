"""What is revoked: in the engine first, then in the snapshot, out of it when it means nothing, and never back."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.control.conftest import Running
from tests.e2e.certificates import Authority

from vedette.clock import now, to_rfc3339
from vedette.control import desired, revocations
from vedette.control.messages import AuthorityWish, LiftWish, RevocationWish, RevokeWish
from vedette.control.reconcile import Reconciler
from vedette.control.revocations import LEEWAY, Revocations
from vedette.control.workload.messages import WorkloadWish
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.bundle import Bundle
from vedette.identity.revocation import Revocation

NODE = "spiffe://test-node.vedette.local"
SHOP = f"{NODE}/shop"


def token(jti: str) -> Revocation:
    return Revocation("token", NODE, jti)


def revoked(running: Running) -> list[str]:
    return sorted(map(str, desired.revocations(running.activator.active()[1])))


def revoke(running: Running, what: str, reason: str | None = None) -> None:
    running.node.revoke(RevocationWish(what=what, reason=reason), "uid:1")


def trusts_corp(running: Running, tmp_path: Path) -> AuthorityWish:
    wish = AuthorityWish(certificates=Authority(tmp_path).file.read_text())
    running.node.put_authority("corp", wish, "test")
    return wish


def test_a_revoked_token_is_forgotten_after_its_end(running: Running) -> None:
    time = [now()]

    def clock() -> datetime:
        return time[0]

    found = Revocations(running.home, running.activator, clock)
    found.revoke(token("a"), "test", None, time[0] + timedelta(hours=1))
    found.revoke(token("b"), "test")
    assert revoked(running) == [f"{NODE}#a", f"{NODE}#b"]
    time[0] += timedelta(hours=1) + LEEWAY - timedelta(seconds=1)
    found.prune()
    assert len(revoked(running)) == 2
    time[0] += timedelta(seconds=2)
    found.prune()
    assert revoked(running) == [f"{NODE}#b"]
    time[0] += timedelta(days=31)
    found.prune()
    assert revoked(running) == []
    assert found.list() == []


def test_an_entry_nobody_noted_is_kept_for_the_longest_life(running: Running) -> None:
    running.node.revoke_token(RevokeWish(jti="a"), "test")
    running.home.revoked_file.unlink()
    running.node.revocations.prune()
    assert revoked(running) == [f"{NODE}#a"]
    assert running.home.revoked_file.exists()


def test_a_token_of_nobody_trusted_cannot_be_revoked(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.revoke_token(RevokeWish(jti="a", issuer="https://x.example"), "test")
    assert caught.value.code == "issuer_unknown"
    assert "revoke" not in running.engine.told, "the engine is not asked for what means nothing"


def test_a_rollback_keeps_what_is_revoked(running: Running, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    wish = AuthorityWish(certificates=authority.file.read_text(), pins=("0" * 64,))
    running.node.put_authority("corp", wish, "test")
    goal = running.activator.active()[0].digest
    running.node.revoke_certificate("corp", "0A:1F", "test")
    end = to_rfc3339(now() + timedelta(hours=1))
    running.node.revoke_token(RevokeWish(jti="a", expires_at=end), "test")
    for what in ("spiffe://edge-2.example.org/shop", "spiffe://edge-3.example.org"):
        revoke(running, what)
    before = revoked(running)
    assert len(before) == 4
    running.node.roll_back(goal, "test")
    assert revoked(running) == before


def test_an_authority_that_is_replaced_keeps_its_list(running: Running, tmp_path: Path) -> None:
    wish = trusts_corp(running, tmp_path)
    running.node.revoke_certificate("corp", "ff", "test")
    changed = wish.model_copy(update={"trust_domain": "example.org"})
    running.node.put_authority("corp", changed, "test")
    (corp,) = running.node.authorities()
    assert (corp.revoked, corp.trust_domain) == (("ff",), "example.org")
    running.node.remove_authority("corp", "test")
    with pytest.raises(ConfigError) as caught:
        running.node.revoke_certificate("corp", "ff", "test")
    assert caught.value.code == "authority_unknown"


@pytest.mark.parametrize(
    "what",
    ["5b1c6a0e", "corp/ff", "spiffe://edge-2.example.org/shop", "spiffe://edge-2.example.org"],
)
def test_the_engine_is_told_before_the_snapshot_is_made(
    running: Running, tmp_path: Path, what: str
) -> None:
    trusts_corp(running, tmp_path)
    running.engine.told.clear()
    revoke(running, what)
    assert running.engine.told == ["revoke", "apply"]
    assert running.engine.ahead == [], "the snapshot holds it"
    assert len(revoked(running)) == 1


def test_what_was_revoked_is_listed_with_who_and_why_and_can_be_lifted(running: Running) -> None:
    revoke(running, "spiffe://edge-2.example.org", "lost at the fair")
    (one,) = running.node.revocations.list()
    assert (one.what, one.kind) == ("spiffe://edge-2.example.org", "trustDomain")
    assert (one.actor, one.reason) == ("uid:1", "lost at the fair")
    assert one.revoked_at is not None
    running.node.lift(LiftWish(what=one.what), "uid:1")
    assert (revoked(running), running.node.revocations.list()) == ([], [])
    assert "fair" not in running.home.revocations_file.read_text()
    with pytest.raises(ConfigError) as caught:
        running.node.lift(LiftWish(what=one.what), "uid:1")
    assert caught.value.code == "revocation_unknown"


def test_the_own_trust_domain_cannot_be_revoked(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        revoke(running, NODE)
    assert caught.value.code == "revocation_refused"


def test_no_more_are_revoked_than_there_is_room_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    for jti in ("a", "b"):
        running.node.revoke_token(RevokeWish(jti=jti), "test")
    running.node.revoke_token(RevokeWish(jti="a"), "test")
    with pytest.raises(ConfigError) as caught:
        running.node.revoke_token(RevokeWish(jti="c"), "test")
    assert caught.value.code == "revocation_refused"
    revoke(running, "spiffe://edge-2.example.org/shop")


def test_an_engine_that_is_away_is_told_by_the_snapshot(running: Running) -> None:
    running.engine_listener.close()
    running.home.engine_socket.unlink()
    assert running.node.revoke_token(RevokeWish(jti="a"), "test").applied is False
    assert revoked(running) == [f"{NODE}#a"]


def test_what_the_engine_alone_refuses_is_put_into_the_snapshot(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full, or control is killed, between the two steps."""

    def fails(*_: object) -> None:
        raise UnavailableError("disk_full", "no room")

    with monkeypatch.context() as patched:
        patched.setattr(running.activator, "change", fails)
        with pytest.raises(UnavailableError):
            revoke(running, SHOP)
    assert (len(running.engine.ahead), revoked(running)) == (1, [])
    reconciler = Reconciler(running.home, running.activator, stopping=_never())
    reconciler.step()
    assert (running.engine.ahead, revoked(running)) == ([], [SHOP])
    entry = running.activator.active()[0]
    assert (entry.action, entry.actor) == ("revoke", "control")
    reconciler.step()
    assert running.activator.active()[0].generation == entry.generation


def _never() -> threading.Event:
    return threading.Event()


def test_a_revoked_identity_is_not_issued_until_it_is_lifted(running: Running) -> None:
    workloads = running.node.workloads
    workloads.put("shop", WorkloadWish(path="/shop", selectors=("unix:uid:1",)))
    workloads.put("other", WorkloadWish(path="/other", selectors=("unix:uid:1",)))
    changed: list[str] = []
    workloads.listen(changed.append)
    revoke(running, SHOP)
    assert (changed, sorted(workloads.entries())) == (["shop"], ["other"])
    assert workloads.get("shop") is None
    assert [one.name for one in workloads.list()] == ["other", "shop"]
    running.node.lift(LiftWish(what=SHOP), "test")
    assert (changed, sorted(workloads.entries())) == (["shop", "shop"], ["other", "shop"])


def test_a_revoked_identity_is_still_so_after_a_restart_of_control(running: Running) -> None:
    running.node.workloads.put("shop", WorkloadWish(path="/shop", selectors=("unix:uid:1",)))
    revoke(running, SHOP)
    running.node.identities.close()
    again = type(running.node)(running.home, running.node._keys, running.activator)
    assert again.workloads.entries() == {}


def test_the_bundle_of_a_revoked_trust_domain_is_not_handed_out(
    running: Running,
) -> None:
    identities = running.node.identities
    bundle = Bundle("edge-2.example.org", sequence=1)
    identities.put_bundle("edge-2.example.org", bundle.to_jwks())
    assert sorted(identities.bundles_for(["edge-2.example.org"])) == [
        "edge-2.example.org",
        "test-node.vedette.local",
    ]
    revoke(running, "edge-2.example.org")
    assert list(identities.bundles_for(["edge-2.example.org"])) == ["test-node.vedette.local"]
    running.node.lift(LiftWish(what="edge-2.example.org"), "test")
    assert "edge-2.example.org" in identities.bundles_for(["edge-2.example.org"])
