"""Keeps what is there equal to what was decided, once a second.

Owns: the loop and its chores (certificate, limit of the functions' output, garbage). Must not: change desired state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from vedette.control.activate import Activator
from vedette.errors import UnavailableError, VedetteError
from vedette.observability import spool
from vedette.store.home import Home

INTERVAL = 1.0
CHORE_INTERVAL = 60.0
GARBAGE_INTERVAL = 3600.0

log = logging.getLogger("vedette.control.reconcile")


class Reconciler:
    """Runs in a thread of its own until `stopping` is set. `clock` gives monotonic seconds."""

    def __init__(
        self,
        home: Home,
        activator: Activator,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        chores: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._home = home
        self._activator = activator
        self._stopping = stopping
        self._clock = clock
        self._others = chores
        self._said: str | None = None
        self._chores_at = 0.0
        self._garbage_at = clock() + GARBAGE_INTERVAL

    def run(self) -> None:
        """Steps once a second. An error is logged once, and tried again."""
        while not self._stopping.is_set():
            self.step()
            self._stopping.wait(INTERVAL)

    def step(self) -> None:
        """Mends what differs, and does the chores that are due."""
        try:
            mended = self._activator.reconcile()
            self._say(mended)
            self._chores()
        except UnavailableError as error:
            if error.code != "engine_away":  # the supervisor says that, and brings it back
                self._say(str(error))
        except VedetteError as error:
            self._say(f"{error}: {error.hint}")
        except Exception:
            log.exception("reconcile failed")

    def _say(self, message: str | None) -> None:
        if message and message != self._said:
            log.warning("%s", message)
        self._said = message

    def _chores(self) -> None:
        moment = self._clock()
        if moment >= self._chores_at:
            self._chores_at = moment + CHORE_INTERVAL
            self._activator.renew_certificate(self._activator.active()[1])
            spool.prune(self._home.spool_logs, spool.LOGS_LIMIT)
            for chore in self._others:
                chore()
        if moment >= self._garbage_at:
            self._garbage_at = moment + GARBAGE_INTERVAL
            self._activator.collect_garbage()
