"""Signatures of models: whose count, which files have one, and that what is loaded is what was signed.

Owns: what is kept of signatures and signers, and the look at a model before its worker is wanted. Must not: judge a
signature (`models.signing`), or keep a private key: one made here signs once and is gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from vedette.clock import now, to_rfc3339
from vedette.config.served import ServedModel
from vedette.config.snapshot import Snapshot
from vedette.control.model_messages import SignatureStatus, SignerStatus
from vedette.errors import ConfigError, TrustError, VedetteError
from vedette.identity.authority import Authority
from vedette.identity.key_files import generate_p256
from vedette.models.signing import ALONE, ModelSigner, Signed, certificates_of, fingerprint, verify
from vedette.store.blobs import BlobStore
from vedette.store.models import Attached, ModelStore, TrustedSigner

ROLE: Final = "signature"
MAX_SIGNERS: Final = 1_000
_MOST_HELD: Final = 20_000
_PART: Final = 1 << 20

log = logging.getLogger("vedette.control.models")


class ModelSignatures:
    """The signatures of a node's models, and the signers that it trusts with models."""

    def __init__(
        self, blobs: BlobStore, store: ModelStore, authority: Callable[[], Authority]
    ) -> None:
        """`authority`: the node's CA that signs now."""
        self._blobs = blobs
        self._store = store
        self._authority = authority
        self._held: dict[str, str | None] = {}
        self._runs: tuple[Snapshot, tuple[ServedModel, ...]] | None = None

    # --- who is trusted

    def signers(self) -> list[SignerStatus]:
        """Whose signatures count, oldest first."""
        return [_status(each) for each in self._store.signers()]

    def trust(self, pem: str | None, actor: str) -> list[SignerStatus]:
        """Has the signatures of these certificates count, or of those that they issue; None: of the node's CA. Answers
        them. Raises `ConfigError` certificate_unreadable, certificate_refused.
        """
        text = self._authority().certificate_pem if pem is None else pem.encode()
        found = certificates_of(text)
        if len(self._store.signers()) + len(found) > MAX_SIGNERS:
            raise ConfigError("certificate_refused", f"more than {MAX_SIGNERS:,} signers")
        for each in found:
            self._store.trust(TrustedSigner(fingerprint(each), _pem(each), now(), actor))
        names = {fingerprint(each) for each in found}
        return [each for each in self.signers() if each.fingerprint in names]

    def distrust(self, prefix: str) -> SignerStatus:
        """Has a signer count no more; `prefix` of its fingerprint. Models that run go on until they are loaded again.

        Raises `ConfigError` model_signer_absent.
        """
        known = [each for each in self.signers() if each.fingerprint.startswith(prefix.lower())]
        if len(known) != 1 or len(prefix) < 8:
            what = "several signers have" if len(known) > 1 else "no signer has"
            message = f"{what} a fingerprint that begins with {prefix[:80]!r}"
            raise ConfigError("model_signer_absent", message)
        self._store.distrust(known[0].fingerprint)
        return known[0]

    # --- which files are signed

    def names(self) -> dict[str, str]:
        """Who signed each file that has a signature, by digest of the file."""
        return {file: kept.note for file, kept in self._store.attached(ROLE).items()}

    def put(self, file: str, bundle: bytes) -> SignatureStatus:
        """Keeps the signature of a stored file, once it holds. Raises `TrustError` model_signature_invalid,
        model_signer_unknown.
        """
        signed = self._verified(file, bundle)
        self._store.attach(file, ROLE, Attached(self._blobs.put(bundle), signed.signer))
        return _told(signed)

    def get(self, file: str) -> bytes:
        """The signature of a file. Raises `ConfigError` model_unsigned."""
        kept = self._store.attached(ROLE).get(file)
        if kept is None:
            raise TrustError("model_unsigned", "there is no signature of this file")
        return self._blobs.get(kept.blob)

    def forget(self, file: str) -> None:
        """Has a file count as unsigned."""
        self._store.attach(file, ROLE, None)

    def verify(self, file: str) -> SignatureStatus:
        """Who signed a file, which is whole. Raises `TrustError` model_unsigned, model_signature_invalid,
        model_signer_unknown, blob_tampered.
        """
        signed = self._verified(file, self.get(file))
        self._require_whole(file)
        return _told(signed)

    def sign(self, name: str, resources: Mapping[str, str]) -> bytes:
        """A signature by the node's CA of files, SHA-256 in hex by name. The key is made for it, and is gone after."""
        authority, key = self._authority(), generate_p256()
        leaf = authority.issue_model_signer(key.public_key(), now())
        return ModelSigner(key, [leaf, authority.certificate]).sign(name, resources)

    def sign_file(self, name: str, file: str) -> SignatureStatus:
        """Signs a stored file by the node's CA and keeps that. Raises `TrustError` model_signer_unknown unless that CA
        is trusted with models, blob_tampered.
        """
        self._require_whole(file)
        return self.put(file, self.sign(name, {ALONE: file.removeprefix("sha256:")}))

    # --- before a model is loaded

    def require(self, after: Snapshot, before: Snapshot) -> None:
        """Refuses a snapshot with models that are new and not what was signed, or not signed where that has to be.

        Raises `TrustError` model_unsigned, model_signature_invalid, model_signer_unknown, blob_tampered; each names the
        model.
        """
        there = {each.worker for each in before.models or ()}
        is_new_rule = _must(after) and not _must(before)
        for model in after.models or ():
            if is_new_rule or model.worker not in there:
                self._require(model, _must(after))
                self._held[model.worker] = None

    def loadable(self, snapshot: Snapshot) -> tuple[ServedModel, ...]:
        """The models that may be loaded; others are logged. Each is looked at once in the life of this process, so that
        what changed on the disk while nobody looked is found when it starts.
        """
        models = snapshot.models or ()
        if self._runs is not None and self._runs[0] is snapshot:
            return self._runs[1]
        for model in models:
            if model.worker not in self._held:
                self._held[model.worker] = self._problem(model, _must(snapshot))
        refused = [each for each in models if self._held[each.worker] is not None]
        runs = models if not refused else tuple(each for each in models if each not in refused)
        if len(self._held) > _MOST_HELD:
            self._held = {each.worker: self._held[each.worker] for each in models}
        self._runs = (snapshot, runs)
        return runs

    def problem(self, worker: str) -> str | None:
        """Why the model of that worker is not loaded, if so."""
        return self._held.get(worker)

    def _problem(self, model: ServedModel, must: bool) -> str | None:
        try:
            self._require(model, must)
        except VedetteError as error:
            log.error("%s; it is not loaded (%s)", error.message, error.code)
            return error.message
        return None

    def _require(self, model: ServedModel, must: bool) -> None:
        kept = self._store.attached(ROLE).get(model.blob)
        if kept is None and not must:
            return
        try:
            signed = self._verified(model.blob, self.get(model.blob))
            self._require_whole(model.blob)
            if must:
                self._require_extras(model, signed)
        except TrustError as error:
            error.message = f"{model.name} version {model.version}: {error.message}"
            raise

    def _require_extras(self, model: ServedModel, signed: Signed) -> None:
        """Raises `TrustError` unless what it needs beside its own file was signed with it, and is whole."""
        for extra in model.files or ():
            if not signed.covers(extra.blob):
                message = f"its file of {extra.role} was not signed with it"
                hint = (
                    "Sign the folder with all that belongs to the model: vedette model sign FOLDER"
                )
                raise TrustError("model_unsigned", message, hint)
            self._require_whole(extra.blob)

    def _verified(self, file: str, bundle: bytes) -> Signed:
        trusted = [each for one in self._store.signers() for each in certificates_of(one.pem)]
        signed = verify(bundle, trusted)
        if not signed.covers(file):
            message = f"{signed.signer} signed {_names(signed)}, and this file is none of them"
            raise TrustError("model_signature_invalid", message)
        return signed

    def _require_whole(self, file: str) -> None:
        """Raises `TrustError` blob_tampered, `ConfigError` blob_missing."""
        digest = hashlib.sha256()
        try:
            with self._blobs.path(file).open("rb") as content:
                while part := content.read(_PART):
                    digest.update(part)
        except FileNotFoundError:
            raise ConfigError("blob_missing", f"there is no blob {file}") from None
        if f"sha256:{digest.hexdigest()}" != file:
            message = "its file on the disk is not the one that was taken in"
            hint = (
                "Do not use it. Check the disk and who can write to it, then add the model again."
            )
            raise TrustError("blob_tampered", message, hint)


def _must(snapshot: Snapshot) -> bool:
    return bool(snapshot.admit.requires_signed_models)


def _pem(certificate: Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _names(signed: Signed) -> str:
    names = [json.dumps(each, ensure_ascii=False)[:80] for each in signed.resources]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _told(signed: Signed) -> SignatureStatus:
    return SignatureStatus(
        signer=signed.signer,
        fingerprint=signed.fingerprint,
        since=to_rfc3339(signed.at),
        files=len(signed.resources),
    )


def _status(kept: TrustedSigner) -> SignerStatus:
    (certificate,) = certificates_of(kept.pem)
    return SignerStatus(
        fingerprint=kept.fingerprint,
        pem=kept.pem.decode(),
        subject=certificate.subject.rfc4514_string() or "(no name)",
        not_after=to_rfc3339(certificate.not_valid_after_utc),
        added_at=to_rfc3339(kept.added_at),
        actor=kept.actor,
    )
