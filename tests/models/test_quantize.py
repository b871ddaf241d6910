"""INT8 models of real ones, made in a process of its own and measured on samples that it has not seen."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.models import digits_files, workers
from tests.support import minilm

from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.models.boxed import Limits, copy_out
from vedette.models.quantize import Quantized, Wish, quantized

FLAT = (64,)
IMAGE = (1, 8, 8)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return digits_files.save_samples(tmp_path / "calibration.npz", 0, 200, FLAT, labels=False)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return digits_files.save_samples(
        tmp_path / "labelled.npz", digits_files.KNOWN, 1797, FLAT, labels=True
    )


def written(folder: Path, content: bytes) -> Path:
    file = folder / "model.onnx"
    file.write_bytes(content)
    return file


def made(wish: Wish, keep: Path | None = None) -> dict[str, Any]:
    with quantized(wish) as found:
        if keep is not None:
            copy_out(found.file, keep)
        return found.told


def operators(file: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(file)).graph.node}


def test_weights_alone_are_quantised_without_calibration(tmp_path: Path, labelled: Path) -> None:
    model = written(tmp_path, digits_files.perceptron())
    out = tmp_path / "out.onnx"
    told = made(Wish(model, samples=labelled), out)
    assert (told["method"], told["calibratedOn"]) == ("dynamic", 0)
    assert told["after"]["bytes"] == out.stat().st_size < 0.5 * told["before"]["bytes"]
    assert told["before"]["bytes"] == model.stat().st_size
    assert operators(out) & {"MatMulInteger", "DynamicQuantizeLinear"}
    assert told["accuracy"]["measure"] == "labels"
    assert told["accuracy"]["samples"] == 1797 - digits_files.KNOWN
    assert told["accuracy"]["before"] > 0.9
    assert told["before"]["millis"] > 0
    assert told["after"]["millis"] > 0


def test_with_calibration_convolutions_are_too(tmp_path: Path) -> None:
    model = written(tmp_path, digits_files.convolutional())
    calibration = digits_files.save_samples(tmp_path / "c.npz", 0, 200, IMAGE, labels=False)
    samples = digits_files.save_samples(tmp_path / "s.npz", 1300, 1797, IMAGE, labels=True)
    out = tmp_path / "out.onnx"
    told = made(Wish(model, calibration, samples, output="probabilities"), out)
    assert (told["method"], told["calibratedOn"]) == ("static", 200)
    kinds = {
        each.data_type
        for each in onnx.load(str(out)).graph.initializer
        if each.name.startswith("f_quantized")
    }
    assert kinds == {onnx.TensorProto.INT8}
    assert told["accuracy"]["before"] > 0.9
    # Without labels it is asked how often both say the same, as its rows are probabilities.
    again = made(Wish(model, calibration, max_drop_samples(samples, tmp_path)))
    assert again["accuracy"]["measure"] == "top1"


def max_drop_samples(labelled: Path, folder: Path) -> Path:
    """The same samples without labels."""
    np.savez(folder / "unlabelled.npz", pixels=np.load(labelled)["pixels"])
    return folder / "unlabelled.npz"


def test_a_sentence_means_what_it_meant(tmp_path: Path) -> None:
    """MiniLM, 90 MB: what each token became, before their mean is taken."""
    texts = [
        *("A cat sits on the mat.", "A kitten is sitting on a rug."),
        *("Interest rates rose again this year.", "The central bank raised its rates."),
        *("How do I reset my password?", "I cannot log in to my account."),
        *("The bridge was closed for repairs.", "Boil the pasta for nine minutes."),
    ]
    np.savez(tmp_path / "texts.npz", **minilm.tokens(texts))  # type: ignore[arg-type]
    model = written(tmp_path, minilm.model().SerializeToString())
    told = made(Wish(model, samples=tmp_path / "texts.npz", most_drop=0.06))
    assert told["after"]["bytes"] < 0.3 * told["before"]["bytes"]
    assert told["accuracy"]["measure"] == "cosine"
    assert 0 < told["accuracy"]["drop"] < 0.06


def test_a_model_that_loses_too_much_is_refused_and_nothing_is_written(
    tmp_path: Path, calibration: Path, labelled: Path
) -> None:
    model = written(tmp_path, digits_files.with_an_outlier())
    out = tmp_path / "out.onnx"
    with pytest.raises(ConfigError) as caught:
        made(Wish(model, calibration, labelled), out)
    assert caught.value.code == "model_accuracy"
    assert "scores is right about" in caught.value.message
    assert "and 1.00% may be" in caught.value.message
    assert not out.exists()
    # What spoils it is left as it is, by its name.
    told = made(Wish(model, calibration, labelled, excluded=("first", "relu", "second")), out)
    assert told["accuracy"]["drop"] == 0


def test_an_older_opset_is_raised_first(tmp_path: Path, calibration: Path) -> None:
    model = written(tmp_path, digits_files.perceptron(opset=9))
    steps: list[str] = []
    out = tmp_path / "out.onnx"
    with quantized(Wish(model, calibration), steps.append) as found:
        copy_out(found.file, out)
    assert "raising the model from opset 9 to 17" in steps
    assert "calibrating on 200 samples" in steps
    opsets = {each.domain: each.version for each in onnx.load(str(out)).opset_import}
    assert opsets[""] == 17


def test_a_folder_of_samples_is_one_set(tmp_path: Path) -> None:
    model = written(tmp_path, digits_files.perceptron())
    folder = tmp_path / "calibration"
    folder.mkdir()
    digits_files.save_samples(folder / "b.npz", 50, 80, FLAT, labels=False)
    np.save(folder / "a.npy", digits_files.pictures()[0][:50])
    (folder / "notes.txt").write_text("of last week")
    assert made(Wish(model, folder))["calibratedOn"] == 80


def test_what_is_made_runs_in_a_worker(tmp_path: Path, calibration: Path) -> None:
    """The box, the reader of files and the runtime of a node take what quantising writes."""
    model = written(tmp_path, digits_files.perceptron())
    for wish in (Wish(model, calibration), Wish(model)):
        out = tmp_path / "out.onnx"
        made(wish, out)
        said = workers.inspect(out)
        assert "error" not in said, said
        assert said["inputs"] == [workers.tensor("pixels", [0, 64])]
        assert said["outputs"] == [workers.tensor("scores", [0, 10])]


@pytest.mark.parametrize(
    ("wish", "code", "words"),
    [
        ({"excluded": ("third",)}, "request_invalid", "no node 'third'"),
        ({"output": "digit"}, "request_invalid", "no output 'digit'; it has scores"),
        ({"calibration": Path("/nowhere")}, "samples_invalid", "no file or folder"),
    ],
)
def test_a_wrong_wish_is_told(
    tmp_path: Path, labelled: Path, wish: dict[str, Any], code: str, words: str
) -> None:
    model = written(tmp_path, digits_files.perceptron())
    with pytest.raises(ConfigError) as caught:
        made(Wish(model, **{"samples": labelled, **wish}))
    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message


def test_what_is_quantised_already_is_told(tmp_path: Path, calibration: Path) -> None:
    model, out = written(tmp_path, digits_files.perceptron()), tmp_path / "out.onnx"
    made(Wish(model, calibration), out)
    with pytest.raises(ConfigError) as caught:
        made(Wish(out, calibration))
    assert (caught.value.code, "already" in caught.value.message) == ("model_quantize_failed", True)


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        made(Wish(written(tmp_path, b"no model")))
    assert caught.value.code == "model_quantize_failed"


def program(folder: Path, body: str) -> list[str]:
    """A process that says other things."""
    script = folder / "program.py"
    script.write_text(f"import json, os, signal, sys\nwanted = json.load(sys.stdin)\n{body}\n")
    return [sys.executable, "-P", str(script)]


def refused(folder: Path, body: str, wish: Wish | None = None) -> VedetteError:
    wish = wish or Wish(written(folder, b""))
    with pytest.raises(VedetteError) as caught, quantized(wish, program=program(folder, body)):
        pass
    return caught.value


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "quantize_ended", "signal 9"),
        ("sys.exit(3)", "quantize_ended", "status 3"),
        ("print('nonsense')", "quantize_ended", "nobody understands"),
        ("print('[1]')", "quantize_ended", "nobody understands"),
        ("print(json.dumps({'error': 'odd'}))", "model_quantize_failed", "odd"),
        (
            "print(json.dumps({'error': {'code': 'box_refused', 'message': 'no'}}))",
            "box_refused",
            "no",
        ),
    ],
)
def test_an_end_without_a_result_is_told(tmp_path: Path, body: str, code: str, words: str) -> None:
    error = refused(tmp_path, body)
    assert (error.code, words in error.message) == (code, True), error.message


def test_outputs_that_became_no_numbers_are_never_good_enough(tmp_path: Path) -> None:
    accuracy = {"drop": float("nan"), "sentence": "y has values that are no numbers"}
    told = {"accuracy": accuracy}
    error = refused(
        tmp_path, f"print(json.dumps({{'done': json.loads({json.dumps(json.dumps(told))})}}))"
    )
    assert error.code == "model_accuracy"


def test_the_process_is_told_nothing_of_this_one_and_its_folder_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEDETTE_SECRET", "s3cret")
    seen = tmp_path / "seen"
    body = (
        f"open({str(seen)!r}, 'w').write(json.dumps([dict(os.environ), wanted, os.getcwd()]))\n"
        "open('quantized.onnx', 'w').write('made')\n"
        "print(json.dumps({'done': {'accuracy': None}}))"
    )
    model = written(tmp_path, b"")
    found: Quantized
    with quantized(Wish(model), program=program(tmp_path, body)) as found:
        assert found.file.read_text() == "made"
    environment, wanted, folder = json.loads(seen.read_text())
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["HOME"] == environment["TMPDIR"] == wanted["folder"] == folder
    assert not [name for name in environment if name.startswith("VEDETTE")]
    assert wanted["reads"] == [str(model)]
    assert not Path(folder).exists()


def test_the_process_reaches_no_network_and_no_other_file(tmp_path: Path) -> None:
    """The real box, with other work in it."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    body = f"""
import socket
from vedette.models import boxed_process
boxed_process._enter(wanted)
told = {{}}
for name, attempt in {{
    "reads": lambda: open({str(secret)!r}).read(),
    "writes": lambda: open({str(tmp_path / "new")!r}, "w"),
    "connects": lambda: socket.create_connection(("192.0.2.1", 80), 1),
}}.items():
    try:
        attempt()
        told[name] = "done"
    except OSError as error:
        told[name] = error.errno
open(wanted["folder"] + "/quantized.onnx", "w").write("made")
told["own"] = open(wanted["model"]).read()
print(json.dumps({{"done": {{"accuracy": None, "told": told}}}}))
"""
    model = written(tmp_path, b"model")
    with quantized(Wish(model), program=program(tmp_path, body)) as found:
        told = found.told["told"]
    assert told == {"reads": 13, "writes": 13, "connects": 101, "own": "model"}


def test_it_has_no_more_memory_than_it_may(tmp_path: Path) -> None:
    body = """
from vedette.models import quantize_process
quantize_process._quantize = lambda wanted: bytearray(1 << 30)
import io
sys.stdin = io.TextIOWrapper(io.BytesIO(json.dumps(wanted).encode()))
sys.exit(quantize_process.main())
"""
    limits = Limits(memory_bytes=512 << 20)
    with (
        pytest.raises(ConfigError) as caught,
        quantized(Wish(written(tmp_path, b"")), limits=limits, program=program(tmp_path, body)),
    ):
        pass
    assert "more than 536,870,912 bytes of memory" in caught.value.message


def test_a_result_that_cannot_be_put_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "made"
    file.write_text("made")
    with pytest.raises(ConfigError) as caught:
        copy_out(file, tmp_path / "none" / "out.onnx")
    assert caught.value.code == "file_unwritable"
    copy_out(file, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_text() == "made"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["made", "out.onnx"]


def test_a_process_that_was_told_to_end_leaves_nothing_running(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = (
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nprint('[]', flush=True)\nsignal.pause()"
    )
    with (
        pytest.raises(UnavailableError),
        quantized(Wish(written(tmp_path, b"")), program=program(tmp_path, body)),
    ):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
