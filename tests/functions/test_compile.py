"""The compile process: its answers, its limits, and the real one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.compile import CompileLimits, compile_component

_START = "import os, signal, sys; source, output = sys.argv[-2:]\n"


def _program(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "compiler.py"
    script.write_text(_START + body)
    return [sys.executable, str(script)]


def _refusal(tmp_path: Path, body: str, limits: CompileLimits | None = None) -> ConfigError:
    output = tmp_path / "key" / "x.cwasm"
    with pytest.raises(ConfigError) as caught:
        compile_component(tmp_path / "in.wasm", output, limits, _program(tmp_path, body))
    assert not output.exists()
    return caught.value


def test_the_output_is_made_once(tmp_path: Path) -> None:
    program = _program(tmp_path, "open(output, 'w').write('code')")
    output = tmp_path / "key" / "x.cwasm"
    first = compile_component(tmp_path / "in.wasm", output, program=program)
    assert (first.output, first.cached) == (output, False)
    second = compile_component(tmp_path / "in.wasm", output, program=["/does/not/exist"])
    assert second.cached
    assert output.parent.stat().st_mode & 0o777 == 0o700


def test_the_limits_are_handed_over(tmp_path: Path) -> None:
    program = _program(tmp_path, "open(output, 'w').write(' '.join(sys.argv[1:3]))")
    output = tmp_path / "x.cwasm"
    compile_component(tmp_path / "in.wasm", output, CompileLimits(1_000, 7), program)
    assert output.read_text() == "--memory-bytes=1000 --cpu-seconds=7"


def test_the_reason_of_the_compiler_comes_through(tmp_path: Path) -> None:
    error = _refusal(
        tmp_path,
        """print('noise', file=sys.stderr)
print('{"code":"import_missing","message":"wasi:sockets/tcp"}', file=sys.stderr)
sys.exit(1)""",
    )
    assert (error.code, error.message) == ("import_missing", "wasi:sockets/tcp")
    assert error.hint


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGXCPU)", "compile_limit"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "compile_limit"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "compile_failed"),
        ("sys.exit(3)", "compile_failed"),
        ("print('boom', file=sys.stderr); sys.exit(1)", "compile_failed"),
        ('print(\'{"code":"odd","message":"m"}\', file=sys.stderr); sys.exit(1)', "compile_failed"),
        ("pass", "compile_failed"),
    ],
)
def test_every_other_end_is_told(tmp_path: Path, body: str, code: str) -> None:
    assert _refusal(tmp_path, body).code == code


def test_a_compiler_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    error = _refusal(tmp_path, "import time; time.sleep(60)", CompileLimits(wall_seconds=0.3))
    assert error.code == "compile_limit"


def test_the_real_process_limits_itself(tmp_path: Path) -> None:
    from vedette.engine import _native  # noqa: F401 - the process needs it; a missing build fails here

    (tmp_path / "in.wasm").write_bytes(b"\0asm\x0d\x00\x01\x00")
    with pytest.raises(ConfigError) as caught:
        compile_component(tmp_path / "in.wasm", tmp_path / "out.cwasm")
    assert caught.value.code == "export_missing"
    with pytest.raises(ConfigError) as caught:
        compile_component(
            tmp_path / "in.wasm", tmp_path / "out.cwasm", CompileLimits(memory_bytes=1 << 20)
        )
    assert caught.value.code in ("compile_limit", "compile_failed")


def test_the_real_process_refuses_what_is_no_component(tmp_path: Path) -> None:
    (tmp_path / "in.wasm").write_bytes(b"garbage")
    with pytest.raises(ConfigError) as caught:
        compile_component(tmp_path / "in.wasm", tmp_path / "out.cwasm")
    assert caught.value.code == "not_a_component"
