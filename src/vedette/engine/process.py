"""The engine's process: `python -P -m vedette.engine.process`.

Owns: handing the start configuration (ADR 0002: bytes, once) to the native engine on the main thread. Must not: import
anything but the standard library and `_native`; every megabyte here is a megabyte of the idle engine.
"""

import os
import sys
from typing import Protocol

CONFIG_VARIABLE = "VEDETTE_ENGINE_CONFIG"


class _Native(Protocol):
    def engine_key(self) -> str: ...


def _engine_key(native: _Native) -> str:
    """What compiled code depends on, asked in a child: it takes a compiler, and its megabytes go with the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, native.engine_key().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        key = answer.read().decode()
    os.waitpid(child, 0)
    if not key:
        raise RuntimeError("the settings of the compiler cannot be read")
    return key


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
        _native.run(config, _engine_key(_native))
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
