"""Join tokens on the real socket: once, in time, and nothing told to who has none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spiffe import WorkloadApiClient
from tests.control.workload.conftest import DOMAIN, ME, Clock, Served
from tests.control.workload.raw_client import RawClient, framed

from vedette.control.supervisor import sockets
from vedette.control.workload import joining
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.join_client import redeem
from vedette.control.workload.joining import KINDS, JoinTokens
from vedette.control.workload.messages import JoinTokenWish, WorkloadWish
from vedette.control.workload.server import WorkloadServer
from vedette.errors import ConfigError, UnavailableError

SHOP = f"spiffe://{DOMAIN}/shop"


@dataclass
class Joining:
    """A Workload API that takes join tokens, and what was recorded."""

    served: Served
    tokens: JoinTokens
    clock: Clock
    recorded: list[dict[str, Any]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """Beside the one of `served`, which takes no tokens."""
        return self.served.home.run / "join.sock"

    def token(self, name: str = "shop", **more: Any) -> str:
        return self.tokens.create(JoinTokenWish(name=name, path=f"/{name}", **more)).token

    def refused(self, token: str) -> str:
        """Why, as the record says; the caller is told the same of all."""
        with pytest.raises(ConfigError) as caught:
            redeem(self.socket, token)
        told = (caught.value.code, caught.value.message)
        assert told == ("join_token_refused", "the token joins nobody")
        assert self.recorded[-1]["outcome"] == "refused"
        return str(self.recorded[-1]["code"])


@pytest.fixture
def join(served: Served) -> Iterator[Joining]:
    found = Joining(served, None, served.clock)  # type: ignore[arg-type]
    found.tokens = JoinTokens(
        served.identities.store,
        served.workloads,
        lambda **fields: found.recorded.append(fields),
        served.clock,
    )
    server = WorkloadServer(
        served.home, served.workloads, served.identities, tick=0.1, joining=found.tokens
    )
    server.start(sockets.bind_unix(found.socket, 0o666))
    yield found
    server.stop()


def test_who_shows_a_token_becomes_the_workload_and_nobody_after(join: Joining) -> None:
    token = join.token(ttl_seconds=60)
    assert redeem(join.socket, token) == (SHOP, "shop")
    (entry,) = join.served.workloads.list()
    assert (entry.selectors, entry.ttl_seconds) == ((ME,), 60)
    with WorkloadApiClient(f"unix://{join.socket}") as client:
        assert str(client.fetch_x509_svid().spiffe_id) == SHOP
    assert join.refused(token) == "token_used"
    join.served.workloads.remove("shop")
    assert join.refused(token) == "token_used"
    done = join.recorded[0]
    assert (done["actor"], done["action"]) == (f"uid:{os.getuid()}", "redeem join token")
    assert (done["outcome"], done["target"]) == ("done", f"shop {join.tokens.list()[0].id}")
    assert token not in str(join.recorded)


def test_unknown_used_ended_and_removed_tokens_are_refused_alike(join: Joining) -> None:
    used, ended, gone = (join.token(name) for name in ("used", "ended", "gone"))
    redeem(join.socket, used)
    join.tokens.remove(next(one.id for one in join.tokens.list() if one.name == "gone"))
    assert join.refused(gone) == "token_unknown"
    assert join.refused("vjt_" + "a" * 43) == "token_unknown"
    assert join.refused("") == "token_unknown"
    assert join.refused(used) == "token_used"
    join.clock.ahead = timedelta(minutes=10)
    assert join.refused(ended) == "token_ended"
    assert [one.name for one in join.served.workloads.list()] == ["used"]


def test_a_token_is_kept_as_a_hash_and_in_no_repr(join: Joining) -> None:
    made = join.tokens.create(JoinTokenWish(name="shop", path="/shop"))
    assert len(made.token) == 4 + 43
    assert made.token not in repr(made)
    join.served.identities.store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in join.served.home.control.glob("identity.db*"):
        assert made.token[4:].encode() not in file.read_bytes()
    assert made.token not in str(join.tokens.list())


def test_two_at_once_get_it_once(join: Joining) -> None:
    token = join.token()
    results: list[bool] = []

    def attempt() -> None:
        try:
            redeem(join.socket, token)
            results.append(True)
        except ConfigError:
            results.append(False)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(results) == [False] * 7 + [True]


def test_tokens_survive_a_restart_used_ones_too(join: Joining) -> None:
    used, fresh = join.token("used"), join.token("fresh")
    redeem(join.socket, used)
    identities = Identities(join.served.home, join.served.identities._keys, join.clock)
    workloads = Workloads(identities.store, DOMAIN)
    again = JoinTokens(identities.store, workloads, lambda **_: None, join.clock)
    with pytest.raises(ConfigError):
        again.redeem(used, os.getuid(), [ME])
    assert again.redeem(fresh, os.getuid(), [ME]).name == "fresh"
    assert sorted(workloads.entries()) == ["fresh", "used"]
    identities.close()


def test_what_a_token_is_bound_to_is_what_the_kernel_says(join: Joining) -> None:
    token = join.token(bind=("uid", "gid", "path", "sha256"))
    redeem(join.socket, token)
    (entry,) = join.served.workloads.list()
    kinds = {one.split(":")[1]: one for one in entry.selectors}
    assert sorted(kinds) == ["gid", "path", "sha256", "uid"]
    assert kinds["path"] == f"unix:path:{Path('/proc/self/exe').resolve()}"
    assert kinds["gid"] == f"unix:gid:{os.getgid()}"


def test_who_cannot_be_seen_keeps_the_token(join: Joining) -> None:
    token = join.token(bind=("uid", "path"))
    with pytest.raises(ConfigError):
        join.tokens.redeem(token, 5, ["unix:uid:5", "unix:gid:5"])
    assert join.recorded[-1]["code"] == "caller_unseen"
    assert join.tokens.list()[0].state == "open"
    assert redeem(join.socket, token)[1] == "shop"


def test_a_token_replaces_no_workload(join: Joining) -> None:
    token = join.token()
    join.served.workloads.put("shop", WorkloadWish(path="/other", selectors=("unix:uid:5",)))
    assert join.refused(token) == "workload_invalid"
    assert join.served.workloads.list()[0].path == "/other"
    for name in ("shop", "twice"):
        if name == "twice":
            join.token(name)
        with pytest.raises(ConfigError) as caught:
            join.token(name)
        assert caught.value.code == "join_token_invalid"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"token_ttl_seconds": 9}, "join_token_invalid"),
        ({"token_ttl_seconds": 86_401}, "join_token_invalid"),
        ({"bind": ("path",)}, "join_token_invalid"),
        ({"bind": ("uid", "pid")}, "join_token_invalid"),
        ({"bind": ("uid", "uid")}, "join_token_invalid"),
        ({"path": "/gateway/x"}, "spiffe_id_reserved"),
        ({"path": "shop"}, "spiffe_id_invalid"),
        ({"name": "Shop"}, "invalid_name"),
        ({"ttl_seconds": 5}, "svid_invalid"),
    ],
)
def test_what_could_not_be_redeemed_is_not_made(
    join: Joining, more: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        join.tokens.create(JoinTokenWish(**{"name": "shop", "path": "/shop", **more}))
    assert caught.value.code == code
    assert join.tokens.list() == []


def test_there_is_a_most_and_old_ones_are_forgotten(
    join: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MAX_TOKENS", 2)
    for name in ("a", "b"):
        join.token(name)
    with pytest.raises(ConfigError, match="2 join tokens"):
        join.token("c")
    join.clock.ahead = timedelta(days=1, minutes=11)
    join.token("c")
    assert [one.name for one in join.tokens.list()] == ["c"]


def test_who_guesses_is_stopped_and_fills_no_record(join: Joining) -> None:
    token = join.token()
    for _ in range(10):
        with pytest.raises(ConfigError):
            redeem(join.socket, "guess")
    recorded = len(join.recorded)
    with pytest.raises(UnavailableError):
        redeem(join.socket, token)
    assert len(join.recorded) == recorded == 10
    desk = joining.JoinDesk(join.tokens, time.monotonic)
    request = KINDS["RedeemRequest"](token=token).SerializeToString()
    assert desk.answer(request, os.getuid() + 1, frozenset({ME}))  # others have their own
    for uid in range(3_000):
        desk._may_try(uid)
    assert len(desk._tries) == 1_024


def test_what_cannot_be_recorded_is_not_told(join: Joining) -> None:
    def full(**_: object) -> None:
        raise UnavailableError("disk_full", "there is no space left")

    token = join.token()
    join.tokens._record = full
    with pytest.raises(UnavailableError):
        redeem(join.socket, token)


def test_the_call_needs_the_header_and_one_message_of_its_kind(join: Joining) -> None:
    client = RawClient(join.socket)
    service = "vedette.join.v1.Join"
    request = framed(KINDS["RedeemRequest"](token=join.token()).SerializeToString())
    assert client.status(client.open("Redeem", [], request, service)) == 3
    assert client.status(client.open("Redeem", body=framed(b"\xff\xff"), service=service)) == 7
    long = framed(KINDS["RedeemRequest"](token="x" * 300).SerializeToString())
    assert client.status(client.open("Redeem", body=long, service=service)) == 7
    assert client.status(client.open("Other", body=request, service=service)) == 12
    assert client.status(client.open("Redeem", body=request, service=service)) == 0
    client.close()


def test_a_node_without_join_tokens_does_not_know_the_call(served: Served) -> None:
    with pytest.raises(UnavailableError, match="takes no join tokens"):
        redeem(served.home.workload_socket, "vjt_x")
    with pytest.raises(UnavailableError, match="nobody answers"):
        redeem(served.home.root / "none.sock", "vjt_x")
