"""Sound for a voice activity detector, made up, and what the detector says of it chunk by chunk.

Owns: a voice (a train of pulses through the resonances of two vowels, in syllables), silence with a little noise, and
`silero-vad` stepped by `onnxruntime` as its package steps it. Must not: know how a stream is sent.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RATE, CHUNK, CONTEXT = 16_000, 512, 64
"""Samples a second, of an event, and of the one before that go in before it."""
Sound = NDArray[np.float32]
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010))


def silero() -> Path:
    """The model's file in its wheel, of which nothing is imported: that would need PyTorch."""
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.onnx"


def silence(seconds: float, seed: int) -> Sound:
    """Nobody speaks; -60 dB of noise."""
    drawn = np.random.default_rng(seed)
    return (drawn.standard_normal(round(seconds * RATE)) * 1e-3).astype(np.float32)


def voice(seconds: float, pitch: float) -> Sound:
    """Syllables of two vowels, four a second."""
    count = round(seconds * RATE)
    at = np.arange(count) / RATE
    phase = np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 3 * at)) / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    spoken = np.zeros(count)
    for vowel, formants in enumerate(_VOWELS):
        sound = pulses
        for formant in formants:
            sound = _resonance(sound, formant, 80.0)
        turn = (np.floor(at * 4) % 2) == vowel
        spoken += sound / np.abs(sound).max() * turn
    loudness = np.abs(np.sin(2 * np.pi * 2 * at)) ** 0.5
    return (0.4 * spoken * loudness + silence(seconds, 1)).astype(np.float32)


def _resonance(sound: NDArray[np.float64], middle: float, width: float) -> NDArray[np.float64]:
    """A filter of two poles."""
    radius = np.exp(-np.pi * width / RATE)
    first, second = 2 * radius * np.cos(2 * np.pi * middle / RATE), -radius * radius
    found = np.zeros_like(sound)
    for at, value in enumerate(sound):
        found[at] = value + first * found[at - 1] + second * found[at - 2]
    return found


def chunks(sound: Sound) -> list[Sound]:
    """Whole ones."""
    return [sound[at : at + CHUNK] for at in range(0, len(sound) - CHUNK + 1, CHUNK)]


def stepped(sound: Sound) -> list[float]:
    """What the model says of each chunk, by itself (`OnnxWrapper.__call__` of silero_vad/utils_vad.py)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(silero().read_bytes(), options)
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, CONTEXT), np.float32)
    found = []
    for chunk in chunks(sound):
        whole = np.concatenate([context, chunk[None]], axis=1)
        given: dict[str, Any] = {"input": whole, "state": state, "sr": np.array(RATE, np.int64)}
        score, state = session.run(None, given)
        context = whole[:, -CONTEXT:]
        found.append(float(np.asarray(score)[0, 0]))
    return found
