"""Looks at a model before it is taken in: `python -P -m vedette.models.inspect`, one JSON line on standard output.

Owns: a process for it, which is in the box of a worker and ends with the look. Must not: import anything but the
standard library and `_native`.
"""

import json
import sys

from vedette.models.worker import CONFIG_VARIABLE, configuration, silence


def main() -> int:
    """Prints what the model takes and gives, or why it is refused. Exit code 0 in both cases."""
    config = configuration()
    if config is None:
        print(f"error: {CONFIG_VARIABLE} is not set", file=sys.stderr)
        return 2
    silence()
    try:
        from vedette.engine import _native
    except ImportError as error:
        refusal = {"code": "runtime_missing", "message": f"the native engine is not built: {error}"}
        print(json.dumps({"error": refusal}))
        return 0
    print(_native.inspect_model(config), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
