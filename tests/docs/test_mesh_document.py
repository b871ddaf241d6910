"""The manifests in docs/mesh.md mean what the document says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.control.manifest_texts import resolved

DOCUMENT = Path(__file__).parents[2] / "docs" / "mesh.md"
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)


def test_the_manifests_of_both_sides_are_what_they_say() -> None:
    text = DOCUMENT.read_text("utf-8")
    called, calling = (resolved(block) for block in BLOCK.findall(text))
    assert [(one.name, one.mode) for one in called.snapshot.sidecars or ()] == [
        ("billing", "Strict")
    ]
    assert called.snapshot.route("sidecar-billing") is not None
    names = {each.name for each in called.snapshot.policy.policies}
    assert "sidecar.billing.cedar" in names
    route = calling.snapshot.route("billing")
    assert route is not None
    assert (route.hosts, route.retry is not None) == (("billing.mesh",), True)
    names = {each.name for each in calling.snapshot.policy.policies}
    assert "callers-route.billing.cedar" in names
    (upstream,) = calling.snapshot.upstreams
    assert upstream.tls is not None
    assert "spiffe://edge-2.example.org/billing" in (upstream.tls.peers or ())
