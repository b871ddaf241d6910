"""Fixtures every test may use: the built guests and the checkout's own places."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from tests.guests import GuestBuildError, Guests, build_guests

ROOT = Path(__file__).parents[1]
MOST_CRATES = 1 << 30  # bytes

# A shell that runs the tests in the background has them ignore SIGINT, and what they start would inherit that.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every command and every process of a node is a Python of its own: without kept bytecode each compiles all of Vedette.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Rust projects that tests make are new each time; the crates that they use are not (cargo 1.91 and newer).
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vedette"
GO_SOURCES = Path(__file__).resolve().parent / "fixtures" / "spiffe-go"
RUST_SOURCES = Path(__file__).resolve().parent / "fixtures" / "spiffe-rust"
os.environ["CARGO_BUILD_BUILD_DIR"] = str(CACHE / "crates")


def pytest_sessionstart(session: pytest.Session) -> None:
    """What the projects themselves leave there is small, and is removed when it has become much."""
    if hasattr(session.config, "workerinput"):
        return
    with suppress(FileNotFoundError):  # another run builds
        if sum(file.lstat().st_size for file in (CACHE / "crates").rglob("*")) > MOST_CRATES:
            shutil.rmtree(CACHE / "crates")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def guests() -> Guests:
    """The guest components, built once."""
    try:
        return build_guests()
    except GuestBuildError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def spiffe_go() -> Path:
    """A program that uses go-spiffe."""
    return built_with_go("spiffe-go", ".")


@pytest.fixture(scope="session")
def spiffe_rust() -> Path:
    """A program that uses the crate spiffe, built once; cargo keeps what it built for the next run."""
    target = CACHE / "spiffe-rust"
    # What cargo builds on the way too: the folder that all others share is emptied now and then.
    folders = dict.fromkeys(("CARGO_TARGET_DIR", "CARGO_BUILD_BUILD_DIR"), str(target))
    done = subprocess.run(
        ["cargo", "build", "--locked", "--quiet"],
        cwd=RUST_SOURCES,
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / "debug" / "spiffe-rust"


def built_with_go(name: str, package: str) -> Path:
    """A program of `GO_SOURCES`, built once; Go keeps what it built for the next run."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    built = CACHE / name
    fetched = _run(go, "mod", "download")
    if fetched.returncode:
        pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr.strip()[-200:]}")
    done = _run(go, "build", "-o", str(built), package)
    assert done.returncode == 0, done.stderr
    return built


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=GO_SOURCES, capture_output=True, text=True, check=False)
