"""Facts about principals that are true until a moment: what policies see as `context.posture` (ADR 0040).

Owns: control/posture.json (who set what, until when), and engine/posture.json, which the engine reads: the facts that
are true, signed. Must not: let a fact outlive its moment, or put it into a snapshot.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vedette.clock import now, to_rfc3339
from vedette.control.messages import FactStatus, FactWish
from vedette.engine.client import EngineClient
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.signer import SnapshotSigner
from vedette.policy.principals import read_principal
from vedette.store.atomic import read_json, write_atomic, write_json
from vedette.store.home import Home

PAYLOAD_TYPE: Final = "application/vnd.vedette.posture+json"
MAX_FACTS: Final = 4_096
"""As many as the engine takes (crates/engine/src/posture.rs)."""
LONGEST: Final = timedelta(days=30)
_FACT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class Posture:
    """The facts of a node. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        signer: SnapshotSigner,
        engine: EngineClient,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._file = home.posture_notes_file
        self._engine_file = home.posture_file
        self._signer = signer
        self._engine = engine
        self._clock = clock
        self._lock = threading.RLock()

    def statuses(self) -> list[FactStatus]:
        """The facts that have not ended, by subject and name."""
        with self._lock:
            rows = self._alive(self._read()["facts"])
        return [_status(row) for row in sorted(rows, key=lambda row: (row["subject"], row["fact"]))]

    def of(self, subjects: tuple[str, ...]) -> list[str]:
        """The names of what is true of any of these principals now."""
        with self._lock:
            rows = self._alive(self._read()["facts"])
        return sorted({row["fact"] for row in rows if row["subject"] in subjects and row["value"]})

    def set(self, wish: FactWish, issuer: str, actor: str) -> FactStatus:
        """Says that a fact is true, or is not, for so long; in force and durable when this returns.

        Raises `ConfigError` posture_invalid, principal_invalid; `UnavailableError` when the disk refuses.
        """
        if not 1 <= wish.seconds <= LONGEST.total_seconds():
            raise ConfigError("posture_invalid", "a fact lasts from a second to 30 days")
        if not _FACT.match(wish.fact):
            raise ConfigError("posture_invalid", f"{wish.fact[:80]!r} is not the name of a fact")
        _, subject = read_principal(wish.subject, issuer)
        moment = self._clock()
        row = {
            "subject": subject,
            "fact": wish.fact,
            "value": wish.value,
            "expiresAt": int(moment.timestamp()) + wish.seconds,
            "at": to_rfc3339(moment),
            "actor": actor,
            "reason": wish.reason or "",
        }
        with self._lock:
            others = [
                one
                for one in self._alive(self._read()["facts"])
                if (one["subject"], one["fact"]) != (subject, wish.fact)
            ]
            if len(others) >= MAX_FACTS:
                raise ConfigError("posture_invalid", f"a node keeps at most {MAX_FACTS} facts")
            self._write([*others, row])
        return _status(row)

    def remove(self, subject: str, fact: str | None, issuer: str) -> list[FactStatus]:
        """Forgets a fact of a principal, or all of them; answers those that are left.

        Raises `ConfigError` posture_unknown, principal_invalid.
        """
        _, named = read_principal(subject, issuer)
        with self._lock:
            before = self._alive(self._read()["facts"])
            left = [
                row for row in before if row["subject"] != named or fact not in (None, row["fact"])
            ]
            if len(left) == len(before):
                raise ConfigError("posture_unknown", "no such fact is known of that principal")
            self._write(left)
        return self.statuses()

    def settle(self, version: int | None) -> None:
        """Tells the engine again when it has another version than was decided. None: it is an older engine."""
        with self._lock:
            held = self._read()
            if version is None or version == held["version"]:
                return
            self._publish(held)
            self._engine.reload_posture()

    def prune(self) -> None:
        """Forgets what has ended; the engine has dropped it by itself."""
        with self._lock:
            rows = self._read()["facts"]
            alive = self._alive(rows)
            if len(alive) < len(rows):
                self._write(alive)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Decided with the first file; what comes after is made up for by `settle`."""
        held = {"version": self._read()["version"] + 1, "facts": rows}
        write_json(self._file, held)
        self._publish(held)
        try:
            self._engine.reload_posture()
        except UnavailableError:
            return  # it reads the file when it starts

    def _publish(self, held: dict[str, Any]) -> None:
        facts = [
            {key: row[key] for key in ("subject", "fact", "expiresAt")}
            for row in held["facts"]
            if row["value"]
        ]
        payload = json.dumps({"version": held["version"], "facts": facts}, separators=(",", ":"))
        write_atomic(self._engine_file, self._signer.sign(payload.encode(), PAYLOAD_TYPE))

    def _alive(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        moment = self._clock().timestamp()
        return [row for row in rows if row["expiresAt"] > moment]

    def _read(self) -> dict[str, Any]:
        held = read_json(self._file)
        return held if isinstance(held, dict) else {"version": 0, "facts": []}


def _status(row: dict[str, Any]) -> FactStatus:
    return FactStatus(
        subject=row["subject"],
        fact=row["fact"],
        value=row["value"],
        expires_at=to_rfc3339(datetime.fromtimestamp(row["expiresAt"], UTC)),
        set_at=row["at"],
        actor=row["actor"],
        reason=row["reason"] or None,
    )
