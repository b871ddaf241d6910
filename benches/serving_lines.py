"""The lines of RESULTS.md about models that are asked with media and events, many of them, and new versions.

Owns: their words and form. Must not: judge, or know a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from measure import Spread, spread
from media import EMBEDDING, KINDS, PICODET, RESNET, SQUEEZENET
from results import Results

Line = tuple[str, tuple[str, ...]]
_MEDIA = {
    SQUEEZENET: "SqueezeNet's graph, a JPEG of 640 x 427",
    RESNET: "ResNet-50's graph, a JPEG of 640 x 427",
    PICODET: "PicoDet, a JPEG of a page",
    EMBEDDING: "MiniLM as INT8, a text of 128 tokens",
    KINDS: "MiniLM as INT8 with a head, a text of 128 tokens",
}


def part_lines(results: Results) -> list[Line]:
    """A line for each figure; nothing of what was not measured."""
    return [
        *_media_lines(results),
        *_stream_lines(results),
        *_crowd_lines(results),
        *_swap_lines(results),
    ]


def _media_lines(results: Results) -> list[Line]:
    found: list[Line] = []
    for name, title in _MEDIA.items():
        rounds = [each for each in results.media if each.model == name]
        if rounds:
            figures = {
                "tensors, called in process (Python, one thread): p50": [
                    each.bare_p50_us for each in rounds
                ],
                "called in process: p99": [each.bare_p99_us for each in rounds],
                "through this node, every stage on, TLS: p50": [
                    each.node_p50_us for each in rounds
                ],
                "through this node: p99": [each.node_p99_us for each in rounds],
            }
            found += [
                (f"{title}, {text}", (_milliseconds(values),)) for text, values in figures.items()
            ]
    return found


def _stream_lines(results: Results) -> list[Line]:
    rounds = results.scored
    if not rounds:
        return []
    return [
        (
            "events of one stream, all of the node on one core",
            (_cell([each.per_second for each in rounds], "/s"),),
        ),
        (
            "an event of such a stream, CPU of all the node's processes",
            (_cell([each.cpu_us for each in rounds], "µs", 1),),
        ),
        (
            "an event sent alone, until its score is at the client: p50",
            (_cell([each.one_p50_us for each in rounds], "µs"),),
        ),
        (
            "the same: p99",
            (_cell([each.one_p99_us for each in rounds], "µs"),),
        ),
    ]


def _crowd_lines(results: Results) -> list[Line]:
    crowd = results.crowd
    if crowd is None:
        return []
    others = crowd.models - crowd.hot
    each = (crowd.full_pss - crowd.hot_pss) / others * 1024 / 1e6
    hot = f"{crowd.hot} models of {crowd.hot_bytes / 1e6:,.0f} MB together, each asked"
    full = f"{crowd.models} of {crowd.bytes / 1e6:,.0f} MB registered, {crowd.hot} asked"
    before, after = crowd.before, crowd.after
    return [
        ("a node without models: PSS of all its processes", (_megabytes(crowd.empty_pss),)),
        (f"{hot}: PSS", (_megabytes(crowd.hot_pss),)),
        (f"{full}, {others} idle: PSS", (_megabytes(crowd.full_pss),)),
        ("a model that is registered and idle: PSS", (f"{each:.2f} MB",)),
        ("the hot models in turn, before: p50", (_milliseconds([one.p50_us for one in before]),)),
        ("before: p99", (_milliseconds([one.p99_us for one in before]),)),
        ("with the idle ones registered: p50", (_milliseconds([one.p50_us for one in after]),)),
        ("with the idle ones registered: p99", (_milliseconds([one.p99_us for one in after]),)),
    ]


def _swap_lines(results: Results) -> list[Line]:
    rounds = results.swapped
    if not rounds:
        return []
    swaps, asked = sum(each.swaps for each in rounds), sum(each.requests for each in rounds)
    failed = sum(each.failed for each in rounds)
    return [
        (
            "dense layers of 13.3 MB, 8 callers, versions that take each other's place",
            (f"{swaps:,} times, {asked:,} requests, {failed:,} failed",),
        ),
        (
            "the same callers, one version: p99",
            (_milliseconds([it.quiet_p99_us for it in rounds]),),
        ),
        ("beside the new versions: p99", (_milliseconds([it.p99_us for it in rounds]),)),
    ]


def _milliseconds(micros: Sequence[float]) -> str:
    return _cell([value / 1e3 for value in micros], "ms", 1)


def _cell(values: Sequence[float], unit: str, places: int = 0) -> str:
    over: Spread = spread(values)
    median, least, most = (f"{it:,.{places}f}" for it in (over.median, over.least, over.most))
    return f"{median} [{least} to {most}] {unit}"


def _megabytes(kib: int) -> str:
    return f"{kib * 1024 / 1e6:,.0f} MB"
