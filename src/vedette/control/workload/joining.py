"""Join tokens: who shows one is from then on the workload that it names (ADR 0036).

Owns: making them, and the exchange of one for a workload entry whose selectors are what the kernel says of the caller.
Must not: keep a token (only its SHA-256), say to a caller why one is refused, or let two callers have one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.clock import now, to_rfc3339
from vedette.config.model import build
from vedette.control.workload import wire
from vedette.control.workload.entries import Workloads
from vedette.control.workload.grpc import Budget, CallError, Status
from vedette.control.workload.messages import (
    JoinToken,
    JoinTokenStatus,
    JoinTokenWish,
    WorkloadStatus,
    WorkloadWish,
)
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.ids import require_name
from vedette.store.identities import IdentityStore, KeptJoinToken

PATH: Final = b"/vedette.join.v1.Join/Redeem"
"""A service of its own on the Workload API's socket: the specification's is not added to (Workload API §2)."""
PREFIX: Final = "vjt_"
MIN_TTL: Final = timedelta(seconds=10)
MAX_TTL: Final = timedelta(days=1)
MAX_TOKENS: Final = 1_000
MAX_LENGTH: Final = 256
BINDS: Final = ("uid", "gid", "path", "sha256")
_AFTERWARDS: Final = timedelta(days=1)
"""So long a token that was used or has ended is known, to tell a replay in the record."""
_TRIES: Final = 10.0
_TRIES_A_SECOND: Final = 0.1
_USERS: Final = 1_024
_MESSAGES: Final[wire.Messages] = {
    "RedeemRequest": {"token": (1, "string")},
    "RedeemResponse": {"spiffe_id": (1, "string"), "workload": (2, "string")},
}
KINDS: Final = wire.classes("vedette/join.proto", _MESSAGES)

Record = Callable[..., None]

_log = logging.getLogger(__name__)


class JoinTokens:
    """The join tokens of a node. Methods may be called from any thread."""

    def __init__(
        self,
        store: IdentityStore,
        workloads: Workloads,
        record: Record,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`record` keeps each attempt as an admin record, before it is answered; raises `UnavailableError`."""
        self._store = store
        self._workloads = workloads
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()

    def create(self, wish: JoinTokenWish) -> JoinToken:
        """A new token; this is the only time that it is told.

        Raises `ConfigError` join_token_invalid, invalid_name, spiffe_id_invalid, spiffe_id_reserved, svid_invalid,
        workload_invalid.
        """
        ttl = _require_ttl(wish.token_ttl_seconds)
        binds = _require_binds(wish.bind)
        name = require_name(wish.name, "workload")
        # What could not be redeemed is not made: an entry as it would be, of a user that stands for any.
        spiffe_id = self._workloads.checked(name, _entry(wish, ["unix:uid:0"])).spiffe_id
        token = PREFIX + secrets.token_urlsafe(32)
        digest = _digest(token)
        at = self._clock()
        kept = KeptJoinToken(digest, wish.model_dump_json(by_alias=True), at + ttl, None)
        with self._lock:
            self._store.forget_join_tokens(at - _AFTERWARDS)
            known = _known(self._store)
            if len(known) >= MAX_TOKENS:
                raise ConfigError("join_token_invalid", f"{MAX_TOKENS} join tokens are known")
            is_taken = any(
                one.used_at is None and one.ends_at > at and one.name == name for one in known
            )
            if is_taken or self._workloads.get(name) is not None:
                message = f"there is a workload or a join token for {name!r} already"
                raise ConfigError("join_token_invalid", message)
            self._store.put_join_token(kept)
        return JoinToken(
            token=token,
            id=digest[:16],
            name=name,
            spiffe_id=str(spiffe_id),
            bind=binds,
            expires_at=to_rfc3339(kept.ends_at),
        )

    def list(self) -> list[JoinTokenStatus]:
        """Tokens that are known, those that end first at first."""
        at = self._clock()
        return [
            JoinTokenStatus(
                id=one.digest[:16],
                name=one.name,
                path=one.wish.path,
                bind=one.wish.bind,
                expires_at=to_rfc3339(one.ends_at),
                state="used" if one.used_at else "ended" if one.ends_at <= at else "open",
            )
            for one in sorted(_known(self._store), key=lambda one: (one.ends_at, one.digest))
        ]

    def remove(self, token_id: str) -> None:
        """Forgets a token, which then joins nobody. Raises `ConfigError` join_token_unknown."""
        with self._lock:
            found = [one.digest for one in _known(self._store) if one.digest[:16] == token_id]
            if not found:
                raise ConfigError("join_token_unknown", f"there is no join token {token_id[:40]!r}")
            self._store.remove_join_token(found[0])

    def redeem(self, token: str, uid: int, selectors: Iterable[str]) -> WorkloadStatus:
        """Makes the caller, whose user is `uid`, the workload that the token names.

        Raises `ConfigError` join_token_refused for whatever is wrong with the token; why is in the admin record.
        """
        with self._lock:
            known = {one.digest: one for one in _known(self._store)}
            one = known.get(_digest(token))
            why = self._refusal(one)
            status: WorkloadStatus | None = None
            target = None if one is None else f"{one.name} {one.digest[:16]}"
            if one is not None and why is None:
                chosen = _chosen(selectors, one.wish.bind)
                if len(chosen) < len(one.wish.bind):
                    why = "caller_unseen"
                else:
                    status, why = self._exchanged(one, _entry(one.wish, chosen))
        self._record(
            actor=f"uid:{uid}",
            action="redeem join token",
            target=target,
            outcome="done" if status is not None else "refused",
            code=why,
        )
        if status is None:
            raise ConfigError("join_token_refused", "the token joins nobody")
        _log.info("uid %d joined as the workload %s", uid, status.name)
        return status

    def _refusal(self, one: _Known | None) -> str | None:
        """Why a token is refused, in a word for the record; None when it is not."""
        if one is None:
            return "token_unknown"
        if one.used_at is not None:
            return "token_used"
        return "token_ended" if one.ends_at <= self._clock() else None

    def _exchanged(
        self, one: _Known, wish: WorkloadWish
    ) -> tuple[WorkloadStatus | None, str | None]:
        """Entry and use of the token are one transaction: nobody joins twice, and no token is lost for nothing."""
        at = self._clock()
        try:
            status = self._workloads.put_new(
                one.name,
                wish,
                lambda definition: self._store.use_join_token(one.digest, at, one.name, definition),
            )
        except ConfigError as error:
            return None, error.code
        return status, None


class _Known:
    """A token that is kept."""

    def __init__(self, kept: KeptJoinToken) -> None:
        self.digest = kept.digest
        self.ends_at = kept.ends_at
        self.used_at = kept.used_at
        self.wish = build(JoinTokenWish, json.loads(kept.definition), code="join_token_invalid")
        self.name = self.wish.name


def _known(store: IdentityStore) -> list[_Known]:
    return [_Known(kept) for kept in store.join_tokens()]


class JoinDesk:
    """Answers callers of the socket: what they sent, how often they may, and nothing of why not."""

    def __init__(self, tokens: JoinTokens, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[int, Budget] = OrderedDict()

    def answer(self, data: bytes, uid: int, selectors: frozenset[str]) -> bytes:
        """The answer to a `RedeemRequest`. Waits for the disk. Raises `CallError`."""
        if not self._may_try(uid):
            # Not recorded: records of what people did must not be pushed out by who guesses.
            raise CallError(Status.RESOURCE_EXHAUSTED, "too many tries; wait ten seconds")
        try:
            token: str = wire.parsed(KINDS["RedeemRequest"], data).token
            if len(token) > MAX_LENGTH:
                raise ConfigError("join_token_refused", "the token joins nobody")
            status = self._tokens.redeem(token, uid, selectors)
        except UnavailableError as error:
            _log.warning("a join token is not redeemed: %s", error)
            raise CallError(Status.UNAVAILABLE, "the node cannot do that now; try again") from None
        except VedetteError as error:
            raise CallError(Status.PERMISSION_DENIED, error.message) from None
        answer: Any = KINDS["RedeemResponse"](spiffe_id=status.spiffe_id, workload=status.name)
        encoded: bytes = answer.SerializeToString()
        return encoded

    def _may_try(self, uid: int) -> bool:
        at = self._clock()
        with self._lock:
            budget = self._tries.pop(uid, None) or Budget(_TRIES, _TRIES_A_SECOND, at)
            self._tries[uid] = budget
            while len(self._tries) > _USERS:
                self._tries.popitem(last=False)
            return budget.spend(at)


def _digest(token: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _chosen(selectors: Iterable[str], binds: tuple[str, ...]) -> list[str]:
    """What the kernel says of the caller, of the kinds that the token binds to."""
    return [one for one in selectors if one.split(":", 2)[1] in binds]


def _entry(wish: JoinTokenWish, selectors: Iterable[str]) -> WorkloadWish:
    fields = wish.model_dump(include=set(WorkloadWish.model_fields))
    return WorkloadWish(**{**fields, "selectors": tuple(selectors)})


def _require_ttl(seconds: int) -> timedelta:
    if not MIN_TTL <= (ttl := timedelta(seconds=min(seconds, 10**9))) <= MAX_TTL:
        raise ConfigError("join_token_invalid", "a join token lives from 10 s to a day")
    return ttl


def _require_binds(binds: tuple[str, ...]) -> tuple[str, ...]:
    if "uid" not in binds or not set(binds) <= set(BINDS) or len(set(binds)) != len(binds):
        raise ConfigError("join_token_invalid", f"bind to uid and what you like of {BINDS[1:]}")
    return binds
