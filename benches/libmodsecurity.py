"""What judging costs in libmodsecurity: `python benches/libmodsecurity.py RULES… < REQUESTS`.

Owns the timed loop, in a process of its own. Each request is made into the library's arguments before
the clock runs; what the calls through ctypes cost is in the figure (README.md says how much).
"""

from __future__ import annotations

import base64
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from ctypes import CDLL, byref, c_char_p, c_size_t, c_void_p
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.waf.modsecurity import Intervention, load

ROUNDS = 15
ROUND_SECONDS = 0.15
SCORES_RULE = b'[id "949110"]'


@dataclass(frozen=True)
class Prepared:
    """A request as the library takes it."""

    target: bytes
    method: bytes
    headers: tuple[tuple[bytes, c_size_t, bytes, c_size_t], ...]
    body: bytes


def prepare(line: str) -> tuple[str, Prepared]:
    """The kind of a request, and the request."""
    said = json.loads(line)
    pairs = ((name.encode(), value.encode()) for name, value in said["headers"])
    headers = tuple((n, c_size_t(len(n)), v, c_size_t(len(v))) for n, v in pairs)
    body = base64.b64decode(said["body"])
    return said["name"], Prepared(said["target"].encode(), said["method"].encode(), headers, body)


class Judge:
    """One set of rules."""

    def __init__(self, files: Sequence[str]) -> None:
        self._library: CDLL = load()
        self._engine = c_void_p(self._library.msc_init())
        self._rules = c_void_p(self._library.msc_create_rules_set())
        for file in files:
            error = c_char_p()
            if self._library.msc_rules_add_file(self._rules, file.encode(), byref(error)) < 0:
                raise ValueError(f"{file}: {(error.value or b'').decode(errors='replace')}")

    def judge(self, request: Prepared) -> None:
        """All phases of a request.

        Stopped by the sum of the scores, it has been through all rules; stopped by another it would be measured
        short, and ValueError is raised.
        """
        library = self._library
        transaction = c_void_p(library.msc_new_transaction(self._engine, self._rules, None))
        library.msc_process_connection(transaction, b"192.0.2.1", 40000, b"192.0.2.2", 443)
        library.msc_process_uri(transaction, request.target, request.method, b"1.1")
        for header in request.headers:
            library.msc_add_n_request_header(transaction, *header)
        library.msc_process_request_headers(transaction)
        if request.body:
            length = c_size_t(len(request.body))
            library.msc_append_request_body(transaction, request.body, length)
        library.msc_process_request_body(transaction)
        found = Intervention(status=200)
        refused = library.msc_intervention(transaction, byref(found))
        library.msc_process_logging(transaction)
        library.msc_transaction_cleanup(transaction)
        if refused and SCORES_RULE not in (found.log or b""):
            raise ValueError(f"an honest request was refused: {found.log!r}")


def median(judge: Callable[[Prepared], None], variants: Sequence[Prepared]) -> float:
    """The median of the rounds' means, in microseconds of this process's CPU."""
    turn, means = cycle(variants), []
    for _ in range(ROUNDS):
        began, cpu, runs = time.monotonic(), _cpu_seconds(), 0
        while not runs or time.monotonic() - began < ROUND_SECONDS:
            judge(next(turn))
            runs += 1
        means.append((_cpu_seconds() - cpu) / runs * 1e6)
    return statistics.median(means)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def version() -> str:
    """The library's own word."""
    library = load()
    library.msc_who_am_i.restype = c_char_p
    said: bytes = library.msc_who_am_i(c_void_p(library.msc_init()))
    return said.decode().split()[1].removeprefix("v")


def main() -> int:
    """Print one line a kind of request: its name, and microseconds."""
    if sys.argv[1:] == ["--version"]:
        print(version())
        return 0
    engine = Judge(sys.argv[1:])
    kinds: dict[str, list[Any]] = {}
    for name, prepared in map(prepare, sys.stdin):
        kinds.setdefault(name, []).append(prepared)
    for name, variants in kinds.items():
        print(f"{name}\t{median(engine.judge, variants):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
