"""Bundles of other trust domains, fetched from their endpoints and kept fresh (SPIFFE Federation §4, §6).

Owns: control/followed.json (where from, how it went, when next) and the thread that fetches. What is trusted lives in
`Federation`; a fetch that fails, and a document that is refused, change nothing there. Must not: fetch for a caller.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.model import build
from vedette.control.federation.messages import FollowStatus, FollowWish, Profile
from vedette.control.workload.identities import Identities
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.identity.bundle_web import SpiffeEndpoint, fetch_bundle, require_bundle_url
from vedette.identity.domain import (
    bundle_endpoint_id,
    parse_spiffe_id,
    require_trust_domain,
)
from vedette.identity.federation import MAX_FEDERATED
from vedette.identity.web import require_ca
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

FLOOR: Final = timedelta(seconds=30)
CEILING: Final = timedelta(hours=24)
USUAL: Final = timedelta(minutes=5)  # §4.1, when a bundle has no hint
LONGEST_WAIT: Final = timedelta(hours=1)  # between tries while it fails
INTERVAL: Final = 1.0
_AT_ONCE: Final = 4

Fetch = Callable[[str, SpiffeEndpoint | None, str | None], bytes]

log = logging.getLogger("vedette.control.followed")


class Following:
    """The trust domains whose bundles are fetched. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        identities: Identities,
        fetch: Fetch = fetch_bundle,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._file = home.followed_file
        self._identities = identities
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="followed")

    def follow(self, trust_domain: str, wish: FollowWish) -> FollowStatus:
        """Fetches the bundle of a trust domain now and from now on. That the first fetch fails is told in the status.

        Raises `ConfigError` bundle_url, spiffe_id_invalid, bundle_invalid, bundle_unknown for an https_spiffe endpoint
        whose trust domain has no bundle here yet, certificate_unreadable.
        """
        domain = require_trust_domain(trust_domain)
        if domain == self._identities.trust_domain:
            raise ConfigError("bundle_invalid", "a node makes the bundle of its own trust domain")
        require_bundle_url(wish.url)
        require_ca(wish.ca)
        chosen = _completed(domain, wish)
        self._endpoint(chosen)
        entry = {
            "source": chosen.model_dump(mode="json", by_alias=True, exclude_none=True),
            "fetchedAt": None,
            "nextAt": to_rfc3339(self._clock()),
            "failures": 0,
            "error": None,
        }
        with self._lock:
            entries = self._read()
            if domain not in entries and len(entries) >= MAX_FEDERATED:
                raise ConfigError("bundle_invalid", f"{MAX_FEDERATED} trust domains are followed")
            write_json(self._file, {**entries, domain: entry})
        self._refreshed(domain)
        return self._status_of(domain)

    def unfollow(self, trust_domain: str) -> None:
        """Fetches it no longer; its bundle stays. Raises `ConfigError` bundle_not_followed."""
        if not self.forget(trust_domain):
            raise _not_followed(trust_domain)

    def forget(self, trust_domain: str) -> bool:
        """Fetches it no longer; whether it was followed."""
        with self._lock:
            entries = self._read()
            if entries.pop(trust_domain, None) is None:
                return False
            write_json(self._file, entries)
            return True

    def statuses(self) -> list[FollowStatus]:
        """How it stands with each, by trust domain."""
        with self._lock:
            entries = self._read()
        return [self._status(domain, entry) for domain, entry in sorted(entries.items())]

    def refresh(self, trust_domain: str) -> FollowStatus:
        """Fetches one now. Raises `VedetteError`; the node then trusts what it trusted."""
        self._refresh(trust_domain)
        return self._status_of(trust_domain)

    def run(self, stopping: threading.Event) -> None:
        """Fetches what is due, once a second, until `stopping` is set."""
        while not stopping.wait(INTERVAL):
            try:
                self.step()
            except Exception:
                log.exception("following trust domains failed")
        self._threads.shutdown(wait=False, cancel_futures=True)

    def step(self) -> None:
        """Fetches what is due. One that is due far ahead was noted by a clock that went back."""
        at = self._clock()
        with self._lock:
            due = [
                domain
                for domain, entry in self._read().items()
                if not at < from_rfc3339(entry["nextAt"]) <= at + CEILING
            ]
        list(self._threads.map(self._refreshed, due))

    def _refreshed(self, domain: str) -> None:
        """One fetch, whose failure is in the status."""
        try:
            self._refresh(domain)
        except VedetteError as error:
            log.warning("the bundle of %s stays as it is: %s", domain, error)
        except Exception:
            log.exception("the bundle of %s stays as it is", domain)

    def _refresh(self, domain: str) -> None:
        with self._lock:
            entry = self._read().get(domain)
        if entry is None:
            raise _not_followed(domain)
        source = build(FollowWish, entry["source"], code="bundle_url")
        try:
            document = self._fetch(source.url, self._endpoint(source), source.ca)
            with self._lock:
                if self._read().get(domain, {}).get("source") != entry["source"]:
                    return  # it is followed from elsewhere by now, or no more
                hint = self._identities.take_bundle(domain, document).refresh_hint
        except Exception as error:
            told = error if isinstance(error, VedetteError) else _defect(error)
            self._update(domain, entry, self._failed(entry, told, domain))
            raise
        self._update(domain, entry, self._succeeded(hint))

    def _endpoint(self, source: FollowWish) -> SpiffeEndpoint | None:
        """Who must answer: proved by the newest bundle of its trust domain (§5.2.2.4)."""
        if source.endpoint_id is None:
            return None
        identity = parse_spiffe_id(source.endpoint_id)
        if identity.trust_domain == self._identities.trust_domain:
            return SpiffeEndpoint(identity, self._identities.own_bundle())
        bundle = self._identities.federation.bundles().get(identity.trust_domain)
        if bundle is None:
            raise ConfigError(
                "bundle_unknown",
                f"no bundle of {identity.trust_domain} is kept to prove the endpoint by",
                f"Give the first one by hand: vedette federation set {identity.trust_domain} --bundle FILE",
            )
        return SpiffeEndpoint(identity, bundle)

    def _succeeded(self, hint: int | None) -> dict[str, Any]:
        at = self._clock()
        wait = _interval(hint)
        return {
            "fetchedAt": to_rfc3339(at),
            "nextAt": to_rfc3339(at + wait * random.uniform(0.9, 1.0)),
            "failures": 0,
            "error": None,
        }

    def _failed(self, entry: dict[str, Any], error: VedetteError, domain: str) -> dict[str, Any]:
        """Not more often than when all is well (§6.2), and less and less often."""
        failures = int(entry["failures"]) + 1
        held = self._identities.federation.bundles().get(domain)
        usual = _interval(held.refresh_hint if held is not None else None)
        wait = max(usual, min(usual * 2 ** min(failures - 1, 10), LONGEST_WAIT))
        return {
            "nextAt": to_rfc3339(self._clock() + wait * random.uniform(0.9, 1.0)),
            "failures": failures,
            "error": error.message[:500],
        }

    def _update(self, domain: str, before: dict[str, Any], changes: dict[str, Any]) -> None:
        with self._lock:
            entries = self._read()
            if entries.get(domain, {}).get("source") == before["source"]:
                write_json(self._file, {**entries, domain: {**entries[domain], **changes}})

    def _status_of(self, domain: str) -> FollowStatus:
        with self._lock:
            entry = self._read().get(domain)
        if entry is None:
            raise _not_followed(domain)
        return self._status(domain, entry)

    def _status(self, domain: str, entry: dict[str, Any]) -> FollowStatus:
        fetched = entry["fetchedAt"]
        age = None if fetched is None else self._clock() - from_rfc3339(fetched)
        return FollowStatus(
            **build(FollowWish, entry["source"], code="bundle_url").model_dump(),
            trust_domain=domain,
            fetched_at=fetched,
            age_seconds=None if age is None else max(0, int(age.total_seconds())),
            next_at=entry["nextAt"],
            failures=entry["failures"],
            error=entry["error"],
        )

    def _read(self) -> dict[str, dict[str, Any]]:
        entries = read_json(self._file)
        return entries if isinstance(entries, dict) else {}


def _completed(domain: str, wish: FollowWish) -> FollowWish:
    """With the SPIFFE ID of the endpoint where the profile has one: by default that of a Vedette node."""
    if wish.profile is Profile.HTTPS_WEB:
        if wish.endpoint_id is not None:
            raise ConfigError("bundle_url", "an https_web endpoint has no SPIFFE ID")
        return wish
    if wish.ca is not None:
        raise ConfigError("bundle_url", "an https_spiffe endpoint is proved by a bundle, not a CA")
    identity = parse_spiffe_id(wish.endpoint_id or str(bundle_endpoint_id(domain)))
    return wish.model_copy(update={"endpoint_id": str(identity)})


def _interval(hint: int | None) -> timedelta:
    seconds = USUAL if hint is None else timedelta(seconds=min(hint, 86_400))
    return min(max(seconds, FLOOR), CEILING)


def _defect(error: Exception) -> VedetteError:
    return UnavailableError("bundle_unavailable", f"a defect: {type(error).__name__}")


def _not_followed(domain: str) -> ConfigError:
    return ConfigError("bundle_not_followed", f"{domain[:80]!r} is not followed")
