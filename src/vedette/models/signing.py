"""Signatures of models as OpenSSF Model Signing v1 has them, by certificates and offline.

Owns: the Sigstore bundle v0.3 with a certificate chain, the DSSE envelope in it, and the in-toto statement with
predicate `https://model_signing/signature/v1.0` (github.com/ossf/model-signing-spec). Must not: read files of models
(`signed_files`), or say whose signatures count (`control.model_signatures`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from vedette.errors import ConfigError, TrustError
from vedette.identity.key_files import load_ec
from vedette.identity.signer import pre_authentication_encoding

MAX_SIGNATURE_BYTES: Final = 4 << 20
MAX_RESOURCES: Final = 10_000
IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore", "model.sig")
"""What of a folder is not signed: the signature itself, and what `model_signing` leaves out as well."""
ALONE: Final = "."
"""What the one resource of a signed file is called."""
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_IN_TOTO: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_MAX_CHAIN: Final = 10
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
_Hash = type[SHA256 | SHA384 | SHA512]
_HASHES: Final[dict[str, _Hash]] = {
    "secp256r1": SHA256,
    "secp384r1": SHA384,
    "secp521r1": SHA512,
}
_PURPOSES: Final = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature says that holds: SHA-256 in hex by name of each file, and who says so. `at`: when the signer's
    certificate began, the earliest that it can have been signed.
    """

    resources: Mapping[str, str]
    signer: str
    fingerprint: str
    at: datetime

    def covers(self, digest: str) -> bool:
        """Whether a file with that digest (`sha256:…`) is among what was signed."""
        return digest.removeprefix("sha256:") in self.resources.values()


class ModelSigner:
    """A key, its certificate, and those that lead to whom people trust."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> None:
        """`chain`: the key's own first. Raises `ConfigError` certificate_refused."""
        if not chain or key.public_key() != chain[0].public_key():
            message = "the private key is not that of the first certificate"
            raise ConfigError("certificate_refused", message)
        if not _is_for_signing(chain[0]):
            message = f"{_name(chain[0])} is not for signing (digitalSignature, codeSigning)"
            raise ConfigError("certificate_refused", message)
        self._key = key
        self._chain = tuple(chain)

    def __repr__(self) -> str:
        return f"ModelSigner({_name(self._chain[0])!r})"

    @classmethod
    def load(cls, key: Path, chain: Path) -> ModelSigner:
        """The key and chain in PEM files. Raises `ConfigError` key_unreadable, certificate_unreadable,
        certificate_refused, `TrustError` key_permissions.
        """
        try:
            pem = chain.read_bytes()
        except OSError as error:
            message = f"cannot read {chain}: {error.strerror}"
            raise ConfigError("file_unreadable", message) from None
        return cls(load_ec(key), certificates_of(pem))

    def sign(self, name: str, resources: Mapping[str, str]) -> bytes:
        """The signature of files (`name` to SHA-256 in hex) as people keep it in `model.sig`; `name`: what the model is
        called.
        """
        payload = statement(name, resources)
        curve = self._key.curve.name
        message = pre_authentication_encoding(_IN_TOTO, payload)
        signature = self._key.sign(message, ec.ECDSA(_HASHES[curve]()))
        chain = [{"rawBytes": _base64(each.public_bytes(Encoding.DER))} for each in self._chain]
        bundle = {
            "mediaType": _BUNDLE,
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": chain},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": _base64(payload),
                "payloadType": _IN_TOTO,
                "signatures": [{"sig": _base64(signature), "keyid": ""}],
            },
        }
        return json.dumps(bundle).encode() + b"\n"


def statement(name: str, resources: Mapping[str, str]) -> bytes:
    """The in-toto statement about those files; the subject's digest is that of their digests, in order of names."""
    names = sorted(resources, key=lambda each: each.split("/"))
    rows = [{"name": each, "algorithm": "sha256", "digest": resources[each]} for each in names]
    said = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(resources[one] for one in names)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(IGNORED),
            },
            "resources": rows,
        },
    }
    return json.dumps(said).encode()


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """The certificates in PEM. Raises `ConfigError` certificate_unreadable, certificate_refused."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError("certificate_unreadable", "there is no certificate in PEM") from None
    if len(found) > _MAX_CHAIN:
        raise ConfigError("certificate_refused", f"more than {_MAX_CHAIN} certificates")
    return found


def verify(bundle: bytes, trusted: Sequence[x509.Certificate]) -> Signed:
    """What a signature says. `trusted`: authorities, or the certificates of signers themselves.

    Certificates count as they did when the signer's began, as in `model_signing`: without a clock that somebody else
    vouches for, nothing says when it was signed, and a signature is to outlast its certificate. Whose no longer counts
    is no longer trusted. Raises `TrustError` model_signature_invalid, model_signer_unknown.
    """
    chain, payload, signature = _opened(bundle)
    leaf = chain[0]
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise _invalid("its certificate has no key on P-256, P-384 or P-521")
    if not _is_for_signing(leaf):
        raise _invalid(f"the certificate of {_name(leaf)} is not for signing")
    message = pre_authentication_encoding(_IN_TOTO, payload)
    try:
        key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.name]()))
    except InvalidSignature:
        raise _invalid(f"the key of {_name(leaf)} did not sign this") from None
    _require_trusted(chain, trusted)
    resources = _resources(payload)
    return Signed(resources, _name(leaf), fingerprint(leaf), leaf.not_valid_before_utc)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, in hex."""
    return certificate.fingerprint(SHA256()).hex()


def _opened(bundle: bytes) -> tuple[list[x509.Certificate], bytes, bytes]:
    """Chain, payload and signature."""
    if len(bundle) > MAX_SIGNATURE_BYTES:
        raise _invalid(f"it is larger than {MAX_SIGNATURE_BYTES:,} bytes")
    try:
        said = json.loads(bundle)
        material, envelope = said["verificationMaterial"], said["dsseEnvelope"]
        kinds = (said["mediaType"], envelope["payloadType"])
        if kinds != (_BUNDLE, _IN_TOTO):
            raise _invalid(f"it is of the kind {str(kinds[0])[:80]!r}, {str(kinds[1])[:80]!r}")
        _require_chain(material)
        rows = material["x509CertificateChain"]["certificates"]
        if not isinstance(rows, list) or not 1 <= len(rows) <= _MAX_CHAIN:
            raise _invalid(f"it has not 1 to {_MAX_CHAIN} certificates")
        chain = [x509.load_der_x509_certificate(_bytes(each["rawBytes"])) for each in rows]
        (signature,) = envelope["signatures"]
        return chain, _bytes(envelope["payload"]), _bytes(signature["sig"])
    except (ValueError, KeyError, TypeError, RecursionError, UnsupportedAlgorithm):
        raise _invalid("it is no Sigstore bundle with certificates") from None


def _require_chain(material: Mapping[str, Any]) -> None:
    if "x509CertificateChain" in material:
        return
    other = "a bare key" if "publicKey" in material else "Sigstore's public service"
    hint = "Sign it with a certificate: vedette model sign --key KEY --cert CHAIN, or model_signing sign certificate"
    message = f"the signature is by {other}; those by certificates count here"
    raise TrustError("model_signature_invalid", message, hint)


def _require_trusted(
    chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> None:
    """Raises `TrustError` model_signer_unknown unless the first is trusted, or leads to one that is (RFC 5280 §6)."""
    leaf = chain[0]
    if leaf in trusted:
        return
    if trusted:
        anything = ExtensionPolicy.permit_all()
        ca = ExtensionPolicy.webpki_defaults_ca()
        builder = PolicyBuilder().store(Store(list(trusted))).time(leaf.not_valid_before_utc)
        policy = builder.extension_policies(ca_policy=ca, ee_policy=anything)
        try:
            policy.build_client_verifier().verify(leaf, list(chain[1:]))
        except (VerificationError, ValueError, UnsupportedAlgorithm):
            pass
        else:
            return
    message = f"{_name(leaf)} signed it, whom nobody vouches for that this node trusts with models"
    raise TrustError("model_signer_unknown", message)


def _resources(payload: bytes) -> dict[str, str]:
    """The files that a statement is about. Raises `TrustError` model_signature_invalid."""
    try:
        said = json.loads(payload)
        kinds = (said["_type"], said["predicateType"])
        if kinds != (_STATEMENT, _PREDICATE):
            raise _invalid(f"it says {str(kinds[1])[:80]!r}, not {_PREDICATE!r}")
        (subject,) = said["subject"]
        how, rows = said["predicate"]["serialization"], said["predicate"]["resources"]
        if how["method"] != "files" or how["hash_type"] != "sha256":
            given = f"{how['method']}, {how['hash_type']}"[:80]
            hint = "Sign it anew by files with SHA-256, which is what model_signing does when nothing else is said."
            message = f"files are signed by {given}; whole files by sha256 count here"
            raise TrustError("model_signature_invalid", message, hint)
        if len(rows) > MAX_RESOURCES:
            raise _invalid(f"it is about more than {MAX_RESOURCES:,} files")
        found = {}
        for each in rows:
            name, digest = each["name"], each["digest"]
            if each["algorithm"] != "sha256" or not _HEX.match(digest) or name in found:
                raise _invalid("one of its files is there twice, or has no SHA-256")
            found[str(name)] = str(digest)
        if not found or subject["digest"]["sha256"] != _root(found.values()):
            raise _invalid("its files do not have the digest of the whole")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _invalid("it is no statement about a model") from None
    return found


def _root(digests: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for each in digests:
        whole.update(bytes.fromhex(each))
    return whole.hexdigest()


def _is_for_signing(leaf: x509.Certificate) -> bool:
    """Whether its key may sign a model: digital signatures, and where purposes are named, code (RFC 5280 §4.2.1.3,
    §4.2.1.12). `model_signing` takes either; a certificate for TLS would do then, such as each SVID of a CA.
    """
    try:
        usage = _extension(leaf, x509.KeyUsage)
        purposes = _extension(leaf, x509.ExtendedKeyUsage)
        basic = _extension(leaf, x509.BasicConstraints)
    except ValueError:
        return False
    if usage is not None and not usage.digital_signature:
        return False
    if basic is not None and basic.ca:
        return False
    if purposes is None:
        return usage is not None
    return any(each in _PURPOSES for each in purposes)


def _extension(leaf: x509.Certificate, kind: Any) -> Any:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(certificate: x509.Certificate) -> str:
    try:
        name = certificate.subject.rfc4514_string()
    except ValueError:
        name = ""
    return name[:200] or f"(no name) {fingerprint(certificate)[:16]}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _invalid(why: str) -> TrustError:
    return TrustError("model_signature_invalid", f"the signature does not hold: {why}")
