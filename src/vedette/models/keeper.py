"""The keeper of models: `python -P -m vedette.models.keeper --role models --home H`, started by the supervisor.

Owns: one listening socket and one process for each model that control wants, and run/models/state.json. A socket
outlives its process, and callers are told when nobody serves (ADR 0048). Must not: look at what callers want, hold a
key, or import what a small process need not: every megabyte here is one of an idle node without models.

SIGTERM: ends all of it. SIGHUP: reads again what is wanted. SIGUSR1: goes on as the program that is installed now.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette import processes
from vedette.clock import now, to_rfc3339
from vedette.errors import UnavailableError
from vedette.ids import digest_hex
from vedette.models import keeper_notice, keeper_process, keeper_sockets
from vedette.models.keeper_process import Process
from vedette.models.keeper_state import WorkerState, write_states
from vedette.models.keeper_wanted import Wanted, WantedError, WantedFile
from vedette.models.keeper_worker import Leaving, Worker
from vedette.models.runtime import library_of
from vedette.store.home import Home

LOOK_INTERVAL: Final = 0.1
"""Seconds between two looks at what is wanted, where the kernel does not tell when it has changed."""
STOP_PATIENCE: Final = 3.0
"""Seconds for calls under way when the node stops: the engine, who makes them, has ended then."""
MEMORY_INTERVAL: Final = 30.0
STATE_RETRY: Final = 1.0
HANDOVER_VARIABLE: Final = "VEDETTE_KEEPER_HANDOVER"

_HANDOVER_LIMIT: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What the keeper was started with. `command` and `library` are for tests: another worker, another library."""

    home: Home
    command: Sequence[str]
    library: Path | None = None

    @classmethod
    def read(cls, words: Sequence[str]) -> Options:
        """From the command line: pairs of an option and its value. Raises `KeyError`, `ValueError`."""
        given = dict(zip(words[::2], words[1::2], strict=True))
        command = processes.module_command("vedette.models.worker")
        library = given.get("--library")
        return cls(
            Home(Path(given["--home"])),
            json.loads(given["--worker-command"]) if "--worker-command" in given else command,
            Path(library) if library else None,
        )


class Keeper:
    """Runs until SIGTERM."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._home = options.home
        self._clock = clock
        self._file = WantedFile(self._home.models_wanted)
        self._workers: dict[str, Worker] = {}
        self._leaving: list[Leaving] = []
        self._is_first = True  # what is wanted then was wanted before this program
        self._written: dict[str, WorkerState] | None = None
        self._write_again_at = 0.0
        self._notice = keeper_notice.watch(self._home.models_run)

    def run(self) -> int:
        """Keeps the workers. Returns 0 after an orderly stop; does not return when it becomes the next program."""
        told = _signals()
        self.take_over()
        while True:
            self.look()
            self.step()
            numbers = self._wait(told)
            if numbers & {signal.SIGTERM, signal.SIGINT}:
                self.stop()
                return 0
            if signal.SIGUSR1 in numbers:
                self._renew()
            if signal.SIGHUP in numbers:
                self._file.forget()

    def look(self) -> None:
        """Makes the workers those of the models that are wanted, if that has changed."""
        is_first, self._is_first = self._is_first, False
        try:
            wanted = self._file.take()
        except WantedError as error:
            say(f"{self._home.models_wanted}: {error}; what was wanted before stays")
            return
        if wanted is None:
            return
        for name, model in wanted.items():
            known = self._workers.get(name)
            if known is None:
                self._workers[name] = self._worker(model, start_at=self._clock())
                if is_first and model.idle_millis is not None:
                    self._workers[name].rest()  # it was loaded when it was taken in
            else:
                known.leaves_at = None
        for name, worker in self._workers.items():
            if name not in wanted:
                worker.leave()

    def _worker(self, model: Wanted, start_at: float | None) -> Worker:
        path = self._home.model_socket(model.worker)
        return Worker(model, path, self._start, self._clock, start_at=start_at)

    def _start(self, wanted: Wanted, listener: int) -> Process:
        config = {
            "model": wanted.served,
            "file": str(self._home.blobs / digest_hex(wanted.blob)),
            "files": {
                role: str(self._home.blobs / digest_hex(blob)) for role, blob in wanted.extras()
            },
            "library": "" if wanted.format == "detector" else self._library_of(wanted),
        }
        shown_as = f"{wanted.name}@{wanted.version}"
        arguments = keeper_process.marked(self._options.command, self._home.root, shown_as)
        return keeper_process.start(arguments, config, listener)

    def _library_of(self, wanted: Wanted) -> str:
        return str(self._options.library or library_of(wanted.format))

    def step(self) -> None:
        """Does what has become due, and writes the state."""
        for worker in self._workers.values():
            worker.step()
            self._let_go(worker)
        self._drop_those_that_leave()
        self._renew_next()
        moment = self._clock()
        self._leaving = [each for each in self._leaving if not each.has_left(moment)]
        self._write()

    def _let_go(self, worker: Worker) -> None:
        moment = self._clock()
        self._leaving += [Leaving.of(worker.wanted, each, moment) for each in worker.retired]
        worker.retired.clear()

    def _drop_those_that_leave(self) -> None:
        moment = self._clock()
        for name, worker in list(self._workers.items()):
            if worker.leaves_at is not None and moment >= worker.leaves_at:
                worker.close()
                self._let_go(worker)
                del self._workers[name]

    def _renew_next(self) -> None:
        """After an upgrade workers are replaced one after the other: two of each at once might be too much."""
        workers = self._workers.values()
        if any(worker.is_renewing() for worker in workers):
            return
        for worker in workers:
            if worker.elder is not None and worker.leaves_at is None:
                worker.start_at = self._clock()
                worker.step()
                return

    def _wait(self, told: int) -> set[int]:
        """Sleeps until something happens, is due, or it is time to look again; the signals that came."""
        poller = select.poll()
        poller.register(told, select.POLLIN)
        for worker in self._workers.values():
            for descriptor in worker.descriptors():
                poller.register(descriptor, select.POLLIN)
        for each in self._leaving:
            poller.register(each.process.pidfd, select.POLLIN)
        if self._notice is not None:
            poller.register(self._notice, select.POLLIN)
        poller.poll(self._patience())
        if self._notice is not None:
            keeper_notice.drain(self._notice)
        with contextlib.suppress(BlockingIOError):
            return set(os.read(told, 4096))
        return set()

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None when nothing is."""
        due = [moment for worker in self._workers.values() if (moment := worker.due()) is not None]
        due += [each.kill_at for each in self._leaving]
        moment = self._clock()
        if self._workers or self._written is None:
            due.append(self._write_again_at)
        if self._notice is None:
            due.append(moment + LOOK_INTERVAL)
        return max(0.0, min(due) - moment) * 1000 if due else None

    def _reports(self) -> dict[str, WorkerState]:
        found = {each.wanted.worker: each.report() for each in self._leaving}
        return found | {name: worker.report() for name, worker in self._workers.items()}

    def _write(self) -> None:
        """Writes the state when it has changed; memory alone is news twice a minute."""
        moment = self._clock()
        reports = self._reports()
        is_news = _without_memory(reports) != _without_memory(self._written)
        if moment < self._write_again_at and (self._written is None or not is_news):
            return
        if reports == self._written:
            self._write_again_at = moment + MEMORY_INTERVAL
            return
        try:
            write_states(self._home.models_state, reports)
        except UnavailableError as error:  # a full disk must not stop the models; tried again soon
            if self._written is not None:
                say(f"cannot write {self._home.models_state}: {error}")
            self._written, self._write_again_at = None, moment + STATE_RETRY
        else:
            self._written, self._write_again_at = reports, moment + MEMORY_INTERVAL

    def stop(self) -> None:
        """Ends all of it."""
        moment = self._clock()
        for worker in self._workers.values():
            worker.close()
            self._let_go(worker)
        for each in self._leaving:
            each.kill_at = min(each.kill_at, moment + STOP_PATIENCE)
        for each in self._leaving:
            each.process.has_ended(max(0.0, each.kill_at - self._clock()))
            if not each.has_left(max(self._clock(), each.kill_at)):
                each.process.has_ended(STOP_PATIENCE)
                each.has_left(self._clock())
        with contextlib.suppress(OSError):
            self._home.models_state.unlink(missing_ok=True)

    def _renew(self) -> None:
        """Becomes the program that is installed now: same pid, so that sockets and workers stay its own."""
        say("going on as what is installed now")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        handover = os.memfd_create("keeper", 0)  # not closed on exec
        os.write(handover, json.dumps(self._handed_over()).encode())
        environment = {**os.environ, HANDOVER_VARIABLE: str(handover)}
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        except OSError as error:
            say(f"{sys.executable}: {error.strerror}; going on as before")
            os.close(handover)
            for worker in self._workers.values():
                worker.visitors.keep()
                if worker.listener is not None:
                    worker.listener.set_inheritable(False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _handed_over(self) -> dict[str, Any]:
        workers = []
        for worker in self._workers.values():
            serving = worker.serving()
            fresh = worker.process
            if fresh is not None and fresh is not serving:  # begins anew, as what is installed now
                fresh.send(signal.SIGKILL)
                fresh.has_ended(1.0)
                fresh.collect()
                worker.process, worker.start_at = None, self._clock()
            if worker.listener is not None:
                worker.listener.set_inheritable(True)
                listener = worker.listener.fileno()
                row: dict[str, Any] = {"model": worker.wanted.served, "listener": listener}
                row["pid"] = serving.pid if serving else None
                row["loadMillis"] = serving.load_millis if serving else None
                row["isIdle"] = worker.is_idle
                row["visitors"] = worker.visitors.hand_over()
                workers.append(row)
        leaving = [
            {
                "model": each.wanted.served,
                "pid": each.process.pid,
                "killAt": each.kill_at,
                "since": each.since,
            }
            for each in self._leaving
        ]
        return {"workers": workers, "leaving": leaving}

    def take_over(self) -> None:
        """Takes what the program before left to this one, and ends what a killed keeper left."""
        handed = _handover()
        self._is_first = not handed
        for row in handed.get("workers", ()):
            model = Wanted.read(row["model"])
            elder = keeper_process.adopt(row["pid"], row["loadMillis"]) if row["pid"] else None
            is_idle = row.get("isIdle", False)
            waits = elder is not None or is_idle
            worker = self._worker(model, start_at=None if waits else self._clock())
            worker.is_idle = is_idle
            worker.visitors.take_over(row.get("visitors", ()), self._clock())
            worker.listener = socket.socket(fileno=row["listener"])
            worker.listener.set_inheritable(False)
            worker.elder = elder
            self._workers[model.worker] = worker
        for row in handed.get("leaving", ()):
            process = keeper_process.adopt(row["pid"])
            if process is not None:
                model = Wanted.read(row["model"])
                self._leaving.append(Leaving(model, process, row["killAt"], row["since"]))
        own = {each.process.pid for each in self._leaving}
        own |= {elder.pid for each in self._workers.values() if (elder := each.elder)}
        keeper_process.end_leftovers(self._home.root, own)
        keeper_sockets.remove_stale(self._home.models_run, self._workers)


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def _signals() -> int:
    """A descriptor that gets one byte for each signal: one poll waits for signals and processes alike."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return reader


def _ignore(_number: int, _frame: object) -> None:
    """The descriptor has the signal already."""


def _handover() -> dict[str, Any]:
    number = os.environ.pop(HANDOVER_VARIABLE, None)
    if number is None:
        return {}
    with open(int(number), "rb") as file:
        file.seek(0)
        handed: dict[str, Any] = json.loads(file.read(_HANDOVER_LIMIT))
    return handed


def _without_memory(reports: Mapping[str, WorkerState] | None) -> object:
    if reports is None:
        return None
    return {name: {**report, "memoryBytes": None} for name, report in reports.items()}


def say(message: str) -> None:
    """One line in log/models.log; a disk that refuses it costs the line, not the keeper."""
    with contextlib.suppress(OSError):
        os.write(2, f"{to_rfc3339(now())} keeper: {message}\n".encode(errors="replace"))


def main() -> int:
    """Runs as started by the supervisor."""
    os.umask(0o077)
    try:
        options = Options.read(sys.argv[1:])
    except (KeyError, ValueError):
        print("error: the keeper is started by `vedette up`", file=sys.stderr)
        return 2
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return Keeper(options).run()


if __name__ == "__main__":
    sys.exit(main())
