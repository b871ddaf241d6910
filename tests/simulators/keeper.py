"""The keeper of models, with workers that are ready at once: for tests of control in one process."""

from __future__ import annotations

import contextlib
import threading

from vedette.models.keeper_state import WorkerError, WorkerState, write_states
from vedette.models.keeper_wanted import Wanted, WantedError, WantedFile
from vedette.store.home import Home


class KeeperSimulator:
    """Answers what control wants in a thread of its own. `fails`: by the name of a model, why it is never ready;
    `hangs`: names of those that load for ever. `seen` has what was wanted, one entry for each change.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = WantedFile(home.models_wanted)
        self._ended = threading.Event()
        self.fails: dict[str, WorkerError] = {}
        self.hangs: set[str] = set()
        self.seen: list[set[str]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.005):
            wanted = None
            with contextlib.suppress(WantedError):  # what was wanted before stays
                wanted = self._file.take()
            if wanted is not None:
                self.seen.append({f"{one.name}@{one.version}" for one in wanted.values()})
                states = {name: self._state(model) for name, model in wanted.items()}
                write_states(self._home.models_state, states)

    def _state(self, wanted: Wanted) -> WorkerState:
        error = self.fails.get(wanted.name)
        is_ready = error is None and wanted.name not in self.hangs
        return {
            "name": wanted.name,
            "version": wanted.version,
            "state": "ready" if is_ready else "failed" if error else "starting",
            "pid": None if error else 1,
            "restarts": 0,
            "since": "2026-11-22T12:00:00.000000Z",
            "error": error,
            "loadMillis": 1.5 if is_ready else None,
            "memoryBytes": 1 << 20 if is_ready else None,
        }
