"""Samples of what models are asked: fetched from their processes, kept for as long as their manifests say (ADR 0061).

Owns: when that is done, what of a worker's word is believed, when samples go, and their export. Must not: show an
element of one in a log, a record, an error or a list; or fetch of a model whose manifest does not ask for it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vedette.clock import to_rfc3339
from vedette.config.served import ServedModel
from vedette.config.tensor import Tensor
from vedette.control.sample_messages import ModelSamples, SamplesRemoved, SampleVersion
from vedette.control.worker_asking import WorkerAnswer, ask_worker, is_ready
from vedette.errors import ConfigError, UnavailableError
from vedette.models.keeper_state import read_states
from vedette.models.sample_export import Exported, bytes_of, write_npz
from vedette.store.home import Home
from vedette.store.samples import KeptSample, SampleStores

INTERVAL: Final = 5.0
"""Seconds between two looks at all workers: samples of so long are lost when one ends."""
_AT_ONCE: Final = 256
"""Samples of a model at one look; as many as a worker holds (crates/models/src/samples)."""
_PATIENCE: Final = 3.0
"""Seconds for those."""
_EXPORT: Final = "export-"
_MOST_ANSWER: Final = 16 << 20
_MOST_HEAD: Final = 64 << 10


class SampleKeeper:
    """What is kept of what models are asked. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        served: Callable[[], Sequence[ServedModel]],
        kept: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`served`: the models that serve; `kept`: names of those of which the node keeps a version."""
        self._home = home
        self._served = served
        self._kept = kept
        self._clock = clock
        self._stores = SampleStores(home.samples)
        self._lock = threading.Lock()
        self._left_out: Counter[str] = Counter()

    def run(self, stopping: threading.Event) -> None:
        """Looks at once, for what is over, and every few seconds until `stopping`."""
        for left in self._home.samples.glob(f"{_EXPORT}*"):
            shutil.rmtree(left, ignore_errors=True)  # of a control that ended while it exported
        while True:
            self.look()
            if stopping.wait(INTERVAL):
                return

    def look(self) -> None:
        """Fetches what workers have, and removes what has been kept as long as it was to be. A disk that refuses is no
        failure of the node: samples are left out.
        """
        asked = [each for each in self._served() if each.samples is not None]
        states = read_states(self._home.models_state) if asked else {}
        for model in asked:
            if is_ready(states.get(model.worker)):
                self._fetch(model)
        for name in self._stores.names():
            with contextlib.suppress(UnavailableError):
                self._expire(name)

    def show(self, name: str) -> ModelSamples:
        """What is kept of a model, without what is in it. Raises `UnavailableError`."""
        served = next((each for each in self._served() if each.name == name), None)
        store = self._stores.of(name)
        return ModelSamples(
            name=name,
            asked=None if served is None else served.samples,
            left_out=self._left_out[name],
            versions=tuple(
                SampleVersion(
                    version=each.version,
                    count=each.count,
                    bytes=each.bytes,
                    oldest=_time(each.oldest),
                    newest=_time(each.newest),
                )
                for each in (store.counts() if store is not None else ())
            ),
        )

    def export(self, name: str, file: Path, since: int, version: int | None) -> Exported:
        """Writes samples that came from `since` (Unix time, seconds) on as `.npz`. Raises `ConfigError`
        samples_missing, samples_invalid; `UnavailableError`.
        """
        store = self._stores.of(name)
        if store is None:
            raise ConfigError("samples_missing", f"nothing is kept of what {name!r} was asked")

        def read() -> Iterator[tuple[str, bytes]]:
            return ((each.head, each.content) for each in store.read(since, version))

        return write_npz(read, file)

    @contextlib.contextmanager
    def room_for_export(self) -> Iterator[Path]:
        """A folder beside the samples, which nobody else may look into, for as long as one is exported."""
        if not self._home.samples.exists():
            raise ConfigError("samples_missing", "nothing is kept of what models are asked")
        with tempfile.TemporaryDirectory(dir=self._home.samples, prefix=_EXPORT) as folder:
            yield Path(folder)

    def forget(self, name: str) -> SamplesRemoved:
        """Removes all samples of a model. Raises `UnavailableError`."""
        with self._lock:
            return SamplesRemoved(name=name, count=self._stores.forget(name))

    def forget_version(self, name: str, version: int) -> None:
        """Removes the samples of a version. Raises `UnavailableError`."""
        with self._lock:
            store = self._stores.of(name)
            if store is not None:
                store.remove_version(version)

    def _expire(self, name: str) -> None:
        with self._lock:
            if all(each.name != name for each in self._served()) and name not in self._kept():
                self._stores.forget(name)  # the disk refused when the model was removed
                return
            store = self._stores.of(name)
            if store is not None:
                store.expire(int(self._clock()))

    def _fetch(self, model: ServedModel) -> None:
        """Keeps what a worker has."""
        path = self._home.model_socket(model.worker)
        deadline = time.monotonic() + _PATIENCE
        samples: list[KeptSample] = []
        for _ in range(_AT_ONCE):
            answer = ask_worker(path, "POST", "/samples", b"", _MOST_ANSWER)
            if answer is None:
                break
            self._left_out[model.name] += _left_out(answer)
            if answer.status != 200:
                break
            sample = self._sample(model, answer)
            if sample is None:
                self._left_out[model.name] += 1
            else:
                samples.append(sample)
            if time.monotonic() > deadline:
                break
        if samples:
            self._keep(model, samples)

    def _keep(self, model: ServedModel, samples: Sequence[KeptSample]) -> None:
        assert model.samples is not None
        with self._lock:
            # It may have been removed meanwhile, and its samples with it.
            if model not in self._served():
                return
            try:
                self._stores.made(model.name).add(samples, model.samples.bytes)
            except UnavailableError:
                self._left_out[model.name] += len(samples)

    def _sample(self, model: ServedModel, answer: WorkerAnswer) -> KeptSample | None:
        """What a worker gave, if it is a request with the inputs that are to be kept; else None."""
        assert model.samples is not None
        length = _number(answer, "inference-header-content-length")
        if not 0 < length <= min(len(answer.body), _MOST_HEAD):
            return None
        wanted = {each.name: each for each in model.inputs}
        content = answer.body[length:]
        head = _head(answer.body[:length], [wanted[name] for name in model.samples.inputs], content)
        if head is None:
            return None
        now = int(self._clock())
        ends = now + -(-model.samples.keep_millis // 1000)
        return KeptSample(model.version, now, ends, head, content)


def _head(text: bytes, wanted: Sequence[Tensor], content: bytes) -> str | None:
    """The inputs that a worker names, written anew, if they are `wanted` and all of `content` is theirs; else None."""
    try:
        inputs: list[dict[str, Any]] = json.loads(text)["inputs"]
        if len(inputs) != len(wanted):
            return None
        said, at = [], 0
        for each, tensor in zip(inputs, wanted, strict=True):
            shape = each["shape"]
            if (each["name"], each["datatype"]) != (tensor.name, tensor.datatype):
                return None
            if not _fits(shape, tensor):
                return None
            size = bytes_of(tensor.datatype, shape, content[at:])
            if size is None:
                return None
            at += size
            said.append({"name": tensor.name, "datatype": tensor.datatype, "shape": shape})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return json.dumps({"inputs": said}, separators=(",", ":")) if at == len(content) else None


def _fits(shape: Any, tensor: Tensor) -> bool:
    if not isinstance(shape, list) or len(shape) != len(tensor.shape):
        return False
    return all(
        type(has) is int and 0 <= has <= _MOST_ANSWER and wants in (0, has)
        for has, wants in zip(shape, tensor.shape, strict=True)
    )


def _left_out(answer: WorkerAnswer) -> int:
    return min(_number(answer, "x-vedette-left-out"), 1 << 32)


def _number(answer: WorkerAnswer, name: str) -> int:
    text = answer.headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _time(seconds: int) -> str:
    return to_rfc3339(datetime.fromtimestamp(seconds, UTC))
