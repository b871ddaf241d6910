"""Lists that are fetched: when they change the snapshot, when they do not, and who may stay."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.control.conftest import Running
from tests.control.manifest_texts import OUR, objects

from vedette.clock import from_rfc3339, now
from vedette.config.addresses import AddressList
from vedette.config.addresses_manifest import CrowdSecSource
from vedette.config.manifests import Attachment
from vedette.config.snapshot import StaticFile
from vedette.control.crowdsec import Decision, Pulled
from vedette.control.feeds import LONGEST_WAIT, WHOLE_EVERY, Feeds, begin
from vedette.control.messages import ManifestSetWish, PlanAnswer, PlanWish
from vedette.errors import ConfigError, UnavailableError

URL = "http://127.0.0.1:8080"
SPEC = f"{{action: Block, crowdsec: {{url: '{URL}/', apiKeyFile: /k, interval: 1m}}}}"
CROWD = f"{OUR}kind: AddressList\nmetadata: {{name: crowd}}\nspec: {SPEC}\n---\n"
OTHER = CROWD.replace("8080", "9090")
HERE = CROWD.replace(SPEC, "{action: Block, networks: [192.0.2.200]}")
ROUTE = f"{OUR}kind: Route\nmetadata: {{name: r}}\nspec: {{rules: [{{static: {{body: BODY}}}}]}}\n"


def decided(*networks: str, hours: float = 4, kind: str = "ban") -> tuple[Decision, ...]:
    return tuple(Decision(kind, network, timedelta(hours=hours)) for network in networks)


class Crowd:
    """A feed and the clock, in the test's hand."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.time = now().replace(microsecond=0)
        self.new = decided("192.0.2.1")
        self.deleted: tuple[Decision, ...] = ()
        self.error: UnavailableError | None = None
        self.asked: list[bool] = []
        self.start()

    def start(self) -> None:
        """Control starts anew."""
        self.feeds = Feeds(self.running.home, self.running.activator, self.pull, self.clock)
        self.running.node.feeds = self.feeds

    def pull(self, source: CrowdSecSource, *, whole: bool) -> Pulled:
        assert source.api_key_file == "/k"
        self.asked.append(whole)
        if self.error is not None:
            raise self.error
        return Pulled(whole, self.new, self.deleted, 0)

    def clock(self) -> datetime:
        return self.time

    def plan(
        self, text: str, attachments: dict[str, Attachment] | None = None, **more: Any
    ) -> PlanAnswer:
        wish = tuple(objects(text, attachments=attachments))
        return self.running.node.plan(ManifestSetWish(objects=wish, **more))

    def apply(self, text: str, attachments: dict[str, Attachment] | None = None) -> None:
        self.run(self.plan(text, attachments))

    def run(self, plan: PlanAnswer) -> None:
        names = ("base", "ground", "payload", "texts", "applied", "feeds")
        wish = {name: getattr(plan, name) for name in names}
        self.running.node.apply(PlanWish.model_validate(wish), "test")

    def tell(self, *new: Decision, deleted: tuple[Decision, ...] = ()) -> None:
        """What the next answers hold."""
        self.new, self.deleted = new, deleted

    def pass_time(self, seconds: float = 61) -> None:
        self.time += timedelta(seconds=seconds)
        self.feeds.step()

    def declared(self) -> AddressList:
        addresses = self.running.activator.active()[1].addresses
        assert addresses is not None
        (one,) = addresses.lists
        return one

    def text(self) -> str:
        return self.running.activator.blobs.get(self.declared().blob).decode()

    def networks(self) -> list[str]:
        return [line for line in self.text().splitlines() if not line.startswith("#")]

    def generation(self) -> int:
        return self.running.activator.active()[0].generation

    def actions(self) -> list[str]:
        return [entry.action for entry in self.running.activator.history.entries()]

    def status(self) -> Any:
        return self.feeds.status(self.running.activator.active()[1])["crowd"]


@pytest.fixture
def crowd(running: Running) -> Crowd:
    """A node with a list from a feed that has answered once."""
    crowd = Crowd(running)
    crowd.apply(CROWD)
    assert crowd.networks() == [], "nothing is known before the first answer"
    crowd.feeds.step()
    assert crowd.networks() == ["192.0.2.1"]
    crowd.tell()
    return crowd


def test_what_is_told_is_a_new_snapshot_and_nothing_new_is_none(crowd: Crowd) -> None:
    before = crowd.generation()
    crowd.pass_time()
    assert crowd.generation() == before
    crowd.tell(*decided("192.0.2.2"))
    crowd.pass_time()
    assert crowd.networks() == ["192.0.2.1", "192.0.2.2"]
    assert crowd.generation() == before + 1
    assert crowd.asked == [True, False, False]


def test_it_is_asked_no_more_often_than_the_interval(crowd: Crowd) -> None:
    for _ in range(59):
        crowd.pass_time(1)
    assert len(crowd.asked) == 1
    crowd.pass_time(1)
    assert len(crowd.asked) == 2


def test_what_people_did_stays_in_the_history_however_often_a_feed_changes(crowd: Crowd) -> None:
    before = crowd.actions()[1:]
    for number in range(30):
        crowd.tell(*decided(f"198.51.100.{number}"))
        crowd.pass_time()
    assert crowd.actions() == ["feed crowd", *before]
    newest, *_, oldest = crowd.running.activator.history.entries()
    assert newest.generation - oldest.generation == 32, "each change had its own generation"


def test_a_ban_that_runs_out_goes_although_nobody_says_so(crowd: Crowd) -> None:
    crowd.error = UnavailableError("feed_unavailable", "it is away")
    crowd.pass_time(3.9 * 3600)
    assert crowd.networks() == ["192.0.2.1"]
    crowd.pass_time(3600)
    assert crowd.networks() == []


def test_a_poll_that_fails_keeps_the_list_and_says_since_when(crowd: Crowd) -> None:
    before = crowd.generation()
    crowd.error = UnavailableError("feed_unavailable", "it is away")
    crowd.pass_time()
    since = crowd.time
    crowd.pass_time(150)
    one = crowd.status()
    assert (one.failures, one.error) == (2, "it is away")
    assert from_rfc3339(one.failing_since) == since
    assert one.age_seconds == 211
    assert crowd.generation() == before
    crowd.error = None
    crowd.pass_time(900)
    one = crowd.status()
    assert (one.failures, one.failing_since, one.error, one.age_seconds) == (0, None, None, 0)
    assert crowd.asked[-1] is True, "what was told meanwhile may be lost"


def test_tries_get_rarer_while_it_fails_and_never_stop(crowd: Crowd) -> None:
    crowd.error = UnavailableError("feed_unavailable", "it is away")
    waits = []
    for _ in range(12):
        crowd.time = from_rfc3339(crowd.status().next_at)
        crowd.feeds.step()
        waits.append(from_rfc3339(crowd.status().next_at) - crowd.time)
    assert timedelta(minutes=1) <= waits[0] <= timedelta(minutes=1.2)
    assert all(LONGEST_WAIT <= wait <= LONGEST_WAIT * 1.2 for wait in waits[-5:])


def test_everything_is_asked_for_again_after_an_hour(crowd: Crowd) -> None:
    crowd.tell(*decided("192.0.2.9"))
    crowd.pass_time(WHOLE_EVERY.total_seconds())
    assert crowd.asked == [True, True]
    assert crowd.networks() == ["192.0.2.9"]


def test_a_control_that_starts_keeps_the_list_until_it_has_an_answer(crowd: Crowd) -> None:
    crowd.start()
    crowd.error = UnavailableError("feed_unavailable", "it is away")
    crowd.pass_time(1)
    assert crowd.networks() == ["192.0.2.1"]
    crowd.error = None
    crowd.tell(*decided("192.0.2.5"))
    crowd.pass_time(75)
    assert crowd.networks() == ["192.0.2.5"]
    assert crowd.asked == [True, True, True]


def test_what_is_no_ban_is_counted(crowd: Crowd) -> None:
    crowd.tell(*decided("192.0.2.7", kind="captcha"), *decided("192.0.2.8", kind="captcha"))
    crowd.pass_time()
    assert crowd.status().left_out == {"captcha": 2}
    assert crowd.networks() == ["192.0.2.1"]


def test_a_rollback_takes_back_a_decision_and_no_ban(crowd: Crowd) -> None:
    crowd.apply(ROUTE.replace("BODY", "one"))
    crowd.apply(ROUTE.replace("BODY", "two"))
    for network in ("192.0.2.2", "192.0.2.3"):
        crowd.tell(*decided(network))
        crowd.pass_time()
    crowd.running.node.roll_back(None, "test")
    route = crowd.running.activator.active()[1].route("r")
    assert route is not None
    assert getattr(route.backend, "body", None) == "one"
    assert crowd.networks() == ["192.0.2.1"]
    crowd.pass_time(1)
    assert crowd.networks() == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_a_rollback_to_a_list_from_elsewhere_is_left_alone(running: Running) -> None:
    crowd = Crowd(running)
    crowd.apply(HERE)
    crowd.apply(CROWD)
    crowd.feeds.step()
    assert crowd.networks() == ["192.0.2.1"]
    running.node.roll_back(None, "test")
    assert crowd.networks() == ["192.0.2.200"]
    crowd.pass_time()
    assert crowd.networks() == ["192.0.2.200"]
    assert crowd.feeds.status(running.activator.active()[1]) == {}


def test_a_list_that_comes_from_elsewhere_now_is_not_asked_for_any_more(crowd: Crowd) -> None:
    crowd.apply(HERE)
    asked = len(crowd.asked)
    crowd.pass_time()
    assert (crowd.networks(), len(crowd.asked)) == (["192.0.2.200"], asked)


def test_the_same_manifest_again_changes_nothing_and_another_url_starts_anew(crowd: Crowd) -> None:
    assert crowd.plan(CROWD).changes == ()
    crowd.apply(CROWD.replace("interval: 1m", "interval: 1h"))
    assert crowd.networks() == ["192.0.2.1"]
    crowd.apply(OTHER)
    assert crowd.text() == begin("http://127.0.0.1:9090")
    crowd.tell(*decided("192.0.2.4"))
    crowd.feeds.step()
    assert crowd.networks() == ["192.0.2.4"]


def test_a_plan_stays_good_while_a_feed_changes_and_loses_nothing(crowd: Crowd) -> None:
    plans = [crowd.plan(text + ROUTE.replace("BODY", "x")) for text in (CROWD, "")]
    for plan, network in zip(plans, ("192.0.2.2", "192.0.2.3"), strict=True):
        crowd.tell(*decided(network))
        crowd.pass_time()
        has = crowd.networks()
        assert network in has
        crowd.run(plan)
        assert crowd.networks() == has
        crowd.running.node.remove_route("r", "test")
    crowd.running.node.roll_back(None, "test")
    with pytest.raises(ConfigError) as caught:
        crowd.run(plans[0])
    assert caught.value.code == "plan_stale"


def test_a_file_that_looks_like_a_feed_is_none(running: Running) -> None:
    crowd = Crowd(running)
    text = f"{begin(URL)}192.0.2.200\n".encode()
    digest = running.activator.blobs.put(text)
    file = StaticFile(path="drop.txt", blob=digest, size=len(text), content_type="text/plain")
    crowd.apply(
        CROWD.replace(SPEC, "{action: Block, file: drop.txt}"),
        {"drop.txt": Attachment(files=(file,))},
    )
    assert crowd.networks() == ["192.0.2.200"]
    crowd.pass_time()
    assert crowd.asked == []


def test_what_cannot_be_served_is_tried_once_an_interval_and_told(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bytes] = []

    def refuse(envelope: bytes, _key: bytes, _folder: str) -> bytes:
        tried.append(envelope)
        raise ValueError('{"code": "addresses_invalid", "message": "too many"}')

    with monkeypatch.context() as patched:
        patched.setattr(crowd.running.activator._native, "check_snapshot", refuse)
        crowd.tell(*decided("192.0.2.2"))
        crowd.pass_time()
        for _ in range(30):
            crowd.pass_time(1)
        assert len(tried) == 1
        assert "too many" in crowd.status().error
        assert crowd.networks() == ["192.0.2.1"]
        crowd.pass_time(75)
        assert len(tried) == 2
    crowd.pass_time(180)
    assert crowd.networks() == ["192.0.2.1", "192.0.2.2"]
    assert crowd.status().error is None


def test_a_plan_says_that_the_key_cannot_be_read(crowd: Crowd, tmp_path: Path) -> None:
    assert any("the key cannot be read from /k" in note for note in crowd.plan(CROWD).notes)
    (tmp_path / "key").write_text("abc\n", "ascii")
    there = crowd.plan(CROWD.replace("/k", str(tmp_path / "key")))
    assert not any("key" in note for note in there.notes)


def test_a_feed_that_was_changed_while_it_was_asked_is_not_believed(crowd: Crowd) -> None:
    pull = crowd.pull

    def slow(source: CrowdSecSource, *, whole: bool) -> Pulled:
        crowd.apply(OTHER)
        return pull(source, whole=whole)

    crowd.feeds._pull = slow
    crowd.tell(*decided("192.0.2.66"))
    crowd.pass_time()
    assert crowd.text() == begin("http://127.0.0.1:9090")


def test_a_list_that_was_taken_back_while_it_was_asked_for_stays_taken_back(
    running: Running,
) -> None:
    crowd = Crowd(running)
    crowd.apply(HERE)
    crowd.apply(CROWD)
    pull = crowd.pull

    def slow(source: CrowdSecSource, *, whole: bool) -> Pulled:
        running.node.roll_back(None, "test")
        return pull(source, whole=whole)

    crowd.feeds._pull = slow
    crowd.feeds.step()
    assert crowd.networks() == ["192.0.2.200"]
