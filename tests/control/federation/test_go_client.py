"""go-spiffe's federation package, unmodified, fetches from the node's endpoint in both profiles."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.components import MINUTES
from tests.conftest import built_with_go
from tests.control.federation.conftest import Peer, Web

from vedette.control.federation.messages import Profile


@pytest.fixture(scope="session")
def program() -> Path:
    """A program that fetches with go-spiffe's federation package."""
    return built_with_go("spiffe-go-fetch", "./fetch")


def fetch(program: Path, peer: Peer, *how: str) -> dict[str, Any]:
    command = [str(program), peer.domain, peer.url, *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.timeout(10 * MINUTES)
def test_it_fetches_in_both_profiles(program: Path, one: Peer, web: Web, tmp_path: Path) -> None:
    expected = {"sequence": 1, "hint": 300, "authorities": 1, "keys": 1}
    status = one.serve()
    first = tmp_path / "first.json"
    first.write_bytes(one.identities.own_bundle().to_jwks())
    assert status.endpoint_id is not None
    assert fetch(program, one, "spiffe", str(first), status.endpoint_id) == expected
    other = fetch(program, one, "spiffe", str(first), f"spiffe://{one.domain}/other")
    assert "unexpected ID" in other["error"]
    files = {"certificate": str(web.certificate), "key": str(web.key)}
    one.serve(profile=Profile.HTTPS_WEB, **files)
    assert fetch(program, one, "web", str(web.ca)) == expected
