"""Both engines behind one interface: rule files in, an exchange in, a verdict out.

Each engine is a child process that reads an exchange a line and writes a verdict a line: ours is the example `judge` of
`crates/waf`, the other libmodsecurity (`modsecurity.py`). A child that dies has said nothing of that exchange, which is
a verdict too, and the next one is started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waf import configuration
from tests.waf.exchange import Exchange
from tests.waf.modsecurity import load

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^(?=Sec)", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What an engine says of one exchange."""

    matched: tuple[dict[str, Any], ...] = ()
    interruption: dict[str, Any] | None = None
    died: bool = False

    @property
    def ids(self) -> set[int]:
        """The rules in the log."""
        return {each["id"] for each in self.matched} - {configuration.SCORES_RULE}

    @property
    def is_blocked(self) -> bool:
        """Whether the engine would have stopped the exchange."""
        return self.interruption is not None

    @property
    def scores(self) -> str:
        """The anomaly scores at the end."""
        says = (each["message"] for each in self.matched if each["id"] == configuration.SCORES_RULE)
        return next(says, "").removeprefix(configuration.SCORES_MARK)

    @property
    def log(self) -> str:
        """The log as an expectation's pattern is matched against it (ModSecurity's form)."""
        return "\n".join(
            f'[id "{each["id"]}"] [msg "{each["message"]}"] [data "{each.get("data", "")}"] '
            f"against variable `{each['variable']}'"
            for each in self.matched
        )


class Engine:
    """A child process that judges."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._command = [*map(str, command)]
        self._child = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def judge(self, exchange: Exchange) -> Verdict:
        """Ask for the verdict on one exchange."""
        assert self._child.stdin
        assert self._child.stdout
        try:
            self._child.stdin.write(exchange.line() + "\n")
            self._child.stdin.flush()
            said = self._child.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            return self._died()
        answer = json.loads(said)
        if error := answer.get("error"):
            raise RuntimeError(f"{self._command[0]} cannot read an exchange: {error}")
        logged = (each for each in answer["matched"] if each.get("logged", True))
        return Verdict(tuple(logged), answer.get("interruption"))

    def _died(self) -> Verdict:
        code = self._child.wait(timeout=60)
        if (
            code > 0
        ):  # it refused its rules, or ended by an error of its own: starting again would not help
            raise RuntimeError(f"{self._command[0]} ended with {code}; it says why above")
        self._child = self._start()
        return Verdict(died=True)

    def close(self) -> None:
        """End the child."""
        if self._child.stdin:
            self._child.stdin.close()
        self._child.wait(timeout=60)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ours(files: Sequence[Path]) -> Engine:
    """The engine of `crates/waf`."""
    return Engine([built_example("judge"), *files])


def built_example(name: str) -> Path:
    """An example of `crates/waf`. `cargo test --workspace`, which `make test` runs first, builds it."""
    target = os.environ.get("CARGO_TARGET_DIR")
    if not target:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        target = str(Path(cache).expanduser() / "vedette/target")
    program = Path(target) / "release/examples" / name
    if not program.exists():
        command = f"cargo build --release --locked --workspace --example {name}"
        raise FileNotFoundError(f"{program} does not exist: run `{command}`")
    return program


def has_oracle() -> bool:
    """Whether libmodsecurity is installed."""
    try:
        load()
    except OSError:
        return False
    return True


def oracle(files: Sequence[Path], folder: Path) -> Engine:
    """libmodsecurity 3, with the rule files as it can read them, copied into `folder`."""
    program = Path(__file__).with_name("modsecurity.py")
    return Engine([sys.executable, program, *(_readable(file, folder) for file in files)])


def _readable(file: Path, folder: Path) -> Path:
    """libmodsecurity 3.0.9 does not take a rule without actions when another directive is on the next line."""
    folder.mkdir(exist_ok=True)
    for data in file.parent.glob("*.data"):
        if not (folder / data.name).exists():
            shutil.copy(data, folder)
    copy = folder / file.name
    copy.write_text(DIRECTIVE.sub("\n", file.read_text()))
    return copy
