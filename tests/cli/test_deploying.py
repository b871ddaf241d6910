"""When a project is built before it is deployed, and what is asked of the node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from tests.simulators.native import COMPONENT

from vedette.cli.deploying import DeployOptions, deploy_path, function_wish, needs_build
from vedette.cli.interrupting import Interrupted
from vedette.config.manifest import FunctionManifest
from vedette.config.model import build
from vedette.control.client import ControlClient
from vedette.errors import ConfigError
from vedette.functions.project import locate

MANIFEST = """apiVersion: vedette.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  component: hello.wasm
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose component is older than its manifest."""
    component = tmp_path / "hello.wasm"
    component.write_bytes(b"")
    os.utime(component, (0, 0))
    (tmp_path / "vedette.yaml").write_text(MANIFEST, "utf-8")
    return tmp_path


def test_a_component_made_elsewhere_is_taken_as_it_is(folder: Path) -> None:
    assert not needs_build(locate(folder))


def test_a_project_with_a_recipe_is_built_when_a_source_is_newer(folder: Path) -> None:
    (folder / "Cargo.toml").write_text("", "utf-8")
    assert needs_build(locate(folder))


def _manifest(**spec: object) -> FunctionManifest:
    data = {"apiVersion": "vedette.dev/v1alpha1", "kind": "Function", "metadata": {"name": "it"}}
    return build(FunctionManifest, {**data, "spec": spec}, code="manifest_invalid")


def test_nothing_is_reused_and_nowhere_called_unless_it_is_said() -> None:
    wish = function_wish("sha256:1", None, DeployOptions())
    assert wish["allowedHosts"] == []
    assert "reuse" not in wish


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        (DeployOptions(reuse=True), (1_000, 60_000)),
        (DeployOptions(reuse_max_requests=5), (5, 60_000)),
        (DeployOptions(reuse_max_age="10s"), (1_000, 10_000)),
    ],
)
def test_the_command_line_asks_for_reuse(options: DeployOptions, bounds: tuple[int, int]) -> None:
    reuse = function_wish("sha256:1", None, options)["reuse"]
    assert (reuse["maxRequests"], reuse["maxAgeMillis"]) == bounds


def test_the_command_line_goes_before_the_manifest() -> None:
    manifest = _manifest(reuse={"maxRequests": 7, "maxAge": "2m"}, allowedHosts=["a.example.com"])
    wish = function_wish("sha256:1", manifest, DeployOptions())
    assert wish["reuse"] == {"maxRequests": 7, "maxAgeMillis": 120_000}
    assert wish["allowedHosts"] == ["https://a.example.com"]
    options = DeployOptions(reuse_max_requests=8, allow_hosts=["http://b.example.com"])
    wish = function_wish("sha256:1", manifest, options)
    assert wish["reuse"] == {"maxRequests": 8, "maxAgeMillis": 120_000}
    assert wish["allowedHosts"] == ["http://b.example.com"]
    assert "reuse" not in function_wish("sha256:1", manifest, DeployOptions(reuse=False))


def test_bounds_of_reuse_that_cannot_be_are_refused() -> None:
    for options in (DeployOptions(reuse_max_age="25h"), DeployOptions(reuse_max_age="soon")):
        with pytest.raises(ConfigError):
            function_wish("sha256:1", None, options)


class _Stopped:
    """A client whose node was told to deploy when Ctrl-C came."""

    def upload(self, *_: object) -> None:
        pass

    def put(self, *_: object) -> dict[str, object]:
        raise KeyboardInterrupt


def test_ctrl_c_once_the_node_was_told_says_that_the_deployment_goes_on(tmp_path: Path) -> None:
    component = tmp_path / "hello.wasm"
    component.write_bytes(COMPONENT)
    client = cast("ControlClient", _Stopped())
    with pytest.raises(Interrupted, match="the deployment of hello goes on on the node"):
        deploy_path(client, component)


def test_countries_of_the_command_line_take_the_place_of_the_manifests() -> None:
    spec = {"metadata": {"name": "f"}, "spec": {"countries": {"allow": ["CH"]}}}
    manifest = build(
        FunctionManifest, {"apiVersion": "vedette.dev/v1alpha1", "kind": "Function", **spec}
    )
    wish = function_wish("", manifest, DeployOptions())
    assert wish["countries"] == {"action": "Allow", "codes": ["CH"]}
    wish = function_wish("", manifest, DeployOptions(block_countries=["fr", "DE"]))
    assert wish["countries"] == {"action": "Block", "codes": ["DE", "FR"]}
    assert "countries" not in function_wish("", None, DeployOptions())
    for wrong, sentence in (
        (DeployOptions(block_countries=["Germany"]), "--block-country: 'GERMANY' is no country"),
        (DeployOptions(allow_countries=["CH"], block_countries=["FR"]), "exclude each other"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            function_wish("", None, wrong)
