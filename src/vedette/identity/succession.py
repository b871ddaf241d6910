"""Signing keys that follow one another: prepared, then active, then old, then gone (SPIFFE Federation §4.1, ADR 0034).

Owns: which key of a kind signs, which are trusted besides it, until when, and the file that says so. Must not: tell
anybody; whoever steps it does.

Each step is one atomic write of NAME.json, after the key that it names is on the disk and before a key that it names
no more is removed. So whoever dies anywhere leaves the phase before or the one after. A kind that was never rotated
has no such file: its one key is NAME.key, as it was before there was a rotation.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.errors import ConfigError
from vedette.identity.authority import Authority
from vedette.identity.jwt_svid import JwtIssuer
from vedette.identity.key_files import generate_p256, load_p256, private_pem
from vedette.identity.sealing import Seal
from vedette.store.atomic import create_private, sync_folder, write_json

NOTICE: Final = timedelta(days=30)
"""How long a key that follows by itself is trusted before it signs: bundles that people carry must have time."""
OLD_FOR: Final = timedelta(hours=1, minutes=5)
"""The longest life of an SVID, and what clocks may differ: how long a key is trusted after it signed last."""
IN_TOKEN: Final = "pkcs11:"
"""What the name of a key begins with that is in a token and not in a file."""
_VERSION: Final = 1


class Phase(StrEnum):
    """What a key is for now."""

    PREPARED = "prepared"
    ACTIVE = "active"
    OLD = "old"


class Signer(Protocol):
    """What follows one another."""

    @property
    def begins(self) -> datetime:
        """From when on it may sign."""

    @property
    def ends(self) -> datetime:
        """Until when what it signs is believed."""

    @property
    def key_id(self) -> str:
        """What people tell it from others by."""

    def told(self) -> dict[str, str]:
        """What, with the key, makes it again."""


S = TypeVar("S", bound=Signer)
_Made = TypeVar("_Made", bound=Signer, covariant=True)


class Kind(Protocol[_Made]):
    """How signers of a kind come to be."""

    name: str

    def first(self) -> _Made:
        """The one of a home that knows no rotation, made when there is none."""

    def make(self, key: ec.EllipticCurvePrivateKey, at: datetime) -> _Made:
        """A new one."""

    def again(self, key: ec.EllipticCurvePrivateKey, told: dict[str, str]) -> _Made:
        """One that was made before. Raises `ConfigError`, `TrustError`."""


class CaKind:
    """CAs of a trust domain; the first is `control/ca.key` and `control/ca.crt`."""

    name = "ca"

    def __init__(self, folder: Path, domain: str, seal: Seal | None) -> None:
        self._place = (folder / "ca.key", folder / "ca.crt")
        self._domain = domain
        self._seal = seal

    def first(self) -> Authority:
        """The CA whose files have no number."""
        return Authority.ensure(*self._place, self._domain, self._seal)

    def make(self, key: ec.EllipticCurvePrivateKey, at: datetime) -> Authority:
        """A new CA with this key."""
        return Authority.make(key, self._domain, at)

    def again(self, key: ec.EllipticCurvePrivateKey, told: dict[str, str]) -> Authority:
        """The CA of this key and the certificate that was told."""
        return Authority.of_pem(key, told["certificate"].encode())


class JwtKind:
    """Signers of JWT-SVIDs; the first is `control/jwt-svid.key`."""

    name = "jwt-svid"

    def __init__(self, folder: Path, domain: str, seal: Seal | None) -> None:
        self._place = folder / "jwt-svid.key"
        self._domain = domain
        self._seal = seal

    def first(self) -> JwtIssuer:
        """The signer whose file has no number; it counts from when that was made."""
        return JwtIssuer.ensure(self._place, self._domain, self._seal)

    def make(self, key: ec.EllipticCurvePrivateKey, at: datetime) -> JwtIssuer:
        """A new signer with this key."""
        return JwtIssuer(key, self._domain, at)

    def again(self, key: ec.EllipticCurvePrivateKey, told: dict[str, str]) -> JwtIssuer:
        """The signer of this key."""
        return JwtIssuer(key, self._domain, from_rfc3339(told["begins"]))


@dataclass(frozen=True, slots=True)
class Generation(Generic[S]):
    """One key: its file, what it is for since when, and when that changes by itself (`due`; None: by its age)."""

    file: str
    phase: Phase
    since: datetime
    due: datetime | None
    signer: S


class KeyToken(Protocol):
    """Keys that are somewhere else than in files, by label (`pkcs11_keys`)."""

    @property
    def label(self) -> str:
        """Of the first key; those that follow have more after it."""

    def load(self, label: str) -> ec.EllipticCurvePrivateKey:
        """A key that is there."""

    def ensure(self, label: str) -> ec.EllipticCurvePrivateKey:
        """A key, made when there is none."""

    def create(self, label: str) -> ec.EllipticCurvePrivateKey:
        """A new key."""

    def remove(self, label: str) -> None:
        """Destroys a key."""


class Succession(Generic[S]):
    """The keys of one kind. Methods may be called from any thread; one process steps."""

    def __init__(
        self,
        folder: Path,
        kind: Kind[S],
        seal: Seal | None = None,
        make_key: Callable[[], ec.EllipticCurvePrivateKey] = generate_p256,
        token: KeyToken | None = None,
    ) -> None:
        """Loads what is there. New keys are made in `token`, if there is one. Raises `ConfigError`, `TrustError`,
        `UnavailableError`.
        """
        self._token = token
        self._folder = folder
        self._kind = kind
        self._seal = seal
        self._make_key = make_key
        self._lock = threading.RLock()
        self._generations = self._loaded()
        self._is_swept = False

    def __repr__(self) -> str:
        return f"Succession({self._kind.name!r}, {[one.phase.value for one in self._generations]})"

    def generations(self) -> tuple[Generation[S], ...]:
        """All that are trusted: the active one, one that is prepared, one that is old."""
        return self._generations

    @property
    def name(self) -> str:
        """Which kind it is."""
        return self._kind.name

    @property
    def active(self) -> S:
        """Who signs."""
        return self._generations[0].signer

    def trusted(self) -> tuple[S, ...]:
        """All whose signatures count, the active one first."""
        return tuple(one.signer for one in self._generations)

    def signing(self) -> tuple[S, ...]:
        """Those that have signed something: the active one, and one that is old."""
        return tuple(one.signer for one in self._generations if one.phase is not Phase.PREPARED)

    def oldest(self, at: datetime, margin: timedelta) -> S:
        """The signer that has been trusted longest and will be for `margin` more."""
        for one in self._generations:
            if one.phase is Phase.OLD and one.due is not None and one.due - at > margin:
                return one.signer
        return self.active

    def rotate(self, at: datetime, notice: timedelta) -> Generation[S]:
        """Prepares the next key, which signs from `at` + `notice` on; one that is prepared signs then if not earlier.

        Raises `ConfigError` rotation_running while the key before this one is still trusted, `UnavailableError`.
        """
        with self._lock:
            phases = {one.phase: one for one in self._generations}
            if Phase.OLD in phases:
                message = "the key before this one is still trusted"
                raise ConfigError("rotation_running", message)
            held = phases.get(Phase.PREPARED)
            if held is None:
                held = self._prepared(at, at + notice)
            elif held.due is not None and held.due > at + notice:
                held = replace(held, due=at + notice)
            self._write((self._generations[0], held))
            return held

    def step(self, at: datetime, may_activate: bool = True) -> bool:
        """Does what is due; whether anything was. Without `may_activate` a prepared key waits."""
        with self._lock:
            before = self._generations
            while (after := self._next(at, may_activate)) is not None:
                self._write(after)
            if not self._is_swept or self._generations is not before:
                self._remove_unnamed()
                self._remove_from_token(before)
            return self._generations is not before

    def _next(self, at: datetime, may_activate: bool) -> tuple[Generation[S], ...] | None:
        """The generations after the next step that is due at `at`; None: there is none."""
        active, *others = self._generations
        for one in others:
            # A clock that was ahead must not keep a key for years.
            most = NOTICE if one.phase is Phase.PREPARED else OLD_FOR
            if one.due is None or one.due > at + most:
                rest = [replace(each, due=at + most) if each is one else each for each in others]
                return (active, *rest)
        old = [one for one in others if one.phase is Phase.OLD]
        prepared = [one for one in others if one.phase is Phase.PREPARED]
        if any(one.due is not None and one.due <= at for one in old):
            return (active, *prepared)
        if prepared and may_activate and prepared[0].due is not None and prepared[0].due <= at:
            follows = replace(prepared[0], phase=Phase.ACTIVE, since=at, due=None)
            return (follows, replace(active, phase=Phase.OLD, since=at, due=at + OLD_FOR))
        if not others and (wait := _wait(active, at)) is not None:
            return (active, self._prepared(at, at + wait))
        return None

    def _prepared(self, at: datetime, due: datetime) -> Generation[S]:
        number = secrets.token_hex(4)
        if self._token is not None:
            label = f"{self._token.label}-{number}"
            signer = self._kind.make(self._token.create(label), at)
            return Generation(IN_TOKEN + label, Phase.PREPARED, at, due, signer)
        key = self._make_key()
        file = f"{self._kind.name}-{number}.key"
        pem = private_pem(key) if self._seal is None else self._seal.pem(key)
        create_private(self._folder / file, pem)
        return Generation(file, Phase.PREPARED, at, due, self._kind.make(key, at))

    def _write(self, generations: tuple[Generation[S], ...]) -> None:
        rows = [
            {
                "key": one.file,
                "phase": one.phase.value,
                "since": to_rfc3339(one.since),
                "due": None if one.due is None else to_rfc3339(one.due),
                **one.signer.told(),
            }
            for one in generations
        ]
        write_json(self._state, {"version": _VERSION, "generations": rows})
        self._generations = generations

    def _remove_unnamed(self) -> None:
        """Keys that are no more, and one whose maker died before it was named."""
        named = {one.file for one in self._generations}
        for path in key_files(self._folder, self._kind.name):
            if path.name not in named:
                path.unlink(missing_ok=True)
                sync_folder(self._folder)
        self._is_swept = True

    def _remove_from_token(self, before: tuple[Generation[S], ...]) -> None:
        """Only keys that were named before and are no more: others in a token may be somebody else's."""
        named = {one.file for one in self._generations}
        for one in before:
            if self._token is not None and one.file.startswith(IN_TOKEN) and one.file not in named:
                self._token.remove(one.file.removeprefix(IN_TOKEN))

    @property
    def _state(self) -> Path:
        return self._folder / f"{self._kind.name}.json"

    def _loaded(self) -> tuple[Generation[S], ...]:
        is_new = not self._state.exists() and not key_files(self._folder, self._kind.name)
        if is_new and self._token is not None:
            return self._first_in(self._token)
        if not self._state.exists():
            first = self._kind.first()
            file = f"{self._kind.name}.key"
            return (Generation(file, Phase.ACTIVE, first.begins, None, first),)
        rows = read_generations(self._state)
        found = tuple(self._again(row) for row in rows)
        phases = [one.phase for one in found]
        if phases[:1] != [Phase.ACTIVE] or phases.count(Phase.ACTIVE) != 1:
            raise _unreadable(self._state)
        return found

    def _first_in(self, token: KeyToken) -> tuple[Generation[S], ...]:
        """The first key of a new home, in a token; one that has the label already is taken."""
        at = now()
        signer = self._kind.make(token.ensure(token.label), at)
        self._write((Generation(IN_TOKEN + token.label, Phase.ACTIVE, at, None, signer),))
        return self._generations

    def _key(self, file: str) -> ec.EllipticCurvePrivateKey:
        if not file.startswith(IN_TOKEN):
            return load_p256(self._folder / Path(file).name, self._seal)
        if self._token is None:
            raise ConfigError("key_unreadable", f"{file[:80]} is in a token that is not named")
        return self._token.load(file.removeprefix(IN_TOKEN))

    def _again(self, row: dict[str, Any]) -> Generation[S]:
        try:
            file, due = str(row["key"]), row["due"]
            key = self._key(file)
            return Generation(
                file,
                Phase(row["phase"]),
                from_rfc3339(row["since"]),
                None if due is None else from_rfc3339(due),
                self._kind.again(key, row),
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            raise _unreadable(self._state) from None


def key_files(folder: Path, name: str) -> list[Path]:
    """The files of all keys of a kind, also of one that nothing names."""
    first = folder / f"{name}.key"
    return [*([first] if first.exists() else []), *sorted(folder.glob(f"{name}-????????.key"))]


def read_generations(state: Path) -> list[dict[str, Any]]:
    """What the file of a kind says. Raises `ConfigError` key_unreadable: which key signs is not to be guessed."""
    try:
        rows = json.loads(state.read_bytes())["generations"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _unreadable(state) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable(state)
    return rows


def _wait(active: Generation[Any], at: datetime) -> timedelta | None:
    """How long the next key is to be prepared, when it is time for one: at half of a life. At once, when what the
    active one signs is believed no more, or not yet: the clock was ahead when it was made.
    """
    begins: datetime = active.signer.begins
    ends: datetime = active.signer.ends
    if at >= ends or at < begins - timedelta(minutes=5):
        return timedelta()
    if at >= begins + (ends - begins) / 2:
        return min(NOTICE, (ends - at) / 2)
    return None


def _unreadable(state: Path) -> ConfigError:
    return ConfigError("key_unreadable", f"{state} does not say which key signs")
