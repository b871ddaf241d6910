"""Builds the guest components that tests deploy, once a session, and makes the files that are not guests at all.

Owns: where the guests are built (outside the checkout) and what a failed build says. Must not: start a node.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

WORKSPACE = Path(__file__).parent / "fixtures" / "guests"
TARGET = "wasm32-wasip2"

# (module (func (export "run"))): the smallest core module with an export; valid WebAssembly, but no component.
CORE_MODULE = bytes.fromhex("0061736d01000000010401600000030201000707010372756e00000a040102000b")


class GuestBuildError(Exception):
    """The guests did not build; the message holds what cargo said and how to mend it."""


@dataclass(frozen=True, slots=True)
class Guests:
    """Paths of the built components."""

    folder: Path

    @property
    def hello(self) -> Path:
        """One fixed answer."""
        return self.folder / "hello.wasm"

    @property
    def hostile(self) -> Path:
        """The path chooses how it misbehaves."""
        return self.folder / "hostile.wasm"

    @property
    def outbound(self) -> Path:
        """Calls out over HTTP."""
        return self.folder / "outbound.wasm"

    @property
    def predictor(self) -> Path:
        """Asks models of the node."""
        return self.folder / "predictor.wasm"

    @property
    def service(self) -> Path:
        """A component of WASI 0.3; the path chooses what it does."""
        return self.folder / "service.wasm"

    @property
    def sockets(self) -> Path:
        """Opens a TCP connection."""
        return self.folder / "sockets.wasm"

    @property
    def wstd_server(self) -> Path:
        """The routes of the example `http_server` of the crate wstd."""
        return self.folder / "wstd-server.wasm"

    @property
    def missing_import(self) -> Path:
        """Imports acme:missing/thing."""
        return self.folder / "missing_import.wasm"

    @property
    def no_handler(self) -> Path:
        """Exports no HTTP handler."""
        return self.folder / "no-handler.wasm"


def build_guests() -> Guests:
    """Builds every guest; a second call takes a fraction of a second.

    Raises `GuestBuildError` when cargo is missing or fails.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target_folder = cache / "vedette" / "guests"
    command = ["cargo", "build", "--release", "--locked", "--target", TARGET]
    folders = dict.fromkeys(("CARGO_TARGET_DIR", "CARGO_BUILD_BUILD_DIR"), str(target_folder))
    environment = {**os.environ, **folders}
    try:
        done = subprocess.run(
            command, cwd=WORKSPACE, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise GuestBuildError(
            "cargo is not on the PATH: install Rust from https://rustup.rs"
        ) from None
    if done.returncode != 0:
        raise GuestBuildError(
            f"{' '.join(command)} failed in {WORKSPACE} with exit code {done.returncode}:\n"
            f"{done.stderr[-4000:]}\n"
            f"If the target is missing: rustup target add {TARGET}"
        )
    return Guests(target_folder / TARGET / "release")
