"""The Workload API: calls to answers, and changes to those who watch (SPIFFE Workload API §3 to §6).

Owns: the order of the checks of a call, and when something is sent again. Runs on the loop's thread only. Must not:
speak HTTP/2, or mint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from concurrent.futures import Executor
from typing import Final

from vedette.control.workload import answers, joining, reflection
from vedette.control.workload.answers import Answers
from vedette.control.workload.attest import Attestor
from vedette.control.workload.entries import Entry, Workloads
from vedette.control.workload.grpc import Call, CallError, Status
from vedette.control.workload.identities import Identities
from vedette.control.workload.joining import JoinDesk
from vedette.control.workload.svids import Svids
from vedette.control.workload.watches import Watch, Watches
from vedette.control.workload.wire import SERVICE
from vedette.errors import VedetteError

_log = logging.getLogger(__name__)
HEADER: Final = b"workload.spiffe.io"
_PREFIX: Final = f"/{SERVICE}/".encode()
_METHODS: Final = frozenset({*answers.STREAMS, answers.JWT_SVID, answers.VALIDATE})
_BETWEEN: Final = 0.2  # seconds between two rounds to everybody
_AT_ONCE: Final = 100
"""Watches that are served before other work has its turn."""


class WorkloadApi:
    """The service of one node."""

    def __init__(
        self,
        workloads: Workloads,
        identities: Identities,
        svids: Svids,
        threads: Executor,
        desk: JoinDesk | None = None,
    ) -> None:
        """`desk` redeems join tokens, if that is to be."""
        self._desk = desk
        self._workloads = workloads
        self._svids = svids
        self._answers = Answers(identities, svids)
        self._attestor = Attestor()
        self._threads = threads
        self._watches = Watches(workloads.entries())
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: set[Watch] = set()
        self._learning: dict[int, asyncio.Lock] = {}
        self._news = False
        self._telling = False

    # --- calls -----------------------------------------------------------------------------------------------------

    def opened(self, call: Call) -> None:
        """The checks that need no message: the method, and the header that a forwarded request would lack (§3)."""
        call.require_grpc()
        if call.path in reflection.PATHS:
            return
        if _method(call) not in _METHODS and not self._is_join(call):
            raise CallError(Status.UNIMPLEMENTED, "there is no such method")
        if call.metadata(HEADER) != [b"true"]:
            raise CallError(
                Status.INVALID_ARGUMENT, "the metadata must have workload.spiffe.io: true, once"
            )

    def message(self, call: Call, data: bytes) -> None:
        """The one request of a call."""
        if call.path in reflection.PATHS:
            reflection.answer(call, data)
            return
        if call.answered:
            raise CallError(Status.INVALID_ARGUMENT, "a call has one request")
        call.answered = True
        selectors = self._attestor.selectors(call.peer)
        if selectors is None:
            self._later(self._attest(call, data))
        else:
            self._answer(call, data, selectors)

    def half_closed(self, call: Call) -> None:
        """A caller that asks nothing is told so."""
        if call.path in reflection.PATHS:
            call.finish(Status.OK)
        elif not call.answered:
            raise CallError(Status.INVALID_ARGUMENT, "the request is missing")

    async def _attest(self, call: Call, data: bytes) -> None:
        """Takes the digest of the caller's program, of one program of a user at a time: nobody holds all threads."""
        lock = self._learning.setdefault(call.peer.uid, asyncio.Lock())
        async with lock:
            if not call.closed and self._attestor.selectors(call.peer) is None:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._attestor.learn, call.peer)
        if not lock.locked():
            self._learning.pop(call.peer.uid, None)
        if call.closed:
            return
        selectors = self._attestor.selectors(call.peer)
        try:
            if selectors is None:  # another program runs there by now
                raise CallError(Status.UNAVAILABLE, "the caller could not be looked at; try again")
            self._answer(call, data, selectors)
        except CallError as refused:
            call.finish(refused.status, refused.message)

    def _answer(self, call: Call, data: bytes, selectors: frozenset[str]) -> None:
        if self._is_join(call):
            self._later(self._join(call, data, selectors))
            return
        method = _method(call)
        entries = self._watches.matching(selectors)
        try:
            if method in answers.STREAMS:
                call.push(self._answers.stream(method, entries))
                self._watch(Watch(call, method, selectors))
            elif method == answers.JWT_SVID:
                self._reply(call, self._answers.jwt_svids(data, entries))
            else:
                self._reply(call, self._answers.validated(data, entries))
        except VedetteError as error:
            _log.warning("the Workload API cannot answer: %s", error)
            raise CallError(Status.UNAVAILABLE, "the node cannot issue now; try again") from None

    def _is_join(self, call: Call) -> bool:
        return self._desk is not None and call.path == joining.PATH

    async def _join(self, call: Call, data: bytes, selectors: frozenset[str]) -> None:
        """In a thread: it waits for the disk. Once begun it is done, whether the caller waits or not."""
        assert self._desk is not None
        loop = asyncio.get_running_loop()
        asked = (data, call.peer.uid, selectors)
        try:
            told = await loop.run_in_executor(self._threads, self._desk.answer, *asked)
        except CallError as refused:
            call.finish(refused.status, refused.message)
        else:
            self._reply(call, told)

    def _reply(self, call: Call, message: bytes) -> None:
        call.push(message)
        call.finish(Status.OK)

    def _watch(self, watch: Watch) -> None:
        self._watches.add(watch)
        watch.call.on_close = lambda: self._unwatch(watch)

    def _unwatch(self, watch: Watch) -> None:
        self._watches.remove(watch)
        self._retry.discard(watch)

    # --- changes ---------------------------------------------------------------------------------------------------

    def entry_changed(self, name: str) -> None:
        """An entry is new, another or gone."""
        self._later(self._tell(self._watches.change(name, self._workloads.get(name))))

    def trust_changed(self) -> None:
        """The CRL or a bundle is another: everybody is told, at once and then a few times a second at most."""
        self._news = True
        if not self._telling:
            self._telling = True
            self._later(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._news:
                self._news = False
                await self._tell(self._watches)
                await asyncio.sleep(_BETWEEN)
        finally:
            self._telling = False

    def renew(self) -> None:
        """Renews what is due, for those who watch it, and tries again what failed."""
        concerned: set[Watch] = set(self._retry)
        self._retry.clear()
        for name in self._svids.due():
            those = {
                watch for watch in self._watches.watching(name) if watch.method == answers.X509_SVID
            }
            if not those:
                self._svids.forget(name)
            concerned |= those
        if concerned:
            self._later(self._tell(concerned))

    async def _tell(self, watches: Iterable[Watch]) -> None:
        """Sends the full set anew; callers with the same selectors get the same bytes."""
        made: dict[tuple[str, tuple[Entry, ...]], bytes] = {}
        for number, watch in enumerate(watches):
            if number % _AT_ONCE == _AT_ONCE - 1:
                made.clear()  # what is sent must not be older than what changed meanwhile
                await asyncio.sleep(0)
            if not watch.call.closed:
                self._tell_one(watch, made)

    def _tell_one(self, watch: Watch, made: dict[tuple[str, tuple[Entry, ...]], bytes]) -> None:
        entries = tuple(self._watches.matching(watch.selectors))
        key = (watch.method, entries)
        try:
            if key not in made:
                made[key] = self._answers.stream(watch.method, entries)
            watch.call.push(made[key])
        except CallError as refused:
            watch.call.finish(refused.status, refused.message)
        except VedetteError as error:
            _log.warning("a change is not told yet: %s", error)
            self._retry.add(watch)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the Workload API failed", exc_info=task.exception())

    def close(self) -> None:
        """Ends every watch, so that clients ask again at once when control is back."""
        for watch in self._watches:
            watch.call.finish(Status.UNAVAILABLE, "the node is stopping")


def _method(call: Call) -> str:
    if not call.path.startswith(_PREFIX):
        return ""
    return call.path.removeprefix(_PREFIX).decode("ascii", "replace")
