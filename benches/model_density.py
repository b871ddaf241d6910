"""Measures fifty models on one node, of which ten are asked: memory, and whether the ten notice the forty.

Owns: dense layers of 1 to 50 MB (random weights), the order of events (none, ten, fifty of which forty have ended for
want of requests), and when memory is read. Must not: judge, or count a run with a refused request.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from load import Posted, run_posts
from probe import require_served
from processes import BenchError, whole_pss
from server import Mode
from task import Task

from models import DENSE_SHAPE, Example, tensors_for, write_dense

MODELS, HOT = 50, 10
_SIZES = tuple(range(1, MODELS + 1))
"""MB."""
_HOT_SIZES = tuple(size for size in _SIZES if size % (MODELS // HOT) == 0)
_MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {{name: {}}}
spec: {}
"""
_IDLE = "1s"
_IDLE_SECONDS = 60.0
_SETTLE_SECONDS = 2.0
"""After the last change control has some work to do, on the same core."""


@dataclass(frozen=True)
class Asked:
    """One load on the hot models in turn, one connection: microseconds."""

    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Crowd:
    """Memory is PSS of all the node's processes, KiB; sizes are of files, bytes."""

    models: int
    hot: int
    hot_bytes: int
    bytes: int
    empty_pss: int
    """Before the first model."""
    hot_pss: int
    """The hot ones registered and asked."""
    full_pss: int
    """All registered, the hot ones asked, the processes of the others ended."""
    before: tuple[Asked, ...]
    after: tuple[Asked, ...]


def measure_density(task: Task) -> Crowd:
    """The events in their order. Raises BenchError."""
    return _Crowding(task).measure()


@dataclass(frozen=True)
class _Crowding:
    """The node, and what is done to it."""

    task: Task

    def measure(self) -> Crowd:
        """The events in their order."""
        time.sleep(_SETTLE_SECONDS)
        empty = self._pss()
        hot_bytes = self._add(_HOT_SIZES, idle=False)
        posted = self._hot()
        before = self._ask(posted, "before")
        hot = self._pss()
        others = [size for size in _SIZES if size not in _HOT_SIZES]
        other_bytes = self._add(others, idle=True)
        self._wait_idle(others)
        after = self._ask(posted, "after")
        full = self._pss()
        self._wait_idle(others)
        return Crowd(
            models=len(_SIZES),
            hot=len(_HOT_SIZES),
            hot_bytes=hot_bytes,
            bytes=hot_bytes + other_bytes,
            empty_pss=empty,
            hot_pss=hot,
            full_pss=full,
            before=before,
            after=after,
        )

    def _pss(self) -> int:
        return whole_pss([self.task.node.first()])

    def _add(self, sizes: Sequence[int], *, idle: bool) -> int:
        """Takes models in, one after the other; bytes of their files."""
        added = 0
        for size in sizes:
            self.task.say(f"model-density: taking in a model of {size} MB")
            folder = self.task.folder / _name(size)
            folder.mkdir()
            write_dense(folder / "model.onnx", size * 1_000_000, size)
            added += (folder / "model.onnx").stat().st_size
            spec = {"file": "model.onnx", **({"idle": _IDLE} if idle else {})}
            self.task.node.apply(
                folder / "model.yaml", _MANIFEST.format(_name(size), json.dumps(spec))
            )
            shutil.rmtree(folder)
        return added

    def _hot(self) -> Posted:
        """What asks the hot ones in turn: the same tensor, since all of them take the same."""
        [token] = self.task.node.tokens(1)
        each = []
        for size in _HOT_SIZES:
            example = Example(_name(size), self.task.folder, DENSE_SHAPE)
            each.append(tensors_for(self.task.node, example, token))
            require_served(each[-1], "outputs")
        return replace(each[0], paths=tuple(urlsplit(one.url).path for one in each))

    def _ask(self, posted: Posted, when: str) -> tuple[Asked, ...]:
        self.task.say(f"model-density: p99 of the hot models {when}")
        time.sleep(_SETTLE_SECONDS)
        cores = Mode.PINNED.load_cores
        run_posts(self.task.tools, posted, 1, cores, 1)
        loads = [
            run_posts(self.task.tools, posted, self.task.seconds, cores, 1)
            for _ in range(self.task.rounds)
        ]
        return tuple(Asked(load.p50_us, load.p99_us) for load in loads)

    def _wait_idle(self, sizes: Iterable[int]) -> None:
        """Until the processes of these models have ended, and only of these."""
        wanted = {_name(size) for size in sizes}
        deadline = time.monotonic() + _IDLE_SECONDS
        while (found := self._idle()) != wanted:
            if time.monotonic() > deadline:
                raise BenchError(f"idle are {sorted(found)}, and should be {sorted(wanted)}")
            time.sleep(0.5)

    def _idle(self) -> set[str]:
        told = json.loads(self.task.node.vedette("model", "list", "--json"))
        return {each["name"] for each in told if each["worker"]["state"] == "idle"}


def _name(size: int) -> str:
    return f"dense-{size:02}"
