"""Manifests of every kind: their shape, and all problems told at once."""

from __future__ import annotations

import pytest

from vedette.config.manifests import KINDS, Manifest, ManifestObject, typed
from vedette.config.yaml_source import parse_documents
from vedette.errors import ConfigError

NO_URL = "'x' is not a URL of an endpoint. Write scheme, host and port without a path, such as https://10.0.0.7:8443."
HEAD = "apiVersion: vedette.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n"


def read(text: str, file: str = "edge.yaml") -> list[Manifest]:
    documents = parse_documents(text.encode(), file)
    return typed([ManifestObject.of(document, file) for document in documents])


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.code == "manifest_invalid"
    return caught.value


def of(kind: str, spec: str = "", name: str = "one") -> str:
    return HEAD.format(kind=kind, name=name) + (f"spec: {spec}\n" if spec else "")


MINIMAL = {
    "Node": "{}",
    "Route": "{rules: [{static: {}}]}",
    "Function": "{}",
    "Model": "{file: m.onnx}",
    "Upstream": "{url: 'http://127.0.0.1:1'}",
    "Policy": "{cedar: ''}",
    "Limit": "{rate: 100/s}",
    "Issuer": "{issuer: i, audiences: [a], jwksFile: k.json}",
    "ClientAuthority": "{caFile: ca.pem}",
    "EgressPolicy": "{workloads: [w], allow: []}",
    "Sidecar": "{}",
    "AddressList": "{action: Block, networks: [192.0.2.0/24]}",
}


def test_every_kind_of_our_own_has_a_least_manifest() -> None:
    assert {*MINIMAL, "HTTPRoute"} == set(KINDS)
    for kind, spec in MINIMAL.items():
        (manifest,) = read(of(kind, spec))
        assert (manifest.kind, manifest.name, manifest.file) == (kind, "one", "edge.yaml")


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (of("Upstrem"), 2, "unknown kind 'Upstrem'; did you mean 'Upstream'?"),
        (of("httproute"), 2, "did you mean 'HTTPRoute'?"),
        (of("Deployment"), 2, "known are Node, Route"),
        ("apiVersion: v1\nkind: [x]\n", 2, "unknown kind"),
        ("metadata: {name: x}\n", 1, "kind is missing"),
        ("kind: Node\n", 1, "apiVersion is missing; Node is of vedette.dev/v1alpha1"),
        (of("Node").replace("v1alpha1", "v9"), 1, "unknown apiVersion 'vedette.dev/v9'"),
        (of("HTTPRoute"), 1, "HTTPRoute is of gateway.networking.k8s.io/v1"),
        ("- a\n", 1, "a manifest is a mapping"),
        (of("Node", "{timers: {hedder: 1s}}"), 4, "did you mean 'header'?"),
        (of("Upstream", "{}"), 4, "give it a url or endpoints"),
        (of("Upstream", "{url: 'http://a', tls: {}}"), 4, "tls needs endpoints with https://"),
        (
            of("Upstream", "{endpoints: [{url: 'http://a'}, {url: 'https://b'}]}"),
            4,
            "all http:// or all https://",
        ),
        (of("Policy", "{}"), 4, "cedar or cedarFile"),
        (of("Limit", "{}"), 4, "it limits nothing"),
        (of("Limit", "{rate: fast}"), 4, "'fast' is not a rate"),
        (of("Limit", "{concurrency: 1, burst: 2}"), 4, "burst needs a rate"),
        (of("Issuer", "{issuer: i, audiences: [a], jwksFile: /etc/k}"), 4, "relative"),
        (of("ClientAuthority", "{ca: x, pins: [abc]}"), 4, "pins"),
        (of("Route", "{rules: []}"), 4, "rules"),
        (of("Node", name="Bad_Name"), 3, "metadata.name"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_nearest_name(
    text: str, line: int, sentence: str
) -> None:
    error = refused(text)
    assert sentence in error.message
    assert error.line == line


def test_every_problem_is_told_at_once_with_its_own_line() -> None:
    text = "---\n".join([of("Nod"), of("Limit", "{rat: 1/s}"), of("Upstream", "{url: x, prot: y}")])
    assert refused(text).message.splitlines() == [
        "4 problems:",
        "  edge.yaml:2: unknown kind 'Nod'; did you mean 'Node'?",
        "  edge.yaml:8: unknown field 'rat' in spec; did you mean 'rate'?",
        f"  edge.yaml:13: spec.url: {NO_URL}",
        "  edge.yaml:13: unknown field 'prot' in spec; did you mean 'protocol'?",
    ]


def test_one_name_is_there_once_also_when_one_is_an_http_route() -> None:
    gateway = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one}\n"
        "spec: {rules: [{}]}\n"
    )
    error = refused(of("Route", MINIMAL["Route"]) + "---\n" + gateway)
    assert (error.line, "in edge.yaml:1" in error.message) == (8, True)
    assert "one Node at most" in refused(of("Node") + "---\n" + of("Node", name="two")).message


def test_what_a_cluster_adds_is_tolerated() -> None:
    (manifest,) = read(
        """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: shop
  namespace: web
  labels: {app: shop}
  annotations: {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
  creationTimestamp: null
  resourceVersion: "12"
  generation: 3
  managedFields: [{manager: kubectl}]
spec:
  parentRefs: [{name: gateway, sectionName: https}]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
status:
  parents: []
"""
    )
    assert manifest.name == "shop"
