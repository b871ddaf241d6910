"""The process that looks at a model: what it is told, what is read of it, and what its end means."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from vedette.errors import VedetteError
from vedette.models import inspection
from vedette.models.inspection import Inspected, InspectionLimits, inspect_model

TENSOR = {"name": "x", "datatype": "FP32", "shape": [0, 3]}
ANSWER = {"inputs": [TENSOR], "outputs": [TENSOR], "loadMillis": 2.5, "runtime": "runtime 1"}
FILE = Path("/models/m.onnx")
LIBRARY = Path("/lib/libruntime.so")


def program(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "inspector.py"
    script.write_text(f"import json, os, signal, sys, time\n{body}\n")
    return [sys.executable, str(script)]


def inspected(tmp_path: Path, body: str, limits: InspectionLimits | None = None) -> Inspected:
    return inspect_model(FILE, "onnx", LIBRARY, limits, program(tmp_path, body))


def refused(tmp_path: Path, body: str, limits: InspectionLimits | None = None) -> VedetteError:
    with pytest.raises(VedetteError) as caught:
        inspected(tmp_path, body, limits)
    return caught.value


def test_what_goes_in_and_comes_out_is_told(tmp_path: Path) -> None:
    found = inspected(tmp_path, f"print({json.dumps(json.dumps(ANSWER))})")
    assert [(each.name, each.datatype, each.shape) for each in found.inputs] == [
        ("x", "FP32", (0, 3))
    ]
    assert (found.load_millis, found.runtime) == (2.5, "runtime 1")


def test_it_is_told_what_to_look_at_and_nothing_else_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEDETTE_SECRET", "s3cret")
    seen = tmp_path / "seen"
    inspected(
        tmp_path,
        f"open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
        f"print({json.dumps(json.dumps(ANSWER))})",
        InspectionLimits(memory_bytes=5, run_millis=6),
    )
    environment: dict[str, Any] = json.loads(seen.read_text())
    assert json.loads(environment.pop("VEDETTE_MODEL")) == {
        "file": "/models/m.onnx",
        "format": "onnx",
        "library": "/lib/libruntime.so",
        "memoryBytes": 5,
        "runMillis": 6,
    }
    assert environment["HOME"] == "/nonexistent"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    rest = set(environment) - {"PATH", "LANG", "TZ", "TMPDIR", "HOME", "ORT_DISABLE_TELEMETRY"}
    assert rest <= {"LC_CTYPE"}, "Python itself sets that one"


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ({"code": "model_reaches_outside", "message": "data in w"}, "model_reaches_outside", "data in w"),
        ({"code": "model_reaches_out", "message": "w"}, "model_reaches_outside", "w"),
        ({"code": "runtime_too_old", "message": "1.20"}, "runtime_invalid", "1.20"),
        ({"code": "confinement_refused", "message": "no"}, "inspection_failed", "no"),
        ({"code": "no_such_code", "message": "odd"}, "model_invalid", "odd"),
        ("odd", "model_invalid", "the runtime refused it"),
    ],
)  # fmt: skip
def test_its_reason_comes_through(tmp_path: Path, said: Any, code: str, message: str) -> None:
    body = json.dumps(json.dumps({"error": said}))
    error = refused(tmp_path, f"print({body}); sys.exit(1)")
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "model_invalid", "signal 9"),
        ("sys.exit(3)", "inspection_failed", "status 3"),
        ("print('[]')", "inspection_failed", "no answer"),
        ("print('{}')", "model_invalid", "inputs is missing"),
        ("print('nonsense')", "inspection_failed", "status 0"),
    ],
)
def test_an_end_without_an_answer_is_told(
    tmp_path: Path, body: str, code: str, message: str
) -> None:
    error = refused(tmp_path, body)
    assert error.code == code
    assert message in error.message


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    # Long enough to start, on a busy machine too; what is waited for is only the end of it.
    error = refused(tmp_path, body, InspectionLimits(wall_seconds=5.0))
    assert (error.code, "more than 5 s" in error.message) == ("model_invalid", True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_one_that_says_without_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "_MOST_SAID", 100_000)
    error = refused(tmp_path, "while True: sys.stdout.write('x' * 65536)")
    assert (error.code, "too much" in error.message) == ("inspection_failed", True)
