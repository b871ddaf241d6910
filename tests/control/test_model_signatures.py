"""Signatures in control: whose count, what is refused before it is loaded, and what changed on the disk meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.control.conftest import Running
from tests.control.test_models import add, shown, upload
from tests.models.conftest import eventually
from tests.models.publisher import Publisher, pem
from tests.simulators import inspection

from vedette.config.served_media import ModelExtra
from vedette.config.snapshot import Snapshot
from vedette.control.model_signatures import ModelSignatures
from vedette.control.models import Models
from vedette.errors import ConfigError, TrustError, VedetteError
from vedette.models.keeper_wanted import parse
from vedette.models.signing import ALONE, ModelSigner, verify


@pytest.fixture(autouse=True)
def _inspector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models.__init__, "__defaults__", (inspection.inspect,))


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """Somebody whom the node does not know yet."""
    return Publisher(tmp_path)


def signatures(running: Running) -> ModelSignatures:
    return running.node.models.signatures


def trust(running: Running, publisher: Publisher) -> str:
    (added,) = signatures(running).trust(pem(publisher.root).decode(), "uid:1")
    return added.fingerprint


def signed(publisher: Publisher, digest: str) -> bytes:
    signer = ModelSigner.load(publisher.key_file, publisher.chain_file)
    return signer.sign("m", {ALONE: digest.removeprefix("sha256:")})


def require_signatures(running: Running, must: bool = True) -> None:
    def change(active: Snapshot) -> Snapshot:
        admit = active.admit.model_copy(update={"requires_signed_models": must or None})
        return active.with_(admit=admit)

    running.activator.change(change, "test", "test")


def refused(running: Running, act: Any) -> VedetteError:
    before = running.activator.active()[0]
    with pytest.raises(VedetteError) as caught:
        act()
    assert running.activator.active()[0] == before
    return caught.value


def wanted(running: Running) -> set[str]:
    return {each.name for each in parse(running.home.models_wanted.read_bytes()).values()}


def begun_anew(running: Running) -> None:
    """As after control was started again."""
    signatures(running)._held.clear()
    signatures(running)._runs = None


def test_signers_come_are_listed_and_go(running: Running, publisher: Publisher) -> None:
    assert signatures(running).signers() == []
    fingerprint = trust(running, publisher)
    assert trust(running, publisher) == fingerprint
    (own,) = signatures(running).trust(None, "uid:2")
    known = signatures(running).signers()
    assert {each.fingerprint for each in known} == {fingerprint, own.fingerprint}
    assert {each.actor for each in known} == {"uid:1", "uid:2"}
    assert {each.subject for each in known} >= {"CN=publisher root"}
    for prefix in ("", fingerprint[:7], "0" * 8, "%"):
        assert refused(
            running, lambda prefix=prefix: signatures(running).distrust(prefix)
        ).code == ("model_signer_absent")
    assert signatures(running).distrust(fingerprint[:8].upper()).subject == "CN=publisher root"
    assert [each.fingerprint for each in signatures(running).signers()] == [own.fingerprint]
    with pytest.raises(ConfigError, match="no certificate"):
        signatures(running).trust("nothing", "uid:1")


def test_a_signature_is_kept_once_it_holds(running: Running, publisher: Publisher) -> None:
    file, other = upload(running, b"one"), upload(running, b"two")
    bundle = signed(publisher, file)
    assert (
        refused(running, lambda: signatures(running).put(file, bundle)).code
        == "model_signer_unknown"
    )
    trust(running, publisher)
    error = refused(running, lambda: signatures(running).put(other, bundle))
    assert error.code == "model_signature_invalid"
    assert 'signed ".", and this file is none of them' in error.message
    assert signatures(running).names() == {}
    assert signatures(running).put(file, bundle).signer == "CN=publisher"
    assert signatures(running).get(file) == bundle
    added = add(running, b"one")
    assert added.signer == "CN=publisher"
    assert [each.signer for each in shown(running).versions] == ["CN=publisher"]
    needed = running.node.models.needed()
    kept = running.node.models.store.attached("signature")[file]
    assert kept.blob in needed


def test_only_signed_models_are_loaded_where_that_has_to_be(
    running: Running, publisher: Publisher
) -> None:
    trust(running, publisher)
    require_signatures(running)
    error = refused(running, lambda: add(running, b"one"))
    assert error.code == "model_unsigned"
    assert error.message.startswith("m version 1: ")
    assert running.keeper.seen == [], "it was never loaded"
    assert running.node.models.list() == []
    file = upload(running, b"one")
    signatures(running).put(file, signed(publisher, file))
    assert add(running, b"one").version == 1
    add(running, b"two", promote=False)
    assert (
        refused(running, lambda: running.node.models.promote("m", 2, "uid:1")).code
        == "model_unsigned"
    )


def test_what_a_model_needs_beside_its_file_has_to_be_signed_with_it(
    running: Running, publisher: Publisher
) -> None:
    trust(running, publisher)
    file, names = upload(running, b"one"), running.activator.blobs.put(b"zero\none\n")
    add(running, b"one")
    snapshot = running.activator.active()[1]
    served = snapshot.model("m")
    assert served is not None
    extra = ModelExtra(role="names", blob=names, size=9)
    whole = served.model_copy(update={"files": (extra,), "worker": "0" * 16})
    after = snapshot.model_copy(update={"models": (whole,)})
    must = after.model_copy(
        update={"admit": after.admit.model_copy(update={"requires_signed_models": True})}
    )
    signatures(running).put(file, signed(publisher, file))
    signatures(running).require(after, snapshot)
    error = refused(running, lambda: signatures(running).require(must, snapshot))
    assert error.code == "model_unsigned"
    assert "its file of names was not signed with it" in error.message
    signer = ModelSigner.load(publisher.key_file, publisher.chain_file)
    both = {"m.onnx": file.removeprefix("sha256:"), "names.txt": names.removeprefix("sha256:")}
    signatures(running).put(file, signer.sign("m", both))
    signatures(running).require(must, snapshot)
    place = running.activator.blobs.path(names)
    place.chmod(0o600)
    place.write_bytes(b"one\nzero\n")
    error = refused(running, lambda: signatures(running).require(must, snapshot))
    assert error.code == "blob_tampered"


def test_the_rule_is_refused_while_an_unsigned_model_serves(
    running: Running, publisher: Publisher
) -> None:
    added = add(running, b"one")
    assert refused(running, lambda: require_signatures(running)).code == "model_unsigned"
    trust(running, publisher)
    signatures(running).put(added.file, signed(publisher, added.file))
    require_signatures(running)
    require_signatures(running, must=False)


def test_whoever_is_trusted_no_more_brings_no_version_back(
    running: Running, publisher: Publisher
) -> None:
    fingerprint = trust(running, publisher)
    file = upload(running, b"one")
    signatures(running).put(file, signed(publisher, file))
    add(running, b"one")
    add(running, b"two")
    signatures(running).distrust(fingerprint)
    assert (
        refused(running, lambda: running.node.models.roll_back("m", "uid:1")).code
        == "model_signer_unknown"
    )
    assert (
        refused(running, lambda: running.activator.roll_back(None, "uid:1")).code
        == "model_signer_unknown"
    )
    signatures(running).forget(file)
    running.node.models.roll_back("m", "uid:1")
    assert shown(running).version == 1


def test_a_file_that_changed_on_the_disk_is_not_loaded(
    running: Running, publisher: Publisher
) -> None:
    trust(running, publisher)
    file = upload(running, b"one")
    signatures(running).put(file, signed(publisher, file))
    add(running, b"one")
    add(running, b"two")
    place = running.activator.blobs.path(file)
    place.chmod(0o600)
    place.write_bytes(place.read_bytes() + b"\0")
    eventually(lambda: running.keeper.seen[-1] == {"m@2"})  # the one that was replaced has ended
    seen = len(running.keeper.seen)
    error = refused(running, lambda: running.node.models.promote("m", 1, "uid:1"))
    assert isinstance(error, TrustError)
    assert error.code == "blob_tampered"
    assert "m version 1: its file on the disk is not the one" in error.message
    assert len(running.keeper.seen) == seen, "it was never loaded"
    with pytest.raises(TrustError) as caught:
        signatures(running).verify(file)
    assert caught.value.code == "blob_tampered"


def test_a_new_control_finds_what_changed_and_does_not_have_it_run(
    running: Running, publisher: Publisher
) -> None:
    trust(running, publisher)
    file = upload(running, b"one")
    signatures(running).put(file, signed(publisher, file))
    add(running, b"one")
    add(running, b"other", name="other")
    place = running.activator.blobs.path(file)
    place.chmod(0o600)
    place.write_bytes(b"changed")
    running.activator.reconcile()
    assert wanted(running) == {"m", "other"}, "each is looked at once in the life of a process"
    begun_anew(running)
    running.activator.reconcile()
    assert wanted(running) == {"other"}
    worker = shown(running).worker
    assert worker is not None
    assert worker.state == "refused"
    assert "its file on the disk" in str(worker.error)
    place.write_bytes(inspection.onnx_like(b"one"))
    begun_anew(running)
    running.activator.reconcile()
    assert wanted(running) == {"m", "other"}


def test_the_nodes_ca_signs_with_a_key_that_is_gone_after(running: Running) -> None:
    added = add(running, b"one")
    with pytest.raises(TrustError) as caught:
        signatures(running).sign_file("m", added.file)
    assert caught.value.code == "model_signer_unknown", (
        "its CA is trusted with models like any other"
    )
    signatures(running).trust(None, "uid:1")
    first = signatures(running).sign_file("m", added.file)
    assert "CN=Models of test-node.vedette.local" in first.signer
    second = signatures(running).sign_file("m", added.file)
    assert first.fingerprint != second.fingerprint
    assert signatures(running).verify(added.file) == second
    files = {"a": "0" * 64, "b/c": "1" * 64}
    bundle = signatures(running).sign("folder", files)
    trusted = [running.node.rotation._keys.authority.certificate]
    assert verify(bundle, trusted).resources == files


def test_an_svid_of_the_ca_signs_no_model(running: Running, tmp_path: Path) -> None:
    """Each workload has a certificate of the same CA, with a key of its own."""
    authority = running.node.rotation._keys.authority
    chain, key = authority.issue_server(["localhost"])
    (tmp_path / "svid.pem").write_bytes(chain)
    (tmp_path / "svid.key").write_bytes(key)
    (tmp_path / "svid.key").chmod(0o600)
    with pytest.raises(ConfigError, match="is not for signing"):
        ModelSigner.load(tmp_path / "svid.key", tmp_path / "svid.pem")


def test_the_file_of_a_version_is_found(running: Running) -> None:
    models = running.node.models
    one, two = add(running, b"one"), add(running, b"two", promote=False)
    assert models.digest_of_version("m", None) == models.digest_of_version("m", 1) == one.file
    assert models.digest_of_version("m", 2) == two.file
    for name, version in (("m", 3), ("none", None)):
        with pytest.raises(ConfigError):
            models.digest_of_version(name, version)
