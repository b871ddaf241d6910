"""Signed models on a real node: what changed on the disk is not loaded, neither by a change nor by a new control."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.test_model_versions import add, predicted, times
from tests.models.publisher import Publisher

from vedette.ids import digest_hex


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def shown(node: Node) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(node.run("model", "show", "m", "--json").stdout)
    return status


def signed(node: Node, folder: Path, factor: float, publisher: Publisher) -> Path:
    """Adds a signed model; where the node keeps its file."""
    (folder / "m.onnx").write_bytes(times(factor))
    keys = ("--key", str(publisher.key_file), "--cert", str(publisher.chain_file))
    node.run("model", "sign", str(folder / "m.onnx"), *keys)
    file = add(node, folder, times(factor), "m")["file"]
    return node.path("engine", "blobs", "sha256", digest_hex(file))


def test_a_signed_model_that_changed_on_the_disk_is_not_loaded(
    models: Node, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path)
    models.run("model", "trust", "add", str(publisher.root_file))
    folder = tmp_path / "m"
    folder.mkdir()
    first = signed(models, folder, 2, publisher)
    second = signed(models, folder, 3, publisher)
    assert [each["signer"] for each in shown(models)["versions"]] == ["CN=publisher"] * 2
    assert predicted(models, "m") == [3, 6, 9]
    first.chmod(0o600)
    first.write_bytes(times(7))
    done = models.run("model", "rollback", "m", check=False)
    assert done.returncode == 3, done.stderr
    assert "m version 1: its file on the disk is not the one that was taken in" in done.stderr
    assert predicted(models, "m") == [3, 6, 9]
    second.chmod(0o600)
    second.write_bytes(times(7))
    os.kill(models.pid("control"), signal.SIGKILL)
    state = wait_until(
        "the new control lets the changed file run no more",
        lambda: (shown(models)["worker"] or {}).get("state") == "refused" and shown(models),
    )
    assert "its file on the disk" in state["worker"]["error"]
    refused = wait_until(
        "the process of the model has ended",
        lambda: (
            (told := models.run("predict", "m", "[[1, 2, 3]]", check=False)).returncode and told
        ),
    )
    assert refused.returncode == 4
    second.write_bytes(times(3))
    os.kill(models.pid("control"), signal.SIGKILL)
    wait_until(
        "it runs again once its file is back",
        lambda: models.run("predict", "m", "[[1, 2, 3]]", check=False).returncode == 0,
    )


ONLY_SIGNED = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: node}
spec: {models: {requireSignature: true}}
"""


def test_where_signatures_have_to_be_an_unsigned_model_is_not_taken_in(
    start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node()
    file = tmp_path / "one.onnx"
    file.write_bytes(times(2))
    add_one = ("model", "add", str(file), "--name", "one")
    node.run(*add_one)
    refused = node.run("apply", "--yes", "-f", str(manifest(tmp_path)), check=False)
    assert refused.returncode == 3, refused.stderr
    assert "one version 1" in refused.stderr
    node.run("model", "trust", "add")  # the node's own CA
    node.run("model", "sign", "one")
    node.run("apply", "--yes", "-f", str(manifest(tmp_path)))
    file.write_bytes(times(3))
    refused = node.run(*add_one, check=False)
    assert refused.returncode == 3, refused.stderr
    assert "there is no signature of this file" in refused.stderr
    assert predicted(node, "one") == [2, 4, 6]
    node.run("model", "sign", str(file))
    node.run(*add_one)
    assert predicted(node, "one") == [3, 6, 9]


def manifest(folder: Path) -> Path:
    """The rule, in a file."""
    file = folder / "node.yaml"
    file.write_text(ONLY_SIGNED, "utf-8")
    return file
