"""Keys that follow one another, over the death of the process at each write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.identity import succession
from vedette.identity.authority import Authority
from vedette.identity.key_files import load_p256
from vedette.identity.sealing import Seal, is_sealed
from vedette.identity.succession import (
    NOTICE,
    OLD_FOR,
    CaKind,
    JwtKind,
    Phase,
    Succession,
    key_files,
)

DOMAIN = "edge-1.vedette.local"
DAY = timedelta(days=1)


def of_ca(folder: Path, seal: Seal | None = None) -> Succession[Authority]:
    return Succession(folder, CaKind(folder, DOMAIN, seal), seal)


def begin(ca: Succession[Authority]) -> datetime:
    return ca.active.begins.astimezone(UTC) + timedelta(minutes=5)


def phases(ca: Succession[Authority]) -> list[str]:
    return [one.phase.value for one in ca.generations()]


def test_a_rotation_prepares_activates_and_retires(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    first, at = ca.active, begin(ca)
    ca.rotate(at, DAY)
    assert (phases(ca), ca.active) == (["active", "prepared"], first)
    assert not ca.step(at + DAY - timedelta(seconds=1))
    assert ca.step(at + DAY)
    assert phases(ca) == ["active", "old"]
    assert ca.trusted()[1] is first
    assert ca.signing() == ca.trusted()
    assert not ca.step(at + DAY + OLD_FOR - timedelta(seconds=1))
    assert ca.step(at + DAY + OLD_FOR)
    assert phases(ca) == ["active"]
    assert ca.active.key_id != first.key_id
    assert [path.name for path in key_files(tmp_path, "ca")] == [ca.generations()[0].file]


def test_what_is_prepared_signs_nothing_and_can_be_brought_forward(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    at = begin(ca)
    prepared = ca.rotate(at, DAY)
    assert prepared.signer not in ca.signing()
    assert ca.rotate(at, 2 * DAY).due == at + DAY
    assert ca.rotate(at, timedelta(seconds=40)).signer is prepared.signer
    assert not ca.step(at + DAY, may_activate=False)
    ca.step(at + timedelta(seconds=40))
    assert ca.active is prepared.signer
    with pytest.raises(ConfigError) as caught:
        ca.rotate(at + timedelta(minutes=2), DAY)
    assert caught.value.code == "rotation_running"


def test_at_half_of_a_life_the_next_key_is_prepared_by_itself(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    half = ca.active.begins + (ca.active.ends - ca.active.begins) / 2
    assert not ca.step(half - DAY)
    assert ca.step(half)
    assert ca.generations()[1].due == half + NOTICE
    assert ca.step(half + NOTICE)
    assert phases(ca) == ["active", "old"]
    assert ca.active.ends > half + NOTICE + timedelta(days=660)


@pytest.mark.parametrize("years", [-3, 3])
def test_a_ca_that_has_ended_or_not_begun_is_followed_at_once(tmp_path: Path, years: int) -> None:
    ca = of_ca(tmp_path)
    then = begin(ca) + years * 365 * DAY
    assert ca.step(then)
    assert phases(ca) == ["active", "old"]
    assert ca.active.begins <= then < ca.active.ends


def test_a_clock_that_was_ahead_keeps_no_old_key_for_years(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    at = begin(ca)
    ca.rotate(at + 300 * DAY, timedelta())
    ca.step(at + 300 * DAY)
    ca.step(at + 299 * DAY + timedelta(hours=23))
    old = ca.generations()[1]
    assert old.due == at + 299 * DAY + timedelta(hours=23) + OLD_FOR


def test_the_oldest_that_lasts_is_the_one_that_clients_know(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    first, at, margin = ca.active, begin(ca), timedelta(minutes=3)
    assert ca.oldest(at, margin) is first
    ca.rotate(at, timedelta())
    assert ca.oldest(at, margin) is first
    ca.step(at)
    assert ca.oldest(at + OLD_FOR - timedelta(minutes=4), margin) is first
    assert ca.oldest(at + OLD_FOR - timedelta(minutes=2), margin) is ca.active


def test_everything_survives_a_restart_sealed(tmp_path: Path) -> None:
    seal = Seal(b"s" * 40)
    ca = of_ca(tmp_path, seal)
    at = begin(ca)
    ca.rotate(at, timedelta())
    ca.step(at)
    again = of_ca(tmp_path, seal)
    assert [one.key_id for one in again.trusted()] == [one.key_id for one in ca.trusted()]
    assert [one.due for one in again.generations()] == [one.due for one in ca.generations()]
    assert phases(again) == ["active", "old"]
    for path in key_files(tmp_path, "ca"):
        assert is_sealed(path.read_bytes())
        assert path.stat().st_mode & 0o777 == 0o600
        load_p256(path, seal)


class KilledError(BaseException):
    """The process dies here."""


def killed(*_args: object, **_more: object) -> None:
    raise KilledError


STEPS: list[Callable[[Succession[Authority], datetime], object]] = [
    lambda ca, at: ca.rotate(at, timedelta()),
    lambda ca, at: ca.step(at),
    lambda ca, at: ca.step(at + OLD_FOR),
]


REACHED = {
    (0, "create_private"),
    (0, "write_json"),
    (1, "write_json"),
    (2, "write_json"),
    (2, "sync_folder"),
}
"""Which step makes which write."""


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("write", ["create_private", "write_json", "sync_folder"])
def test_whoever_dies_at_a_write_leaves_the_phase_before_or_the_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, write: str
) -> None:
    """Killed before each write of each step; `sync_folder` stands for after the state, amid removing keys."""
    ca = of_ca(tmp_path)
    at = begin(ca)
    for act in STEPS[:step]:
        act(ca, at)
    known = {one.key_id for one in ca.trusted()}
    with monkeypatch.context() as patch:
        patch.setattr(succession, write, killed)
        if (step, write) in REACHED:
            with pytest.raises(KilledError):
                STEPS[step](ca, at)
        else:
            STEPS[step](ca, at)
    again = of_ca(tmp_path)
    assert known & {one.key_id for one in again.trusted()}, "no key that was trusted still is"
    for ahead in (timedelta(), OLD_FOR, 2 * OLD_FOR):
        again.step(at + ahead)
    assert phases(again) == ["active"]
    assert len(key_files(tmp_path, "ca")) == 1, "a key that nothing names is left"
    of_ca(tmp_path)


def test_a_file_that_does_not_say_who_signs_is_no_reason_to_guess(tmp_path: Path) -> None:
    ca = of_ca(tmp_path)
    ca.rotate(begin(ca), DAY)
    for text in ("", "[]", '{"generations": []}', '{"generations": [{"phase": "active"}]}'):
        (tmp_path / "ca.json").write_text(text)
        with pytest.raises(ConfigError) as caught:
            of_ca(tmp_path)
        assert caught.value.code == "key_unreadable"


def test_keys_of_jwt_svids_follow_one_another_too(tmp_path: Path) -> None:
    jwt = Succession(tmp_path, JwtKind(tmp_path, DOMAIN, None))
    first = jwt.active
    at = first.begins + timedelta(days=366)
    jwt.step(at)
    assert [one.phase for one in jwt.generations()] == [Phase.ACTIVE, Phase.PREPARED]
    jwt.step(at + NOTICE)
    again = Succession(tmp_path, JwtKind(tmp_path, DOMAIN, None))
    assert again.active.public == jwt.active.public != first.public
    assert again.active.begins == jwt.active.begins
