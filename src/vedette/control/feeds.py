"""Lists of addresses that are fetched, and kept fresh.

Owns: control/feeds.json (where from, how it went, when next) and the thread that asks. The networks
themselves live in the snapshot: a poll after which they are others makes a new one (action `feed
NAME`), a poll that fails changes nothing, and a control that just started asks for everything.
Which of the snapshot's lists are fed is said twice, here and in the first line of the list's file:
an older snapshot in which the list came from elsewhere is left as it is. Must not: fetch on behalf
of a request, or keep a key.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.addresses import AddressList
from vedette.config.addresses_manifest import CrowdSecSource
from vedette.config.model import wire_value
from vedette.config.snapshot import Snapshot
from vedette.control import desired
from vedette.control.activate import Activator
from vedette.control.crowdsec import Bans, Pulled, pull
from vedette.control.messages import FeedStatus
from vedette.errors import VedetteError
from vedette.ids import digest_of
from vedette.store.atomic import read_json, write_json
from vedette.store.history import FEED
from vedette.store.home import Home

TICK: Final = 1.0
LONGEST_WAIT: Final = timedelta(minutes=10)  # between tries while it fails, if no poll is rarer
WHOLE_EVERY: Final = timedelta(hours=1)  # an answer that got lost is not told again
_NOTHING: Final = "sha256:" + "0" * 64

Pull = Callable[..., Pulled]
Sources = Mapping[str, CrowdSecSource | None]

log = logging.getLogger("vedette.control.feeds")


def begin(url: str) -> str:
    """A list before its feed has answered, and the first line of it ever after."""
    return f"# CrowdSec {url}\n"


def kept(base: Snapshot, after: Snapshot, fed: Mapping[str, str], sources: Sources) -> Snapshot:
    """`after` with what feeds brought to `base`: a plan does not say what is in such a list."""
    lists = {each.name: each for each in base.addresses.lists} if base.addresses else {}
    for name, url in fed.items():
        source, has = sources.get(name), lists[name]
        if source is not None and source.url == url:
            after = desired.with_list(after, name, has.blob, has.size, has.updated_at)
    return after


def ground_of(snapshot: Snapshot, fed: Mapping[str, str]) -> str:
    """The digest of a snapshot without what feeds brought; `fed`: which lists are, and where from."""
    for name in fed:
        snapshot = desired.with_list(snapshot, name, _NOTHING, 0, None)
    return snapshot.digest()


@dataclass
class _Known:
    """What is known of a feed since control started."""

    source: dict[str, Any]
    bans: Bans = field(default_factory=Bans)
    whole_at: datetime | None = None
    """When it last told everything; None: ask for that."""
    content: tuple[str, int, str] | None = None
    """Blob, size and time of the list as it was last made."""


class Feeds:
    """The lists of a node that are fetched. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        activator: Activator,
        pull_: Pull = pull,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._file = home.feeds_file
        self._activator = activator
        self._pull = pull_
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._heads: dict[str, bytes] = {}
        # Held by whoever changes which lists are fed; taken before the lock of the activator.
        self.lock = threading.RLock()

    def sources(self) -> dict[str, CrowdSecSource]:
        """Where lists are fetched from, by name; some may be in no snapshot just now."""
        entries = self._read().items()
        return {name: CrowdSecSource.model_validate(each["source"]) for name, each in entries}

    def fed(self, snapshot: Snapshot) -> dict[str, str]:
        """The lists of a snapshot that come from their feed, and its URL."""
        sources = self.sources()
        declared = snapshot.addresses.lists if snapshot.addresses else ()
        return {
            each.name: sources[each.name].url
            for each in declared
            if each.name in sources and self._begins(each, sources[each.name].url)
        }

    def put(self, sources: Sources) -> None:
        """Lists by name and where each comes from; None: from nowhere any more."""
        with self.lock:
            entries = self._read()
            before = dict(entries)
            for name, source in sources.items():
                if source is None:
                    entries.pop(name, None)
                    continue
                wire = dict(wire_value(source))
                if entries.get(name, {}).get("source") != wire:
                    entries[name] = {"source": wire}
            if entries != before:
                write_json(self._file, entries)

    def status(self, snapshot: Snapshot) -> dict[str, FeedStatus]:
        """How it stands with each list of a snapshot that is fetched."""
        found = {}
        fed = self.fed(snapshot)
        for name, entry in self._read().items():
            if name not in fed:
                continue
            polled = entry.get("polledAt")
            age = None if polled is None else self._clock() - from_rfc3339(polled)
            found[name] = FeedStatus(
                url=entry["source"]["url"],
                polled_at=polled,
                age_seconds=None if age is None else max(0, int(age.total_seconds())),
                next_at=entry.get("nextAt"),
                failures=entry.get("failures", 0),
                failing_since=entry.get("failingSince"),
                error=entry.get("error"),
                left_out=entry.get("leftOut", {}),
            )
        return found

    def run(self, stopping: threading.Event) -> None:
        """Asks what is due, once a second, until `stopping` is set."""
        while not stopping.wait(TICK):
            try:
                self.step()
            except VedetteError as error:
                log.warning("feeds: %s", error)
            except Exception:
                log.exception("the lists could not be refreshed")

    def step(self) -> None:
        """Asks what is due, and mends a list that a rollback took back."""
        fed = self.fed(self._activator.active()[1])
        for name, entry in self._read().items():
            if name not in fed:
                continue
            if self._is_due(name, entry):
                self._poll(name, entry)
            else:
                self._show(name, entry["source"])

    def _is_due(self, name: str, entry: Mapping[str, Any]) -> bool:
        known = self._known.get(name)
        if known is None or known.source != entry["source"] or "nextAt" not in entry:
            return True
        return from_rfc3339(entry["nextAt"]) <= self._clock()

    def _poll(self, name: str, entry: dict[str, Any]) -> None:
        known = self._known.get(name)
        if known is None or known.source != entry["source"]:
            known = self._known[name] = _Known(entry["source"])
        source, at = CrowdSecSource.model_validate(entry["source"]), self._clock()
        whole = known.whole_at is None or at - known.whole_at >= WHOLE_EVERY
        try:
            pulled = self._pull(source, whole=whole)
            known.bans.take(pulled, self._clock())
            known.whole_at = at if whole else known.whole_at
            changes = self._succeeded(source, known)
        except VedetteError as error:
            known.whole_at = None
            changes = self._failed(name, entry, source, error)
        try:
            if known.whole_at is not None or known.bans.until:
                self._make(name, known)
                self._show(name, known.source)
        except VedetteError as error:
            changes = self._failed(name, entry, source, error)
        self._update(name, entry, changes)

    def _make(self, name: str, known: _Known) -> None:
        """The list as it is to be now. What has run out goes, whether or not the feed answered."""
        known.bans.expire(self._clock())
        networks = "".join(f"{network}\n" for network in known.bans.networks())
        data = (begin(known.source["url"]) + networks).encode()
        digest = digest_of(data)
        if known.content is None or known.content[0] != digest:
            self._activator.blobs.put(data)
            known.content = (digest, len(data), to_rfc3339(self._clock()))

    def _show(self, name: str, source: dict[str, Any]) -> None:
        """Serves the list as it was last made, if another is served."""
        known = self._known.get(name)
        with self.lock:
            entry = self._read().get(name)
            if known is None or known.content is None or entry is None:
                return
            if entry["source"] != source or known.source != source:
                return  # it comes from elsewhere by now
            active = self._activator.active()[1]
            blob, size, at = known.content
            has = _list_of(active, name)
            if has is None or has.blob == blob or name not in self.fed(active):
                return
            self._activator.change(
                lambda snapshot: desired.with_list(snapshot, name, blob, size, at),
                f"{FEED}{name}",
                "control",
            )

    def _succeeded(self, source: CrowdSecSource, known: _Known) -> dict[str, Any]:
        wait = timedelta(seconds=source.interval_seconds)
        return {
            "polledAt": to_rfc3339(self._clock()),
            "nextAt": to_rfc3339(self._clock() + wait, microseconds=True),
            "failures": 0,
            "failingSince": None,
            "error": None,
            "leftOut": known.bans.left_out(),
        }

    def _failed(
        self, name: str, entry: Mapping[str, Any], source: CrowdSecSource, error: VedetteError
    ) -> dict[str, Any]:
        failures = int(entry.get("failures", 0)) + 1
        interval = timedelta(seconds=source.interval_seconds)
        wait = max(interval, min(interval * 2 ** min(failures - 1, 10), LONGEST_WAIT))
        if failures == 1 or error.message[:500] != entry.get("error"):
            log.warning("list %s: %s", name, error.message)
        return {
            # Together is what nodes start after a power cut; apart is how they should ask.
            "nextAt": to_rfc3339(
                self._clock() + wait * random.uniform(1.0, 1.2), microseconds=True
            ),
            "failures": failures,
            "failingSince": entry.get("failingSince") or to_rfc3339(self._clock()),
            "error": error.message[:500],
        }

    def _update(self, name: str, before: Mapping[str, Any], changes: dict[str, Any]) -> None:
        with self.lock:
            entries = self._read()
            if entries.get(name, {}).get("source") == before["source"]:
                entries[name] = {**entries[name], **changes}
                write_json(self._file, entries)

    def _begins(self, declared: AddressList, url: str) -> bool:
        """Whether the file of a list is what this feed made."""
        head = self._heads.get(declared.blob)
        if head is None:
            head = self._activator.blobs.head(declared.blob, 4_096)
            self._heads = {**dict(list(self._heads.items())[-63:]), declared.blob: head}
        return head.startswith(begin(url).encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        entries = read_json(self._file)
        return entries if isinstance(entries, dict) else {}


def _list_of(snapshot: Snapshot, name: str) -> AddressList | None:
    lists = snapshot.addresses.lists if snapshot.addresses else ()
    return next((each for each in lists if each.name == name), None)
