"""The engine's process: `python -P -m vedette.engine.process`.

Owns: handing the start configuration (ADR 0002: bytes, once) to the native engine on the main thread. Must not: import
anything but the standard library and `_native`; every megabyte here is a megabyte of the idle engine.
"""

import os
import sys

CONFIG_VARIABLE = "VEDETTE_ENGINE_CONFIG"


def main() -> int:
    """Runs the engine until it is told to stop. Exit code 0 after a drain, 1 when it could not start."""
    config = os.environb.pop(CONFIG_VARIABLE.encode(), None)
    if config is None:
        print(
            f"error: {CONFIG_VARIABLE} is not set; the engine is started by `vedette up`",
            file=sys.stderr,
        )
        return 2
    try:
        from vedette.engine import _native
    except ImportError as error:
        print(
            f"error: the native engine is not built: {error}\nmend: run `make engine`",
            file=sys.stderr,
        )
        return 1
    try:
        _native.run(config)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
