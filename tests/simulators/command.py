"""The command `vedette` whose nodes have a simulated engine, native functions and workers of models."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Runs the command line it was started with."""
    from vedette.cli.main import main as vedette
    from vedette.control.supervisor import launch

    worker = json.dumps([sys.executable, str(HERE / "model_worker.py")])
    keeper = [sys.executable, "-P", "-m", "vedette.models.keeper", "--worker-command", worker]
    simulated = functools.partial(
        launch.LaunchOptions,
        engine_command=[sys.executable, "-P", str(HERE / "engine.py")],
        control_command=[sys.executable, str(HERE / "control.py")],
        models_command=[*keeper, "--library", "/no/library"],
    )
    with mock.patch.object(launch, "LaunchOptions", simulated):
        return vedette()


if __name__ == "__main__":
    sys.exit(main())
