"""Planning and applying against a simulated engine: nothing but what was reviewed, or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.control.conftest import Running
from tests.control.manifest_texts import OUR, objects
from tests.simulators.native import COMPONENT

from vedette.config.manifests import Attachment, Component
from vedette.config.snapshot import Snapshot
from vedette.config.waf import Waf, WafExclusion, WafOverride
from vedette.control.messages import (
    FunctionWish,
    ManifestSetWish,
    PlanAnswer,
    PlanWish,
    StaticRouteWish,
)
from vedette.errors import ConfigError, TrustError, VedetteError
from vedette.identity.signer import verify_envelope
from vedette.ids import digest_of
from vedette.policy import countries

HEALTH = (
    f"{OUR}kind: Route\nmetadata: {{name: health}}\n"
    "spec: {rules: [{matches: [{path: {type: Exact, value: /health}}], static: {body: ok}}]}\n"
)
TEAM = (
    f"{OUR}kind: Policy\nmetadata: {{name: team}}\nspec:\n  cedar: |\n    // one\n    permit ();\n"
)
FUNCTION = f"{OUR}kind: Function\nmetadata: {{name: f}}\nspec: {{component: f.wasm}}\n"
BUILT = {
    "f.wasm": Attachment(component=Component(digest=digest_of(COMPONENT), size=len(COMPONENT)))
}


def plan(
    running: Running,
    *texts: str,
    prune: bool = False,
    attachments: Mapping[str, Attachment] | None = None,
) -> PlanAnswer:
    found = objects("---\n".join(texts), attachments=dict(attachments or {}))
    return running.node.plan(ManifestSetWish(objects=tuple(found), prune=prune))


def wish_of(answer: PlanAnswer, **changes: object) -> PlanWish:
    data = {name: getattr(answer, name) for name in ("base", "payload", "texts", "applied")}
    return PlanWish.model_validate({**data, **changes})


def apply(running: Running, answer: PlanAnswer) -> str:
    return running.node.apply(wish_of(answer), "test").digest


def refused(running: Running, wish: PlanWish) -> VedetteError:
    before = running.activator.active()[0]
    with pytest.raises(VedetteError) as caught:
        running.node.apply(wish, "test")
    assert running.activator.active()[0] == before, "a refused plan changed something"
    assert running.activator.history.applied() == []
    return caught.value


def actions(answer: PlanAnswer) -> list[tuple[str, str, str]]:
    return [(each.action, each.kind, each.name) for each in answer.changes]


def test_a_plan_changes_nothing_and_applying_it_does_exactly_that(running: Running) -> None:
    before = running.activator.active()[0], set(running.activator.blobs.digests())
    answer = plan(running, HEALTH, TEAM)
    assert (running.activator.active()[0], set(running.activator.blobs.digests())) == before
    assert actions(answer) == [("create", "Policy", "team.cedar"), ("create", "Route", "health")]
    assert [(each.file, each.line) for each in answer.changes] == [
        ("edge.yaml", 8),
        ("edge.yaml", 4),
    ]
    assert apply(running, answer) == answer.digest
    assert running.engine.digest == answer.digest
    assert running.node.policy("team.cedar").text == "// one\npermit ();\n"
    entry = running.node.history(1)[0]
    assert entry.action == "apply: 2 added, 0 changed, 0 destroyed"
    assert plan(running, HEALTH, TEAM).changes == ()


def test_a_policy_is_shown_as_text(running: Running) -> None:
    apply(running, plan(running, TEAM))
    (change,) = plan(running, TEAM.replace("one", "two")).changes
    (field,) = change.fields
    assert (field.path, field.old, field.new) == (
        "cedar",
        "// one\npermit ();\n",
        "// two\npermit ();\n",
    )


def test_a_mistake_in_a_policy_is_told_with_the_line_of_the_manifest(running: Running) -> None:
    broken = TEAM.replace("permit ();", "a mistake")
    with pytest.raises(ConfigError) as caught:
        plan(running, HEALTH, broken)
    error = caught.value
    assert (error.code, error.file, error.line) == ("policy_invalid", "edge.yaml", 12)
    in_file = f"{OUR}kind: Policy\nmetadata: {{name: team}}\nspec: {{cedarFile: t.cedar}}\n"
    with pytest.raises(ConfigError) as caught:
        plan(running, in_file, attachments={"t.cedar": Attachment(text="\na mistake")})
    assert (caught.value.file, caught.value.line) == ("t.cedar", 2)


def test_a_stale_plan_is_refused(running: Running) -> None:
    answer = plan(running, HEALTH)
    wish = StaticRouteWish.model_validate({"path": "/other", "backend": {"body": "x"}})
    running.node.put_static_route("other", wish, "test")
    error = refused(running, wish_of(answer))
    assert (error.code, error.exit_code) == ("plan_stale", 2)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"ok"', '"no"', None),
        ('"ok"', ' "ok"', "payload_invalid"),
        ('"body"', '"bodi"', "payload_invalid"),
        ("test-node", "west-node", "plan_altered"),
        ('"schema":"sha256:', '"schema":"sha256:0', "payload_invalid"),
    ],
)
def test_a_payload_is_a_snapshot_of_this_node_in_canonical_form(
    running: Running, old: str, new: str, code: str | None
) -> None:
    answer = plan(running, HEALTH)
    assert answer.payload is not None
    assert old in answer.payload
    altered = wish_of(answer, payload=answer.payload.replace(old, new))
    if code is None:  # whoever may speak to control may ask for another snapshot, whole
        assert running.node.apply(altered, "test").digest != answer.digest
    else:
        assert refused(running, altered).code == code


def test_a_text_that_is_not_the_policys_is_refused(running: Running) -> None:
    answer = plan(running, TEAM)
    (digest,) = answer.texts
    assert refused(running, wish_of(answer, texts={digest: "permit (all);"})).code == "plan_altered"
    assert refused(running, wish_of(answer, texts={})).code == "blob_missing"
    more = {**answer.texts, digest_of(b"x"): "x"}
    assert refused(running, wish_of(answer, texts=more)).code == "plan_altered"


def test_a_function_needs_its_component_and_its_true_size(running: Running) -> None:
    answer = plan(running, FUNCTION, attachments=BUILT)
    assert answer.blobs == (digest_of(COMPONENT),)
    assert refused(running, wish_of(answer)).code == "blob_missing"
    file = running.home.run / "upload"
    file.write_bytes(COMPONENT)
    running.node.store_component(digest_of(COMPONENT), file)
    assert answer.payload is not None
    size = f'"size":{len(COMPONENT)}'
    wrong = wish_of(answer, payload=answer.payload.replace(size, '"size":999'))
    with pytest.raises(TrustError, match="not 999"):
        running.node.apply(wrong, "test")
    apply(running, answer)
    assert [each.name for each in running.node.functions()] == ["f"]


def test_a_component_to_be_built_cannot_be_applied(running: Running) -> None:
    answer = plan(running, FUNCTION)
    assert (answer.unbuilt, answer.payload, answer.digest, answer.blobs) == (("f",), None, None, ())
    shown = {each.path: each.new for each in answer.changes[0].fields}
    assert shown["component"] == "(known after it is built)"


def test_an_uploaded_file_is_what_its_digest_says(running: Running) -> None:
    file = running.home.run / "upload"
    file.write_bytes(b"<p>")
    assert running.node.store_file(digest_of(b"<p>"), file).size == 3
    assert running.activator.blobs.get(digest_of(b"<p>")) == b"<p>"
    with pytest.raises(ConfigError) as caught:
        running.node.store_file(digest_of(b"other"), file)
    assert caught.value.code == "digest_mismatch"


def test_what_was_applied_is_remembered_and_pruned_over_a_restart(running: Running) -> None:
    apply(running, plan(running, HEALTH, TEAM))
    assert [(each.owner, each.file) for each in running.activator.history.applied()] == [
        ("Policy/team", "edge.yaml"),
        ("Route/health", "edge.yaml"),
    ]
    assert plan(running, HEALTH).changes == ()
    pruning = plan(running, HEALTH, prune=True)
    assert actions(pruning) == [("delete", "Policy", "team.cedar")]
    assert pruning.changes[0].file == "edge.yaml"
    apply(running, pruning)
    assert "team.cedar" not in [each.name for each in running.node.policies()]
    assert "default.cedar" in [each.name for each in running.node.policies()]
    assert [each.owner for each in running.activator.history.applied()] == ["Route/health"]


def test_a_plan_the_engine_refuses_leaves_the_node_and_what_belongs_to_whom(
    running: Running,
) -> None:
    answer = plan(running, HEALTH)
    (running.home.engine / "refuse").write_text(answer.digest or "")
    with pytest.raises(ConfigError) as caught:
        apply(running, answer)
    assert caught.value.code == "engine_refused"
    assert running.activator.active()[1].digest() == answer.base
    assert running.activator.history.applied() == []


def test_two_snapshots_of_the_history_are_compared_by_name(running: Running) -> None:
    first = running.activator.active()[0].digest
    apply(running, plan(running, HEALTH))
    found = running.node.diff("previous", "active")
    assert (found.before, [each.action for each in found.changes]) == (first, ["create"])
    start = first.removeprefix("sha256:")[:8]
    back = running.node.diff("active", start)
    assert [each.action for each in back.changes] == ["delete"]
    assert running.node.snapshot(start).digest == first
    for unknown in (start[:5], "0" * 12, "nonsense"):
        with pytest.raises(ConfigError) as caught:
            running.node.diff("active", unknown)
        assert caught.value.code == "snapshot_unknown"


def _names(function: str) -> str:
    return (
        f"{OUR}kind: Policy\nmetadata: {{name: team}}\nspec:\n  cedar: |\n    // about one\n"
        f'    permit (principal, action, resource == Function::"{function}");\n'
    )


def test_a_policy_that_names_nothing_is_warned_of_at_its_line(running: Running) -> None:
    answer = plan(running, _names("f"))
    assert answer.notes == (
        'edge.yaml:7: team.cedar/policy0 names Function::"f", which does not exist',
    )
    assert plan(running, _names("f"), FUNCTION, attachments=BUILT).notes == ()


def test_a_plan_that_takes_away_what_a_policy_names_is_warned_of(running: Running) -> None:
    policy = 'permit (principal, action, resource == Route::"health");\n'
    apply(running, plan(running, HEALTH, TEAM))
    running.node.put_policy("mine.cedar", policy, "test")
    assert plan(running, HEALTH, TEAM).notes == ()
    [note] = plan(running, TEAM, prune=True).notes
    assert note == ('mine.cedar:1: mine.cedar/policy0 names Route::"health", which does not exist')


def test_a_policy_of_somebody_else_is_not_told_again_and_again(running: Running) -> None:
    running.node.put_policy(
        "mine.cedar", 'permit (principal, action, resource == Function::"gone");\n', "test"
    )
    assert plan(running, HEALTH, TEAM).notes == ()


def test_what_was_applied_before_and_is_not_here_is_counted_not_noted(running: Running) -> None:
    apply(running, plan(running, HEALTH, TEAM))
    answer = plan(running, TEAM)
    assert answer.notes == ()
    assert [(one.owner, one.file) for one in answer.absent] == [("Route/health", "edge.yaml")]
    assert plan(running, TEAM, prune=True).absent == ()


def test_the_installed_countries_need_no_upload(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(countries, "PACKED", tmp_path / "countries.mmdb")
    (tmp_path / "countries.mmdb").write_bytes(b"registries")
    answer = plan(running, f"{OUR}kind: Node\nmetadata: {{name: edge}}\nspec: {{}}\n")
    assert answer.blobs == ()
    apply(running, answer)
    addresses = running.activator.active()[1].addresses
    assert addresses is not None
    assert addresses.countries is not None
    assert running.activator.blobs.get(addresses.countries.blob) == b"registries"


GUARDED = f"""{OUR}kind: Route
metadata: {{name: shop}}
spec:
  waf:
    exclusions:
      - {{rules: [5], reason: named}}
      - {{rules: [7], reason: unnamed}}
      - {{rules: [6], reason: of a file}}
      - {{rules: [5], until: 2020-01-31, reason: long ago}}
    ruleFiles: [own.conf]
  rules: [{{matches: [{{path: {{value: /shop}}}}], static: {{body: ok}}}}]
"""


def test_an_exclusion_that_does_nothing_is_noted_at_its_line(running: Running) -> None:
    packed = {"version": "4", "load": ["a"], "files": {"a": 'SecRule ARGS x "id:5,phase:2"'}}
    rules = running.activator.blobs.put(json.dumps(packed).encode())
    running.activator.change(
        lambda active: active.with_(waf=Waf(version="4", rules=rules)), "test", "test"
    )
    own = {"own.conf": Attachment(text='SecRule ARGS y "id:6,phase:2"')}
    answer = plan(running, GUARDED, attachments=own)
    says = "the exclusion of rule 7 has no effect: no rule of the node is that"
    ended = "the exclusion of 5 has no effect: its last day was 2020-01-31"
    assert answer.notes == (f"edge.yaml:8: {says}", f"edge.yaml:10: {ended}")
    apply(running, answer)
    exclusion = WafExclusion(rules=("5", "8"), reason="r")
    past = WafExclusion(rules=("5",), until=1_580_515_200, reason="r")
    digest = running.activator.blobs.put(COMPONENT)
    wish = FunctionWish(component=digest, waf=WafOverride(exclusions=(exclusion, past)))
    deployed = running.node.deploy("hello", wish, "test")
    assert deployed.notes == (says.replace("7", "8"), ended)


OWN_RULES = f"""{OUR}kind: Route
metadata: {{name: shop}}
spec:
  waf:
    rules:
      - {{name: good, field: path, value: x}}
      - {{name: bad, field: path, operator: Matches, value: (}}
  rules: [{{matches: [{{path: {{value: /shop}}}}], static: {{body: ok}}}}]
"""


@pytest.mark.parametrize(
    ("code", "said", "message", "line"),
    [
        ("waf_invalid", "shop: custom rule 9000001:0: no", "route shop: rule 'bad': no", 8),
        ("waf_invalid", "shop: exclusion", "shop: exclusion", 4),
        ("compiled_missing", "it is not", "it is not (compiled_missing)", None),
    ],
)
def test_a_plan_refuses_what_applying_it_would(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    said: str,
    message: str,
    line: int | None,
) -> None:
    def refuse(*_: object) -> bytes:
        raise ValueError(json.dumps({"code": code, "message": said}))

    wish = ManifestSetWish(
        objects=tuple(objects(HEALTH.replace("health", "shop", 1) if line == 4 else OWN_RULES))
    )
    monkeypatch.setattr(running.activator._apart, "check_snapshot", refuse)
    with pytest.raises(ConfigError) as caught:
        running.node.plan(wish)
    assert caught.value.code == (code if line else "snapshot_invalid")
    assert caught.value.message == message
    assert caught.value.line == line
    assert list(running.home.run.glob("plan-*")) == []


def test_a_plan_is_checked_with_what_it_brings_and_without_what_is_still_to_come(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Snapshot] = []
    check = running.activator._apart.check_snapshot

    def watch(envelope: bytes, key: bytes, folder: str) -> bytes:
        asked.append(Snapshot.parse(verify_envelope(envelope, key)))
        return check(envelope, key, folder)

    monkeypatch.setattr(running.activator._apart, "check_snapshot", watch)
    own = {"own.conf": Attachment(text="SecRule ARGS y \\"), **BUILT}
    answer = plan(running, GUARDED, FUNCTION, attachments=own)
    (checked,) = asked
    assert len(checked.rule_files()) == 1
    assert checked.functions == ()
    assert [each.backend.type for each in checked.routes] == ["Static", "Static"]
    assert answer.payload is not None
    assert '"type":"Function"' in answer.payload
