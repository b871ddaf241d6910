"""Plans: what manifests would change, and applying exactly that.

Owns: putting together resolving, checking policies and the difference; refusing a plan that is
stale. Must not: change anything while planning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from vedette.clock import now
from vedette.config.difference import FieldChange, ObjectChange, difference
from vedette.config.manifests import Problem, Problems
from vedette.config.snapshot import FilesBackend, Snapshot
from vedette.control.activate import Activator, Outcome
from vedette.control.crowdsec import read_key
from vedette.control.feeds import Feeds, ground_of, kept
from vedette.control.inspections import rules_in
from vedette.control.installed import bring_countries, country_database
from vedette.control.messages import (
    AbsentManifest,
    AppliedObject,
    DiffAnswer,
    ManifestSetWish,
    PlanAnswer,
    PlanWish,
)
from vedette.control.refusals import About, is_named
from vedette.control.resolve import UNBUILT, Kept, Origin, Resolved, resolve
from vedette.errors import ConfigError, TrustError
from vedette.identity.web import NoAnswerError
from vedette.ids import digest_of
from vedette.policy.check import Finding, PolicyError
from vedette.policy.resources import all_resources, unknown_names
from vedette.policy.rules import without_effect
from vedette.store.history import Applied

_UNBUILT_SHOWN = "(known after it is built)"


def plan(
    activator: Activator,
    feeds: Feeds,
    wish: ManifestSetWish,
    hosts: frozenset[str],
    kept: Kept,
) -> PlanAnswer:
    """What applying `wish` would do. `hosts`: what the node answers to anyway; `kept`:
    what manifests can name of it.

    Raises `ConfigError` manifest_invalid, route_conflict, snapshot_invalid, policy_invalid, or the code with which the
    engine would refuse it.
    """
    with activator.lock:
        entry, base = activator.active()
        applied = activator.history.applied()
    fed = feeds.fed(base)
    installed = country_database()
    resolved = resolve(
        wish.objects,
        base,
        applied,
        hosts,
        kept,
        fed=fed,
        installed=installed,
        prune=wish.prune,
    )
    brought = {UNBUILT, *resolved.texts, *({installed.blob} if installed else ())}
    warnings = _check_policies(activator, base, resolved)
    after = resolved.snapshot
    if after != base:
        _check_by_engine(activator, resolved)
    ready = not resolved.unbuilt
    return PlanAnswer(
        base=entry.digest,
        digest=after.digest() if ready else None,
        changes=_changes(activator, base, resolved, applied),
        notes=(
            *resolved.notes,
            *warnings,
            *_key_notes(resolved),
            *_exclusion_notes(activator, resolved),
        ),
        unbuilt=resolved.unbuilt,
        blobs=tuple(sorted(after.blobs() - base.blobs() - brought)),
        payload=after.canonical_bytes().decode() if ready else None,
        texts=resolved.texts,
        applied=tuple(
            AppliedObject(kind=one.kind, name=one.name, owner=one.owner, file=one.file)
            for one in resolved.applied
        ),
        feeds=resolved.feeds,
        ground=ground_of(base, fed),
        absent=tuple(AbsentManifest(owner=owner, file=file) for owner, file in resolved.absent),
    )


def apply(
    activator: Activator,
    feeds: Feeds,
    wish: PlanWish,
    actor: str,
    require: Callable[[Snapshot, Snapshot], None],
) -> Outcome:
    """Serves the snapshot of a plan with what feeds have brought meanwhile, and remembers what belongs
    to manifests. `require` is asked about what changes from one snapshot to the other, and raises.

    Raises `ConfigError` plan_stale, blob_missing, policy_invalid, engine_refused; `TrustError`
    payload_invalid or plan_altered.
    """

    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        with feeds.lock, activator.lock:
            yield

    return activator.once_loaded(lambda: _apply(activator, feeds, wish, actor, require), locked)


def _apply(
    activator: Activator,
    feeds: Feeds,
    wish: PlanWish,
    actor: str,
    require: Callable[[Snapshot, Snapshot], None],
) -> Outcome:
    snapshot = Snapshot.parse(wish.payload.encode())
    _, base = activator.active()
    fed = feeds.fed(base)
    _require_base(base, fed, wish)
    _require_same_node(base, snapshot)
    _store_texts(activator, snapshot, wish.texts)
    bring_countries(snapshot, activator.blobs)
    _require_blobs(activator, snapshot, base)
    require(base, snapshot)
    snapshot = kept(base, snapshot, fed, {**feeds.sources(), **wish.feeds})
    outcome = activator.change(lambda _: snapshot, _action(base, snapshot), actor)
    feeds.put(wish.feeds)
    # After the snapshot: a crash between leaves objects that nobody prunes, the safe mistake.
    activator.history.set_applied(
        Applied(one.kind, one.name, one.owner, one.file) for one in wish.applied
    )
    return outcome


def diff(activator: Activator, before: Snapshot, after: Snapshot) -> DiffAnswer:
    """The difference of two snapshots, with the texts of policies as far as they are still there."""
    changes = [_with_text(activator, one, {}) for one in difference(before, after)]
    return DiffAnswer(before=before.digest(), after=after.digest(), changes=tuple(changes))


def _require_base(base: Snapshot, fed: Mapping[str, str], wish: PlanWish) -> None:
    """Nothing has changed since but what feeds brought."""
    digest = base.digest()
    if wish.base != digest and wish.ground != ground_of(base, fed):
        message = f"the plan starts from {wish.base[7:19]}, and {digest[7:19]} is active"
        raise ConfigError("plan_stale", message)


def _require_same_node(base: Snapshot, snapshot: Snapshot) -> None:
    """What no manifest can say must be what it was."""

    def fixed(one: Snapshot) -> tuple[object, ...]:
        return one.node, one.policy.schema_, one.waf and (one.waf.version, one.waf.rules)

    if fixed(snapshot) != fixed(base):
        raise TrustError("plan_altered", "the plan is for another node")


def _store_texts(activator: Activator, snapshot: Snapshot, texts: Mapping[str, str]) -> None:
    policies = {ref.blob for ref in snapshot.policy.policies}
    needed = policies | snapshot.rule_files() | snapshot.address_files()
    for digest, text in texts.items():
        if digest not in needed or digest_of(text.encode()) != digest:
            raise TrustError("plan_altered", f"a text does not have the digest {digest}")
        activator.blobs.put(text.encode())


def _require_blobs(activator: Activator, snapshot: Snapshot, base: Snapshot) -> None:
    """Everything the plan adds was uploaded, and is as large as it says."""
    sizes = {each.component: each.size for each in snapshot.functions}
    for model in snapshot.models or ():
        sizes.update(model.blobs())
    for route in snapshot.routes:
        if isinstance(route.backend, FilesBackend):
            sizes.update({each.blob: each.size for each in route.backend.files})
    if snapshot.addresses is not None:
        sizes.update({each.blob: each.size for each in snapshot.addresses.lists})
        if snapshot.addresses.countries is not None:
            sizes[snapshot.addresses.countries.blob] = snapshot.addresses.countries.size
    for digest in sorted(snapshot.blobs() - base.blobs()):
        if not activator.blobs.has(digest):
            raise ConfigError("blob_missing", f"the content {digest} was not uploaded")
        size = activator.blobs.path(digest).stat().st_size
        if sizes.get(digest, size) != size:
            raise TrustError("plan_altered", f"{digest} has {size} bytes, not {sizes[digest]}")


def _action(base: Snapshot, snapshot: Snapshot) -> str:
    count = {"create": 0, "update": 0, "delete": 0, "replace": 0}
    for change in difference(base, snapshot):
        count[change.action] += 1
    changed = count["update"] + count["replace"]
    return f"apply: {count['create']} added, {changed} changed, {count['delete']} destroyed"


def _check_policies(activator: Activator, base: Snapshot, resolved: Resolved) -> list[str]:
    """Warnings. Raises `ConfigError` policy_invalid with the line of the manifest."""
    after, before = resolved.snapshot, all_resources(base)
    if (after.policy, all_resources(after)) == (base.policy, before):
        return []
    try:
        checked = activator.check_texts(activator.policy_texts(after, resolved.texts))
    except PolicyError as error:
        problems = Problems()
        for finding in error.findings:
            problems.add(_placed(finding, resolved))
        problems.require_none("policy_invalid")
        raise
    # Of policies that these manifests do not say, only what this plan breaks.
    told = (
        outline
        for outline in checked.outlines
        if outline.file in resolved.policies or not before.isdisjoint(outline.names)
    )
    found = [*checked.warnings, *unknown_names(told, after)]
    return [str(_placed(finding, resolved)) for finding in found]


def _check_by_engine(activator: Activator, resolved: Resolved) -> None:
    """What applying would ask, as far as it is known before anything is uploaded. Raises `VedetteError` with the
    place in a manifest.
    """
    found = activator.refusal_of_plan(resolved.snapshot, resolved.texts)
    if found is None:
        return
    error, origin = found.error, _origin(found, resolved)
    if origin is not None and error.file is None:
        error.file, error.line = origin.file, origin.line
    raise error


def _origin(found: About, resolved: Resolved) -> Origin | None:
    """Where in these manifests stands what a refusal is about, as near as is known."""
    for each in resolved.inspections:
        for rule, at in zip(each.policy.rules, each.rules, strict=True):
            if rule == found.rule:
                return at
        for exclusion, at in zip(each.policy.exclusions, each.exclusions, strict=True):
            if found.error.code == "waf_invalid" and is_named(exclusion, found.error.message):
                return at
    return resolved.origins.get(found.key) if found.key else None


def _key_notes(resolved: Resolved) -> Iterator[str]:
    """Files of keys that control cannot read now: a list then stays empty."""
    for name, source in resolved.feeds.items():
        try:
            if source is not None:
                read_key(source.api_key_file)
        except NoAnswerError as error:
            yield f"list {name}: {error}"


def _exclusion_notes(activator: Activator, resolved: Resolved) -> Iterator[str]:
    """Exclusions of these manifests that do nothing, each at its line."""
    excluding = [each for each in resolved.inspections if each.policy.exclusions]
    if not excluding:
        return
    known = rules_in(activator.blobs, resolved.snapshot, resolved.texts)
    for inspection in excluding:
        for exclusion, at in zip(inspection.policy.exclusions, inspection.exclusions, strict=True):
            for why in without_effect(exclusion, known, now()):
                yield str(Problem(at.file, at.line, why))


def _placed(finding: Finding, resolved: Resolved) -> Problem:
    """A finding at its line of the manifest, where the policy stands in one."""
    origin = resolved.policies.get(finding.file)
    if origin is None:
        return Problem(finding.file, finding.line, finding.message)
    line = None
    if finding.line is not None and origin.line is not None:
        line = origin.line + finding.line - 1
    return Problem(origin.file, line or origin.line, finding.message)


def _changes(
    activator: Activator, base: Snapshot, resolved: Resolved, applied: list[Applied]
) -> tuple[ObjectChange, ...]:
    owned = {(one.kind, one.name): one for one in applied}
    found = []
    for change in difference(base, resolved.snapshot):
        key = (change.kind, change.name)
        if key in resolved.origins:
            origin = resolved.origins[key]
            change = change.model_copy(update={"file": origin.file, "line": origin.line})
        elif key in owned:
            change = change.model_copy(update={"file": owned[key].file})
        found.append(_with_text(activator, _unbuilt(change, resolved), resolved.texts))
    return tuple(found)


def _unbuilt(change: ObjectChange, resolved: Resolved) -> ObjectChange:
    if change.kind != "Function" or change.name not in resolved.unbuilt:
        return change
    fields = [
        field.model_copy(update={"new": _UNBUILT_SHOWN})
        if field.path in ("component", "size")
        else field
        for field in change.fields
    ]
    return change.model_copy(update={"fields": tuple(fields)})


def _with_text(activator: Activator, change: ObjectChange, new: Mapping[str, str]) -> ObjectChange:
    """A policy is reviewed as text, not as a digest."""
    if change.kind != "Policy":
        return change

    def text(digest: object) -> str | None:
        if not isinstance(digest, str):
            return None
        if digest in new:
            return new[digest]
        return activator.blobs.get(digest).decode() if activator.blobs.has(digest) else None

    fields = [
        FieldChange(path="cedar", old=text(field.old), new=text(field.new))
        for field in change.fields
        if field.path == "blob"
    ]
    if all(field.old is None and field.new is None for field in fields):
        return change  # collected long ago
    return change.model_copy(update={"fields": tuple(fields)})
