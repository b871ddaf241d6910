"""Credentials that the node adds to calls, kept by name (`credential` of a rule of an EgressPolicy).

Owns: engine/credentials/, the one place of them. Must not: put one into a snapshot, an answer or a log.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vedette.clock import to_rfc3339
from vedette.control.activate import Activator, Outcome
from vedette.control.messages import CredentialStatus, CredentialWish
from vedette.errors import ConfigError
from vedette.ids import require_name
from vedette.store.atomic import restore, write_atomic
from vedette.store.home import Home

MAX_BYTES: Final = 8_192  # a header field that servers take


class Credentials:
    """The credentials of a node. Methods may be called from any thread."""

    def __init__(self, home: Home, activator: Activator) -> None:
        self._folder = home.credentials
        self._activator = activator

    def names(self) -> frozenset[str]:
        """The names that rules can give."""
        return frozenset(file.name for file in self._folder.glob("*") if "." not in file.name)

    def list(self) -> list[CredentialStatus]:
        """The credentials, by name; never what they are."""
        return [self._status(name) for name in sorted(self.names())]

    def put(self, name: str, wish: CredentialWish, actor: str) -> Outcome:
        """Keeps a credential; calls by rules that name it have it from the next one on.

        Raises `ConfigError` credential_refused, or engine_refused (what was there stays).
        """
        value = wish.value.get_secret_value().rstrip("\r\n")
        if not value or not value.isascii() or not value.isprintable() or len(value) > MAX_BYTES:
            message = f"a credential is one line of up to {MAX_BYTES:,} printable ASCII characters"
            raise ConfigError("credential_refused", message)
        file = self._file(name)
        with self._activator.lock:
            before = file.read_bytes() if file.exists() else None
            write_atomic(file, value.encode())
            try:
                return self._serve_again(name, actor)
            except ConfigError:
                restore(file, before)
                raise

    def remove(self, name: str) -> None:
        """Forgets a credential. Raises `ConfigError` credential_unknown, credential_in_use."""
        file = self._file(name)
        with self._activator.lock:
            if not file.exists():
                raise ConfigError("credential_unknown", f"there is no credential {name!r}")
            used = self._policies(name)
            if used:
                raise ConfigError("credential_in_use", f"{name!r} is named by {', '.join(used)}")
            restore(file, None)

    def _serve_again(self, name: str, actor: str) -> Outcome:
        """The snapshot only has the name, so it is the same: the engine reads the file when it is told of it again."""
        return self._activator.change(lambda active: active, f"credential {name}", actor)

    def _status(self, name: str) -> CredentialStatus:
        changed = datetime.fromtimestamp(self._file(name).stat().st_mtime, UTC)
        return CredentialStatus(
            name=name, changed_at=to_rfc3339(changed), policies=self._policies(name)
        )

    def _policies(self, name: str) -> tuple[str, ...]:
        return tuple(
            policy.name
            for policy in self._activator.active()[1].egress or ()
            if any(rule.credential and rule.credential.credential == name for rule in policy.rules)
        )

    def _file(self, name: str) -> Path:
        return self._folder / require_name(name, "credential")
