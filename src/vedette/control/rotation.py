"""Rotation of the CA's key and of the key of JWT-SVIDs: when, and who must hear of it (ADR 0034).

Owns: the thread that steps both successions, and all that follows a step: bundle and watchers, control/ca.crt, the
listener's certificate, and authorities of the snapshot that are this node's own. Must not: hold a key.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from vedette.clock import now, to_rfc3339
from vedette.config.snapshot import ClientAuthority, Snapshot
from vedette.control import desired
from vedette.control.activate import Activator
from vedette.control.bootstrap import Keys
from vedette.control.messages import KeyStatus, RotateWish
from vedette.control.workload.identities import Identities
from vedette.errors import VedetteError
from vedette.identity.authority import Authority, common_name
from vedette.identity.domain import spiffe_id
from vedette.identity.jwt_svid import JwtIssuer
from vedette.identity.succession import IN_TOKEN, Generation, Phase, Succession
from vedette.store.atomic import write_atomic
from vedette.store.home import Home

INTERVAL: Final = 1.0
USUAL_NOTICE: Final = timedelta(days=1)
"""Of a rotation that somebody asks for: other nodes fetch bundles every five minutes, and people hold files."""
SHORT_NOTICE: Final = timedelta(seconds=40)
"""With `--now`, and after each start: clients of the Workload API come back within half a minute (go-spiffe: 30 s)."""
_FOLLOW_EVERY: Final = 60.0

Record = Callable[..., None]

log = logging.getLogger("vedette.control.rotation")


class Rotation:
    """Rotates a node's keys. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        keys: Keys,
        identities: Identities,
        activator: Activator,
        record: Record,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`record` keeps what is done without anybody asking, as an admin record."""
        self._home = home
        self._keys = keys
        self._identities = identities
        self._activator = activator
        self._record = record
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._followed: object = None
        self._said = ""

    def statuses(self) -> list[KeyStatus]:
        """Both keys, with those that follow and those that went before."""
        kinds: tuple[Succession[Any], ...] = (self._keys.ca, self._keys.jwt_svids)
        return [_status(one.name, each) for one in kinds for each in one.generations()]

    def rotate(self, wish: RotateWish) -> list[KeyStatus]:
        """Prepares the next key of the CA or of JWT-SVIDs, or brings it forward.

        Raises `ConfigError` rotation_running.
        """
        chosen: Succession[Any] = self._keys.jwt_svids if wish.jwt else self._keys.ca
        with self._lock:
            chosen.rotate(self._clock(), SHORT_NOTICE if wish.now else USUAL_NOTICE)
            self._follow()
        return self.statuses()

    def run(self, stopping: threading.Event) -> None:
        """Steps once a second until `stopping` is set; follows once a minute, since a rollback can bring back an
        authority of before.
        """
        waited = _FOLLOW_EVERY
        while not stopping.is_set():
            try:
                waited = 0.0 if self.step(again=waited >= _FOLLOW_EVERY) else waited + INTERVAL
                self._said = ""
            except VedetteError as error:
                if str(error) != self._said:
                    log.warning("the rotation of keys is behind: %s", error)
                self._said = str(error)
            except Exception:
                log.exception("the rotation of keys failed")
            stopping.wait(INTERVAL)

    def step(self, *, again: bool = False) -> bool:
        """Does what is due, and tells of it; `again`: also when nothing changed. Whether it told."""
        at = self._clock()
        # Who had no time to hear of the next key would refuse what it signs. A clock that went back counts as well.
        settled = abs(at - self._started) >= SHORT_NOTICE
        with self._lock:
            for one in (self._keys.ca, self._keys.jwt_svids):
                held = one.generations()
                if one.step(at, may_activate=settled):
                    self._say(one.name, held, one.generations())
            is_due = again or self._followed != self._state()
            if is_due:
                self._follow()
            return is_due

    def _say(self, name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        phases = ", ".join(one.phase.value for one in after)
        log.info("the keys of %s are now: %s", name, phases)
        action = "retire key" if len(after) < len(before) else "rotate key"
        self._record(actor="control", action=action, target=f"{name}: {phases}", outcome="done")

    def _state(self) -> object:
        return (self._keys.ca.generations(), self._keys.jwt_svids.generations())

    def _follow(self) -> None:
        """Each part can be done again: whoever died in between left nothing that the next does not mend."""
        state = self._state()
        pem = self._keys.ca_pem()
        if not self._home.ca_certificate.exists() or self._home.ca_certificate.read_bytes() != pem:
            write_atomic(self._home.ca_certificate, pem, 0o644)
        if state != self._followed:
            self._identities.keys_changed()
        _, snapshot = self._activator.active()
        trusted = [one.certificate for one in self._keys.ca.trusted()]
        if with_own_authorities(snapshot, self._identities.trust_domain, trusted) is not None:
            self._activator.change(self._with_own, "rotate ca", "control")
        self._activator.renew_certificate(self._activator.active()[1])
        self._followed = state

    def _with_own(self, active: Snapshot) -> Snapshot:
        trusted = [one.certificate for one in self._keys.ca.trusted()]
        changed = with_own_authorities(active, self._identities.trust_domain, trusted)
        return active if changed is None else changed


def with_own_authorities(
    snapshot: Snapshot, domain: str, trusted: list[x509.Certificate]
) -> Snapshot | None:
    """A snapshot in which an authority that is this node's own CA has the certificates that are trusted now; None when
    that is so. Other certificates beside them stay.
    """
    changed = snapshot
    for authority in snapshot.identity.authorities:
        if authority.trust_domain == domain and (pem := _followed_pem(authority, domain, trusted)):
            fields = authority.model_copy(update={"certificates": pem})
            changed = desired.put_authority(changed, fields)
    return None if changed is snapshot else changed


def _followed_pem(
    authority: ClientAuthority, domain: str, trusted: list[x509.Certificate]
) -> str | None:
    held = x509.load_pem_x509_certificates(authority.certificates.encode())
    others = [one for one in held if not _is_own(one, domain)]
    if len(others) == len(held) or set(others + trusted) == set(held):
        return None
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in others + trusted)


def _is_own(certificate: x509.Certificate, domain: str) -> bool:
    """A CA that this node made, whether it still has the key or not: a rollback brings back old ones."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [one.value for one in common] != [common_name(domain)]:
        return False
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id(domain)]


def _status(kind: str, one: Generation[Any]) -> KeyStatus:
    signer: Authority | JwtIssuer = one.signer
    return KeyStatus(
        kind=kind,
        phase=one.phase.value,
        key_id=signer.key_id,
        stored="pkcs11" if one.file.startswith(IN_TOKEN) else "file",
        since=to_rfc3339(one.since),
        ends=to_rfc3339(signer.ends),
        next_phase=_NEXT[one.phase],
        next_at=None if one.due is None else to_rfc3339(one.due),
    )


_NEXT: Final = {Phase.PREPARED: "active", Phase.ACTIVE: "old", Phase.OLD: "gone"}
