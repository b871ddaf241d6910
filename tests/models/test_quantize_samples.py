"""What may be given as samples, and what is wrong with the rest."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vedette.errors import ConfigError
from vedette.models import quantize_samples
from vedette.models.quantize_samples import Samples, read_samples

INPUTS: dict[str, Any] = {"x": ("float32", ["n", 3]), "mask": ("int64", ["n"])}
ONE: dict[str, Any] = {"x": ("float32", ["n", 3])}


def saved(folder: Path, name: str = "s.npz", **arrays: Any) -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


def read(files: list[str], inputs: dict[str, Any]) -> Samples:
    found = read_samples(files, inputs)
    assert found is not None
    return found


def refused(files: list[str], inputs: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        read_samples(files, inputs)
    assert caught.value.code == "samples_invalid"
    assert ".npz" in str(caught.value.hint)
    return caught.value.message


def test_each_sample_is_a_run_with_the_types_that_the_model_takes(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.arange(6.0).reshape(2, 3), mask=np.array([1, 0], np.int32))
    samples = read([file], INPUTS)
    assert (samples.count, samples.labels) == (2, None)
    runs = list(samples)
    assert [run["x"].tolist() for run in runs] == [[[0, 1, 2]], [[3, 4, 5]]]
    assert {name: str(array.dtype) for name, array in runs[0].items()} == {
        "x": "float32",
        "mask": "int64",
    }
    given = [samples.get_next() for _ in range(3)]
    assert given[1] is not None
    assert given[1]["mask"].tolist() == [0]
    assert given[2] is None


def test_a_model_that_takes_several_at_once_gets_whole_batches(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((7, 3)))
    samples = read([file], {"x": ("float32", [3, 3])})
    assert [len(run["x"]) for run in samples] == [3, 3]
    few = saved(tmp_path, "few.npz", x=np.zeros((2, 3)))
    assert "the model takes 3 at once" in refused([few], {"x": ("float32", [3, 3])})


def test_labels_go_with_them_unless_an_input_is_called_so(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((2, 3)), labels=np.array([4, 5]))
    labels = read([file, file], ONE).labels
    assert labels is not None
    assert labels.tolist() == [4, 5, 4, 5]
    named = saved(tmp_path, "n.npz", labels=np.zeros((2, 3)))
    assert read([named], {"labels": ("float32", ["n", 3])}).labels is None
    half = saved(tmp_path, "h.npz", x=np.zeros((2, 3)))
    assert read([file, half], ONE).labels is None, "some have none"


def test_one_array_is_for_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    assert read([str(tmp_path / "x.npy")], ONE).count == 2
    assert read_samples([], ONE) is None
    assert "no array 'mask'; it has x" in refused([str(tmp_path / "x.npy")], INPUTS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 3))}, "no array 'x'; it has y"),
        ({"x": np.zeros(3)}, "has 1 dimensions; the model takes nx3"),
        ({"x": np.zeros((2, 4))}, "has 4 elements in dimension 1; the model takes 3"),
        ({"x": np.array([["a"] * 3])}, "is <U1; the model takes float32"),
        ({"x": np.zeros((0, 3))}, "there are 0 samples"),
        ({"x": np.zeros((2, 3)), "labels": np.zeros(3)}, "there are 2 and 3 samples"),
    ],
)
def test_what_does_not_fit_the_model_is_told(
    tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    assert words in refused([saved(tmp_path, **arrays)], ONE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_prove_nothing(tmp_path: Path, value: float) -> None:
    file = saved(tmp_path, x=np.array([[1, 2, 3], [4, value, 6]], np.float32))
    assert "'x' in s.npz has elements that are no numbers" in refused([file], ONE)


def test_nothing_of_it_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    np.save(tmp_path / "evil.npy", np.array([Evil()], object), allow_pickle=True)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.npy", "pickle.npz"):
        assert "plain numbers" in refused([str(tmp_path / name)], ONE)
    assert not (tmp_path / "run").exists()


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_samples, "_MOST_BYTES", 10)
    assert "more than 10 bytes" in refused([saved(tmp_path, x=np.zeros((2, 3)))], ONE)
