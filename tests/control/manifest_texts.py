"""Manifests as text, resolved without a node: for tests of what they mean."""

from __future__ import annotations

from collections.abc import Iterable

from tests.config.samples import snapshot

from vedette.config.addresses import CountryDatabase
from vedette.config.manifests import Attachment, ManifestObject
from vedette.config.snapshot import Route, Snapshot
from vedette.config.yaml_source import parse_documents
from vedette.control.resolve import Kept, Resolved, resolve
from vedette.store.history import Applied

BASE_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
SHOP = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {name: shop}
spec: {url: "http://10.0.0.7:8080"}
---
"""
OUR = "apiVersion: vedette.dev/v1alpha1\n"
GATEWAY = "apiVersion: gateway.networking.k8s.io/v1\n"


def objects(
    text: str, file: str = "edge.yaml", attachments: dict[str, Attachment] | None = None
) -> list[ManifestObject]:
    """The manifests of a text, all with the same attachments."""
    found = [ManifestObject.of(each, file) for each in parse_documents(text.encode(), file)]
    for each in found:
        each.attachments.update(attachments or {})
    return found


def resolved(
    text: str,
    *,
    base: Snapshot | None = None,
    applied: Iterable[Applied] = (),
    fed: dict[str, str] | None = None,
    installed: CountryDatabase | None = None,
    prune: bool = False,
    attachments: dict[str, Attachment] | None = None,
    kept: Kept | None = None,
) -> Resolved:
    """What the manifests make of `base`, by default the sample snapshot."""
    start = base or snapshot()
    found = objects(text, attachments=attachments)
    return resolve(
        found,
        start,
        applied,
        BASE_HOSTS,
        kept=kept or Kept(),
        fed=fed,
        installed=installed,
        prune=prune,
    )


def routes(text: str, name: str = "one") -> list[Route]:
    """The routes that a manifest of that name makes, beside an Upstream `shop`."""
    made = resolved(SHOP + text).snapshot.routes
    return [each for each in made if each.name == name or each.name.startswith(f"{name}-")]
