"""Bans that a CrowdSec Local API decided, asked for as a bouncer in stream mode does.

Owns: one poll (`GET /v1/decisions/stream`), and what is known after it: which networks are banned,
and until when. Must not: keep the key, or name it in an error; a poll reads it from its file.
Source: docs.crowdsec.net, "Local API, for bouncers"; tests/e2e/test_crowdsec.py asks a real one.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from vedette.config.addresses_manifest import CrowdSecSource
from vedette.errors import UnavailableError
from vedette.identity.web import NoAnswerError, exchange, read_body, split_url

MAX_BYTES: Final = 32 << 20  # some 150,000 decisions
MAX_SECONDS: Final = 30.0
MAX_KEY_BYTES: Final = 4_096
BAN: Final = "ban"
_KEY: Final = re.compile(rb"[!-~]+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_LONGEST: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a network, and for how long still."""

    kind: str
    network: str
    left: timedelta


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a poll brought; `whole` when it is all there is and not what is new."""

    whole: bool
    new: tuple[Decision, ...]
    deleted: tuple[Decision, ...]
    unreadable: int


@dataclass
class Bans:
    """What is known: until when each decision holds."""

    until: dict[tuple[str, str], datetime] = field(default_factory=dict)
    unreadable: int = 0
    """Decisions about no address."""

    def take(self, pulled: Pulled, at: datetime) -> None:
        """Adds a poll to what is known. What is deleted and new at once is new."""
        if pulled.whole:
            self.until, self.unreadable = {}, 0
        for gone in pulled.deleted:
            self.until.pop((gone.kind, gone.network), None)
        for new in pulled.new:
            self.until[new.kind, new.network] = at + new.left
        self.unreadable += pulled.unreadable

    def expire(self, at: datetime) -> None:
        """Forgets what holds no longer, also when nobody says so."""
        self.until = {key: until for key, until in self.until.items() if until > at}

    def networks(self) -> list[str]:
        """What is banned, in one order."""
        return sorted(network for kind, network in self.until if kind == BAN)

    def left_out(self) -> dict[str, int]:
        """How many decisions are no bans, by what they are."""
        return dict(sorted(Counter(kind for kind, _ in self.until if kind != BAN).items()))


def pull(
    source: CrowdSecSource, *, whole: bool, clock: Callable[[], float] = time.monotonic
) -> Pulled:
    """Asks for all decisions, or for those since the last poll. Raises `UnavailableError`
    feed_unavailable; `ConfigError` certificate_unreadable.
    """
    deadline = clock() + MAX_SECONDS
    base = source.url.rstrip("/")
    startup = "true" if whole else "false"
    try:
        parts = split_url(f"{base}/v1/decisions/stream?startup={startup}&scopes=ip,range")
        headers = {"x-api-key": read_key(source.api_key_file), "accept": "application/json"}
        with exchange(parts, headers, ca_pem=source.ca, seconds=deadline - clock()) as response:
            if response.status != 200:
                raise NoAnswerError(_said(response.status))
            body = read_body(response, MAX_BYTES, MAX_SECONDS, lambda: deadline - clock())
        return read_answer(body, whole=whole)
    except NoAnswerError as error:
        raise UnavailableError("feed_unavailable", f"CrowdSec at {base}: {error}") from None


def read_key(path: str) -> str:
    """The key in a file. Raises `NoAnswerError`, which never holds what is in the file."""
    try:
        with Path(path).open("rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip()
    except OSError as error:
        raise NoAnswerError(f"the key cannot be read from {path}: {error.strerror}") from None
    if len(key) > MAX_KEY_BYTES or _KEY.fullmatch(key) is None:
        raise NoAnswerError(f"{path} holds no key: it is one word of ASCII")
    return key.decode("ascii")


def read_answer(body: bytes, *, whole: bool) -> Pulled:
    """What the API answered. Raises `NoAnswerError`."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswerError("it answered no JSON") from None
    if not isinstance(answer, Mapping) or "new" not in answer or "deleted" not in answer:
        raise NoAnswerError("it answered no stream of decisions")
    new, unreadable = _decisions(answer["new"])
    deleted, _ = _decisions(answer["deleted"])
    return Pulled(whole, new, deleted, unreadable)


def _decisions(rows: Any) -> tuple[tuple[Decision, ...], int]:
    """The decisions that are about addresses, and how many are about none."""
    if rows is None:
        return (), 0
    if not isinstance(rows, list):
        raise NoAnswerError("it answered no list of decisions")
    found: list[Decision] = []
    unreadable = 0
    for row in rows:
        if not isinstance(row, Mapping) or row.get("simulated") is True:
            continue  # what CrowdSec would have decided
        decision = _decision(row)
        if decision is None:
            unreadable += 1
        else:
            found.append(decision)
    return tuple(found), unreadable


def _decision(row: Mapping[str, Any]) -> Decision | None:
    kind, value, left = row.get("type"), row.get("value"), _duration(row.get("duration"))
    if not isinstance(kind, str) or not isinstance(value, str) or left is None:
        return None
    try:
        network = ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        return None
    alone = network.num_addresses == 1
    return Decision(kind[:64], str(network.network_address) if alone else str(network), left)


def _duration(text: Any) -> timedelta | None:
    """Go's way to write one, such as 3h59m55.75s; None for anything else."""
    if not isinstance(text, str):
        return None
    rest = text.removeprefix("-")
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST.total_seconds():
        return _LONGEST
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


def _said(status: int) -> str:
    if status in (401, 403):
        return f"it answered {status}: it does not know the key (`cscli bouncers add` makes one)"
    return f"it answered {status}"
