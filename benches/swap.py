"""Measures what callers notice when one version of a model takes the place of another: failed requests, and their p99.

Owns: two versions of dense layers (13.3 MB), which take turns as fast as `vedette model promote` returns, under load.
Must not: judge, or take a promotion for done that no answer has shown.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from load import Answered, Posted, count_posts, run_posts
from probe import require_served
from processes import BenchError
from server import Mode
from task import Task

from models import BUSY, DENSE_SHAPE, Example, added, write_dense

_NAME = "swapped"
_SIZE = 13_300_000
_LEAST_SECONDS = 6.0
"""Of load: loading a version takes some of the core that the load is on, and more than one has to fit."""
_LEAD_SECONDS = 0.3
"""Of load before the first promotion and after the last one has begun."""


@dataclass(frozen=True)
class Swapped:
    """One round, 8 callers: the load alone, and beside promotions of which each was seen in an answer."""

    quiet_p99_us: float
    p99_us: float
    requests: int
    failed: int
    swaps: int


def measure_swap(task: Task) -> list[Swapped]:
    """So many rounds. Raises BenchError."""
    [token] = task.node.tokens(1)
    posted = _versions(task, token)
    found = []
    turns = itertools.cycle((1, 2))
    for number in range(1, task.rounds + 1):
        task.say(f"model-swap: round {number} of {task.rounds}")
        found.append(_round(task, posted, turns))
    return found


def _versions(task: Task, token: str) -> Posted:
    """Both versions, the second serving; each is checked when it first serves."""
    for seed in (1, 2):
        file = task.folder / f"{seed}.onnx"
        write_dense(file, _SIZE, seed)
        posted = added(task.node, Example(_NAME, file, DENSE_SHAPE), token)
        require_served(posted, _version(seed))
    return posted


def _round(task: Task, posted: Posted, turns: Iterator[int]) -> Swapped:
    cores, long = Mode.PINNED.load_cores, max(_LEAST_SECONDS, task.seconds)
    run_posts(task.tools, posted, 1, cores, BUSY)
    quiet = run_posts(task.tools, posted, task.seconds, cores, BUSY)
    loaded: list[tuple[Answered, int]] = []
    broken: list[BenchError] = []

    def load() -> None:
        try:
            loaded.append(count_posts(task.tools, posted, long, cores, BUSY))
        except BenchError as error:
            broken.append(error)

    asking = threading.Thread(target=load)
    end = time.monotonic() + long - _LEAD_SECONDS
    asking.start()
    time.sleep(_LEAD_SECONDS)
    swaps = 0
    try:
        while time.monotonic() < end:
            version = next(turns)
            task.node.call("POST", f"/v1/models/{_NAME}/promoted", {"version": version})
            require_served(posted, _version(version))
            swaps += time.monotonic() < end + _LEAD_SECONDS
    finally:
        asking.join()
    if broken or not swaps:
        raise broken[0] if broken else BenchError("no promotion was done within the load")
    [(answered, failed)] = loaded
    return Swapped(quiet.p99_us, answered.p99_us, answered.requests, failed, swaps)


def _version(number: int) -> str:
    return f'"model_version":{json.dumps(str(number))}'
