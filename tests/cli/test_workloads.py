"""`vedette workload` and `vedette federation` on a started node."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from tests.cli.conftest import Shell
from tests.control.workload.raw_client import RawClient

from vedette.cli.workloads import _selectors
from vedette.errors import ConfigError, TrustError


def test_an_identity_is_given_listed_used_and_taken_away(node: Shell, tmp_path: Path) -> None:
    me = str(os.getuid())
    added = node("workload", "add", "shop", "--uid", me, "--ttl", "10m", "--hint", "internal")
    assert added.returncode == 0, added.stderr
    status = cast("dict[str, Any]", node.json("status"))
    assert f"SPIFFE_ENDPOINT_SOCKET={status['workloadApi']}" in added.stderr
    (listed,) = cast("list[dict[str, Any]]", node.json("workload", "list"))
    assert listed["spiffeId"] == f"spiffe://{status['trustDomain']}/shop"
    assert (listed["selectors"], listed["ttlSeconds"]) == ([f"unix:uid:{me}"], 600)
    table = node("workload", "list").stdout.splitlines()
    assert table[1].split("\t")[:2] == ["shop", listed["spiffeId"]]
    caller = RawClient(Path(status["workloadApi"].removeprefix("unix://")))
    response = caller.next_message(caller.open("FetchX509SVID"), "X509SVIDResponse")
    assert response.svids[0].spiffe_id == listed["spiffeId"]
    caller.close()
    assert node("workload", "remove", "shop").returncode == 0
    assert node.json("workload", "list") == []
    again = node("workload", "remove", "shop")
    assert again.returncode == ConfigError.exit_code
    assert "vedette workload list" in again.stderr
    told = cast(
        "dict[str, Any]", node.json("workload", "add", "shop", "--gid", "5", "--id", "/a/b")
    )
    assert (told["path"], told["selectors"]) == ("/a/b", ["unix:gid:5"])
    refused = node("workload", "add", "bad", "--uid", me, "--id", "/fn/hello")
    assert refused.returncode == ConfigError.exit_code
    assert "belongs to the node itself" in refused.stderr


def test_bundles_are_shown_taken_refused_and_forgotten(node: Shell, tmp_path: Path) -> None:
    out = tmp_path / "own.json"
    assert node("federation", "show", "--out", str(out)).returncode == 0
    own = json.loads(out.read_text())
    assert json.loads(node("federation", "show").stdout) == own
    other = tmp_path / "other.json"
    jwt_key = next(key for key in own["keys"] if key["use"] == "jwt-svid")
    other.write_text(json.dumps({"keys": [jwt_key], "spiffe_sequence": 5}))
    done = node("federation", "set", "other.example", "--bundle", str(other))
    assert done.returncode == 0, done.stderr
    mine, foreign = cast("list[dict[str, Any]]", node.json("federation", "list"))
    assert (mine["own"], foreign["own"], foreign["sequence"]) == (True, False, 5)
    other.write_text(json.dumps({"keys": [], "spiffe_sequence": 4}))
    older = node("federation", "set", "other.example", "--bundle", str(other))
    assert older.returncode == TrustError.exit_code
    stolen = node("federation", "set", "third.example", "--bundle", str(out))
    assert stolen.returncode == ConfigError.exit_code
    assert "another trust domain" in stolen.stderr
    assert node("federation", "remove", "other.example").returncode == 0
    assert len(cast("list[Any]", node.json("federation", "list"))) == 1


def test_selectors_are_read_from_what_people_have(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert _selectors("root", 0, "/bin/a", str(program)) == [
        "unix:uid:0",
        "unix:gid:0",
        "unix:path:/bin/a",
        f"unix:sha256:{digest}",
    ]
    assert _selectors("1000", None, None, digest.upper()) == [
        "unix:uid:1000",
        f"unix:sha256:{digest}",
    ]
    for wrong, code in (
        ((None, None, None, None), "workload_invalid"),
        (("no-such-user-here", None, None, None), "workload_invalid"),
        ((None, None, None, str(tmp_path / "none")), "file_unreadable"),
    ):
        with pytest.raises(ConfigError) as caught:
            _selectors(*wrong)  # type: ignore[arg-type]
        assert caught.value.code == code


def test_what_is_revoked_is_listed_and_lifted(node: Shell, tmp_path: Path) -> None:
    told = cast("dict[str, Any]", node.json("revoke", "spiffe://a.example/x", "--reason", "why"))
    assert (told["what"], told["applied"]) == ("spiffe://a.example/x", True)
    (listed,) = cast("list[dict[str, Any]]", node.json("revoke", "--list"))
    assert (listed["kind"], listed["reason"]) == ("spiffeId", "why")
    assert "spiffe://a.example/x\t" in node("revoke", "--list").stdout
    assert node("revoke", "--lift", "spiffe://a.example/x").returncode == 0
    assert node.json("revoke", "--list") == []
    assert "Nothing is revoked" in node("revoke", "--list").stderr
    for arguments in ((), ("a", "--list"), ("--list", "--lift", "a"), (f"@{tmp_path}/none",)):
        done = node("revoke", *arguments)
        assert done.returncode == ConfigError.exit_code, arguments
        assert "mend: " in done.stderr


def test_what_is_known_of_somebody_is_set_listed_and_forgotten(node: Shell) -> None:
    told = cast(
        "dict[str, Any]", node.json("posture", "set", "alice", "patched=false", "--for", "10m")
    )
    assert told["subject"].endswith("#alice")
    assert (told["fact"], told["value"]) == ("patched", False)
    assert cast("list[Any]", node.json("posture", "list")) == [told]
    assert "patched\tfalse\t" in node("posture", "list").stdout
    assert node("posture", "remove", "alice").returncode == 0
    assert "Nothing is known" in node("posture", "list").stderr
    for fact in ("patched=", "patched=maybe", "Patched"):
        done = node("posture", "set", "alice", fact, "--for", "10m")
        assert done.returncode == ConfigError.exit_code, fact
    assert "vedette posture list" in node("posture", "remove", "alice").stderr


def test_something_is_granted_listed_and_ended(node: Shell, tmp_path: Path) -> None:
    manifest = tmp_path / "page.yaml"
    manifest.write_text(
        "apiVersion: vedette.dev/v1alpha1\nkind: Route\nmetadata: {name: page}\n"
        "spec: {rules: [{matches: [{path: {value: /page}}], static: {body: hello}}]}\n"
    )
    assert node("apply", "--yes", "-f", str(manifest)).returncode == 0
    told = cast(
        "dict[str, Any]",
        node.json("grant", "alice", "page", "--method", "get,HEAD", "--for", "30m", "--name", "g"),
    )
    (listed,) = cast("list[dict[str, Any]]", node.json("grant", "--list"))
    assert (listed["name"], listed["expiresAt"]) == ("g", told["expiresAt"])
    assert (listed["target"], listed["methods"]) == ("route/page", ["GET", "HEAD"])
    assert "g\tspiffe://" in node("grant", "--list").stdout
    assert node("grant", "--end", "g").returncode == 0
    assert "Nothing is granted" in node("grant", "--list").stderr
    for arguments in (
        (),
        ("alice",),
        ("alice", "page"),
        ("alice", "none", "--for", "1h"),
        ("--end", "g"),
    ):
        done = node("grant", *arguments)
        assert done.returncode == ConfigError.exit_code, arguments
        assert "mend: " in done.stderr
