"""The process that makes an INT8 model: `python -P -m vedette.models.quantize_process`, told as JSON on standard input.

Owns: the box that it is in before it imports anything that parses a model (no network, no file but those named, its own
folder to write), and the steps. It says a line of JSON for each step, and at last `{"done": …}` or `{"error": …}`. Must
not: decide what is good enough (`quantize`), or be imported by another process.
"""

from __future__ import annotations

import json
import os
import resource
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vedette.errors import ConfigError, UnavailableError, VedetteError

if TYPE_CHECKING:
    from vedette.models.quantize_samples import Samples

OPSET: Final = 17
"""What a model is raised to first: quantisation by channel makes an invalid graph of older ones."""
_MOST_WORDS: Final = 500
_QUANTIZED: Final = {
    *("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("MatMulInteger", "ConvInteger"),
}
_SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *(
        "/proc/self",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/sys/devices/system",
        "/dev/null",
        "/dev/urandom",
    ),
)


def main() -> int:
    """Reads what is wanted, and says what came of it. Exit code 0 in both cases."""
    wanted = json.loads(sys.stdin.buffer.read())
    try:
        _box(wanted)
        _say({"done": _quantize(wanted)})
    except VedetteError as error:
        _say({"error": error.to_dict()})
    except MemoryError:
        message = f"it needs more than {wanted['memoryBytes']:,} bytes of memory"
        _say({"error": ConfigError("model_quantize_failed", message).to_dict()})
    except Exception as error:  # noqa: BLE001 (what these libraries raise is no family: told, never passed over)
        words = " ".join(str(error).split())[:_MOST_WORDS]
        message = f"{type(error).__name__}: {words}"
        _say({"error": ConfigError("model_quantize_failed", message).to_dict()})
    return 0


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _box(wanted: dict[str, Any]) -> None:
    """Limits first, then no network, then no files. Raises `UnavailableError` box_refused."""
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = wanted["cpuSeconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (wanted["memoryBytes"], wanted["memoryBytes"]))
    try:
        from vedette.engine import _native
    except ImportError as error:
        message = f"the native engine is not built: {error}"
        raise UnavailableError("box_refused", message) from None
    python = {sys.prefix, sys.base_prefix, *sys.path, *sysconfig.get_paths().values()}
    python |= {*site.getsitepackages(), str(Path(sys.executable).resolve())}
    files = {
        "read": [*_SYSTEM, *sorted(filter(None, python)), *wanted["reads"]],
        "write": [wanted["folder"]],
    }
    try:
        _native.isolate()
        _native.confine(json.dumps(files).encode())
    except ValueError as error:
        raise UnavailableError("box_refused", str(error)[:_MOST_WORDS]) from None


def _quantize(wanted: dict[str, Any]) -> dict[str, Any]:
    _require_tools()
    from vedette.models import quantize_measure
    from vedette.models.quantize_samples import read_samples

    folder, source = Path(wanted["folder"]), Path(wanted["model"])
    _say({"step": "reading the model"})
    inputs = quantize_measure.inputs_of(source)
    calibration = read_samples(wanted["calibration"], inputs)
    samples = read_samples(wanted["samples"], inputs) or calibration
    prepared = _prepared(source, folder)
    out = folder / "quantized.onnx"
    if calibration is None:
        _say({"step": "quantising the weights"})
        _dynamic(prepared, out, wanted["excluded"])
    else:
        _say({"step": f"calibrating on {calibration.count:,} samples"})
        _static(prepared, out, wanted["excluded"], calibration)
    _say({"step": "measuring" if samples else "loading the result"})
    accuracy, before, after = quantize_measure.compare(source, out, samples, wanted["output"])
    return {
        "method": "dynamic" if calibration is None else "static",
        "calibratedOn": calibration.count if calibration else 0,
        "accuracy": accuracy,
        "before": {"bytes": source.stat().st_size, "millis": before},
        "after": {"bytes": out.stat().st_size, "millis": after},
    }


def _require_tools() -> None:
    """Raises `ConfigError` tool_missing."""
    import importlib

    for name in ("numpy", "onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            hint = "Install what quantises models: pip install 'vedette[quantize]'"
            message = f"the package {name} is not installed ({error})"
            raise ConfigError("tool_missing", message, hint) from None


def _prepared(source: Path, folder: Path) -> Path:
    """The model of opset 17 or newer, with the shapes that can be inferred. Raises `ConfigError`
    model_quantize_failed.
    """
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    if already := sorted({node.op_type for node in model.graph.node} & _QUANTIZED):
        message = f"it is quantised already: it has {already[0]}"
        raise ConfigError("model_quantize_failed", message, "Give the model that it was made of.")
    opset = max(
        (each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1
    )
    if opset < OPSET:
        _say({"step": f"raising the model from opset {opset} to {OPSET}"})
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # noqa: BLE001 (the converter raises RuntimeError and what protobuf does)
            words = " ".join(str(error).split())[:_MOST_WORDS]
            message = f"its operators cannot be raised from opset {opset} to {OPSET}: {words}"
            raise ConfigError("model_quantize_failed", message) from None
    model = onnx.shape_inference.infer_shapes(model)
    _require_named_nodes(model)
    prepared = folder / "prepared.onnx"
    onnx.save(model, str(prepared))
    return prepared


def _require_named_nodes(model: Any) -> None:
    """Names nodes that have no name by their first output, which people can exclude by then."""
    for node in model.graph.node:
        if not node.name and node.output:
            node.name = f"{node.op_type}:{node.output[0]}"


def _checked_exclusions(model: Path, excluded: list[str]) -> list[str]:
    """Raises `ConfigError` request_invalid for a name that no node has."""
    import onnx

    names = {node.name for node in onnx.load(str(model)).graph.node}
    unknown = [each for each in excluded if each not in names]
    if unknown:
        some = ", ".join(sorted(names)[:20])
        message = f"the model has no node {unknown[0]!r}"
        raise ConfigError("request_invalid", message, f"Nodes are called: {some}")
    return excluded


def _dynamic(model: Path, out: Path, excluded: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(model),
        str(out),
        # Convolutions need the range of what goes in beforehand: ONNX Runtime runs no ConvInteger with signed weights.
        op_types_to_quantize=[
            "MatMul",
            "Gemm",
            "Gather",
            "LSTM",
            "Attention",
            "EmbedLayerNormalization",
        ],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_checked_exclusions(model, excluded),
    )


def _static(model: Path, out: Path, excluded: list[str], calibration: Samples) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        str(model),
        str(out),
        calibration,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_checked_exclusions(model, excluded),
    )


if __name__ == "__main__":
    sys.exit(main())
