"""Which callers watch what, and which entries are theirs: found by selector, not by looking at all.

Owns: two tables and their agreement. Used on the loop's thread only. Must not: build or send a message.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vedette.control.workload.entries import Entry
from vedette.control.workload.grpc import Call

MAX_MATCHES: Final = 256
"""SVIDs in one answer: clients take messages of 4 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """A call that is told of each change: its method, and what its caller is."""

    call: Call
    method: str
    selectors: frozenset[str]


class Watches:
    """Open watches and the entries they match."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)
        self._by_anchor: dict[str, dict[str, Entry]] = defaultdict(dict)
        for entry in entries.values():
            self._by_anchor[entry.anchor][entry.name] = entry
        self._watching: dict[str, set[Watch]] = defaultdict(set)
        self._all: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Watch]:
        return iter(tuple(self._all))

    def matching(self, selectors: frozenset[str]) -> list[Entry]:
        """The entries all of whose selectors a caller has, by name; the first is its default identity."""
        found = [
            entry
            for selector in selectors
            for entry in self._by_anchor.get(selector, {}).values()
            if entry.selectors <= selectors
        ]
        return sorted(found, key=lambda entry: entry.name)[:MAX_MATCHES]

    def watching(self, name: str) -> set[Watch]:
        """The watches that the entry of that name concerns."""
        entry = self._entries.get(name)
        return set() if entry is None else self._concerned(entry)

    def change(self, name: str, entry: Entry | None) -> set[Watch]:
        """Puts an entry in the place of the one of that name, or takes that away; returns the watches that see it."""
        before = self._entries.pop(name, None)
        concerned: set[Watch] = set()
        if before is not None:
            concerned |= self._concerned(before)
            named = self._by_anchor[before.anchor]
            named.pop(name, None)
            if not named:
                del self._by_anchor[before.anchor]
        if entry is not None:
            self._entries[name] = entry
            self._by_anchor[entry.anchor][name] = entry
            concerned |= self._concerned(entry)
        return concerned

    def add(self, watch: Watch) -> None:
        """A watch begins."""
        self._all.add(watch)
        for selector in watch.selectors:
            self._watching[selector].add(watch)

    def remove(self, watch: Watch) -> None:
        """A watch is over."""
        self._all.discard(watch)
        for selector in watch.selectors:
            those = self._watching[selector]
            those.discard(watch)
            if not those:
                del self._watching[selector]

    def _concerned(self, entry: Entry) -> set[Watch]:
        """A caller that matches has the anchor too."""
        those = self._watching.get(entry.anchor, ())
        return {watch for watch in those if entry.selectors <= watch.selectors}
