"""Calls a model's session again and again: `bare.py FILE SHAPE SECONDS`; prints percentiles in microseconds as JSON.

Owns: what a caller without any server pays. Must not: batch, or use more than one thread.
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy
import onnxruntime


def main() -> None:
    """One session, one thread, for so many seconds after half a second of warm-up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
    shape = [int(each) for each in sys.argv[2].split(",")]
    given = {each.name: _values(each.type, shape) for each in session.get_inputs()}
    for seconds in (0.5, float(sys.argv[3])):
        took, begin = [], time.perf_counter_ns()
        while (now := time.perf_counter_ns()) - begin < seconds * 1e9:
            session.run(None, given)
            took.append(time.perf_counter_ns() - now)
    took.sort()
    spent = (time.perf_counter_ns() - begin) / 1e9
    report = {
        "p50": took[len(took) // 2] / 1e3,
        "p99": took[int(len(took) * 0.99)] / 1e3,
        "perSecond": len(took) / spent,
    }
    print(json.dumps(report))


def _values(datatype: str, shape: list[int]) -> numpy.ndarray:
    """Whole numbers are words, a mask and kinds of words, of which a run takes one as long as another."""
    if datatype == "tensor(int64)":
        return numpy.ones(shape, numpy.int64)
    values = numpy.arange(math.prod(shape), dtype=numpy.float32) * 37 % 255 / 127.5 - 1
    return values.reshape(shape)


if __name__ == "__main__":
    main()
