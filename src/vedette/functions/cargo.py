"""Rust projects: cargo, its target for components, and what it says while it works.

Owns: every call of cargo, rustc and rustup. Must not: change a project, other than its Cargo.lock
and target folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

from vedette.errors import ConfigError
from vedette.functions.tools import Report, require_tool, started

TARGET: Final = "wasm32-wasip2"
_RUST_HINT: Final = "Install Rust from https://rustup.rs, then: rustup target add wasm32-wasip2"
_TARGET_HINT: Final = "Run: rustup target add wasm32-wasip2"
_NOISE: Final = (
    "Compiling",
    "Downloaded",
    "Downloading",
    "Updating",
    "Locking",
    "Adding",
    "Blocking",
)

# While a person edits, a build that is soon done is worth more than a small component. The settings
# are given here, so that every crate has them; cargo keeps what they make in a folder of its own.
_QUICK: Final = (
    "--profile=watch",
    '--config=profile.watch.inherits="release"',
    "--config=profile.watch.codegen-units=16",
    "--config=profile.watch.incremental=true",
    "--config=profile.watch.lto=false",
)


def build(folder: Path, report: Report, quick: bool = False) -> Path:
    """Builds the crate in `folder` in release mode and returns the component; `quick`: incrementally.

    Adds the target with rustup when it is missing, and says so. Raises `ConfigError` tool_missing
    or build_failed.
    """
    require_target(folder, report)
    report("reading the dependencies", 0, None)
    total = None if quick else _package_count(folder)
    profile = _QUICK if quick else ("--release",)
    command = _command("build", *profile, "--message-format=json-render-diagnostics")
    with tempfile.TemporaryFile() as stderr:
        with started(command, folder, stderr=stderr) as process:
            assert process.stdout is not None
            component = _follow(process.stdout, report, total)
        if process.returncode != 0:
            raise ConfigError("build_failed", _diagnostics(stderr))
    if component is None:
        raise ConfigError(
            "build_failed",
            "cargo made no component",
            'Cargo.toml needs `crate-type = ["cdylib"]` under [lib], or a binary target.',
        )
    return component


def require_target(folder: Path, report: Report) -> None:
    """Makes sure that rustc can build for `wasm32-wasip2`. Raises `ConfigError` tool_missing."""
    for tool in ("cargo", "rustc"):
        require_tool(tool, _RUST_HINT)
    if _has_target(folder):
        return
    if shutil.which("rustup") is None:
        raise ConfigError("tool_missing", f"Rust has no target {TARGET}", _TARGET_HINT)
    report(f"adding the Rust target: rustup target add {TARGET}", 0, None)
    added = _run(["rustup", "target", "add", TARGET], folder)
    if added.returncode != 0 or not _has_target(folder):
        lines = [line.strip() for line in added.stderr.splitlines() if line.strip()]
        # A backtrace may follow what rustup says.
        said = [line for line in lines if line.startswith(("error:", "help:"))] or lines[:1]
        reason = "; ".join(said) or "no message"
        raise ConfigError("tool_missing", f"rustup could not add {TARGET}: {reason}", _TARGET_HINT)


def _has_target(folder: Path) -> bool:
    sysroot = _run(["rustc", "--print", "sysroot"], folder)
    return (
        sysroot.returncode == 0
        and (Path(sysroot.stdout.strip()) / "lib" / "rustlib" / TARGET / "lib").is_dir()
    )


def _package_count(folder: Path) -> int | None:
    """How many packages a build compiles; None when cargo cannot say (the build then tells why)."""
    metadata = _run(
        ["cargo", "metadata", "--format-version=1", f"--filter-platform={TARGET}"], folder
    )
    try:
        return len(json.loads(metadata.stdout)["resolve"]["nodes"])
    except (ValueError, KeyError, TypeError):
        return None


def _follow(lines: Iterable[bytes], report: Report, total: int | None) -> Path | None:
    """Reads cargo's messages until the end, reports each package once, and returns the component."""
    seen: set[str] = set()
    component = None
    for line in lines:
        message = _message(line)
        if message.get("reason") != "compiler-artifact":
            continue
        package = str(message["package_id"])
        if package not in seen and "custom-build" not in message["target"]["kind"]:
            seen.add(package)
            report(f"compiled {message['target']['name']}", len(seen), total)
        made = [name for name in message["filenames"] if name.endswith(".wasm")]
        component = Path(made[0]) if made else component
    return component


def _message(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _diagnostics(stderr: IO[bytes]) -> str:
    """What the compiler complained about, without the progress lines."""
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").splitlines()
    told = [line for line in lines if not line.lstrip().startswith(_NOISE)]
    return "\n".join(told[-60:]).strip() or "cargo failed without a message"


def _command(verb: str, *options: str) -> list[str]:
    return ["cargo", verb, f"--target={TARGET}", *options]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
