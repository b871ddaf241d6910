"""Signed reports: what a run found, in a DSSE envelope under the audit key of the node, for somebody else to verify.

Owns: the type of the payload, and reading such a file offline. Must not: judge what a report says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vedette.errors import ConfigError, TrustError
from vedette.identity.notes import NoteKey
from vedette.identity.signer import SnapshotSigner, verify_envelope
from vedette.store.home import Home

EVIDENCE_TYPE: Final = "application/vnd.vedette.verification+json"
MAX_EVIDENCE_BYTES: Final = 4 * 1024 * 1024


def require_key(home: Home) -> None:
    """Raises what `signed` would, before half a minute is spent on a report that nobody can sign."""
    SnapshotSigner.load(home.audit_key)


def signed(report: dict[str, Any], home: Home) -> bytes:
    """The envelope of a report, signed with the node's audit key.

    Raises `ConfigError` key_unreadable, `TrustError` key_permissions.
    """
    payload = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return SnapshotSigner.load(home.audit_key).sign(payload.encode(), EVIDENCE_TYPE) + b"\n"


def opened(path: Path, key: NoteKey) -> dict[str, Any]:
    """The report in a file, when this key signed it.

    Raises `TrustError` evidence_refused, `ConfigError` file_unreadable.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_EVIDENCE_BYTES + 1)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    if len(data) > MAX_EVIDENCE_BYTES:
        raise TrustError("evidence_refused", f"{path} is too large to be evidence")
    try:
        report = json.loads(verify_envelope(data, key.pem, EVIDENCE_TYPE))
    except TrustError as error:
        raise TrustError("evidence_refused", f"{path}: {error.message}") from None
    except ValueError:
        raise TrustError("evidence_refused", f"{path}: what is signed is no report") from None
    if not isinstance(report, dict) or not isinstance(report.get("checks"), list):
        raise TrustError("evidence_refused", f"{path}: what is signed is no report")
    return report
