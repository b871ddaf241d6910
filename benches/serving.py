"""Measures what a node that serves models is for: media, streams, many of them, new versions.

Owns: the order of these parts, and what is said of one that failed.
Must not: measure; the part's own module does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Set

from detector import measure_detector
from media import measure_media
from model_density import measure_density
from processes import BenchError
from results import Results
from rounds import Setting
from server import Mode, Place
from swap import measure_swap

Say = Callable[[str], None]


def measure_serving(parts: Set[str], setting: Setting, results: Results, say: Say) -> None:
    """Those of the parts that are of models, into results, each on a node of its own."""
    tools, rounds, seconds = setting.load, setting.rounds, setting.seconds

    def media(place: Place) -> None:
        results.media = measure_media(place, tools, rounds, seconds, say)

    def stream(place: Place) -> None:
        results.scored = measure_detector(place, tools, rounds, seconds, say)

    def crowd(place: Place) -> None:
        results.crowd = measure_density(place, tools, rounds, seconds, say)

    def swap(place: Place) -> None:
        results.swapped = measure_swap(place, tools, rounds, seconds, say)

    ways = {"media": media, "stream": stream, "density": crowd, "swap": swap}
    for name, measure in ways.items():
        part = f"model-{name}"
        if part in parts:
            try:
                measure(setting.place(Mode.PINNED, part))
            except (BenchError, OSError, subprocess.SubprocessError) as error:
                results.missing[f"vedette: {part}"] = str(error)
