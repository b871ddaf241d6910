"""`vedette federation serve|follow` and `vedette ca` on a started node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from tests.cli.conftest import Shell

from vedette.errors import ConfigError


def test_a_bundle_is_served_and_another_followed(node: Shell) -> None:
    served = cast("dict[str, Any]", node.json("federation", "serve", "--listen", "127.0.0.1:0"))
    assert served["error"] is None
    assert f"served at {served['address']}" in node("federation", "list").stdout
    assert f"served at {served['address']}" in node("status").stdout
    web = ("--profile", "https_web")
    assert node("federation", "serve", *web).returncode == 2
    refused = node("federation", "serve", "--listen", "127.0.0.1:0", *web)
    assert refused.returncode == ConfigError.exit_code
    assert "needs a certificate" in refused.stderr
    url = "https://127.0.0.1:1/bundle"
    done = node("federation", "follow", "other.example.org", "--url", url, *web)
    assert done.returncode == 0, done.stderr
    assert "FAILED 1 times" in done.stderr
    rows = cast("list[dict[str, Any]]", node.json("federation", "list"))
    (row,) = [one for one in rows if one["trustDomain"] == "other.example.org"]
    assert (row["followed"]["url"], row["x509Authorities"]) == (url, 0)
    assert "follows" in node("status").stdout
    assert node("federation", "refresh", "other.example.org").returncode == 4
    assert node("federation", "unfollow", "other.example.org").returncode == 0
    assert node("federation", "unfollow", "other.example.org").returncode == 2
    assert node("federation", "serve", "--off").returncode == 0
    assert "not served" in node("federation", "list").stdout


def test_the_ca_is_rotated_and_both_certificates_are_given(node: Shell, tmp_path: Path) -> None:
    out = tmp_path / "ca.pem"
    assert node("ca", "--out", str(out)).returncode == 0
    assert out.read_text().count("BEGIN CERTIFICATE") == 1
    told = cast("list[dict[str, Any]]", node.json("ca", "rotate"))
    assert [(one["kind"], one["phase"]) for one in told] == [
        ("ca", "active"),
        ("ca", "prepared"),
        ("jwt-svid", "active"),
    ]
    assert node.json("ca", "list") == told
    assert cast("dict[str, Any]", node.json("status"))["keys"] == told
    assert "fetch it again: vedette ca --out ca.pem" in node("status").stdout
    assert node("ca").stdout.count("BEGIN CERTIFICATE") == 2
    assert node("ca", "rotate", "--jwt").returncode == 0
    assert "prepared" in node("ca", "list").stdout
    records = node("records", "--kind", "admin").stdout
    assert "rotate key ca" in records
    assert "rotate key jwt-svid" in records
    assert json.loads((node.home.control / "ca.json").read_text())["version"] == 1
