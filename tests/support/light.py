"""Networks of pictures as the package onnx has them: real architectures, weights that it makes up.

Owns: where they are. Must not: fetch anything.
"""

from __future__ import annotations

from pathlib import Path

import onnx


def squeezenet() -> bytes:
    """SqueezeNet: `data_0` FP32 [1, 3, 224, 224] to `softmaxout_1` [1, 1000, 1, 1]."""
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    return (folder / "light_squeezenet.onnx").read_bytes()
