"""What an `up` that says little starts with."""

from __future__ import annotations

from pathlib import Path

from vedette.control.supervisor.remembered import as_flags, recall, remember
from vedette.store.home import Home

SAID = {"listen": ["127.0.0.1:9443", "http://[::1]:0"], "workers": 2}


def test_nothing_is_remembered_at_first(tmp_path: Path) -> None:
    assert recall(Home(tmp_path), {"listen": None, "metrics": None}) == ({}, {})


def test_what_was_said_is_kept_until_something_else_is_said(tmp_path: Path) -> None:
    home = Home(tmp_path)
    remember(home, SAID)
    assert recall(home, {}) == (SAID, SAID)
    settings, kept = recall(home, {"listen": ["localhost:1"], "tlsMinVersion": "1.2"})
    assert settings == {"listen": ["localhost:1"], "workers": 2, "tlsMinVersion": "1.2"}
    assert kept == {"workers": 2}
    remember(home, settings)
    assert recall(home, {}) == (settings, settings)


def test_zero_workers_is_something_that_was_said(tmp_path: Path) -> None:
    home = Home(tmp_path)
    remember(home, SAID)
    assert recall(home, {"workers": 0})[0]["workers"] == 0


def test_a_file_that_is_no_json_is_as_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.start_file.write_text("[oops")
    assert recall(home, {}) == ({}, {})


def test_what_is_remembered_is_told_as_flags() -> None:
    told = as_flags({**SAID, "metrics": "127.0.0.1:1", "tlsMinVersion": "1.2"})
    assert told == (
        "--listen 127.0.0.1:9443 --listen 'http://[::1]:0' --metrics 127.0.0.1:1 --workers 2 "
        "--tls-min-version 1.2"
    )
    assert as_flags({}) == ""
