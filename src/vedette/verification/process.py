"""The twin's process: `python -P -m vedette.verification.process FOLDER IDS`.

Owns: the network namespace, the twin in it, and a line of JSON for each check. Must not: outlive who started it.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

from vedette.errors import VedetteError
from vedette.verification import namespaces
from vedette.verification.catalogue import chosen
from vedette.verification.checks import Check, Outcome
from vedette.verification.namespaces import Outlet
from vedette.verification.suite import all_on_twin
from vedette.verification.twin import running

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Runs the checks on a twin. Exit code 0 when it could, 1 when there was no twin."""
    folder, checks = Path(sys.argv[1]), chosen(sys.argv[2])
    signal.signal(signal.SIGTERM, _interrupted)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    outlet, reason = _isolated()
    _tell({"isolated": outlet is not None})
    try:
        with running(folder, outlet=outlet) as twin:
            twin.kept["namespace"] = reason
            for number, (outcome, seconds) in all_on_twin(twin, checks):
                _tell_outcome(number, outcome, seconds)
    except VedetteError as error:
        _tell_all(checks, f"the twin did not start: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _isolated() -> tuple[Outlet | None, str]:
    """The counted way out of a namespace of our own; or None and why not."""
    try:
        namespaces.isolate()
    except (OSError, VedetteError) as error:
        return None, str(error)
    try:
        namespaces.loopback_up()
        return Outlet(), ""
    except Exception as error:  # noqa: BLE001 - netlink has errors of its own; without it the suite goes on
        return None, f"the network namespace cannot be set up: {error}"


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _tell_all(checks: list[Check], why: str) -> None:
    for check in checks:
        _tell_outcome(check.id, Outcome(False, why), 0.0)


def _tell_outcome(number: int, outcome: Outcome, seconds: float) -> None:
    _tell(
        {
            "id": number,
            "passed": outcome.passed,
            "evidence": outcome.evidence,
            "unavailable": outcome.unavailable,
            "seconds": seconds,
        }
    )


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
