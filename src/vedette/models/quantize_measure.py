"""How much a quantised model differs from what it was made of, on samples.

Owns: which measure fits an output, and how long a run takes. Must not: decide what is good enough. Imports numpy and
onnxruntime: only in a process of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from vedette.errors import ConfigError
from vedette.models.quantize_samples import Array, Samples

_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_WARM: Final = 3
_ROUNDS: Final = 20
_PROBABILITY: Final = 1e-3
"""How far the sum of a row may be from 1 for it to be probabilities."""


def inputs_of(model: Path) -> dict[str, tuple[str, Sequence[Any]]]:
    """Numpy's type and the shape of each input; a dimension that is no number is any. Raises `ConfigError`
    model_quantize_failed for one that no file of numpy could hold.
    """
    found = {}
    for each in _session(model).get_inputs():
        if each.type not in _TYPES:
            message = f"its input {each.name!r} is {each.type}, which samples cannot hold"
            raise ConfigError("model_quantize_failed", message)
        found[each.name] = (_TYPES[each.type], each.shape)
    return found


def compare(
    before: Path, after: Path, samples: Samples | None, output: str | None
) -> tuple[dict[str, Any] | None, float | None, float | None]:
    """What was lost (None without samples), and the milliseconds of a run before and after (None without samples).

    Raises `ConfigError` request_invalid when there is no such output, or labels and no output that they could be of.
    """
    old, new = _session(before), _session(after)
    names = [each.name for each in old.get_outputs()]
    if [each.name for each in new.get_outputs()] != names:
        raise ConfigError("model_quantize_failed", "the result gives other outputs than the model")
    if output is not None and output not in names:
        message = f"the model has no output {output!r}; it has {', '.join(names)}"
        raise ConfigError("request_invalid", message)
    if samples is None:
        return None, None, None
    old_outputs, new_outputs = _outputs(old, samples, names), _outputs(new, samples, names)
    judged = [output] if output else names
    if samples.labels is not None:
        measured = _by_labels(old_outputs, new_outputs, samples.labels, judged)
    else:
        found = [_by_difference(name, old_outputs[name], new_outputs[name]) for name in judged]
        measured = max(found, key=lambda each: float(each["drop"]))
    measured["samples"] = samples.count // samples.batch * samples.batch
    return measured, _millis(old, samples), _millis(new, samples)


def _session(model: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _outputs(session: Any, samples: Samples, names: list[str]) -> dict[str, Array]:
    runs = [session.run(names, feed) for feed in samples]
    return {name: _joined([run[at] for run in runs]) for at, name in enumerate(names)}


def _joined(parts: list[Array]) -> Array:
    """Outputs of all runs, one row a sample where they are as many."""
    shaped = [np.atleast_1d(part) for part in parts]
    try:
        return np.concatenate(shaped)
    except ValueError:  # each run may give another number of things: one long row
        return np.concatenate([part.reshape(-1) for part in shaped])


def _by_labels(
    old: Mapping[str, Array], new: Mapping[str, Array], labels: Array, judged: list[str]
) -> dict[str, Any]:
    for name in judged:
        before, after = _classes(old[name], labels), _classes(new[name], labels)
        if before is None or after is None:
            continue
        truth = labels.reshape(-1)[: len(before)]
        was, now = float(np.mean(before == truth)), float(np.mean(after == truth))
        return {
            "measure": "labels",
            "output": name,
            "before": was,
            "after": now,
            "drop": max(was - now, 0.0),
            "sentence": f"{name} is right about {now:.2%} of the labels, and was about {was:.2%}",
        }
    message = "the labels fit none of the outputs: classes (whole numbers), or scores of each class"
    raise ConfigError("samples_invalid", message)


def _classes(values: Array, labels: Array) -> Array | None:
    """The class that an output says of each sample; None: it says none."""
    if np.issubdtype(values.dtype, np.integer) and values.size <= labels.size:
        return values.reshape(-1)
    if np.issubdtype(values.dtype, np.floating) and values.ndim == 2 and values.shape[1] > 1:
        found: Array = np.argmax(values, axis=1)
        return found
    return None


def _by_difference(name: str, old: Array, new: Array) -> dict[str, Any]:
    """Without labels: how far the result is from what the model itself said."""
    if old.shape != new.shape:
        return _measured("shape", name, 1.0, f"{name} has another shape than it had")
    if not np.issubdtype(old.dtype, np.number) or np.issubdtype(old.dtype, np.integer):
        same = float(np.mean(old == new)) if old.size else 1.0
        return _measured(
            "top1", name, 1 - same, f"{name} is the same for {same:.2%} of the samples"
        )
    before, after = old.astype(np.float64), new.astype(np.float64)
    if not np.all(np.isfinite(after[np.isfinite(before)])):
        return _measured("finite", name, 1.0, f"{name} has values that are no numbers any more")
    before, after = np.nan_to_num(before), np.nan_to_num(after)
    rows = before.reshape(len(before), -1)
    if _are_probabilities(rows):
        others = after.reshape(len(after), -1)
        same = float(np.mean(np.argmax(rows, 1) == np.argmax(others, 1)))
        return _measured(
            "top1", name, 1 - same, f"{name} says the same class for {same:.2%} of the samples"
        )
    if rows.shape[1] > 1:
        cosine = _cosine(rows, after.reshape(len(after), -1))
        return _measured(
            "cosine", name, 1 - cosine, f"{name} has a cosine of {cosine:.4f} to what it was"
        )
    size = float(np.linalg.norm(before)) or 1.0
    error = float(np.linalg.norm(before - after)) / size
    return _measured("error", name, error, f"{name} is {error:.2%} away from what it was")


def _measured(measure: str, output: str, drop: float, sentence: str) -> dict[str, Any]:
    drop = max(drop, 0.0)
    return {"measure": measure, "output": output, "drop": drop, "sentence": sentence}


def _are_probabilities(rows: Array) -> bool:
    if rows.shape[1] < 2 or rows.size == 0 or rows.min() < 0:
        return False
    return bool(np.all(np.abs(rows.sum(axis=1) - 1) < _PROBABILITY))


def _cosine(before: Array, after: Array) -> float:
    """The mean over samples; two rows of zeros are alike."""
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    products = np.sum(before * after, axis=1)
    alike = np.all(before == after, axis=1)
    each = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), alike)
    return float(np.mean(each)) if len(each) else 1.0


def _millis(session: Any, samples: Samples) -> float:
    """The median of some runs of the first batch, with one thread."""
    feed = next(iter(samples))
    times = []
    for round_ in range(_WARM + _ROUNDS):
        started = time.perf_counter()
        session.run(None, feed)
        if round_ >= _WARM:
            times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
