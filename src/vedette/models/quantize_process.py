"""The process that makes an INT8 model: `python -P -m vedette.models.quantize_process`, told as JSON on standard input.

Owns: the steps, in the box of `boxed_process`. Must not: decide what is good enough (`quantize`), or be imported by
another process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vedette.errors import ConfigError
from vedette.models.boxed_process import require, say, serve, words_of

if TYPE_CHECKING:
    from vedette.models.quantize_samples import Samples

OPSET: Final = 17
"""What a model is raised to first: quantisation by channel makes an invalid graph of older ones."""
_QUANTIZED: Final = {
    *("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("MatMulInteger", "ConvInteger"),
}


def main() -> int:
    """Reads what is wanted, and says what came of it."""
    return serve(_quantize, "model_quantize_failed")


def _quantize(wanted: dict[str, Any]) -> dict[str, Any]:
    require(("numpy", "onnx", "onnxruntime"), "quantises")
    from vedette.models import quantize_measure
    from vedette.models.quantize_samples import read_samples

    folder, source = Path(wanted["folder"]), Path(wanted["model"])
    say("reading the model")
    inputs = quantize_measure.inputs_of(source)
    calibration = read_samples(wanted["calibration"], inputs)
    samples = read_samples(wanted["samples"], inputs) or calibration
    prepared = _prepared(source, folder)
    out = folder / "quantized.onnx"
    if calibration is None:
        say("quantising the weights")
        _dynamic(prepared, out, wanted["excluded"])
    else:
        say(f"calibrating on {calibration.count:,} samples")
        _static(prepared, out, wanted["excluded"], calibration)
    say("measuring" if samples else "loading the result")
    accuracy, before, after = quantize_measure.compare(source, out, samples, wanted["output"])
    return {
        "method": "dynamic" if calibration is None else "static",
        "calibratedOn": calibration.count if calibration else 0,
        "accuracy": accuracy,
        "before": {"bytes": source.stat().st_size, "millis": before},
        "after": {"bytes": out.stat().st_size, "millis": after},
    }


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
        say(f"raising the model from opset {opset} to {OPSET}")
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # noqa: BLE001 (the converter raises RuntimeError and what protobuf does)
            message = (
                f"its operators cannot be raised from opset {opset} to {OPSET}: {words_of(error)}"
            )
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
