"""Measures what a node that serves models is for: media, streams, many of them, new versions.

Owns: the order of these parts, the node of each, what others used of the cores meanwhile, why one is missing.
Must not: measure; the part's own module does.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

import node
from detector import measure_detector
from media import measure_media
from model_density import measure_density
from processes import BenchError, cpu_seconds, machine_busy_seconds, uninterrupted
from results import Results
from rounds import Setting
from server import Mode
from swap import measure_swap
from task import Task

Say = Callable[[str], None]


def measure_serving(parts: Set[str], setting: Setting, results: Results, say: Say) -> None:
    """Those of the parts that are of models, into results, each on a node of its own."""

    def media(task: Task) -> None:
        results.media = measure_media(task)

    def stream(task: Task) -> None:
        results.scored = measure_detector(task)

    def crowd(task: Task) -> None:
        results.crowd = measure_density(task)

    def swap(task: Task) -> None:
        results.swapped = measure_swap(task)

    ways = {"media": media, "stream": stream, "density": crowd, "swap": swap}
    for name, measure in ways.items():
        part = f"model-{name}"
        if part in parts:
            try:
                with _task(part, setting, results, say) as task:
                    measure(task)
            except (BenchError, OSError, subprocess.SubprocessError) as error:
                results.missing[f"vedette: {part}"] = str(error)


@contextmanager
def _task(part: str, setting: Setting, results: Results, say: Say) -> Iterator[Task]:
    """A bare node on the server's core for one part; the CPU of all but it and us goes into the results."""
    place = setting.place(Mode.PINNED, part)
    began, machine, ours = time.monotonic(), machine_busy_seconds(), _our_seconds()
    with uninterrupted():
        running = node.up(place, "https")
    try:
        yield Task(running, place.folder, setting.load, setting.rounds, setting.seconds, say)
        spent = cpu_seconds([running.first()]) + _our_seconds() - ours
        others = machine_busy_seconds() - machine - spent
        results.serving_noise.append(max(0.0, others) / (time.monotonic() - began))
    finally:
        with uninterrupted():
            running.down()


def _our_seconds() -> float:
    """CPU of this process and of the children that have ended."""
    return sum(os.times()[:4])
