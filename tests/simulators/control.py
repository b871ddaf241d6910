"""The real control process, with simulated native functions: for tests of a whole node without a built engine."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock


def main() -> int:
    """Runs as the control process would."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.simulators import inspection, native

    from vedette.control import activate, models, process

    assert activate.Activator.__init__.__defaults__ == (activate.compile_component, None)
    activate.Activator.__init__.__defaults__ = (native.compile_to, native.NativeSimulator())
    assert models.Models.__init__.__defaults__ == (models.inspect_apart,)
    models.Models.__init__.__defaults__ = (inspection.inspect,)
    with mock.patch.object(process, "load_native", native.NativeSimulator):
        return process.main()


if __name__ == "__main__":
    sys.exit(main())
