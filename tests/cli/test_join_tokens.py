"""`vedette join-token` on a started node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from tests.cli.conftest import COMMAND, Shell

from vedette.cli.join_tokens import _path, _place
from vedette.errors import ConfigError


def test_a_token_is_made_redeemed_once_and_recorded_without_itself(
    node: Shell, tmp_path: Path
) -> None:
    domain = cast("dict[str, Any]", node.json("status"))["trustDomain"]
    made = node("join-token", "create", "--spiffe-id", f"spiffe://{domain}/team/joined")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert token not in made.stderr
    file = tmp_path / "token"
    file.write_text(made.stdout)
    (listed,) = cast("list[dict[str, Any]]", node.json("join-token", "list"))
    assert (listed["state"], listed["name"], listed["path"]) == (
        "open",
        "team-joined",
        "/team/joined",
    )
    told = cast("dict[str, Any]", node.json("join-token", "redeem", "--token-file", str(file)))
    assert told == {"spiffeId": f"spiffe://{domain}/team/joined", "workload": "team-joined"}
    (entry,) = cast("list[dict[str, Any]]", node.json("workload", "list"))
    assert entry["selectors"] == [f"unix:uid:{os.getuid()}"]
    again = subprocess.run(
        [*COMMAND, "join-token", "redeem"],
        input=made.stdout,
        capture_output=True,
        text=True,
        check=False,
        env=node.environment,
        timeout=120,
    )
    assert (again.returncode, token in again.stderr) == (ConfigError.exit_code, False)
    records = node("records", "--kind", "admin").stdout
    assert "token_used" in records
    assert token not in records
    assert token not in (node.home.control_log.read_text())
    assert node("join-token", "remove", listed["id"]).returncode == 0
    assert node.json("join-token", "list") == []
    assert node("join-token", "remove", listed["id"]).returncode == ConfigError.exit_code
    node("workload", "remove", "team-joined")


def test_an_id_is_of_this_node_and_a_socket_is_a_unix_one() -> None:
    assert _path("/shop", "a.example") == "/shop"
    assert _path("spiffe://a.example/shop", "a.example") == "/shop"
    for other in ("spiffe://b.example/shop", "spiffe://a.example.org/shop", "shop"):
        with pytest.raises(ConfigError):
            _path(other, "a.example")
    assert _place("unix:///run/w.sock") == _place("unix:/run/w.sock") == Path("/run/w.sock")
    with pytest.raises(ConfigError):
        _place("tcp://127.0.0.1:1")
