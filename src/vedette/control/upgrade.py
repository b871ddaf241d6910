"""Asking the supervisor for an upgrade, and following it to its end.

Owns: what `vedette upgrade` does around the supervisor's part (`supervisor.upgrade`): machine code for the new engine
before it starts, the request, and whether both processes answer afterwards. Must not: start or end a process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vedette import processes
from vedette.config.snapshot import Snapshot
from vedette.control.supervisor import launch
from vedette.control.supervisor.upgrade import UpgradeState, read_upgrade
from vedette.engine.client import EngineClient
from vedette.engine.native import load_native
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.functions.compile import compile_component
from vedette.store.activation import read_active
from vedette.store.blobs import BlobStore
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore

PATIENCE = 120.0

_STEPS = {
    "": "The supervisor takes it up",
    "ready": "The new engine gets ready",
    "drained": "The old engine finishes its requests",
    "control": "Control is started again",
}


@dataclass(frozen=True, slots=True)
class Upgraded:
    """How the node was before and is now; versions are the engine's, null when it was not running."""

    version_before: str | None
    version: str | None
    engine_before: int | None
    engine: int | None
    control_before: int | None
    control: int | None


def upgrade(
    home: Home, *, engine: bool, on_step: Callable[[str], None], patience: float = PATIENCE
) -> Upgraded:
    """Replaces engine (if asked to) and control by what is installed now.

    Raises `ConfigError` installation_differs, `UnavailableError` node_not_running, upgrade_running, upgrade_failed (the
    engine that was there goes on serving, unless the error says otherwise).
    """
    launch.read_node_state(home)
    supervisor = _supervisor(home)
    version_before = _engine_version(home)
    if engine:
        on_step("Compiling what the new engine needs")
        compile_active(home)
    state = UpgradeState(id=secrets.token_hex(8), engine=engine)
    state.write(home.upgrade_file)
    with contextlib.suppress(ProcessLookupError):  # a new one finds the request
        os.kill(supervisor, signal.SIGUSR1)
    ended = _follow(home, state.id, on_step, patience)
    if ended.state == "failed":
        raise UnavailableError("upgrade_failed", f"the upgrade failed: {ended.reason}")
    launch.wait_until_ready(home)
    now = launch.read_node_state(home)
    return Upgraded(
        version_before=version_before,
        version=_engine_version(home),
        engine_before=ended.old_engine,
        engine=now.engine.pid,
        control_before=ended.old_control,
        control=now.control.pid,
    )


def _supervisor(home: Home) -> int:
    """The pid to ask. Raises when the node runs from another installation, or when it is being upgraded."""
    found = processes.find(home.root, "supervisor")
    if not found:
        raise UnavailableError("upgrade_failed", "the supervisor is being restarted")
    command = Path(f"/proc/{found[0].pid}/cmdline").read_bytes().split(b"\0")
    theirs = Path(os.fsdecode(command[0]))
    if theirs != Path(sys.executable):
        raise ConfigError(
            "installation_differs", f"the node runs from {theirs}, this is {sys.executable}"
        )
    running = read_upgrade(home.upgrade_file)
    if running is not None and running.state == "running":
        raise UnavailableError("upgrade_running", "the node is being upgraded already")
    return found[0].pid


def compile_active(home: Home) -> None:
    """Makes the machine code that the installed engine needs to serve the active snapshot.

    Control makes it for the engine that is installed when control starts, which is the old one. Raises `ConfigError`
    compile_failed and the like, `TrustError` for an envelope that cannot be read.
    """
    active = read_active(home)
    if active is None:
        raise UnavailableError("upgrade_failed", f"{home.active_file} cannot be read")
    envelope = json.loads(SnapshotStore(home.snapshots).get(active.digest))
    snapshot = Snapshot.parse(base64.b64decode(envelope["payload"]))
    key = load_native().engine_key()
    for function in snapshot.functions:
        component = BlobStore(home.blobs).path(function.component)
        compile_component(component, home.compiled_file(key, function.component))


def _follow(
    home: Home, identity: str, on_step: Callable[[str], None], patience: float
) -> UpgradeState:
    deadline = time.monotonic() + patience
    said = None
    while time.monotonic() < deadline:
        state = read_upgrade(home.upgrade_file)
        if state is None or state.id != identity:
            raise UnavailableError("upgrade_running", "another upgrade was asked for meanwhile")
        if state.state in ("done", "failed"):
            return state
        if state.step != said:
            said = state.step
            on_step(_STEPS.get(said, said))
        time.sleep(0.02)
    raise UnavailableError(
        "upgrade_failed", f"not done within {patience:.0f} s ({said or 'asked'})"
    )


def _engine_version(home: Home) -> str | None:
    with contextlib.suppress(VedetteError):
        return EngineClient(home.engine_socket, timeout=2.0).status()["version"]
    return None
