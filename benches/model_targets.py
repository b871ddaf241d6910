"""Holds the targets of models: limits and goals of the issue about models.

Owns: the limits; one changes here and nowhere else.
Must not: measure, judge, or soften a limit.
"""

from __future__ import annotations

from detector import Scored
from figures import Figure, answering, crowd_p99, modelled, scored, swapped
from media import EMBEDDING, KINDS, PICODET, RESNET, SQUEEZENET
from target import P99_UNMOVED, Target, at_least, at_most

from models import DENSE, ORIENTATION, ROWS, Modelled


def _against_peer(one: Modelled) -> float | None:
    return one.peer_per_second and one.node_per_second / one.peer_per_second


def _answer(name: str, text: str, limit: float, figure: Figure) -> Target:
    return at_most(name, text, "ms", limit, None, figure)


def _event(name: str, text: str, figure: Figure) -> Target:
    return at_most(name, text, "µs", 50.0, None, figure)


def _p50_ms(name: str) -> Figure:
    return answering(name, lambda one: one.node_p50_us / 1e3)


def _p99_ms(name: str) -> Figure:
    return answering(name, lambda one: one.node_p99_us / 1e3)


def _cpu(one: Scored) -> float:
    return one.cpu_us


def _one_by_one(one: Scored) -> float:
    return one.one_p50_us


MODEL_TARGETS = (
    at_most(
        "model-added",
        "what the whole path adds to a run of a model, concurrency 1, 256 bytes in, p50",
        "µs",
        100.0,
        None,
        modelled(DENSE, lambda one: one.node_p50_us - one.bare_p50_us),
    ),
    at_most(
        "model-added-p99",
        "the same, p99",
        "µs",
        500.0,
        None,
        modelled(DENSE, lambda one: one.node_p99_us - one.bare_p99_us),
    ),
    at_most(
        "model-added-near",
        "the same with the client on the node's core, p50",
        "µs",
        100.0,
        None,
        modelled(DENSE, lambda one: one.near_p50_us - one.bare_p50_us),
    ),
    at_most(
        "model-added-near-p99",
        "the same, p99",
        "µs",
        500.0,
        None,
        modelled(DENSE, lambda one: one.near_p99_us - one.bare_p99_us),
    ),
    at_most(
        "model-added-large",
        "the same with 110 kB in, p50",
        "µs",
        100.0,
        None,
        modelled(ORIENTATION, lambda one: one.node_p50_us - one.bare_p50_us),
    ),
    at_most(
        "model-added-large-p99",
        "the same, p99",
        "µs",
        500.0,
        None,
        modelled(ORIENTATION, lambda one: one.node_p99_us - one.bare_p99_us),
    ),
    at_least(
        "model-throughput",
        "answers a second of a model of 0.5 ms / the bare runtime's, one core, 256 bytes in",
        "x",
        0.9,
        None,
        modelled(DENSE, lambda one: one.node_per_second / one.bare_per_second),
    ),
    at_least(
        "model-throughput-rows",
        "the same of a model that takes any number of rows / the bare runtime's, a row at a time",
        "x",
        0.9,
        None,
        modelled(ROWS, lambda one: one.node_per_second / one.bare_per_second),
    ),
    at_least(
        "model-throughput-large",
        "the same with 110 kB in",
        "x",
        0.9,
        None,
        modelled(ORIENTATION, lambda one: one.node_per_second / one.bare_per_second),
    ),
    at_least(
        "model-peer",
        "answers a second / MLServer's, 256 bytes in",
        "x",
        1.0,
        None,
        modelled(DENSE, _against_peer),
    ),
    at_least(
        "model-peer-rows",
        "the same of a model that takes any number of rows, both batching",
        "x",
        1.0,
        None,
        modelled(ROWS, _against_peer),
    ),
    at_least(
        "model-peer-large",
        "the same with 110 kB in",
        "x",
        1.0,
        None,
        modelled(ORIENTATION, _against_peer),
    ),
    _answer(
        "picture-squeezenet",
        "a JPEG to its class, SqueezeNet's graph at 224 x 224, p99",
        50.0,
        _p99_ms(SQUEEZENET),
    ),
    _answer("picture-resnet", "the same, ResNet-50's graph, p99", 50.0, _p99_ms(RESNET)),
    _answer("objects", "a JPEG to its boxes, PicoDet at 800 x 608, p50", 100.0, _p50_ms(PICODET)),
    _answer(
        "text-embedding",
        "a text to its vector, MiniLM as INT8, 128 tokens, p99",
        30.0,
        _p99_ms(EMBEDDING),
    ),
    _answer("text-class", "the same with a head, a text to its class, p99", 30.0, _p99_ms(KINDS)),
    _event("event", "an event of a stream, the node's CPU", scored(_cpu)),
    _event(
        "event-alone", "an event sent alone, until its score is there, p50", scored(_one_by_one)
    ),
    at_least(
        "events",
        "events of one stream, all of the node on one core",
        "/s",
        100_000.0,
        None,
        scored(lambda one: one.per_second),
    ),
    at_most(
        "model-density-p99",
        "p99 of 10 models with 40 more registered and idle / before",
        "x",
        P99_UNMOVED,
        None,
        crowd_p99,
    ),
    at_most(
        "model-swap",
        "requests that failed while versions took each other's place, all rounds",
        "requests",
        0.0,
        None,
        swapped,
    ),
)
