"""Measures what callers notice when one version of a model takes the place of another: failed requests, and their p99.

Owns: two versions of dense layers (13.3 MB), which take turns as fast as `vedette model promote` returns, under load.
Must not: judge, or take a promotion for done that no answer has shown.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import node
from load import Answered, LoadTools, Posted, count_posts, run_posts
from probe import require_served
from processes import BenchError, uninterrupted
from server import Mode, Place

from models import BUSY, DENSE_SHAPE, Example, added, write_dense

_NAME = "swapped"
_SIZE = 13_300_000
_LEAST_SECONDS = 6.0
"""Of load: loading a version takes some of the core that the load is on, and more than one has to fit."""
_LEAD_SECONDS = 0.3
"""Of load before the first promotion and after the last one has begun."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Swapped:
    """One round, 8 callers: the load alone, and beside promotions of which each was seen in an answer."""

    quiet_p99_us: float
    p99_us: float
    requests: int
    failed: int
    swaps: int


def measure_swap(
    place: Place, tools: LoadTools, rounds: int, seconds: float, say: Say
) -> list[Swapped]:
    """So many rounds. Raises BenchError."""
    with uninterrupted():
        running = node.up(place, "https")
    try:
        [token] = running.tokens(1)
        posted = _versions(running, place, token)
        found = []
        turns = itertools.cycle((1, 2))
        for number in range(1, rounds + 1):
            say(f"model-swap: round {number} of {rounds}")
            found.append(_round(running, posted, tools, seconds, turns))
        return found
    finally:
        with uninterrupted():
            running.down()


def _versions(running: node.Node, place: Place, token: str) -> Posted:
    """Both versions, the second serving; each is checked when it first serves."""
    for seed in (1, 2):
        file = place.folder / f"{seed}.onnx"
        write_dense(file, _SIZE, seed)
        posted = added(running, Example(_NAME, file, DENSE_SHAPE), token)
        require_served(posted, _version(seed))
    return posted


def _round(
    running: node.Node, posted: Posted, tools: LoadTools, seconds: float, turns: Iterator[int]
) -> Swapped:
    cores, long = Mode.PINNED.load_cores, max(_LEAST_SECONDS, seconds)
    run_posts(tools, posted, 1, cores, BUSY)
    quiet = run_posts(tools, posted, seconds, cores, BUSY)
    loaded: list[tuple[Answered, int]] = []
    broken: list[BenchError] = []

    def load() -> None:
        try:
            loaded.append(count_posts(tools, posted, long, cores, BUSY))
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
            running.call("POST", f"/v1/models/{_NAME}/promoted", {"version": version})
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
