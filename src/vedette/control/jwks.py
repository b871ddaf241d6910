"""Keys of issuers that are fetched from a URL, and kept fresh.

Owns: control/jwks.json (where from, how it went, when next) and the thread that refreshes. The keys themselves live in
the snapshot: a refresh that changes them is a new one (action jwks-refresh), a refresh that fails changes nothing. Must
not: fetch on behalf of a request; a token with a new key waits for the next refresh, or for `vedette issuer refresh`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.snapshot import IssuerKey
from vedette.control import desired
from vedette.control.activate import Activator
from vedette.control.messages import Jwks, JwksStatus
from vedette.errors import ConfigError, VedetteError
from vedette.identity.jwks import Fetched, fetch, require_url
from vedette.identity.web import require_ca
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

FLOOR: Final = timedelta(seconds=60)
CEILING: Final = timedelta(hours=24)
USUAL: Final = timedelta(minutes=5)  # when the answer does not say
LONGEST_WAIT: Final = timedelta(hours=1)  # between tries while it fails
INTERVAL: Final = 1.0

Fetch = Callable[..., Fetched]

log = logging.getLogger("vedette.control.jwks")


class JwksRefresher:
    """The issuers of a node whose keys come from a URL. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        activator: Activator,
        fetch_: Fetch = fetch,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._file = home.jwks_file
        self._activator = activator
        self._fetch = fetch_
        self._clock = clock
        self.lock = (
            threading.RLock()
        )  # held by whoever changes an issuer and where its keys come from

    def first(self, source: Jwks) -> Fetched:
        """The keys at a URL, now. Raises `ConfigError` jwks_url or key_…, `UnavailableError` jwks_unavailable."""
        require_url(source.url)
        require_ca(source.ca)
        return self._fetch(source.url, ca_pem=source.ca, alg=source.alg)

    def add(self, name: str, source: Jwks, fetched: Fetched) -> None:
        """Refreshes the keys of the issuer `name` from now on."""
        with self.lock:
            entries = self._read()
            entry = {"source": source.model_dump(mode="json", by_alias=True, exclude_none=True)}
            entries[name] = {**entry, **self._succeeded(fetched)}
            self._write(entries)

    def remove(self, name: str) -> None:
        """Refreshes the keys of the issuer `name` no longer."""
        with self.lock:
            entries = self._read()
            if entries.pop(name, None) is not None:
                self._write(entries)

    def status(self) -> dict[str, JwksStatus]:
        """How it stands with each issuer."""
        with self.lock:
            entries = self._read()
        return {
            name: JwksStatus(
                url=entry["source"]["url"],
                fetched_at=entry["fetchedAt"],
                age_seconds=self._age(entry),
                next_at=entry["nextAt"],
                failures=entry["failures"],
                error=entry["error"],
            )
            for name, entry in entries.items()
        }

    def run(self, stopping: threading.Event) -> None:
        """Refreshes what is due, once a second, until `stopping` is set."""
        while not stopping.wait(INTERVAL):
            self.step()

    def step(self) -> None:
        """Refreshes what is due."""
        with self.lock:
            due = [
                name
                for name, entry in self._read().items()
                if from_rfc3339(entry["nextAt"]) <= self._clock()
            ]
        for name in due:
            try:
                self.refresh(name)
            except VedetteError as error:
                log.warning("issuer %s: %s", name, error)
            except Exception:
                log.exception("issuer %s: the refresh failed", name)

    def refresh(self, name: str, actor: str = "control") -> None:
        """Fetches the keys of one issuer now. Raises `VedetteError`; the node then keeps the keys it has.

        Raises `ConfigError` issuer_unknown when the keys of that issuer come from no URL.
        """
        with self.lock:
            entry = self._read().get(name)
        if entry is None:
            raise ConfigError("issuer_unknown", f"no issuer {name!r} has its keys from a URL")
        source = Jwks.model_validate(entry["source"])
        try:
            # What is in the snapshot may be older than the last answer (a rollback): then 304 is of no use.
            etag = entry["etag"] if self._holds(name, entry) else None
            fetched = self._fetch(source.url, ca_pem=source.ca, alg=source.alg, etag=etag)
            if fetched.keys is not None:
                self._activate(name, entry["source"], fetched.keys, actor)
        except VedetteError as error:
            self._update(name, entry, self._failed(entry, error))
            raise
        self._update(name, entry, self._succeeded(fetched, entry))

    def _activate(
        self, name: str, source: dict[str, Any], keys: tuple[IssuerKey, ...], actor: str
    ) -> None:
        with self.lock:
            if self._read().get(name, {}).get("source") != source:
                return  # its keys come from elsewhere by now
            if self._keys_of(name) in (None, keys):
                return  # not trusted just now (a rollback), or nothing new
            self._activator.change(
                lambda active: desired.with_keys(active, name, keys), "jwks-refresh", actor
            )

    def _holds(self, name: str, entry: dict[str, Any]) -> bool:
        keys = self._keys_of(name)
        return keys is not None and entry["keys"] == _names(keys)

    def _keys_of(self, name: str) -> tuple[IssuerKey, ...] | None:
        issuers = self._activator.active()[1].identity.issuers
        return next((issuer.keys for issuer in issuers if issuer.name == name), None)

    def _succeeded(self, fetched: Fetched, before: dict[str, Any] | None = None) -> dict[str, Any]:
        moment = self._clock()
        age = USUAL if fetched.max_age is None else timedelta(seconds=fetched.max_age)
        wait = min(max(age, FLOOR), CEILING)
        keys = before["keys"] if fetched.keys is None and before else _names(fetched.keys or ())
        return {
            "etag": fetched.etag,
            "keys": keys,
            "fetchedAt": to_rfc3339(moment),
            "nextAt": to_rfc3339(moment + max(wait * random.uniform(0.9, 1.0), FLOOR)),
            "failures": 0,
            "error": None,
        }

    def _failed(self, entry: dict[str, Any], error: VedetteError) -> dict[str, Any]:
        failures = int(entry["failures"]) + 1
        wait = min(FLOOR * 2 ** min(failures - 1, 10), LONGEST_WAIT)
        wait = max(wait * random.uniform(0.8, 1.0), FLOOR)
        changed = {"nextAt": to_rfc3339(self._clock() + wait), "failures": failures}
        return {**changed, "error": error.message[:500]}

    def _update(self, name: str, before: dict[str, Any], changes: dict[str, Any]) -> None:
        with self.lock:
            entries = self._read()
            if entries.get(name, {}).get("source") == before["source"]:
                entries[name] = {**entries[name], **changes}
                self._write(entries)

    def _age(self, entry: dict[str, Any]) -> int:
        return max(0, int((self._clock() - from_rfc3339(entry["fetchedAt"])).total_seconds()))

    def _read(self) -> dict[str, dict[str, Any]]:
        entries = read_json(self._file)
        return entries if isinstance(entries, dict) else {}

    def _write(self, entries: dict[str, dict[str, Any]]) -> None:
        write_json(self._file, entries)


def _names(keys: tuple[IssuerKey, ...]) -> list[str]:
    return [f"{key.kid or ''} {key.alg} {sorted(key.jwk.items())}" for key in keys]
