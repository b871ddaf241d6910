"""What people do to the node is recorded before they are answered, and nothing secret with it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.control.conftest import Running
from tests.control.test_api import Served, deploy, served

from vedette.control import admin_records
from vedette.control.admin_records import LONGEST, SEGMENT, AdminLog
from vedette.control.api import create_app
from vedette.errors import UnavailableError
from vedette.observability import spool

__all__ = ["served"]  # a fixture


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record in a folder, oldest first."""
    found = [spool.lines_backwards(path) for path in sorted(folder.glob("*.jsonl"))]
    return [json.loads(line) for segment in found for line in reversed(list(segment))]


def last(served: Served) -> dict[str, Any]:
    return records(served.running.home.admin_records)[-1]


def test_a_change_is_recorded_with_who_what_and_what_came_of_it(served: Served) -> None:
    answer = deploy(served).json()
    told = last(served)
    assert told.pop("time").endswith("Z")
    assert told == {
        "kind": "admin",
        "actor": f"uid:{os.getuid()}",
        "action": "put function",
        "target": "hello",
        "outcome": "done",
        "status": 200,
        "digest": answer["digest"],
        "generation": answer["generation"],
    }


def test_a_refused_change_is_recorded_with_its_code(served: Served) -> None:
    served.http.delete("/v1/functions/nothing")
    told = last(served)
    assert (told["outcome"], told["code"], told["target"]) == (
        "refused",
        "function_unknown",
        "nothing",
    )


def test_a_minted_token_is_recorded_without_itself(served: Served) -> None:
    token = served.http.post("/v1/tokens", json={"subject": "alice"}).json()["token"]
    told = last(served)
    assert (told["action"], told["target"], told["outcome"]) == ("mint token", "alice", "done")
    for path in served.running.home.admin_records.iterdir():
        content = path.read_bytes()
        assert not [part for part in token.split(".") if part.encode() in content]


def test_a_key_that_is_sent_is_in_no_record(served: Served) -> None:
    secret = "-----BEGIN PRIVATE KEY-----SECRET"
    assert served.http.put("/v1/certificates/shop", json={"pem": secret}).status_code == 422
    assert last(served)["action"] == "put certificate"
    assert b"SECRET" not in b"".join(
        path.read_bytes() for path in served.running.home.admin_records.iterdir()
    )


def test_questions_are_not_recorded(served: Served) -> None:
    before = len(records(served.running.home.admin_records))
    served.http.post("/v1/policies/a.cedar/check", json={"text": ""})
    served.http.post("/v1/plan", json={"documents": []})
    served.http.get("/v1/status")
    assert len(records(served.running.home.admin_records)) == before


def test_every_handler_that_is_no_question_is_recorded(running: Running) -> None:
    """A question is named; what is new is recorded until somebody says that it is one."""
    changing = {
        route.endpoint.__name__  # type: ignore[attr-defined]
        for route in create_app(running.node).routes
        if getattr(route, "methods", set()) & {"PUT", "POST", "DELETE", "PATCH"}
    }
    assert changing >= admin_records._QUESTIONS
    assert changing - admin_records._QUESTIONS >= {
        "put_function",
        "delete_function",
        "put_policy",
        "mint_token",
        "revoke_token",
        "rollback",
        "apply",
        "put_rules",
    }


def test_control_records_what_it_activates_by_itself(running: Running) -> None:
    running.activator.change(
        lambda active: active.model_copy(update={"functions": ()}), "x", "uid:1"
    )
    assert records(running.home.admin_records) == []
    running.node.record_start()
    [told] = records(running.home.admin_records)
    assert (told["actor"], told["action"], told["generation"]) == ("control", "start", 1)


def test_without_room_for_the_record_nothing_is_changed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    text = "permit (principal, action, resource);"
    answer = served.http.put("/v1/policies/a.cedar", json={"text": text})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "disk_full"
    assert len(served.http.get("/v1/history").json()) == 1
    monkeypatch.undo()
    assert served.http.put("/v1/policies/a.cedar", json={"text": text}).status_code == 200


def test_a_record_that_cannot_be_written_is_not_answered_as_done(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.running.node.admin.require_room()

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", failing)
    answer = served.http.post("/v1/tokens", json={"subject": "alice"})
    assert answer.status_code == 503
    assert "token" not in answer.text.replace("tokens", "")


def test_a_segment_is_left_for_the_next_when_it_is_full_and_goes_on_after_a_kill(
    tmp_path: Path,
) -> None:
    log = AdminLog(tmp_path)
    text = "x" * 500
    count = 2 * SEGMENT // 300
    for number in range(count):
        log.write(action=text, number=number)
    segments = sorted(tmp_path.glob("*.jsonl"))
    assert len(segments) == 3
    assert all(path.stat().st_size <= SEGMENT for path in segments)
    log._descriptor = None  # as a kill leaves it; the lock goes with the descriptor
    for number in os.listdir("/proc/self/fd"):
        with_name = Path(f"/proc/self/fd/{number}")
        if with_name.exists() and with_name.resolve().parent == tmp_path:
            os.close(int(number))
    again = AdminLog(tmp_path)
    again.write(action="next", number=count)
    assert len(sorted(tmp_path.glob("*.jsonl"))) == 3
    assert [one["number"] for one in records(tmp_path)] == list(range(count + 1))
    again.close()
    assert b"\0" not in segments[-1].read_bytes()


def test_a_torn_record_does_not_hide_the_next(tmp_path: Path) -> None:
    log = AdminLog(tmp_path)
    log.write(action="one")
    log.close()
    [path] = tmp_path.glob("*.jsonl")
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b'{"kind":"ad')
        file.truncate(SEGMENT)
    AdminLog(tmp_path).write(action="two")
    lines = path.read_bytes().rstrip(b"\0").splitlines()
    assert [b"one" in lines[0], lines[1], b"two" in lines[2]] == [True, b'{"kind":"ad', True]


def test_another_process_s_segment_is_not_written_to(tmp_path: Path) -> None:
    first, second = AdminLog(tmp_path), AdminLog(tmp_path)
    first.write(action="one")
    second.write(action="two")
    first.write(action="three")
    assert sorted(one["action"] for one in records(tmp_path)) == ["one", "three", "two"]


def test_long_texts_are_cut(tmp_path: Path) -> None:
    log = AdminLog(tmp_path)
    log.write(**dict.fromkeys(("actor", "action", "target", "outcome", "code"), "é" * 10000))
    [path] = tmp_path.glob("*.jsonl")
    assert len(path.read_bytes().rstrip(b"\0")) < LONGEST
    [told] = records(tmp_path)
    assert len(told["target"]) == 256


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError) as caught:
        AdminLog(tmp_path / "file" / "admin").require_room()
    assert caught.value.code == "disk_failed"
