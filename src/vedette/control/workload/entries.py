"""Workload entries: which callers get which SPIFFE ID.

Owns: what an entry may say, and keeping it. Entries are not in the snapshot (ADR 0029). Must not: mint anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vedette.config.hosts import normalise_host
from vedette.config.model import build
from vedette.control.workload.messages import WorkloadStatus, WorkloadWish
from vedette.errors import ConfigError
from vedette.identity.domain import SpiffeId, require_trust_domain, workload_id
from vedette.identity.jwt_svid import DEFAULT_JWT_TTL, MAX_JWT_TTL
from vedette.identity.x509_svid import DEFAULT_TTL, MAX_DNS_NAMES, MAX_TTL, require_ttl
from vedette.ids import require_name
from vedette.store.identities import IdentityStore

_log = logging.getLogger(__name__)
MAX_ENTRIES: Final = 10_000
MAX_SELECTORS: Final = 8
MAX_HINT: Final = 1_024  # bytes, Workload API §5.2.1
MAX_FEDERATED: Final = 64
_SELECTOR: Final = re.compile(
    r"(?:unix:(?:(?:uid|gid):(?:0|[1-9][0-9]{0,9})|path:/[^\0\n]{1,4095}|sha256:[0-9a-f]{64})"
    r"|vedette:run:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\Z"
)
_MAX_ID: Final = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A caller that has all of `selectors` is `spiffe_id`. Times are lives of SVIDs."""

    name: str
    spiffe_id: SpiffeId
    selectors: frozenset[str]
    ttl: timedelta = DEFAULT_TTL
    jwt_ttl: timedelta = DEFAULT_JWT_TTL
    hint: str = ""
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """One of the selectors: entries are found by it. The one that fewest callers have."""
        return min(self.selectors, key=lambda one: (_RANKS[one.split(":")[1]], one))

    @property
    def proof(self) -> str:
        """What its SVIDs prove, and of whom, in 32 hex digits."""
        told = [str(self.spiffe_id), sorted(self.selectors), list(self.dns_names)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def proves_the_same(self, other: Entry) -> bool:
        """Whether SVIDs of the one may stand where the other's are due."""
        mine = (self.spiffe_id, self.selectors, self.dns_names)
        return mine == (other.spiffe_id, other.selectors, other.dns_names)


_RANKS: Final = {"run": 0, "sha256": 0, "path": 1, "uid": 2, "gid": 3}
Listener = Callable[[str], None]


class Workloads:
    """The entries of a node. Methods may be called from any thread."""

    def __init__(self, store: IdentityStore, trust_domain: str) -> None:
        self._store = store
        self._trust_domain = trust_domain
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._suspended: frozenset[str] = frozenset()
        self._entries = dict(self._kept())

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with the name of each entry that changed, once that is durable, on the changing thread."""
        self._listeners.append(listener)

    def entries(self) -> dict[str, Entry]:
        """The entries that are served, by name."""
        with self._lock:
            return {name: one for name, one in self._entries.items() if self._serves(one)}

    def get(self, name: str) -> Entry | None:
        """An entry by name, if it is served."""
        with self._lock:
            entry = self._entries.get(name)
            return entry if entry is not None and self._serves(entry) else None

    def suspend(self, identities: Collection[str]) -> None:
        """Serves no entry with one of these SPIFFE IDs, and those again that are not among them any more."""
        with self._lock:
            changed = self._suspended ^ frozenset(identities)
            self._suspended = frozenset(identities)
            names = [name for name, one in self._entries.items() if str(one.spiffe_id) in changed]
        for name in names:
            self._tell(name)

    def _serves(self, entry: Entry) -> bool:
        return not self._suspended or str(entry.spiffe_id) not in self._suspended

    def list(self) -> list[WorkloadStatus]:
        """The entries as people see them, by name."""
        with self._lock:
            return [_status(entry) for _, entry in sorted(self._entries.items())]

    def put(self, name: str, wish: WorkloadWish) -> WorkloadStatus:
        """Keeps an entry, in the place of what had that name; callers have its SVIDs in a moment.

        Raises `ConfigError` invalid_name, workload_invalid, spiffe_id_invalid, spiffe_id_reserved, svid_invalid.
        """
        entry = self._entry(require_name(name, "workload"), wish)
        with self._lock:
            if name not in self._entries and len(self._entries) >= MAX_ENTRIES:
                raise ConfigError("workload_invalid", f"a node has at most {MAX_ENTRIES} entries")
            self._store.put_workload(name, wish.model_dump_json(by_alias=True))
            self._entries[name] = entry
        self._tell(name)
        return _status(entry)

    def checked(self, name: str, wish: WorkloadWish) -> Entry:
        """The entry that a wish would make. Raises as `put`, and keeps nothing."""
        return self._entry(require_name(name, "workload"), wish)

    def put_new(self, name: str, wish: WorkloadWish, keep: Callable[[str], bool]) -> WorkloadStatus:
        """Keeps an entry that is new, with `keep`, which writes its definition and says whether it did.

        Raises as `put`, and `ConfigError` workload_invalid when there is one of that name or `keep` did not.
        """
        entry = self.checked(name, wish)
        with self._lock:
            if name in self._entries or len(self._entries) >= MAX_ENTRIES:
                raise ConfigError("workload_invalid", f"{name!r} is taken, or there is no room")
            if not keep(wish.model_dump_json(by_alias=True)):
                raise ConfigError("workload_invalid", f"{name!r} was not kept")
            self._entries[name] = entry
        self._tell(name)
        return _status(entry)

    def remove(self, name: str) -> None:
        """Forgets an entry; its callers lose their SVIDs. Raises `ConfigError` workload_unknown."""
        with self._lock:
            if name not in self._entries:
                raise ConfigError("workload_unknown", f"there is no workload {name[:80]!r}")
            self._store.remove_workload(name)
            del self._entries[name]
        self._tell(name)

    def _kept(self) -> Iterator[tuple[str, Entry]]:
        """What can be used of what was kept: one entry that cannot must not cost the others theirs."""
        for name, text in self._store.workloads().items():
            try:
                wish = build(WorkloadWish, json.loads(text), code="workload_invalid")
                yield name, self._entry(name, wish)
            except (ConfigError, ValueError) as error:
                _log.error("the workload %s is not served: %s", name, error)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)

    def _entry(self, name: str, wish: WorkloadWish) -> Entry:
        ttl = DEFAULT_TTL if wish.ttl_seconds is None else _seconds(wish.ttl_seconds)
        jwt_ttl = (
            DEFAULT_JWT_TTL if wish.jwt_ttl_seconds is None else _seconds(wish.jwt_ttl_seconds)
        )
        return Entry(
            name,
            workload_id(self._trust_domain, wish.path),
            _selectors(wish.selectors),
            require_ttl(ttl, MAX_TTL),
            require_ttl(jwt_ttl, MAX_JWT_TTL),
            _hint(wish.hint),
            _dns_names(wish.dns_names),
            _federated(wish.federates_with, self._trust_domain),
        )


def _seconds(number: int) -> timedelta:
    try:
        return timedelta(seconds=number)
    except OverflowError:
        raise ConfigError("svid_invalid", f"{number} seconds are too long for an SVID") from None


def _selectors(texts: tuple[str, ...]) -> frozenset[str]:
    if not 1 <= len(set(texts)) <= MAX_SELECTORS:
        raise ConfigError("workload_invalid", f"an entry has 1 to {MAX_SELECTORS} selectors")
    for text in texts:
        if not _SELECTOR.match(text) or not _is_id(text):
            raise ConfigError("workload_invalid", f"{text[:120]!r} is not a selector")
    if len({text.partition(":")[0] for text in texts}) > 1:
        message = "of a program in a box only its name is known: no user, path or digest beside it"
        raise ConfigError("workload_invalid", message)
    return frozenset(texts)


def _is_id(selector: str) -> bool:
    _, kind, value = selector.split(":", 2)
    return kind not in ("uid", "gid") or int(value) <= _MAX_ID


def _hint(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > MAX_HINT or (text and not text.isprintable()):
        raise ConfigError("workload_invalid", f"a hint has at most {MAX_HINT} printable bytes")
    return text


def _dns_names(names: tuple[str, ...]) -> tuple[str, ...]:
    hosts = tuple(dict.fromkeys(normalise_host(name) for name in names))
    if len(hosts) > MAX_DNS_NAMES:
        raise ConfigError("workload_invalid", f"an entry has at most {MAX_DNS_NAMES} DNS names")
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9.-]+", host) or re.fullmatch(r"[0-9.]+", host):
            raise ConfigError("workload_invalid", f"{host[:80]!r} is not a DNS name")
    return hosts


def _federated(domains: tuple[str, ...], own: str) -> tuple[str, ...]:
    if len(domains) > MAX_FEDERATED or own in domains:
        raise ConfigError(
            "workload_invalid",
            f"an entry federates with at most {MAX_FEDERATED} trust domains of others",
        )
    return tuple(sorted({require_trust_domain(domain) for domain in domains}))


def _status(entry: Entry) -> WorkloadStatus:
    return WorkloadStatus(
        name=entry.name,
        spiffe_id=str(entry.spiffe_id),
        path=entry.spiffe_id.path,
        selectors=tuple(sorted(entry.selectors)),
        ttl_seconds=int(entry.ttl.total_seconds()),
        jwt_ttl_seconds=int(entry.jwt_ttl.total_seconds()),
        hint=entry.hint,
        dns_names=entry.dns_names,
        federates_with=entry.federates_with,
    )
