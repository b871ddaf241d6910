"""The process of a model of TensorFlow Lite: real files, the real library of LiteRT, over its socket."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import tflite_files, workers
from tests.models.workers import Worker, served

from vedette.errors import ConfigError
from vedette.models.inspection import inspect_model
from vedette.models.runtime import library_of

LIBRARY = library_of("tflite")
WAKE_WORDS = ("alexa", "hey_jarvis", "hey_mycroft", "okay_nabu")
INSIDE = 120
"""Seconds: against what hangs."""


def packaged(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / name


def inspect(file: Path, **more: Any) -> dict[str, Any]:
    return workers.inspect(file, "tflite", **{"library": str(LIBRARY), **more})


@contextmanager
def worker(folder: Path, content: bytes, **more: Any) -> Iterator[Worker]:
    """A worker for this file, registered as the inspection sees it."""
    file = folder / "looked-at.tflite"
    file.write_bytes(content)
    said = inspect(file)
    assert "error" not in said, said
    prefix = more.pop("prefix", None)
    model = served(content, said["inputs"], said["outputs"], format="tflite", **more)
    with workers.worker(folder, content, model, prefix, LIBRARY) as started:
        assert started.ready["ready"], started.ready
        yield started


def asked(
    started: Worker,
    arrays: dict[str, np.ndarray[Any, Any]],
    datatypes: dict[str, str] | None = None,
) -> workers.Answer:
    """Binary tensors, answered so."""
    names = {
        np.dtype(kind): name for name, (_, kind) in tflite_files.KINDS.items() if name != "BYTES"
    }
    heads = [
        {
            "name": name,
            "datatype": (datatypes or {}).get(name, names[array.dtype]),
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    question = {"inputs": heads, "parameters": {"binary_data_output": True}}
    return started.infer(question, b"".join(array.tobytes() for array in arrays.values()))


def given(answer: workers.Answer) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name."""
    assert answer.status == 200, answer.body
    found, rest = {}, answer.binary
    for output in answer.json["outputs"]:
        size = output["parameters"]["binary_data_size"]
        kind = tflite_files.KINDS[output["datatype"]][1]
        found[output["name"]] = np.frombuffer(rest[:size], kind).reshape(output["shape"])
        rest = rest[size:]
    assert rest == b""
    return found


def test_tensors_go_by_the_names_of_the_signature(tmp_path: Path) -> None:
    with worker(tmp_path, tflite_files.adding().file()) as started:
        values = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
        answer = started.infer({"inputs": [values]})
        assert answer.json["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]}
        ]
        metadata = started.ask("GET", "").json
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]
        wrong = started.infer({"inputs": [{**values, "shape": [2, 2]}]})
        assert wrong.status == 400
        assert started.infer({"inputs": [values]}).status == 200


@pytest.mark.parametrize("datatype", [name for name in tflite_files.KINDS if name != "BYTES"])
def test_every_datatype_comes_back_as_it_went_in(tmp_path: Path, datatype: str) -> None:
    values = np.array([0, 1, 0, 1] if datatype == "BOOL" else [0, 1, 100, 127])
    values = values.astype(tflite_files.KINDS[datatype][1])
    with worker(tmp_path, tflite_files.identity(datatype)) as started:
        for _ in range(2):
            answer = asked(started, {"in": values}, {"in": datatype})
            assert answer.json["outputs"][0]["datatype"] == datatype
            assert answer.binary == values.tobytes()


def test_another_shape_is_planned_for_and_the_first_one_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with worker(tmp_path, tflite_files.sums()) as started:
        for rows in (1, 3, 3, 1, 200, 2):
            x, y = rng.random((2, rows, 4), np.float32)
            total = given(asked(started, {"x": x, "y": y}))["total"]
            np.testing.assert_array_equal(total, x + y)
        empty = {"datatype": "FP32", "shape": [0, 4], "data": []}
        none = started.infer({"inputs": [{"name": name, **empty} for name in ("x", "y")]})
        assert none.status == 400
        assert "dimensions of 1 to" in none.json["error"]
        x = np.ones((2, 4), np.float32)
        unlike = asked(started, {"x": x, "y": np.ones((3, 4), np.float32)})
        assert unlike.status == 400, unlike.body
        assert "cannot take these shapes" in unlike.json["error"]
        np.testing.assert_array_equal(given(asked(started, {"x": x, "y": x}))["total"], x + x)


def test_sessions_run_beside_each_other_and_each_answers_its_own(tmp_path: Path) -> None:
    with worker(tmp_path, tflite_files.squares(), sessions=3, threads=2) as started:

        def ask(seed: int) -> bool:
            x = np.random.default_rng(seed).random((1 + seed % 5, 4), np.float32)
            y = given(asked(started, {"x": x}))["y"]
            return bool(np.array_equal(y, (x + 1).reshape(-1, 2, 2)))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))


def test_a_shape_that_converters_compute_within_the_run_is_known_before_it(tmp_path: Path) -> None:
    """SHAPE, STRIDED_SLICE, PACK, RESHAPE: LiteRT alone succeeds and writes nothing."""
    with worker(tmp_path, tflite_files.squares()) as started:
        for rows in (1, 5, 2):
            x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
            y = given(asked(started, {"x": x}))["y"]
            np.testing.assert_array_equal(y, (x + 1).reshape(rows, 2, 2))


@pytest.mark.parametrize("content", [tflite_files.as_told(), tflite_files.as_told_and_more()])
def test_an_output_that_cannot_be_given_back_is_an_error_and_never_zeros(
    tmp_path: Path, content: bytes
) -> None:
    x, shape = np.arange(4, dtype=np.float32), np.array([2, 2], np.int32)
    with worker(tmp_path, content) as started:
        for _ in range(3):
            answer = asked(started, {"x": x, "shape": shape})
            # The model leaves a dimension open: another request may do.
            assert answer.status == 400, answer.body
            assert "known only within a run" in answer.json["error"]


def test_an_output_has_the_shape_that_came_to_light_within_the_run(tmp_path: Path) -> None:
    """There is room for it, as the file says as many elements in another shape."""
    x = np.arange(4, dtype=np.float32)
    with worker(tmp_path, tflite_files.as_told_and_more((4, 1))) as started:
        for shape in ([2, 2], [1, 4], [2, 2]):
            y = given(asked(started, {"x": x, "shape": np.array(shape, np.int32)}))["y"]
            np.testing.assert_array_equal(y, (x + 1).reshape(shape))


def test_one_model_answers_alike_as_onnx_and_as_tensorflow_lite(tmp_path: Path) -> None:
    """basic-pitch ships both: 0.2 MB, three outputs, any number of rows."""
    models = {
        each: packaged("basic_pitch", f"saved_models/icassp_2022/nmp.{each}")
        for each in ("onnx", "tflite")
    }
    rng = np.random.default_rng(2)
    sounds = {rows: rng.normal(0, 0.3, (rows, 43844, 1)).astype(np.float32) for rows in (1, 2)}
    said = workers.inspect(models["onnx"])
    model = served(models["onnx"].read_bytes(), said["inputs"], said["outputs"])
    (tmp_path / "onnx").mkdir()
    wanted = {}
    with workers.worker(tmp_path / "onnx", models["onnx"].read_bytes(), model) as started:
        for rows, sound in sounds.items():
            wanted[rows] = given(asked(started, {said["inputs"][0]["name"]: sound}))
    with worker(tmp_path, models["tflite"].read_bytes()) as started:
        for rows, sound in sounds.items():
            found = given(asked(started, {"input_2": sound}))
            assert set(found) == {"onset", "note", "contour"}
            for name, array in found.items():
                same_shape = [it for it in wanted[rows].values() if it.shape == array.shape]
                closest = min(float(np.abs(it - array).max()) for it in same_shape)
                assert closest < 1e-4, name


REFERENCE = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(sys.argv[1], num_threads=1)
model.allocate_tensors()
taken, given = model.get_input_details()[0], model.get_output_details()[0]
values = np.array(json.load(sys.stdin), np.int8).reshape(taken["shape"])
said = []
for _ in range(4):
    model.set_tensor(taken["index"], values)
    model.invoke()
    said.append(int(model.get_tensor(given["index"]).reshape(-1)[0]))
print(json.dumps(said))
"""


@pytest.mark.parametrize("word", WAKE_WORDS)
def test_a_model_of_eight_bits_answers_as_its_own_interpreter_and_from_its_beginning(
    tmp_path: Path, word: str
) -> None:
    """Wake words keep variables: what one caller sent is never part of another's answer."""
    file = packaged("pymicro_wakeword", f"models/{word}.tflite")
    values = np.full((1, 3, 40), -128, np.int8)
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(file)],
        input=json.dumps(values.reshape(-1).tolist()),
        capture_output=True,
        text=True,
        timeout=INSIDE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wanted = json.loads(done.stdout.splitlines()[-1])
    if word in ("alexa", "hey_mycroft"):
        assert len(set(wanted)) > 1, "what it heard before is part of what it says"
    with worker(tmp_path, file.read_bytes()) as started:
        said = [
            int(next(iter(given(asked(started, {"input_audio": values})).values()))[0, 0])
            for _ in range(4)
        ]
    assert said == [wanted[0]] * 4


def test_a_run_that_takes_too_long_is_told_to_stop_and_the_next_one_is_answered(
    tmp_path: Path,
) -> None:
    with worker(tmp_path, tflite_files.endless(), limits={"runMillis": 300}) as started:
        for _ in range(2):
            answer = asked(started, {"x": np.ones(4, np.float32)})
            assert answer.status == 504, answer.body
        assert started.ask("GET", "/ready").status == 200
        assert started.process.poll() is None


def test_one_that_is_within_an_operator_for_good_ends_with_its_process(tmp_path: Path) -> None:
    """All products are one operator to the runtime, which looks up only between two."""
    content = tflite_files.heavy(400)
    with worker(tmp_path, content, limits={"runMillis": 300}) as started:
        x = np.ones((1, 1024, 1024), np.float32)
        answer = asked(started, {"x": x})
        assert answer.status == 504, answer.body
        assert started.process.wait(INSIDE) == 75


def test_it_has_no_more_memory_than_it_may(tmp_path: Path) -> None:
    limits = {"memoryBytes": 64 << 20, "requestBytes": 1 << 30}
    with worker(tmp_path, tflite_files.sums(), limits=limits) as started:
        large = np.ones((8 << 20, 4), np.float32)
        answer = asked(started, {"x": large, "y": large})
        assert answer.status == 503, answer.body
        x = np.ones((2, 4), np.float32)
        assert given(asked(started, {"x": x, "y": x}))["total"].sum() == 16
    file = tmp_path / "wide.tflite"
    file.write_bytes(tflite_files.identity_of(1 << 30))
    said = inspect(file, memoryBytes=64 << 20)
    assert said["error"]["code"] == "model_out_of_memory", said


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "model_invalid", "empty"),
        (b"\x1c\0\0\0TFL3", "model_invalid", "ends early"),
        (b"TFL3 but no model", "model_invalid", "no model of TensorFlow Lite"),
        (tflite_files.custom("FlexErf"), "model_reaches_out", '"FlexErf" is a custom one'),
        (tflite_files.with_weights_in("../w.bin"), "model_reaches_out", "weights in other files"),
        (tflite_files.with_external_tensor(), "model_reaches_out", "in another file"),
        (tflite_files.with_buffer_at(100, 1 << 40), "model_reaches_out", "beyond its end"),
        (tflite_files.identity("BYTES"), "model_invalid", "a type that cannot be sent"),
        (tflite_files.passing(), "model_invalid", "one of its inputs as it is"),
        (tflite_files.misnamed(), "model_invalid", "no name for an input"),
        (tflite_files.broken(), "model_invalid", "failed to prepare"),
    ],
)
def test_what_is_not_taken_is_told(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    error = inspect(file)["error"]
    assert (error["code"], words in error["message"]) == (code, True), error


def test_an_operator_that_is_custom_by_name_only_is_taken(tmp_path: Path) -> None:
    """The runtime has it. This graph of it is unsound, and crashes the runtime in its process."""
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite_files.custom("TFLite_Detection_PostProcess"))
    with pytest.raises(ConfigError) as caught:
        inspect_model(file, "tflite", LIBRARY)
    assert caught.value.code == "model_invalid"
    assert "custom" not in caught.value.message


def test_any_byte_of_a_file_may_be_another(tmp_path: Path) -> None:
    """Whatever the library makes of it, what is said of it is whole."""
    content = tflite_files.squares()
    file = tmp_path / "model.tflite"
    rng = np.random.default_rng(11)
    said = []
    for _ in range(12):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            changed[place] = int(rng.integers(0, 256))
        file.write_bytes(bytes(changed))
        try:
            said.append("taken" if inspect_model(file, "tflite", LIBRARY).inputs else "empty")
        except ConfigError as error:
            said.append(error.code)
    assert set(said) <= {"taken", "model_invalid", "model_reaches_outside"}, said
    assert len(set(said)) > 1


def copied(folder: Path, version: str | None) -> Path:
    """The library in a package of another version."""
    package = folder / "ai_edge_litert"
    package.mkdir(parents=True)
    os.link(LIBRARY, package / LIBRARY.name) if _one_disk(folder) else shutil.copy(LIBRARY, package)
    if version is not None:
        (folder / f"ai_edge_litert-{version}.dist-info").mkdir()
    return package / LIBRARY.name


def _one_disk(folder: Path) -> bool:
    return folder.stat().st_dev == LIBRARY.stat().st_dev


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("2.2.0", None),
        ("2.9.1", None),
        ("2.1.6", "runtime_too_old"),
        ("1.4.0", "runtime_too_old"),
        ("3.0.0", "runtime_invalid"),
        ("nightly", "runtime_invalid"),
        (None, "runtime_invalid"),
    ],
)
def test_the_library_is_of_a_version_that_is_known(
    tmp_path: Path, version: str | None, code: str | None
) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite_files.adding().file())
    said = inspect(file, library=str(copied(tmp_path / "site", version)))
    assert said.get("error", {}).get("code") == code, said
    if code is None:
        assert said["runtime"] == f"litert {version}"


def test_a_library_that_is_another_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite_files.adding().file())
    for path, code in (
        (tmp_path / "none.so", "runtime_missing"),
        (file, "runtime_invalid"),
        (library_of("onnx"), "runtime_invalid"),
    ):
        assert inspect(file, library=str(path))["error"]["code"] == code, path
    site = tmp_path / "site"
    copied(site, "2.3.0").unlink()
    shutil.copy(library_of("onnx"), site / "ai_edge_litert" / LIBRARY.name)
    said = inspect(file, library=str(site / "ai_edge_litert" / LIBRARY.name))
    assert said["error"]["code"] == "runtime_invalid"
    assert "has no function LiteRt" in said["error"]["message"]


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)
def test_a_worker_that_loads_and_predicts_makes_no_socket_and_writes_no_file(
    tmp_path: Path,
) -> None:
    out = tmp_path / "trace"
    prefix = ["strace", "-f", "-qq", "-e", "trace=network,%file,process", "-o", str(out)]
    x = np.ones((3, 4), np.float32)
    with worker(tmp_path, tflite_files.squares(), threads=2, prefix=prefix) as started:
        for _ in range(3):
            assert asked(started, {"x": x}).status == 200
        # strace passes the signal on to nobody; the worker is its child.
        children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
        assert started.process.wait(workers.WAIT) == 0
        lines = out.read_text(errors="replace").splitlines()
    assert any("libLiteRt.so" in line for line in lines), "the trace is of another process"
    opened = [
        line
        for line in lines
        if "WebGpu" in line or "CompilerPlugin" in line or "libOpenCL" in line
    ]
    assert opened == [], "nothing but the processor"
    made = re.compile(r"\b(socket|connect|bind|listen|sendmmsg|execve|fork|vfork)\(")
    started_at = next(at for at, line in enumerate(lines) if "execve(" in line)
    assert [line for line in lines[started_at + 1 :] if made.search(line)] == []
    changes = re.compile(
        r"O_WRONLY|O_RDWR|O_CREAT|\b(creat|mkdir|mkdirat|unlink|unlinkat|rename|renameat|renameat2|"
        r"link|linkat|symlink|symlinkat|truncate|chmod|fchmodat|mknod|mknodat|memfd_create)\("
    )
    assert [line for line in lines if changes.search(line) and "O_RDONLY" not in line] == []
