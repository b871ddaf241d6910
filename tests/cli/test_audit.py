"""`vedette audit` on a started node with a simulated engine, and on its files with the node down."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests import commands
from tests.cli.conftest import COMMAND, Shell


def line(number: int) -> bytes:
    return b'{"kind":"request","time":"2026-01-01T00:00:%02dZ","n":%d}\n' % (number % 60, number)


@pytest.fixture
def audited(node: Shell) -> Shell:
    """A node with eleven records in its log: its start, and ten lines of a request."""
    (node.home.spool_requests / "w0-0.jsonl").write_bytes(b"".join(map(line, range(10))))
    _until(node, 11)
    return node


def _until(node: Shell, records: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        done = node("audit", "head", "--json")
        if done.returncode == 0 and json.loads(done.stdout)["records"] >= records:
            return
        assert time.monotonic() < deadline, done.stdout
        time.sleep(0.05)


def alone(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A command in a home without a node: what an auditor elsewhere has."""
    return commands.run(
        [*COMMAND[1:], *arguments], 120, {"VEDETTE_HOME": str(home), "PATH": "/usr/bin:/bin"}
    )


def test_an_export_is_for_nobody_else_to_read(audited: Shell, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch(0o644)
    for out in (tmp_path / "new", there):
        done = audited("audit", "export", "--out", str(out))
        assert (done.returncode, out.stat().st_mode & 0o777) == (0, 0o600), done.stderr


def test_an_export_verifies_elsewhere_with_the_key_alone(audited: Shell, tmp_path: Path) -> None:
    assert audited("audit", "export", "--out", str(tmp_path / "log")).returncode == 0
    assert audited("audit", "key", "--out", str(tmp_path / "key")).returncode == 0
    assert audited("audit", "head", "--append", str(tmp_path / "heads")).returncode == 0
    assert audited("audit", "head", "--append", str(tmp_path / "heads")).returncode == 0
    assert audited("down").returncode == 0
    given = ["--key", str(tmp_path / "key"), "--head", str(tmp_path / "heads"), "--json"]
    told = alone("audit", "verify", str(tmp_path / "log"), *given, home=tmp_path / "none")
    assert told.returncode == 0, told.stderr
    verdict: dict[str, Any] = json.loads(told.stdout)
    assert (verdict["verified"], verdict["records"], verdict["anchors"]) == (True, 11, 2)
    pem = audited("audit", "key", "--pem").stdout
    (tmp_path / "key.pem").write_text(pem)
    by_pem = alone(
        "audit",
        "verify",
        str(tmp_path / "log"),
        "--key",
        str(tmp_path / "key.pem"),
        home=tmp_path / "none",
    )
    assert by_pem.returncode == 0, by_pem.stderr
    text = audited("audit", "key").stdout.strip()
    by_text = alone("audit", "verify", str(tmp_path / "log"), "--key", text, home=tmp_path / "none")
    assert by_text.returncode == 0, by_text.stderr


def test_an_export_goes_through_a_pipe(audited: Shell, tmp_path: Path) -> None:
    done = audited("audit", "export", "--out", "-")
    assert done.returncode == 0, done.stderr
    assert "to stdout" in done.stderr
    assert not Path("-").exists()
    (tmp_path / "log").write_text(done.stdout)
    by_pipe = subprocess.run(
        [*COMMAND, "audit", "verify", "-"],
        input=done.stdout,
        capture_output=True,
        text=True,
        check=False,
        env=audited.environment,
        timeout=120,
    )
    assert by_pipe.returncode == 0, by_pipe.stdout + by_pipe.stderr
    kept = audited("audit", "verify", str(tmp_path / "log"), "--json")
    assert json.loads(kept.stdout)["records"] >= 11


def test_heads_of_another_key_are_told_once(audited: Shell, tmp_path: Path) -> None:
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    done = audited("audit", "verify", "--key", key, "--json")
    [finding] = json.loads(done.stdout)["findings"]
    assert (done.returncode, finding["kind"]) == (1, "unsigned")
    assert "the key PeterNeumann did not sign it" in finding["what"]
    heads = tmp_path / "heads"
    heads.write_text(audited("audit", "head").stdout * 50)
    done = audited("audit", "verify", "--key", key, "--head", str(heads), "--json")
    told = json.loads(done.stdout)["findings"]
    assert [one["kind"] for one in told] == ["unsigned", "anchor_forged"]
    assert told[1]["what"].startswith("50 heads cannot be believed")


def test_a_changed_segment_is_told_with_its_record_and_exit_code_1(audited: Shell) -> None:
    assert audited("audit", "verify").returncode == 0
    segment = audited.home.spool_requests / "w0-0.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"n":7', b'"n":8'))
    done = audited("audit", "verify")
    assert done.returncode == 1
    assert "w0-0.jsonl: record 8 was changed" in done.stdout
    assert "mend:" in done.stdout
    verdict = json.loads(audited("audit", "verify", str(audited.home.root), "--json").stdout)
    assert [(one["kind"], one["first"]) for one in verdict["findings"]] == [("changed", 8)]


def test_an_export_without_its_end_is_found_by_an_anchored_head(
    audited: Shell, tmp_path: Path
) -> None:
    early, heads = tmp_path / "early", tmp_path / "heads"
    assert audited("audit", "export", "--out", str(early)).returncode == 0
    with (audited.home.spool_requests / "w0-0.jsonl").open("ab") as file:
        file.write(line(10))
    _until(audited, 12)
    heads.write_text(audited("audit", "head").stdout)
    assert audited("audit", "verify", str(early)).returncode == 0
    done = audited("audit", "verify", str(early), "--head", str(heads))
    assert done.returncode == 1
    assert "truncated: the anchored head is of 12 records; these are only 11" in done.stdout


def test_the_age_of_the_newest_head_can_be_demanded(audited: Shell) -> None:
    assert audited("audit", "verify", "--max-age", "5m").returncode == 0
    done = audited("audit", "verify", "--max-age", "1ms")
    assert (done.returncode, "too_old" in done.stdout) == (1, True)


def test_an_export_since_a_time_leaves_out_what_was_signed_before(
    audited: Shell, tmp_path: Path
) -> None:
    out = tmp_path / "log"
    assert audited("audit", "export", "--out", str(out), "--since", "0s").returncode == 0
    verdict = json.loads(audited("audit", "verify", str(out), "--json").stdout)
    assert (verdict["verified"], verdict["omitted"], verdict["records"]) == (True, 11, 0)
    assert audited("audit", "export", "--out", str(out), "--since", "1h").returncode == 0
    verdict = json.loads(audited("audit", "verify", str(out), "--json").stdout)
    assert (verdict["omitted"], verdict["records"]) == (0, 11)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("verify", "{tmp}/nothing", "--key", "{key}"), "cannot read"),
        (("verify", "{tmp}/text", "--key", "{key}"), "is no export"),
        (("verify", "{tmp}/text", "--key", "{tmp}/text"), "audit key cannot be read"),
        (("verify", "{tmp}/text"), "cannot read the audit key"),
        (("verify", "{tmp}", "--key", "{key}"), "there is no audit log"),
        (("verify", "{tmp}/text", "--key", "{key}", "--head", "{tmp}/nothing"), "cannot read"),
        (("verify", "{tmp}/text", "--key", "{key}", "--max-age", "soon"), "not a duration"),
        (("export", "--out", "{tmp}/out"), "there is no audit log"),
        (("head",), "there is no audit log"),
        (("key",), "cannot read the audit key"),
    ],
)
def test_what_was_not_asked_right_ends_with_2(
    tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    (tmp_path / "text").write_text("no log\n")
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    given = [each.format(tmp=tmp_path, key=key) for each in arguments]
    done = alone("audit", *given, home=tmp_path / "none")
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert code in done.stderr
    assert "mend:" in done.stderr


def test_a_forged_anchor_is_not_believed(audited: Shell, tmp_path: Path) -> None:
    note = audited("audit", "head").stdout
    (tmp_path / "forged").write_text(note.replace("\n11\n", "\n12\n"))
    done = audited("audit", "verify", "--head", str(tmp_path / "forged"))
    assert done.returncode == 1
    assert "anchor_forged: head 1 in" in done.stdout
    (tmp_path / "forged").write_text("no note")
    assert audited("audit", "verify", "--head", str(tmp_path / "forged")).returncode == 1


def test_admin_records_are_shown_with_the_node_up_and_down(audited: Shell) -> None:
    audited("token", "--subject", "alice")
    shown = audited("records", "--kind", "admin").stdout
    assert "mint token alice" in shown
    audited("down")
    assert "mint token alice" in audited("records", "--kind", "admin").stdout


def test_status_tells_of_the_log(audited: Shell) -> None:
    told = json.loads(audited("status", "--json").stdout)["audit"]
    assert told["records"] >= 11
    assert "audit log" in audited("status").stdout
