"""Signatures of models: that the published package and ours take each other's, and what does not hold."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.models.publisher import CODE, START, Publisher, certificate, p256, pem

from vedette.errors import ConfigError, TrustError
from vedette.models import signing
from vedette.models.signed_files import read_signature, require_same, resources_of, signature_beside
from vedette.models.signing import ModelSigner, certificates_of, fingerprint, verify

SERVER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model and what belongs to it."""
    folder = tmp_path / "digits"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "sub" / "labels.txt").write_text("one\n")
    (folder / "sub-a.txt").write_text("a\n")
    (folder / ".gitignore").write_text("*.tmp\n")
    return folder


def signed(publisher: Publisher, path: Path) -> bytes:
    signer = ModelSigner.load(publisher.key_file, publisher.chain_file)
    return signer.sign(path.name, resources_of(path))


def refused(bundle: bytes, *trusted: x509.Certificate) -> TrustError:
    with pytest.raises(TrustError) as caught:
        verify(bundle, trusted)
    return caught.value


def rewritten(bundle: bytes, publisher: Publisher, **changes: Any) -> bytes:
    """The bundle with another statement, signed by the same key."""
    said = json.loads(bundle)
    statement = json.loads(base64.b64decode(said["dsseEnvelope"]["payload"]))
    payload = json.dumps({**statement, **changes}).encode()
    message = signing.pre_authentication_encoding("application/vnd.in-toto+json", payload)
    signature = publisher.key.sign(message, ec.ECDSA(signing.SHA256()))
    said["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    said["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(said).encode()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
@pytest.mark.parametrize("part", ["", "model.onnx"])
def test_the_published_verifier_takes_our_signatures(
    tmp_path: Path, model: Path, part: str, curve: ec.EllipticCurve
) -> None:
    publisher, path = Publisher(tmp_path, key=ec.generate_private_key(curve)), model / part
    file = tmp_path / "ours.sig"
    file.write_bytes(signed(publisher, path))
    config = model_signing.verifying.Config()
    config.use_certificate_verifier(certificate_chain=[publisher.root_file]).verify(path, file)
    (model / "model.onnx").write_bytes(b"others")
    again = model_signing.verifying.Config()
    with pytest.raises(ValueError, match="mismatch"):
        again.use_certificate_verifier(certificate_chain=[publisher.root_file]).verify(path, file)


@pytest.mark.parametrize("part", ["", "model.onnx"])
def test_we_take_signatures_of_the_published_signer(tmp_path: Path, model: Path, part: str) -> None:
    publisher, path = Publisher(tmp_path), model / part
    file = tmp_path / "theirs.sig"
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=publisher.key_file,
        signing_certificate=publisher.leaf_file,
        certificate_chain=[publisher.root_file],
    )
    config.sign(path, file)
    found = verify(file.read_bytes(), [publisher.root])
    assert (found.signer, found.fingerprint) == ("CN=publisher", fingerprint(publisher.leaf))
    assert found.at == START
    require_same(path, found.resources)
    assert found.covers(f"sha256:{resources_of(model / 'model.onnx')['.']}")
    assert not found.covers("sha256:" + "0" * 64)


def test_the_published_signer_by_a_bare_key_is_told_from_one_by_a_certificate(
    tmp_path: Path, model: Path
) -> None:
    publisher, file = Publisher(tmp_path), tmp_path / "key.sig"
    config = model_signing.signing.Config()
    config.use_elliptic_key_signer(private_key=publisher.key_file).sign(model, file)
    error = refused(file.read_bytes(), publisher.root)
    assert error.code == "model_signature_invalid"
    assert "by a bare key" in error.message


def test_files_signed_in_shards_are_told(tmp_path: Path, model: Path) -> None:
    publisher, file = Publisher(tmp_path), tmp_path / "shards.sig"
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=publisher.key_file,
        signing_certificate=publisher.leaf_file,
        certificate_chain=[publisher.root_file],
    )
    shards = model_signing.hashing.Config().use_shard_serialization(hashing_algorithm="sha256")
    config.set_hashing_config(shards).sign(model, file)
    assert "signed by shards" in refused(file.read_bytes(), publisher.root).message


def test_a_signer_counts_by_an_authority_or_by_its_own_certificate(
    tmp_path: Path, model: Path
) -> None:
    publisher, other = Publisher(tmp_path), Publisher(tmp_path, "other")
    bundle = signed(publisher, model)
    for trusted in (publisher.root, publisher.leaf):
        assert verify(bundle, [other.root, trusted]).signer == "CN=publisher"
    for nobody in ((), (other.root,), (other.leaf,)):
        error = refused(bundle, *nobody)
        assert error.code == "model_signer_unknown"
        assert "CN=publisher" in error.message


def test_a_chain_leads_over_what_the_signature_brings(tmp_path: Path, model: Path) -> None:
    publisher, between = Publisher(tmp_path), p256()
    middle = certificate(
        "between", between, ("publisher root", publisher.root_key), is_ca=True, days=100
    )
    key = p256()
    leaf = certificate("signer", key, ("between", between))
    bundle = ModelSigner(key, [leaf, middle]).sign("m", resources_of(model))
    assert verify(bundle, [middle]).signer == "CN=signer"
    alone = ModelSigner(key, [leaf]).sign("m", resources_of(model))
    assert refused(alone, publisher.root).code == "model_signer_unknown"


def test_a_name_is_no_proof_that_an_authority_issued(tmp_path: Path, model: Path) -> None:
    publisher = Publisher(tmp_path)
    key, false = p256(), p256()
    leaf = certificate("publisher", key, ("publisher root", false))
    bundle = ModelSigner(key, [leaf, publisher.root]).sign("m", resources_of(model))
    assert refused(bundle, publisher.root).code == "model_signer_unknown"


def test_certificates_count_as_they_did_when_the_signers_began(tmp_path: Path, model: Path) -> None:
    ended = Publisher(tmp_path, "ended", days=1)
    assert verify(signed(ended, model), [ended.root]).at == START
    early = Publisher(tmp_path, "early", start=START - timedelta(days=3))
    assert refused(signed(early, model), early.root).code == "model_signer_unknown"


@pytest.mark.parametrize("how", [{"purposes": SERVER}, {"signs": False}, {"is_ca": True}])
def test_a_certificate_that_is_not_for_signing_neither_signs_nor_counts(
    tmp_path: Path, model: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path, **how)
    with pytest.raises(ConfigError) as caught:
        signed(publisher, model)
    assert caught.value.code == "certificate_refused"
    with monkeypatch.context() as careless:
        careless.setattr(signing, "_is_for_signing", lambda _: True)
        bundle = signed(publisher, model)
    error = refused(bundle, publisher.root, publisher.leaf)
    assert error.code == "model_signature_invalid"
    assert "not for signing" in error.message


def test_one_for_code_is_for_models(tmp_path: Path, model: Path) -> None:
    publisher = Publisher(tmp_path, purposes=CODE)
    assert verify(signed(publisher, model), [publisher.root]).signer == "CN=publisher"


def test_other_keys_do_not_sign(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65_537, 2_048)
    publisher = Publisher(tmp_path, key=weak)
    with pytest.raises(ConfigError, match="no private key on P-256"):
        ModelSigner.load(publisher.key_file, publisher.chain_file)
    good = Publisher(tmp_path, "good")
    with pytest.raises(ConfigError, match="not that of the first certificate"):
        ModelSigner.load(good.key_file, publisher.chain_file)
    good.key_file.chmod(0o644)
    with pytest.raises(TrustError) as caught:
        ModelSigner.load(good.key_file, good.chain_file)
    assert caught.value.code == "key_permissions"


def test_no_changed_byte_of_the_envelope_holds(tmp_path: Path, model: Path) -> None:
    publisher = Publisher(tmp_path)
    bundle = signed(publisher, model)
    said = json.loads(bundle)
    payload = said["dsseEnvelope"]["payload"]
    for at in range(0, len(payload), 97):
        other = "A" if payload[at] != "A" else "B"
        said["dsseEnvelope"]["payload"] = payload[:at] + other + payload[at + 1 :]
        assert refused(json.dumps(said).encode(), publisher.root).code == "model_signature_invalid"


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"mediaType": 1, "verificationMaterial": 2, "dsseEnvelope": 3}',
        b" " * ((4 << 20) + 1),
    ],
)
def test_what_is_no_bundle_is_told(bundle: bytes) -> None:
    assert refused(bundle).code == "model_signature_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"},
        {"verificationMaterial": {"x509CertificateChain": {"certificates": []}}},
        {"verificationMaterial": {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}},
        {"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}},
    ],
)  # fmt: skip
def test_other_bundles_are_told(tmp_path: Path, model: Path, change: dict[str, Any]) -> None:
    publisher = Publisher(tmp_path)
    bundle = json.dumps({**json.loads(signed(publisher, model)), **change}).encode()
    assert refused(bundle, publisher.root).code == "model_signature_invalid"


def test_a_chain_without_end_is_not_followed(tmp_path: Path, model: Path) -> None:
    publisher = Publisher(tmp_path)
    said = json.loads(signed(publisher, model))
    rows = said["verificationMaterial"]["x509CertificateChain"]["certificates"]
    said["verificationMaterial"]["x509CertificateChain"]["certificates"] = rows * 6
    error = refused(json.dumps(said).encode(), publisher.root)
    assert "has not 1 to 10 certificates" in error.message


def test_statements_that_say_something_else_do_not_hold(tmp_path: Path, model: Path) -> None:
    publisher = Publisher(tmp_path)
    bundle = signed(publisher, model)
    root = "0" * 64
    how = {"method": "files", "hash_type": "sha256"}
    row = {"name": "a", "algorithm": "sha256", "digest": root}

    def predicate(*rows: dict[str, Any], **other: Any) -> dict[str, Any]:
        return {"serialization": {**how, **other}, "resources": rows}

    assert verify(rewritten(bundle, publisher), [publisher.root]).signer == "CN=publisher"
    for changes in (
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "digits", "digest": {"sha256": root}}]},
        {"predicate": predicate(row)},
        {"predicate": predicate()},
        {"predicate": predicate(row, row)},
        {"predicate": predicate({**row, "algorithm": "md5"})},
        {"predicate": predicate({**row, "digest": root.upper() + "\n"})},
        {"predicate": predicate(row, hash_type="blake3")},
        {"predicate": 7},
    ):
        error = refused(rewritten(bundle, publisher, **changes), publisher.root)
        assert error.code == "model_signature_invalid", changes


def test_what_is_there_is_compared_with_what_was_signed(tmp_path: Path, model: Path) -> None:
    found = resources_of(model)
    assert set(found) == {"model.onnx", "sub/labels.txt", "sub-a.txt"}
    require_same(model, found)
    require_same(model / "model.onnx", found)
    (model / "model.sig").write_bytes(b"{}")
    require_same(model, found)
    assert signature_beside(model) == signature_beside(model / "model.onnx") == model / "model.sig"
    assert read_signature(model / "model.sig") == b"{}"
    (model / "model.onnx").write_bytes(b"others")
    (model / "sub" / "labels.txt").unlink()
    (model / "new.py").write_text("")
    with pytest.raises(TrustError) as caught:
        require_same(model, found)
    assert caught.value.code == "model_signature_invalid"
    for what in ("model.onnx has changed", "sub/labels.txt is missing", "new.py was not signed"):
        assert what in caught.value.message
    with pytest.raises(TrustError, match="none of the files that were signed"):
        require_same(model / "model.onnx", found)


def test_links_and_folders_without_files_are_not_signed(tmp_path: Path, model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (model / "link").symlink_to("/etc/hostname")
    for path in (empty, model, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(ConfigError) as caught:
            resources_of(path)
        assert caught.value.code == "file_unreadable"


def test_certificates_are_read_from_pem(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    assert certificates_of(publisher.chain_file.read_bytes()) == [publisher.leaf, publisher.root]
    with pytest.raises(ConfigError, match="no certificate"):
        certificates_of(publisher.key_file.read_bytes())
    with pytest.raises(ConfigError, match="more than 10"):
        certificates_of(pem(publisher.root) * 11)
