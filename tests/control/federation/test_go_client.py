"""go-spiffe's federation package, unmodified, fetches from the node's endpoint in both profiles."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.components import MINUTES
from tests.conftest import CACHE
from tests.control.federation.conftest import Peer, Web

from vedette.control.federation.messages import Profile

SOURCES = Path(__file__).resolve().parents[2] / "fixtures" / "spiffe-go"


@pytest.fixture(scope="session")
def program() -> Path:
    """The program, built once; Go keeps what it built for the next run."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    built = CACHE / "spiffe-go-fetch"
    fetched = _run(go, "mod", "download")
    if fetched.returncode:
        pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr.strip()[-200:]}")
    done = _run(go, "build", "-o", str(built), "./fetch")
    assert done.returncode == 0, done.stderr
    return built


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)


def fetch(program: Path, peer: Peer, *how: str) -> dict[str, Any]:
    done = _run(str(program), peer.domain, peer.url, *how)
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
