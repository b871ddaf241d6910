"""The home folder of a node: every path in it, and nothing else about those files.

Owns: the layout. What is below `engine/` the engine may read; what is below `control/` it never can
(ARCHITECTURE.md). Must not: read or write the files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError, UnavailableError
from vedette.ids import digest_hex

# sun_path of Linux is 108 bytes with the closing NUL (unix(7)).
MAX_SOCKET_PATH: Final = 107


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """`$VEDETTE_HOME`, else `vedette` in the user's data folder (XDG Base Directory)."""
        chosen = os.environ.get("VEDETTE_HOME")
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(Path(chosen).absolute() if chosen else Path(data) / "vedette")

    def create(self) -> None:
        """Makes every folder, for the owner only; others may pass the two that lead to the Workload API's socket, and
        see nothing there (ADR 0028). Raises `UnavailableError` disk_failed.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in self._folders():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o711 if folder in (self.root, self.run) else 0o700)
        except OSError as error:
            raise UnavailableError(
                "disk_failed", f"cannot make {error.filename}: {error.strerror}"
            ) from error

    def require_socket_paths(self) -> None:
        """Raises `ConfigError` socket_path_too_long when the path of a socket that every node has would not fit."""
        for socket in (self.admin_socket, self.engine_socket, self.workload_socket):
            _require_to_fit(socket)

    def model_socket(self, worker: str) -> Path:
        """Where the process of a model answers, 0600; `worker` is its name in the snapshot, 16 hex digits."""
        return self.models_run / f"{worker}.sock"

    def require_model_sockets(self) -> None:
        """Raises `ConfigError` socket_path_too_long when the sockets of models would not fit: their paths are longer
        than those of a node without models.
        """
        _require_to_fit(self.model_socket("0" * 16))

    def compiled_file(self, engine_key: str, digest: str) -> Path:
        """Where the machine code of a component lies, for the engine that `engine_key` names."""
        return self.compiled / engine_key / f"{digest_hex(digest)}.cwasm"

    def analysis_file(self, engine_key: str, version: str, digest: str) -> Path:
        """Where lies what is known of packed rules, for engines of this version."""
        return self.compiled / engine_key / f"{digest_hex(digest)}-{version}.rules"

    def _folders(self) -> tuple[Path, ...]:
        return (
            self.root,
            self.run,
            self.models_run,
            self.control,
            self.admin_records,
            self.engine,
            self.tls,
            self.client_certificates,
            self.credentials,
            self.snapshots,
            self.blobs.parent,
            self.blobs,
            self.compiled,
            self.root / "spool",
            self.spool_requests,
            self.spool_logs,
            self.log,
        )

    @property
    def node_file(self) -> Path:
        """Trust domain, location and birth of the node; JSON, rewritten only by a new `--location`."""
        return self.root / "node.json"

    @property
    def models_run(self) -> Path:
        """Sockets and state of the processes of models; the engine has the sockets connected to."""
        return self.run / "models"

    @property
    def models_wanted(self) -> Path:
        """The models that are to run; JSON, written by control, read by the keeper."""
        return self.models_run / "wanted.json"

    @property
    def models_state(self) -> Path:
        """How the processes of models are; JSON, written by the keeper."""
        return self.models_run / "state.json"

    @property
    def start_file(self) -> Path:
        """What `vedette up` was last told: addresses, metrics, workers, oldest TLS; JSON."""
        return self.root / "start.json"

    @property
    def run(self) -> Path:
        """What only means something while the node runs."""
        return self.root / "run"

    @property
    def supervisor_file(self) -> Path:
        """Process ids, restarts and listeners; JSON, written by the supervisor."""
        return self.run / "supervisor.json"

    @property
    def upgrade_file(self) -> Path:
        """The upgrade asked for and how it went; JSON, written by the command and then by the supervisor."""
        return self.run / "upgrade.json"

    @property
    def supervisor_lock(self) -> Path:
        """Locked with flock while a supervisor owns this home."""
        return self.run / "supervisor.lock"

    @property
    def admin_socket(self) -> Path:
        """The admin API."""
        return self.run / "admin.sock"

    @property
    def workload_socket(self) -> Path:
        """The SPIFFE Workload API; every local user may connect, entries say who gets what."""
        return self.run / "workload.sock"

    @property
    def engine_socket(self) -> Path:
        """Control's way to the engine."""
        return self.run / "engine.sock"

    @property
    def challenge_key(self) -> Path:
        """Secret of 32 bytes that seals the tokens of the challenge, 0600; the engine reads it."""
        return self.engine / "challenge.key"

    @property
    def control(self) -> Path:
        """What the engine must never read: private keys and the history."""
        return self.root / "control"

    @property
    def ca_key(self) -> Path:
        """Private key of the CA, sealed, 0600."""
        return self.control / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the CA, PEM."""
        return self.control / "ca.crt"

    @property
    def signing_key(self) -> Path:
        """Private Ed25519 key that signs snapshots, 0600."""
        return self.control / "signing.key"

    @property
    def token_key(self) -> Path:
        """Private P-256 key that signs tokens, 0600."""
        return self.control / "token.key"

    @property
    def jwt_svid_key(self) -> Path:
        """Private P-256 key that signs JWT-SVIDs, sealed, 0600."""
        return self.control / "jwt-svid.key"

    @property
    def seal_key(self) -> Path:
        """The key that the CA's key is encrypted under, 0600, unless the operator named another file."""
        return self.control / "seal.key"

    @property
    def identity_database(self) -> Path:
        """Workload entries, bundles of other trust domains and revoked serials, SQLite."""
        return self.control / "identity.db"

    @property
    def issued(self) -> Path:
        """Which serials of X509-SVIDs are out; made when the first is."""
        return self.control / "issued"

    @property
    def database(self) -> Path:
        """The history, SQLite."""
        return self.control / "node.db"

    @property
    def models_database(self) -> Path:
        """Which versions of which models are kept, and which served when, SQLite."""
        return self.control / "models.db"

    @property
    def drift(self) -> Path:
        """What versions of models have learnt of what they are asked, a JSON file each; made when the first has."""
        return self.control / "drift"

    @property
    def samples(self) -> Path:
        """What is kept of what models are asked, a SQLite file for each; made when there is something."""
        return self.control / "samples"

    @property
    def audit_key(self) -> Path:
        """Private Ed25519 key that signs the heads of the audit log, 0600."""
        return self.control / "audit.key"

    @property
    def audit_public(self) -> Path:
        """Public key that heads verify under, one line (c2sp.org/signed-note)."""
        return self.control / "audit.pub"

    @property
    def audit_database(self) -> Path:
        """What of the spool is in the audit log, in which order, and the signed heads; SQLite."""
        return self.control / "audit.db"

    @property
    def admin_records(self) -> Path:
        """What people did to the node, written by control only."""
        return self.control / "admin"

    @property
    def jwks_file(self) -> Path:
        """Where the keys of issuers are fetched from, and how that went; JSON."""
        return self.control / "jwks.json"

    @property
    def bundle_endpoint_file(self) -> Path:
        """Where and how the node serves its trust bundle; JSON, absent when it does not."""
        return self.control / "bundle-endpoint.json"

    @property
    def followed_file(self) -> Path:
        """Where bundles of other trust domains are fetched from, and how that went; JSON."""
        return self.control / "followed.json"

    @property
    def feeds_file(self) -> Path:
        """Where lists of addresses are fetched from, and how that went; JSON."""
        return self.control / "feeds.json"

    @property
    def revoked_file(self) -> Path:
        """Revoked tokens and when each would have ended; JSON."""
        return self.control / "revoked.json"

    @property
    def revocations_file(self) -> Path:
        """Who revoked what, when and why; JSON."""
        return self.control / "revocations.json"

    @property
    def posture_notes_file(self) -> Path:
        """Who said what of whom, until when; JSON."""
        return self.control / "posture.json"

    @property
    def posture_file(self) -> Path:
        """Facts that are true, signed; the engine reads it."""
        return self.engine / "posture.json"

    @property
    def grants_file(self) -> Path:
        """Who granted what, when and why; JSON."""
        return self.control / "grants.json"

    @property
    def engine(self) -> Path:
        """All that the engine reads."""
        return self.root / "engine"

    @property
    def signing_public(self) -> Path:
        """Public key that snapshots must verify under, PEM."""
        return self.engine / "signing.pub"

    @property
    def active_file(self) -> Path:
        """Digest and generation of the active snapshot, JSON."""
        return self.engine / "active.json"

    @property
    def tls(self) -> Path:
        """The server's certificate and key."""
        return self.engine / "tls"

    @property
    def tls_certificate(self) -> Path:
        """Certificate chain of the server, PEM."""
        return self.tls / "server.pem"

    @property
    def tls_key(self) -> Path:
        """Private key of the server, 0600."""
        return self.tls / "server.key"

    @property
    def client_certificates(self) -> Path:
        """Certificates with their keys that services are shown, one PEM file each, 0600."""
        return self.tls / "clients"

    @property
    def engine_svids(self) -> Path:
        """SVIDs that the engine shows, with their keys, and bundles that it believes, 0600."""
        return self.engine / "svids.json"

    @property
    def credentials(self) -> Path:
        """What destinations of calls are shown, one file each, 0600."""
        return self.engine / "credentials"

    @property
    def snapshots(self) -> Path:
        """Signed snapshots, one file per digest."""
        return self.engine / "snapshots"

    @property
    def blobs(self) -> Path:
        """Components, policies and schemas, one file per digest."""
        return self.engine / "blobs" / "sha256"

    @property
    def compiled(self) -> Path:
        """Machine code that this node made, one folder per engine key."""
        return self.engine / "compiled"

    @property
    def spool_requests(self) -> Path:
        """Request records, written by the engine only."""
        return self.root / "spool" / "requests"

    @property
    def spool_logs(self) -> Path:
        """Output of functions, written by the engine only."""
        return self.root / "spool" / "logs"

    @property
    def log(self) -> Path:
        """What the processes themselves say."""
        return self.root / "log"

    @property
    def engine_log(self) -> Path:
        """What the engine says."""
        return self.log / "engine.log"

    @property
    def control_log(self) -> Path:
        """What control says."""
        return self.log / "control.log"

    @property
    def models_log(self) -> Path:
        """What the keeper and the processes of models say."""
        return self.log / "models.log"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor says."""
        return self.log / "supervisor.log"


def _require_to_fit(socket: Path) -> None:
    length = len(os.fsencode(socket))
    if length > MAX_SOCKET_PATH:
        raise ConfigError(
            "socket_path_too_long",
            f"the path {socket} has {length} bytes; a socket's has at most {MAX_SOCKET_PATH}",
        )
