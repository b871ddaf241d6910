"""Checks 6 and 8: keys and files of the node, the life of SVIDs, and that what was measured is what runs.

Owns: looking at modes, watching a rotation, and changing bytes of what is served. Must not: change a file of the node
that is verified.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from vedette.engine.client import EngineClient
from vedette.errors import VedetteError
from vedette.ids import digest_of
from vedette.store.home import Home
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.place import Place
from vedette.verification.twin import PROBE, Twin, active_envelope
from vedette.verification.workload_caller import calling

_TTL: Final = 10  # seconds; the shortest that is issued
_SLACK: Final = 3.0  # of a busy machine; the SVID has not ended by then
_SERVER_LIFE: Final = timedelta(days=8)
_MAX_FILE: Final = 64 << 20
_OWNER_ONLY: Final = 0o077


def files(place: Place, trial: Trial) -> None:
    """Nobody else can reach a file or socket of the node but those that others must see; keys of identities are
    sealed.
    """
    home = place.home
    exposed, seen = _exposed(home)
    trial.attack("reading the node's files as another user", not exposed, ", ".join(exposed[:5]))
    for key in (home.ca_key, home.jwt_svid_key):
        sealed = key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        trial.attack(f"using a copy of {key.name}", sealed, "it is not encrypted")
    life = _life(x509.load_pem_x509_certificate(home.tls_certificate.read_bytes()))
    trial.attack("a listener's certificate that lives long", life <= _SERVER_LIFE, life)
    trial.control("looking at the files", seen > 10, f"{seen} files")
    trial.note(f"{seen} files and sockets")


def _exposed(home: Home) -> tuple[list[str], int]:
    """What others could reach, or what others own; and how much was looked at. In a closed folder only keys count."""
    allowed = {
        home.root: 0o711,
        home.run: 0o711,
        home.ca_certificate: 0o644,
        home.workload_socket: 0o666,
    }
    owner, seen = home.root.stat().st_uid, 0
    wrong = []
    for path in _everything(home.root):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            seen += 1
            mode = stat.S_IMODE(found.st_mode)
            open_ = mode & _OWNER_ONLY & ~allowed.get(path, 0)
            counts = path.is_dir() or path.suffix == ".key" or _is_open(path.parent)
            if (open_ and counts) or found.st_uid != owner:
                wrong.append(f"{path.relative_to(home.root)} {mode:04o}")
    return wrong, seen


def _is_open(folder: Path) -> bool:
    """Whether others may pass a folder."""
    return bool(folder.stat().st_mode & _OWNER_ONLY)


def _everything(root: Path) -> list[Path]:
    found = [root]
    for folder, names, files_ in os.walk(root):
        found += [Path(folder, name) for name in (*names, *files_)]
    return found


def _life(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def svids(twin: Twin, trial: Trial) -> None:
    """An SVID lives as long as its entry says, is renewed by half of that, and its key is never on the disk."""
    uid = f"unix:uid:{os.getuid()}"
    twin.client.put(
        "/v1/workloads/short", {"path": "/short", "selectors": [uid], "ttlSeconds": _TTL}
    )
    try:
        with calling(twin.place.home.workload_socket) as caller:
            caller.begin("FetchX509SVID", b"")
            first = caller.next("X509SVIDResponse").svids[0]
            began = time.monotonic()
            leaf = x509.load_der_x509_certificate(first.x509_svid)
            left = leaf.not_valid_after_utc - datetime.now(UTC)
            held = left <= timedelta(seconds=_TTL) and _life(leaf) <= timedelta(minutes=2)
            trial.attack("an SVID that lives longer than its entry says", held, left)
            on_disk = _holding(twin.place.home.root, first.x509_svid_key)
            trial.attack("a workload's key on the disk", not on_disk, ", ".join(on_disk))
            second = caller.next("X509SVIDResponse").svids[0]
        took = time.monotonic() - began
        trial.control("a renewal by half of its life", took <= _TTL / 2 + _SLACK, f"{took:.1f} s")
        fresh = first.x509_svid_key != second.x509_svid_key
        trial.attack("the same key in the next SVID", fresh)
        trial.note(f"renewed after {took:.1f} s of {_TTL}")
    finally:
        twin.client.delete("/v1/workloads/short")


def _holding(root: Path, key: bytes) -> list[str]:
    """Files with this private key in them, as DER, its bare number, or text of either."""
    private: Any = load_der_private_key(key, None)
    scalar = private.private_numbers().private_value.to_bytes(32, "big")
    texts = [base64.b64encode(scalar)[:40], scalar.hex().encode(), base64.b64encode(key)[8:60]]
    found = []
    for path in _everything(root):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size <= _MAX_FILE:
                data = path.read_bytes()
                if scalar in data or any(text in data for text in texts):
                    found.append(path.name)
    return found


# --- 8 -------------------------------------------------------------------------------------------------------------


def digests(twin: Twin, trial: Trial) -> None:
    """A component or snapshot of which one byte is another is not taken and not started, and what was served stays."""
    content = PROBE.read_bytes()
    digest, changed = digest_of(content), _flipped(content)
    refused = _refusal(lambda: twin.client.upload_bytes(digest, changed, "blobs"))
    trial.attack(
        "a changed component under the right digest", refused == "digest_mismatch", refused
    )
    before = twin.client.get("/v1/status")["snapshot"]
    for what, envelope in _changed_snapshots(twin).items():
        refused = _refusal(lambda envelope=envelope: _serve(twin, envelope))
        trial.attack(what, refused == "engine_refused", refused)
    blob = twin.place.home.blobs / digest.removeprefix("sha256:")
    refused = _started_with(twin, blob)
    trial.attack("a component changed in the store", refused != "", "it was deployed and started")
    after = twin.client.get("/v1/status")
    same = (after["snapshot"]["digest"], after["engine"]["digest"]) == (before["digest"],) * 2
    trial.control("serving on what was active", same, after["engine"])
    answer = twin.ask(f"/probe?h127.0.0.1:{twin.service.port}", "alice")
    trial.control("the component as it was measured", answer.status == 200, answer)
    record = twin.record(answer)
    trial.record(
        "the component that answered", record.get("component") == digest, record.get("component")
    )


def _flipped(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _changed_snapshots(twin: Twin) -> dict[str, bytes]:
    """The active snapshot with one thing changed each."""
    found = {}
    for part in ("payload", "signature"):
        envelope = active_envelope(twin.place)
        holder, name = (
            (envelope, "payload") if part == "payload" else (envelope["signatures"][0], "sig")
        )
        data = base64.b64decode(holder[name])
        place = data.index(b'"name"') + 1 if part == "payload" else 10
        data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        holder[name] = base64.b64encode(data).decode()
        found[f"a snapshot with another {part}"] = json.dumps(envelope).encode()
    return found


def _serve(twin: Twin, envelope: bytes) -> None:
    """Tells the engine, in control's place, to serve a snapshot that lies in its folder."""
    file = twin.place.home.snapshots / f"{'f' * 64}.json"
    file.write_bytes(envelope)
    generation = twin.client.get("/v1/status")["snapshot"]["generation"] + 1
    try:
        EngineClient(twin.place.home.engine_socket).apply(f"sha256:{'f' * 64}", generation)
    finally:
        file.unlink()


def _started_with(twin: Twin, blob: Path) -> str:
    """How deploying a function ends when the component in the store is not what its name says."""
    whole = blob.read_bytes()
    compiled = [
        path for path in twin.place.home.compiled.glob(f"*/{blob.name}.cwasm") if path.is_file()
    ]
    kept = {path: path.read_bytes() for path in compiled}
    try:
        blob.write_bytes(_flipped(whole))
        for path in compiled:
            path.unlink()
        wish = {"component": f"sha256:{blob.name}"}
        return _refusal(lambda: twin.client.put("/v1/functions/changed", wish))
    finally:
        blob.write_bytes(whole)
        for path, data in kept.items():
            path.write_bytes(data)
            path.chmod(0o600)


def _refusal(attempt: Any) -> str:
    try:
        attempt()
    except VedetteError as error:
        return error.code
    return ""


CHECKS: Final = (
    Check(
        6,
        "keys and files are the owner's alone, SVIDs are short",
        (Tenet.PER_SESSION, Tenet.INTEGRITY),
        (Pillar.IDENTITY, Pillar.DATA),
        "Give the files named their mode back (0600, folders 0700), find out who could read them, and make new keys.",
        on_node=files,
        on_twin=svids,
    ),
    Check(
        8,
        "a component or snapshot that was changed does not start",
        (Tenet.INTEGRITY,),
        (Pillar.APPLICATIONS,),
        "Do not use this installation: install it again from a source that you trust.",
        on_twin=digests,
    ),
)
