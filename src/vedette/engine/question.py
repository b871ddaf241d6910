"""A process that asks the engine's own code one question and ends: `python -P -m vedette.engine.question NAME FOLDER`.

Owns: the way there and back. The question comes on standard input and the answer goes to standard
output; a refusal does, too, with status 1. Compiling a snapshot takes tens of megabytes that an
allocator does not give back: they go with the process. Must not: import more than it needs, or know
what is asked.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Final

from vedette.errors import UnavailableError

PROGRAM: Final = (sys.executable, "-P", "-m", "vedette.engine.question")
MAX_SECONDS: Final = 500.0
_REFUSED: Final = 1
_LAST_WORDS: Final = 500


class Apart:
    """The questions about a whole snapshot, each asked in a process of its own."""

    def check_snapshot(self, envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes:
        """As `_native.check_snapshot`. Raises `ValueError`, `UnavailableError` question_failed."""
        question = {"envelope": envelope.decode(), "publicKey": public_key_pem.decode()}
        return _ask("check_snapshot", engine_dir, json.dumps(question).encode())

    def analyse_rules(self, rules: bytes) -> bytes:
        """As `_native.analyse_rules`. Raises as `check_snapshot`."""
        return _ask("analyse_rules", "", rules)

    def explain(self, query: bytes, engine_dir: str) -> bytes:
        """As `_native.explain`. Raises as `check_snapshot`."""
        return _ask("explain", engine_dir, query)

    def judge(self, query: bytes, engine_dir: str) -> bytes:
        """As `_native.judge`. Raises as `check_snapshot`."""
        return _ask("judge", engine_dir, query)


def _ask(name: str, engine_dir: str, question: bytes) -> bytes:
    try:
        done = subprocess.run(
            [*PROGRAM, name, engine_dir],
            input=question,
            capture_output=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            "question_failed", f"{name}: no answer within {MAX_SECONDS:g} s"
        ) from None
    if done.returncode == _REFUSED and done.stdout:
        raise ValueError(done.stdout.decode(errors="replace"))
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()[-_LAST_WORDS:]
        message = f"{name} ended with status {done.returncode}: {words or 'no message'}"
        raise UnavailableError("question_failed", message)
    return done.stdout


def main() -> int:
    """Asks, and returns the exit status: 0, or 1 for a refusal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a request may be in memory
    name, engine_dir = sys.argv[1:]
    question = sys.stdin.buffer.read()
    from vedette.engine import _native

    try:
        if name == "check_snapshot":
            asked = json.loads(question)
            envelope, key = asked["envelope"].encode(), asked["publicKey"].encode()
            answer = _native.check_snapshot(envelope, key, engine_dir)
        elif name == "analyse_rules":
            answer = _native.analyse_rules(question)
        else:
            ask = {"explain": _native.explain, "judge": _native.judge}[name]
            answer = ask(question, engine_dir)
    except ValueError as error:
        answer, status = str(error).encode(), _REFUSED
    else:
        status = 0
    sys.stdout.buffer.write(answer)
    return status


if __name__ == "__main__":
    sys.exit(main())
