"""Which models run: said to the keeper before the engine is told, and after.

Owns: run/models/wanted.json, and waiting for workers to be ready. Must not: start or end a process; the keeper does
(ADR 0048).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from vedette.config.model import wire_value
from vedette.config.served import ServedModel
from vedette.errors import CATALOGUE, UnavailableError
from vedette.models.keeper_state import WorkerState, read_states
from vedette.models.keeper_wanted import LIMIT
from vedette.store.atomic import write_atomic
from vedette.store.home import Home

READY_PATIENCE: Final = 130.0
"""Seconds; the keeper gives a worker 120."""
_INTERVAL: Final = 0.05


class NotLoadedError(Exception):
    """Models are to be served that no worker has loaded: whoever changes the snapshot unlocks it and waits."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        super().__init__()
        self.models = models


class ModelWorkers:
    """What control says of models and hears of them. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._home = home
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        """Of what is written: who waits for a model does so without the activator's lock."""
        self._served: Sequence[ServedModel] = ()
        self._besides: dict[int, Sequence[ServedModel]] = {}
        self._said: tuple[Sequence[ServedModel], bytes] = ((), wanted_bytes(()))

    @contextlib.contextmanager
    def wish(self) -> Iterator[Wish]:
        """Models that are to run besides those that serve, as long as this lasts."""
        wish = Wish(self)
        try:
            yield wish
        finally:
            if wish.models:
                self._want_besides(wish, ())

    def load(self, wish: Wish, models: Sequence[ServedModel], patience: float) -> None:
        """Has these run, too, and returns when they are ready.

        Raises `ConfigError` socket_path_too_long, `UnavailableError` model_not_ready with what the worker said, or when
        the disk refuses.
        """
        self._home.require_model_sockets()
        self._want_besides(wish, models)
        self.require_ready(models, patience)

    def _want_besides(self, wish: Wish, models: Sequence[ServedModel]) -> None:
        wish.models = models
        with self._lock:
            self._besides.pop(id(wish), None)
            if models:
                self._besides[id(wish)] = models
                self._write()
            else:  # a disk that refuses is no failure: it is tried again within a second
                with contextlib.suppress(UnavailableError):
                    self._write()

    def require_ready(self, models: Sequence[ServedModel], patience: float) -> None:
        """Returns when the worker of each has loaded its model. Raises `UnavailableError` model_not_ready."""
        deadline = self._clock() + patience
        while True:
            states = read_states(self._home.models_state)
            waiting = [each for each in models if not _is_ready(each, states.get(each.worker))]
            if not waiting:
                return
            if self._clock() >= deadline:
                first = waiting[0]
                what = (
                    "is still loading"
                    if first.worker in states
                    else "was not taken up by the keeper"
                )
                raise UnavailableError(
                    "model_not_ready",
                    f"{first.name} version {first.version} {what} after {patience:.0f} s",
                )
            self._sleep(_INTERVAL)

    def settle(self, models: Sequence[ServedModel]) -> None:
        """Has exactly these run, and those that somebody waits for. A disk that refuses is no failure: it is called
        again within a second.
        """
        with self._lock, contextlib.suppress(UnavailableError):
            self._served = models
            self._write()

    def _write(self) -> None:
        models = self._served
        if self._besides:
            waited_for = itertools.chain.from_iterable(self._besides.values())
            models = tuple({each.worker: each for each in (*models, *waited_for)}.values())
        if self._said[0] is not models:
            self._said = (models, wanted_bytes(models))
        data = self._said[1]
        try:
            if self._home.models_wanted.read_bytes() == data:
                return
        except FileNotFoundError:
            if not models:
                return
        if len(data) > LIMIT:
            raise UnavailableError(
                "model_not_ready", f"the models are described in {len(data)} bytes; at most {LIMIT}"
            )
        write_atomic(self._home.models_wanted, data)


class Wish:
    """Models that somebody waits for. `models`: those that are wanted, and ready once `load` has returned."""

    def __init__(self, workers: ModelWorkers) -> None:
        self._workers = workers
        self.models: Sequence[ServedModel] = ()

    def load(self, models: Sequence[ServedModel], patience: float = READY_PATIENCE) -> None:
        """As `ModelWorkers.load`, in place of what was wished for before."""
        self._workers.load(self, models, patience)

    def require_loaded(self, before: Sequence[ServedModel], after: Sequence[ServedModel]) -> None:
        """Raises `NotLoadedError` with all that only `after` has, unless these are loaded."""
        there = {each.worker for each in before}
        new = [each for each in after if each.worker not in there]
        loaded = {each.worker for each in self.models}
        if any(each.worker not in loaded for each in new):
            raise NotLoadedError(new)


def wanted_bytes(models: Sequence[ServedModel]) -> bytes:
    """What the keeper reads."""
    rows = [wire_value(each) for each in models]
    return json.dumps({"models": rows}, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _is_ready(model: ServedModel, state: WorkerState | None) -> bool:
    """Whether its worker serves. Raises `UnavailableError` model_not_ready when it has failed."""
    if state is None:
        return False
    error = state["error"]
    is_there = state["state"] in ("ready", "idle")  # an idle one has loaded before
    if is_there or error is None:
        return is_there
    known = CATALOGUE.get(error["code"])
    raise UnavailableError(
        "model_not_ready",
        f"{model.name} version {model.version}: {error['message']}",
        known.hint if known else None,
    )
