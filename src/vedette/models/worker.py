"""A model's process: `python -P -m vedette.models.worker` (docs/adr/0050-a-process-for-each-model.md).

Owns: handing the start configuration to the native worker on the only thread. Must not: import anything but the
standard library and `_native`; every megabyte here is one of every model.
"""

import os
import sys

CONFIG_VARIABLE = "VEDETTE_MODEL"


def configuration() -> str | None:
    """What this process was started with; it is told nobody who comes after."""
    return os.environ.pop(CONFIG_VARIABLE, None)


def silence() -> None:
    """The library of the runtime sends telemetry unless it is told not to before it is loaded."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def main() -> int:
    """Serves a model until it is told to stop. Exit code 0 after a drain, 1 when it could not start, 75 when a run did
    not end.
    """
    config = configuration()
    if config is None:
        print(
            f"error: {CONFIG_VARIABLE} is not set; models are started by `vedette up`",
            file=sys.stderr,
        )
        return 2
    silence()
    try:
        from vedette.engine import _native
    except ImportError as error:
        print(
            f"error: the native engine is not built: {error}\nmend: run `make engine`",
            file=sys.stderr,
        )
        return 1
    try:
        _native.run_model(config)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
