"""Makes probe.wasm of probe.wat: `python -m vedette.verification.probe [--write]`.

Owns: that what ships is what the source says, byte for byte. Must not: run where a node runs; the assembler (PyPI's
`wasmtime`) is there for development only.
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("probe.wat")
COMPONENT = Path(__file__).with_name("probe.wasm")


def assembled() -> bytes:
    """The component that the source is."""
    import importlib

    assembler = importlib.import_module("wasmtime")
    return bytes(assembler.wat2wasm(SOURCE.read_text("utf-8")))


def main() -> int:
    """Writes the component, or says whether it is current. Exit code 1: it is not."""
    if "--write" in sys.argv[1:]:
        COMPONENT.write_bytes(assembled())
        return 0
    if assembled() == COMPONENT.read_bytes():
        return 0
    print("probe.wasm drifted: run `python -m vedette.verification.probe --write`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
