"""The command `vedette` whose nodes have a simulated engine and simulated native functions."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Runs the command line it was started with."""
    from vedette.cli.main import main as vedette
    from vedette.control.supervisor import launch

    simulated = functools.partial(
        launch.LaunchOptions,
        engine_command=[sys.executable, "-P", str(HERE / "engine.py")],
        control_command=[sys.executable, str(HERE / "control.py")],
    )
    with mock.patch.object(launch, "LaunchOptions", simulated):
        return vedette()


if __name__ == "__main__":
    sys.exit(main())
