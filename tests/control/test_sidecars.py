"""Sidecars made by a command: what of them there is, and whose they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.control.conftest import Running
from tests.control.manifest_texts import OUR, SHOP, objects

from vedette.control.messages import ManifestSetWish, PlanWish
from vedette.control.sidecar_messages import SidecarStatus, SidecarWish
from vedette.errors import ConfigError

CALLER = "spiffe://edge-1.example.org/shop"
BILLING = SidecarWish(port=9000, callers=(CALLER,))
MANIFEST = f"""\
{OUR}kind: Sidecar
metadata: {{name: billing}}
spec: {{port: 9000, callers: [{CALLER}]}}
"""


def apply(running: Running, text: str, *, prune: bool = False) -> None:
    wish = ManifestSetWish(objects=tuple(objects(text)), prune=prune)
    answer = running.node.plan(wish)
    fields = {name: getattr(answer, name) for name in PlanWish.model_fields}
    running.node.apply(PlanWish(**fields), "test")


def only(running: Running) -> SidecarStatus:
    (one,) = running.node.sidecars.list()
    return one


def generation(running: Running) -> int:
    return running.activator.active()[0].generation


def test_a_command_makes_what_a_manifest_makes(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    by_command = running.activator.active()[1]
    running.node.sidecars.remove("billing", "test")
    apply(running, MANIFEST)
    assert running.activator.active()[1] == by_command
    running.node.sidecars.remove("billing", "test")
    assert running.node.sidecars.list() == []
    assert running.activator.active()[1].sidecars is None
    assert running.activator.active()[1].route("sidecar-billing") is None


def test_a_sidecar_is_listed_with_who_may_call_it(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    one = only(running)
    assert (one.spiffe_id, one.host) == ("spiffe://test-node.vedette.local/billing", "billing.mesh")
    assert (one.mode, one.program, one.routes) == ("Strict", "127.0.0.1:9000", ("sidecar-billing",))
    named = [(each.file, each.principal_id) for each in one.callers]
    assert ("sidecar.billing.cedar", CALLER) in named
    assert (one.file, one.revoked, one.svid_until) == (None, False, None)
    assert [(each.name, each.mode) for each in running.node.status().sidecars] == [
        ("billing", "Strict")
    ]


def test_it_says_until_when_the_engine_shows_its_svid(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    running.node.engine_svids.step()
    assert "billing" in running.engine.svids
    assert only(running).svid_until is not None
    running.node.sidecars.put("shop", SidecarWish(), "test")
    billing, shop = running.node.sidecars.list()
    assert (billing.svid_until is None, shop.svid_until) == (False, None)
    assert (shop.program, shop.routes) == (None, ())


def test_the_same_again_changes_nothing(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    before = generation(running)
    running.node.sidecars.put("billing", BILLING, "test")
    assert generation(running) == before
    running.node.sidecars.put("billing", SidecarWish(port=9001, mode="Permissive"), "test")
    one = only(running)
    assert (one.program, one.mode) == ("127.0.0.1:9001", "Permissive")
    assert CALLER not in [each.principal_id for each in one.callers]
    names = [each.name for each in running.activator.active()[1].policy.policies]
    assert "sidecar.billing.cedar" not in names


def test_a_program_that_only_calls_now_has_no_way_in(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    running.node.sidecars.put("billing", SidecarWish(), "test")
    one = only(running)
    assert (one.program, one.routes) == (None, ())
    assert running.activator.active()[1].upstreams == ()


def test_prune_of_other_manifests_leaves_what_a_command_made(running: Running) -> None:
    running.node.sidecars.put("billing", BILLING, "test")
    apply(running, SHOP, prune=True)
    assert only(running).name == "billing"
    assert running.activator.active()[1].route("sidecar-billing") is not None


def test_what_a_manifest_made_is_changed_there(running: Running) -> None:
    apply(running, MANIFEST)
    assert only(running).file == "edge.yaml"
    before = generation(running)
    running.node.sidecars.put("billing", BILLING, "test")
    with pytest.raises(ConfigError) as caught:
        running.node.sidecars.put("billing", SidecarWish(port=9001), "test")
    assert (caught.value.code, "edge.yaml" in caught.value.message) == ("sidecar_owned", True)
    assert generation(running) == before
    apply(running, SHOP, prune=True)
    assert running.node.sidecars.list() == []


def test_a_manifest_may_take_over_what_a_command_made(running: Running) -> None:
    running.node.sidecars.put("billing", SidecarWish(port=9001), "test")
    apply(running, MANIFEST)
    assert (only(running).program, only(running).file) == ("127.0.0.1:9000", "edge.yaml")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gateway", "spiffe_id_reserved"),
        ("fn", "spiffe_id_reserved"),
        ("a.b", "invalid_name"),
        ("a" * 56, "invalid_name"),
    ],
)
def test_names_that_no_sidecar_has(running: Running, name: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.sidecars.put(name, BILLING, "test")
    assert caught.value.code == code


def test_objects_of_somebody_else_are_not_taken(running: Running) -> None:
    apply(running, SHOP.replace("name: shop", "name: sidecar-billing"))
    put: Callable[[], object] = lambda: running.node.sidecars.put("billing", BILLING, "test")  # noqa: E731
    with pytest.raises(ConfigError) as caught:
        put()
    assert caught.value.message == "there is an upstream 'sidecar-billing' already, of no sidecar"
    way = "backendRefs: [{kind: Upstream, group: vedette.dev, name: shop}]"
    host = f"{OUR}kind: Route\nmetadata: {{name: own}}\nspec: {{hostnames: [billing.mesh], rules: [{{{way}}}]}}\n"
    apply(running, SHOP + host, prune=True)
    with pytest.raises(ConfigError) as caught:
        put()
    assert caught.value.code == "route_conflict"
    running.node.sidecars.put("billing", SidecarWish(), "test")
    assert only(running).routes == ("own",), "a Route of one's own may lead to it instead"


def test_callers_of_a_program_that_only_calls_are_a_mistake(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.sidecars.put("shop", SidecarWish(callers=(CALLER,)), "test")
    assert caught.value.code == "sidecar_invalid"
    assert "callers needs a port" in caught.value.message


def test_one_that_is_not_there_cannot_be_taken_away(running: Running) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.sidecars.remove("billing", "test")
    assert caught.value.code == "sidecar_unknown"
