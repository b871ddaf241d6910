"""`vedette deploy --watch`: build and deploy again on each save.

Owns: the cycle and its one line. Must not: build or deploy in another way than `deploy` does, other
than quickly.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn

from vedette.cli.deploying import DeployOptions, deploy_project, has_recipe, say_changes
from vedette.cli.render import print_error, say
from vedette.control.client import ControlClient
from vedette.errors import VedetteError
from vedette.functions.project import locate
from vedette.functions.sources import State, state_of, wait_for_change


def watch_path(client: ControlClient, path: Path, options: DeployOptions) -> NoReturn:
    """Deploys `path`, then again after each change of its sources, until Ctrl-C.

    An error is told and waited out: the next save may mend it. Raises `VedetteError` when `path` is
    nothing that could be deployed.
    """
    locate(path)
    root = path.parent if path.is_file() and path.suffix in {".yaml", ".yml"} else path
    while True:
        state = state_of(root)  # taken before the build: what is saved meanwhile counts
        _cycle(client, path, options)
        known = _with_what_builds_write(root, state, path)
        say(f"changed: {_changes(root, known, wait_for_change(root, known))}")


def _cycle(client: ControlClient, path: Path, options: DeployOptions) -> None:
    try:
        project = locate(path)
        done = deploy_project(client, project, options, builds=has_recipe(project), quick=True)
    except VedetteError as error:
        print_error(error)
        say("Waiting for a change")
        return
    say(
        f"{time.strftime('%H:%M:%S')} deployed {done.name} (generation {done.answer['generation']}): "
        f"build {done.built:.2f} s, deploy {done.deployed:.2f} s, {done.answer['url']}"
    )
    say_changes(done.answer)


def _with_what_builds_write(root: Path, state: State, path: Path) -> State:
    """`state`, with what a build wrote as it is now, or each build would cause the next one.

    The usual builds write lock files among the sources; a command of the project's own may write
    anything, so what is saved during such a build waits for the next save.
    """
    now = state_of(root)
    if _has_command(path):
        return now
    locks = {one for one in now if one.name in {"Cargo.lock", "package-lock.json"}}
    return {**state, **{lock: now[lock] for lock in locks}}


def _has_command(path: Path) -> bool:
    try:
        manifest = locate(path).manifest
    except VedetteError:
        return False
    return manifest is not None and manifest.spec.build.command is not None


def _changes(root: Path, before: State, after: State) -> str:
    paths = sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    names = [str(path.relative_to(root)) if path != root else path.name for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
