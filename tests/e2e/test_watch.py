"""`vedette deploy --watch`: a save is deployed, an error is waited out, Ctrl-C ends it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import PROGRAM, Node, vedette, wait_until
from tests.e2e.wire import HTTP_2


class Watch:
    """`deploy --watch` of one project, and the lines it has said so far."""

    def __init__(self, node: Node, project: Path) -> None:
        command = [str(PROGRAM), "deploy", "--watch", str(project), "--home", str(node.home)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def count(self, word: str) -> int:
        """How many lines hold `word`."""
        return sum(word in line for line in self.lines)

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(5)
        return code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new Rust project."""
    vedette("new", "watched", "--lang", "rust", "--in", str(tmp_path))
    return tmp_path / "watched"


@pytest.fixture
def watch(node: Node, project: Path) -> Iterator[Watch]:
    """A watch whose first deployment is done; the first build compiles every crate."""
    watch = Watch(node, project)
    try:
        wait_until("the first deployment", lambda: watch.count(" deployed watched"), 480)
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.end()


def test_a_save_is_deployed_and_an_error_is_waited_out(
    node: Node, project: Path, watch: Watch
) -> None:
    source = project / "src" / "greeting.rs"
    text = source.read_text("utf-8")
    caller = Caller(node, HTTP_2)
    assert caller.ask("/watched").body == b"Hello, tester!\n"
    source.write_text(text.replace("{greeting}, {subject}!", "{greeting} again, {subject}!"))
    saved = time.monotonic()
    wait_until("the new answer", lambda: caller.ask("/watched").body == b"Hello again, tester!\n")
    print(f"save to first new answer: {time.monotonic() - saved:.2f} s")
    source.write_text("this is no Rust")
    wait_until("the error is told", lambda: watch.count("Waiting for a change"))
    assert caller.ask("/watched").body == b"Hello again, tester!\n"
    source.write_text(text)
    wait_until("it is mended", lambda: caller.ask("/watched").body == b"Hello, tester!\n")
    caller.close()
    wait_until("the line of the last cycle", lambda: watch.count(" deployed watched") == 3)
    assert watch.end() == 130
    assert watch.lines[-1] == "Stopped watching; what is deployed stays"
    assert watch.count("Traceback") == 0
    cycle = next(line for line in watch.lines if " deployed watched" in line)
    assert ": build " in cycle
    assert ", deploy " in cycle
