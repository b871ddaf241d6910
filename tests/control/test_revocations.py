"""Revoked tokens and certificates: in the snapshot at once, out of it when they mean nothing, and never back."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.control.conftest import Running
from tests.e2e.certificates import Authority

from vedette.clock import now, to_rfc3339
from vedette.control.messages import AuthorityWish, RevokeWish
from vedette.control.revocations import LEEWAY, Revocations
from vedette.errors import ConfigError

NODE = "spiffe://test-node.vedette.local"


def revoked(running: Running) -> tuple[str, ...]:
    return running.activator.active()[1].identity.revoked_tokens


def test_a_revoked_token_is_forgotten_after_its_end(running: Running) -> None:
    time = [now()]

    def clock() -> datetime:
        return time[0]

    revocations = Revocations(running.home, running.activator, clock)
    revocations.revoke(NODE, "a", time[0] + timedelta(hours=1), "test")
    revocations.revoke(NODE, "b", None, "test")
    assert revoked(running) == (f"{NODE}#a", f"{NODE}#b")
    time[0] += timedelta(hours=1) + LEEWAY - timedelta(seconds=1)
    revocations.prune()
    assert len(revoked(running)) == 2
    time[0] += timedelta(seconds=2)
    revocations.prune()
    assert revoked(running) == (f"{NODE}#b",)
    time[0] += timedelta(days=31)
    revocations.prune()
    assert revoked(running) == ()
    assert revocations.list() == []


def test_an_entry_nobody_noted_is_kept_for_the_longest_life(running: Running) -> None:
    running.node.revoke_token(RevokeWish(jti="a"), "test")
    running.home.revoked_file.unlink()
    running.node.revocations.prune()
    assert revoked(running) == (f"{NODE}#a",)
    assert running.home.revoked_file.exists()


def test_a_token_of_nobody_trusted_cannot_be_revoked(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.revoke_token(RevokeWish(jti="a", issuer="https://x.example"), "test")
    assert caught.value.code == "issuer_unknown"


def test_a_rollback_keeps_what_is_revoked(running: Running, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    wish = AuthorityWish(certificates=authority.file.read_text(), pins=("0" * 64,))
    running.node.put_authority("corp", wish, "test")
    goal = running.activator.active()[0].digest
    running.node.revoke_certificate("corp", "0A:1F", "test")
    end = to_rfc3339(now() + timedelta(hours=1))
    running.node.revoke_token(RevokeWish(jti="a", expires_at=end), "test")
    running.node.roll_back(goal, "test")
    (corp,) = running.node.authorities()
    assert corp.revoked == ("a1f",)
    assert revoked(running) == (f"{NODE}#a",)


def test_an_authority_that_is_replaced_keeps_its_list(running: Running, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    wish = AuthorityWish(certificates=authority.file.read_text())
    running.node.put_authority("corp", wish, "test")
    running.node.revoke_certificate("corp", "ff", "test")
    changed = wish.model_copy(update={"trust_domain": "example.org"})
    running.node.put_authority("corp", changed, "test")
    (corp,) = running.node.authorities()
    assert (corp.revoked, corp.trust_domain) == (("ff",), "example.org")
    running.node.remove_authority("corp", "test")
    with pytest.raises(ConfigError) as caught:
        running.node.revoke_certificate("corp", "ff", "test")
    assert caught.value.code == "authority_unknown"
