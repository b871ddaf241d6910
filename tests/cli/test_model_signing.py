"""`vedette model sign`, `verify`, `trust`, and signatures on the way of a model to the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from tests.cli.conftest import Shell
from tests.models.publisher import Publisher
from tests.simulators.inspection import onnx_like

from vedette.errors import ConfigError, TrustError

NODE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: node}
spec: {models: {requireSignature: true}}
"""
MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: declared}
spec: {file: m.onnx}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one model."""
    place = tmp_path / "digits"
    place.mkdir()
    (place / "m.onnx").write_bytes(onnx_like(b"one"))
    return place


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def sign(node: Shell, path: Path, publisher: Publisher) -> None:
    done = node(
        *("model", "sign", str(path)),
        *("--key", str(publisher.key_file), "--cert", str(publisher.chain_file)),
    )
    assert done.returncode == 0, done.stderr


def test_a_signed_model_comes_to_a_node_that_takes_no_other(
    node: Shell, folder: Path, publisher: Publisher
) -> None:
    (folder.parent / "node.yaml").write_text(NODE)
    applied = node("apply", str(folder.parent / "node.yaml"), "--yes")
    assert applied.returncode == 0, applied.stderr
    file = folder / "m.onnx"
    unsigned = node("model", "add", str(file), "--name", "digits")
    assert unsigned.returncode == TrustError.exit_code
    assert "model sign" in unsigned.stderr
    sign(node, file, publisher)
    unknown = node("model", "add", str(folder), "--name", "digits")
    assert unknown.returncode == TrustError.exit_code
    assert "CN=publisher signed it" in unknown.stderr
    assert "vedette model trust add" in unknown.stderr
    trusted = node("model", "trust", "add", str(publisher.root_file))
    assert trusted.returncode == 0, trusted.stderr
    (one,) = cast("list[dict[str, Any]]", node.json("model", "trust", "list"))
    assert trusted.stdout.strip() == one["fingerprint"]
    added = node("model", "add", str(folder), "--name", "digits")
    assert added.returncode == 0, added.stderr
    assert "Signed by CN=publisher" in added.stderr
    assert "1\tserving\t-\tCN=publisher\t" in node("model", "show", "digits").stdout
    assert "CN=publisher signed" in node("model", "verify", "digits").stderr
    file.write_bytes(onnx_like(b"changed"))
    changed = node("model", "add", str(folder), "--name", "digits")
    assert changed.returncode == TrustError.exit_code
    assert "this file is none of them" in changed.stderr
    removed = node("model", "trust", "remove", one["fingerprint"][:12])
    assert removed.returncode == 0, removed.stderr
    assert "CN=publisher root" in removed.stderr
    assert node("model", "verify", "digits").returncode == TrustError.exit_code


def test_signed_files_are_verified_with_certificates_alone(
    shell: Shell, folder: Path, publisher: Publisher
) -> None:
    """With no node."""
    (folder / "labels.txt").write_text("one\n")
    sign(shell, folder, publisher)
    assert (folder / "model.sig").is_file()
    flags = ("--cert", str(publisher.root_file))
    done = shell("model", "verify", str(folder), *flags)
    assert done.returncode == 0, done.stderr
    assert "is what CN=publisher signed (2 files)" in done.stderr
    told = shell("model", "verify", str(folder / "m.onnx"), *flags, "--json")
    assert json.loads(told.stdout)["files"] == 2
    (folder / "labels.txt").write_text("two\n")
    changed = shell("model", "verify", str(folder), *flags)
    assert changed.returncode == TrustError.exit_code
    assert "labels.txt has changed" in changed.stderr
    other = Publisher(folder.parent, "other")
    unknown = shell("model", "verify", str(folder), "--cert", str(other.root_file))
    assert unknown.returncode == TrustError.exit_code
    (folder / "model.sig").unlink()
    absent = shell("model", "verify", str(folder), *flags)
    assert absent.returncode == ConfigError.exit_code
    assert "there is no model.sig" in absent.stderr


def test_the_nodes_ca_signs_what_it_keeps_and_what_lies_here(
    node: Shell, folder: Path, publisher: Publisher, tmp_path: Path
) -> None:
    assert node("model", "add", str(folder), "--name", "digits").returncode == 0
    refused = node("model", "sign", "digits")
    assert refused.returncode == TrustError.exit_code
    assert node("model", "trust", "add").returncode == 0
    out = tmp_path / "digits.sig"
    done = node("model", "sign", "digits", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Models of" in done.stderr
    ca = str(node.home.ca_certificate)
    file = str(folder / "m.onnx")
    checked = node("model", "verify", file, "--signature", str(out), "--cert", ca)
    assert checked.returncode == 0, checked.stderr
    told = node.json("model", "sign", str(folder))
    assert told == {"signature": str(folder / "model.sig"), "files": 1}
    assert node("model", "verify", str(folder)).returncode == 0
    assert node("model", "trust", "add", str(publisher.leaf_file)).returncode == 0
    mine = ("--key", str(publisher.key_file), "--cert", str(publisher.leaf_file))
    done = node("model", "sign", "digits", "--version", "1", *mine)
    assert "signed by CN=publisher" in done.stderr
    named = cast("dict[str, Any]", node.json("model", "sign", "digits", *mine))
    assert (named["signer"], named["signature"]) == ("CN=publisher", None)
    half = node("model", "sign", "digits", "--key", str(publisher.key_file))
    assert half.returncode == ConfigError.exit_code


def test_a_signature_of_somebody_unknown_beside_a_manifests_file_is_said(
    node: Shell, folder: Path, publisher: Publisher
) -> None:
    sign(node, folder / "m.onnx", publisher)
    (folder / "edge.yaml").write_text(MANIFEST)
    applied = node("apply", str(folder), "--yes")
    assert applied.returncode == 0, applied.stderr
    assert "m.onnx counts as unsigned" in applied.stderr
    shown = cast("dict[str, Any]", node.json("model", "show", "declared"))
    assert shown["versions"][0]["signer"] is None
    beside = node("model", "add", str(folder), "--name", "digits")
    assert beside.returncode == TrustError.exit_code
    assert node("model", "add", str(folder), "--name", "digits", "--unsigned").returncode == 0
    assert node("model", "trust", "add", str(publisher.root_file)).returncode == 0
    assert node("apply", str(folder), "--yes").returncode == 0
    shown = cast("dict[str, Any]", node.json("model", "show", "declared"))
    assert shown["versions"][0]["signer"] == "CN=publisher"
    (folder / "model.sig").write_bytes(b"{}")
    broken = node("apply", str(folder), "--yes")
    assert broken.returncode == TrustError.exit_code
