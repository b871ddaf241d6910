"""Models of a node: taken in, promoted, rolled back, removed (ADR 0049).

Owns: what `PUT /v1/models/NAME` and its kin mean, and keeping the registry in step with the snapshot, which alone says
what serves. Must not: parse a model; a process in a sandbox does (`models.inspection`). Or start its worker; the keeper
does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vedette.clock import now
from vedette.config.manifests import Manifest, typed
from vedette.config.model import build, wire_value
from vedette.config.model_manifest import ModelLimitsSpec, ModelManifest, ModelSpec
from vedette.config.served import ModelFormat, ServedModel, served_model, worker_of
from vedette.config.snapshot import Snapshot
from vedette.config.written import millis
from vedette.control import desired_models
from vedette.control.activate import Activator, Outcome
from vedette.control.golden_check import GoldenAnswers
from vedette.control.model_drift import DriftWatch
from vedette.control.model_media import extras_of, media_of
from vedette.control.model_messages import ModelAdded, ModelStatus, ModelWish, ModelWorker
from vedette.control.model_samples import SampleKeeper
from vedette.control.model_signatures import ModelSignatures
from vedette.control.model_statuses import model_statuses
from vedette.control.resolve_models import KnownModels, ModelFile, blob_of
from vedette.errors import ConfigError, TrustError, UnavailableError, VedetteError
from vedette.identity.authority import Authority
from vedette.ids import require_digest
from vedette.models.admit import MAX_MODEL_BYTES, format_of
from vedette.models.inspection import Inspected, InspectionLimits, inspect_model
from vedette.models.keeper_state import read_states
from vedette.models.registry import Registered, new_version, superfluous
from vedette.models.runtime import library_of
from vedette.store.home import Home
from vedette.store.models import KeptVersion, ModelStore

if TYPE_CHECKING:
    from vedette.config.manifests import ManifestObject

T = TypeVar("T")
Inspector = Callable[[Path, ModelFormat], Inspected]
_LEAST_MEMORY = 2 << 30
_COPIES = 4
"""Of a model's file in memory while it is loaded: the file, graph and weights, and what optimising makes of them."""


def inspect_apart(file: Path, format_: ModelFormat) -> Inspected:
    """What the installed runtime says of a file. Raises `ConfigError` runtime_missing, model_invalid and the like."""
    memory = max(_LEAST_MEMORY, _COPIES * file.stat().st_size)
    library = Path() if format_ == "detector" else library_of(format_)  # a detector needs none
    return inspect_model(file, format_, library, InspectionLimits(memory_bytes=memory))


class Models:
    """The models of a node. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        activator: Activator,
        hosts: Callable[[], frozenset[str]],
        base_url: Callable[[], str],
        authority: Callable[[], Authority],
        inspector: Inspector = inspect_apart,
    ) -> None:
        """`hosts`: what the node answers to anyway; `base_url`: where it is reached; `authority`: its CA."""
        self._home = home
        self._activator = activator
        self._hosts = hosts
        self._base_url = base_url
        self._inspect = inspector
        self._noted: tuple[ServedModel, ...] | None = None
        self.store = ModelStore(home.models_database)
        self.signatures = ModelSignatures(activator.blobs, self.store, authority)
        self.golden = GoldenAnswers(home, activator.blobs, self.store)
        self.drift = DriftWatch(home, self._served, self._workers)
        self.samples = SampleKeeper(home, self._served, lambda: self.store.marks())

    # --- asking

    def list(self) -> list[ModelStatus]:
        """The models, by name: those that serve, and those of which versions are kept. Does not wait for a change
        under way, which may be loading a model.
        """
        snapshot = self._activator.active()[1]
        if self._activator.lock.acquire(blocking=False):
            try:
                self.note(snapshot, "control")
            finally:
                self._activator.lock.release()
        versions, registered = self._versions(snapshot), self._registered()
        owners = self._files_of("Model")
        states = read_states(self._home.models_state)
        found = model_statuses(snapshot, versions, registered, states, owners, self._base_url())
        signers = self.signatures.names()
        whole = [_with_attached(each, self.golden.counts(each.name), signers) for each in found]
        return [self._with_process(each, snapshot) for each in whole]

    def show(self, name: str) -> ModelStatus:
        """One model. Raises `ConfigError` model_unknown."""
        for each in self.list():
            if each.name == name:
                return each
        raise unknown(name)

    def stored(self, digest: str) -> int:
        """The size of an uploaded file, which now stays for a while. Raises `ConfigError` blob_missing."""
        blobs = self._activator.blobs
        if not blobs.renew(require_digest(digest)):
            raise ConfigError("blob_missing", f"the file {digest} was not uploaded")
        return blobs.path(digest).stat().st_size

    def store_file(self, digest: str, file: Path) -> int:
        """Stores an uploaded file that may be a model, and returns its size. Raises `ConfigError` model_invalid,
        model_too_large, digest_mismatch.
        """
        with file.open("rb") as content:
            format_of(content, file.stat().st_size)
        return self._activator.blobs.put_file(file, require_digest(digest), MAX_MODEL_BYTES)

    # --- changing

    def add(self, name: str, wish: ModelWish, actor: str) -> tuple[ModelAdded, Outcome | None]:
        """Takes in an uploaded file as the next version, and serves it unless it is not to be promoted. One that
        cannot be served leaves nothing behind, not even its number.

        Raises `ConfigError` model_downgrade, model_invalid, blob_missing, runtime_missing, invalid_name,
        golden_invalid, model_golden.
        """
        desired_models.own_route_name(name)
        new_version(name, self._registered().get(name, Registered()), wish.version)
        found = self.file(wish.file)
        with self.golden.given(name, wish.file, found.inputs, wish.golden):
            return self._activator.once_loaded(lambda: self._add(name, wish, found, actor))

    def _add(
        self, name: str, wish: ModelWish, found: ModelFile, actor: str
    ) -> tuple[ModelAdded, Outcome | None]:
        entry, active = self._activator.active()
        self._note(active, "control")
        before = self._registered().get(name, Registered())
        version = new_version(name, before, wish.version)
        served = active.model(name)
        content = {**_content(found), **media_of(wish.media, found, served, self.stored)}
        model = _made(name, version, wish, content, served)
        outcome = None
        if wish.promote:
            outcome = self._serve(model, f"model {name} {version}", actor)
            entry = outcome.entry
        else:
            self.store.put(_kept(model, actor))
            self._prune(name)
        kept = {each.version for each in self._versions(active) if each.name == name}
        pruned = tuple(sorted(before.versions.keys() - kept))
        status = self.show(name)
        added = ModelAdded(
            digest=entry.digest,
            generation=entry.generation,
            applied=outcome.applied if outcome else True,
            name=name,
            version=version,
            file=wish.file,
            promoted=wish.promote,
            url=status.url if wish.promote else None,
            inputs=found.inputs,
            outputs=found.outputs,
            load_millis=found.load_millis,
            runtime=found.runtime,
            golden=self.golden.counts(name).get(wish.file, 0),
            signer=self.signatures.names().get(wish.file),
            pruned=pruned,
        )
        return added, outcome

    def promote(
        self, name: str, version: int, actor: str, max_drift: float | None = None
    ) -> Outcome:
        """Serves a version that is kept; with `max_drift` only when what the one that serves is asked is that near to
        what is usual. Raises `ConfigError` model_unknown, model_version_unknown, model_drifted, model_drift_unknown.
        """
        if max_drift is not None:
            self.digest_of_version(name, version)  # or it is unknown
            self.drift.require(name, self._activator.active()[1].model(name), max_drift)
        return self._activator.once_loaded(
            lambda: self._serve(self._version(name, version), f"promote {name} {version}", actor)
        )

    def roll_back(self, name: str, actor: str) -> Outcome:
        """Serves the version that served before the one that does. Raises `ConfigError` model_unknown,
        model_version_unknown when there is none.
        """
        return self._activator.once_loaded(lambda: self._roll_back(name, actor))

    def _roll_back(self, name: str, actor: str) -> Outcome:
        known = self._known(name)
        if known.previous is None or known.previous not in known.versions:
            raise ConfigError("model_version_unknown", f"no version of {name!r} served before")
        model = self._version(name, known.previous)
        return self._serve(model, f"rollback {name} {known.previous}", actor)

    def remove(self, name: str, version: int | None, actor: str) -> Outcome | None:
        """Removes a version that does not serve, or all of a model with the routes to it; None: the snapshot is as it
        was. Raises `ConfigError` model_unknown, model_version_unknown, model_serving, route_in_use.
        """
        with self._activator.lock:
            known = self._known(name, is_remote := self._is_remote(name))
            if version is not None:
                if version not in known.versions:
                    raise unknown_version(name, version, known)
                if version == known.serving:
                    raise ConfigError("model_serving", f"version {version} of {name!r} serves")
                self.store.remove(name, [version])
                self.samples.forget_version(name, version)
                return None
            outcome = None
            if is_remote or self._activator.active()[1].model(name) is not None:
                hosts, files = self._hosts(), self._files_of("Limit")
                outcome = self._activator.change(
                    lambda active: desired_models.remove_model(active, name, hosts, files),
                    f"remove model {name}",
                    actor,
                )
            self.store.remove(name, known.versions)
            self.samples.forget(name)
            return outcome

    # --- for manifests

    def known(self, objects: Iterable[ManifestObject]) -> KnownModels:
        """What manifests of kind Model need to know: the versions there are, and what is in the files they name.

        Raises `ConfigError` with file and line for a file that is no model, `UnavailableError`.
        """
        wanted = [each for each in objects if each.data.get("kind") == "Model"]
        if not wanted:
            return KnownModels()
        files: dict[str, ModelFile] = {}
        for manifest in typed(wanted):
            assert isinstance(manifest.model, ModelManifest)
            if manifest.model.spec.file is None:
                continue
            blob = self._at_its_line(manifest, lambda m=manifest: blob_of(m, m.model.spec))  # type: ignore[misc]
            files[blob] = self._at_its_line(manifest, lambda b=blob: self.file(b))  # type: ignore[misc]
        with self._activator.lock:
            self._note(self._activator.active()[1], "control")
            return KnownModels(self._registered(), files)

    def require_true(self, base: Snapshot, snapshot: Snapshot) -> None:
        """A plan comes from outside: what it says of models must be what the node would say.

        Raises `ConfigError` plan_stale when the versions have changed since, `TrustError` plan_altered.
        """
        registered = self._registered()
        for model in snapshot.models or ():
            if model == base.model(model.name):
                continue
            found = self.file(model.blob)
            said = model.format, model.size, model.inputs, model.outputs
            is_so = said == (found.format, found.size, found.inputs, found.outputs)
            if not is_so or worker_of(model) != model.worker:
                raise TrustError(
                    "plan_altered", f"the plan says otherwise of the model {model.name}"
                )
            known = registered.get(model.name, Registered())
            if known.versions.get(model.version) != model.blob and model.version <= known.highest:
                message = f"there is a version {known.highest} of {model.name!r} by now"
                raise ConfigError("plan_stale", message)

    def note(self, snapshot: Snapshot, actor: str) -> None:
        """Keeps in the registry what a new snapshot serves, and forgets old versions that nobody needs. A disk that
        refuses is no failure: the snapshot is active already, and the registry catches up when it is asked.
        """
        with self._activator.lock, contextlib.suppress(UnavailableError):
            self._note(snapshot, actor)

    def needed(self) -> frozenset[str]:
        """Digests of files that are kept whether they serve or not. Findings about others are forgotten."""
        kept = self.store.blobs() | extras_of(self.store.versions())
        self.store.forget_inspections(frozenset(self._activator.blobs.digests()))
        return kept

    def file(self, digest: str) -> ModelFile:
        """What is in a stored file; found out once. Raises `ConfigError` blob_missing and as the inspection."""
        text = self.store.inspection(require_digest(digest))
        if text is not None:
            return build(ModelFile, json.loads(text))
        size, path = self.stored(digest), self._activator.blobs.path(digest)
        with path.open("rb") as content:
            format_ = format_of(content, size)
        found = self._inspect(path, format_)
        file = ModelFile(format=format_, size=size, **dict(found))
        self.store.put_inspection(digest, json.dumps(wire_value(file)))
        return file

    # --- inside

    def _with_process(self, status: ModelStatus, snapshot: Snapshot) -> ModelStatus:
        """With what its process has seen, and why it is not loaded, where that is so."""
        served = snapshot.model(status.name)
        if served is None:
            return status
        status = status.model_copy(update={"drift": self.drift.of(served)})
        problem = self.signatures.problem(served.worker)
        if problem is None:
            return status
        return status.model_copy(update={"worker": ModelWorker(state="refused", error=problem)})

    def _served(self) -> Sequence[ServedModel]:
        return self._activator.active()[1].models or ()

    def _workers(self) -> frozenset[str]:
        return frozenset(json.loads(each.definition)["worker"] for each in self.store.versions())

    def digest_of_version(self, name: str, version: int | None) -> str:
        """The file of a version, or of the one that serves, else of the highest. Raises `ConfigError` model_unknown,
        model_version_unknown.
        """
        with self._activator.lock:
            known = self._known(name)
            number = version or known.serving or max(known.versions)
            if number not in known.versions:
                raise unknown_version(name, number, known)
            return known.versions[number]

    def _files_of(self, kind: str) -> dict[str, str]:
        """The manifests that objects of a kind came from, by name."""
        applied = self._activator.history.applied()
        return {each.name: each.file for each in applied if each.kind == kind}

    def _at_its_line(self, manifest: Manifest, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except VedetteError as error:
            error.file, error.line = manifest.file, manifest.line("spec", "file")
            raise

    def _serve(self, model: ServedModel, action: str, actor: str) -> Outcome:
        hosts = self._hosts()
        return self._activator.change(
            lambda active: desired_models.put_model(active, model, hosts), action, actor
        )

    def _note(self, snapshot: Snapshot, actor: str) -> None:
        served = snapshot.models or ()
        if served == self._noted:
            return
        if served or self._noted is None or self._noted:
            self.store.note_serving([_kept(each, actor) for each in served])
        self._noted = served
        for each in served:
            self._prune(each.name)

    def _versions(self, snapshot: Snapshot) -> tuple[KeptVersion, ...]:
        """Every version, by name and number: those that are kept, and what serves though nobody could note it yet."""
        found = {(each.name, each.version): each for each in self.store.versions()}
        for model in snapshot.models or ():
            found.setdefault((model.name, model.version), _kept(model, "control"))
        return tuple(found[key] for key in sorted(found))

    def _prune(self, name: str) -> None:
        gone = superfluous(self._registered().get(name, Registered()))
        if gone:
            self.store.remove(name, gone)

    def _registered(self) -> dict[str, Registered]:
        versions: dict[str, dict[int, str]] = {}
        for each in self.store.versions():
            versions.setdefault(each.name, {})[each.version] = each.blob
        return {
            name: Registered(versions.get(name, {}), mark.highest, mark.serving, mark.previous)
            for name, mark in self.store.marks().items()
        }

    def _is_remote(self, name: str) -> bool:
        return self._activator.active()[1].remote_model(name) is not None

    def _known(self, name: str, may_have_none: bool = False) -> Registered:
        self._note(self._activator.active()[1], "control")
        known = self._registered().get(name, Registered())
        if not known.versions and not may_have_none:
            raise unknown(name)
        return known

    def _version(self, name: str, version: int) -> ServedModel:
        known = self._known(name)
        for each in self.store.versions():
            if (each.name, each.version) == (name, version):
                return build(ServedModel, json.loads(each.definition))
        raise unknown_version(name, version, known)


def _with_attached(
    status: ModelStatus, golden: Mapping[str, int], signers: Mapping[str, str]
) -> ModelStatus:
    versions = tuple(
        each.model_copy(
            update={"golden": golden.get(each.file, 0), "signer": signers.get(each.file)}
        )
        for each in status.versions
    )
    return status.model_copy(update={"versions": versions})


def unknown(name: str) -> ConfigError:
    """There is no model of that name."""
    return ConfigError("model_unknown", f"the node has no model {name[:80]!r}")


def unknown_version(name: str, version: int, known: Registered) -> ConfigError:
    """That version is not kept."""
    kept = ", ".join(map(str, sorted(known.versions)))
    return ConfigError("model_version_unknown", f"{name!r} has no version {version}; kept: {kept}")


def _content(found: ModelFile) -> Mapping[str, Any]:
    return {
        "size": found.size,
        "format": found.format,
        "inputs": [each.model_dump(by_alias=True) for each in found.inputs],
        "outputs": [each.model_dump(by_alias=True) for each in found.outputs],
    }


def _made(
    name: str,
    version: int,
    wish: ModelWish,
    content: Mapping[str, Any],
    before: ServedModel | None,
) -> ServedModel:
    """The next version: it runs as the one before unless the wish says otherwise."""
    usual = ModelSpec(file="model").settings()
    if before is not None:
        said = wire_value(before)
        usual = {key: said.get(key) for key in usual}
    # Not as the one before: of other inputs other places are to be redacted, and nobody has said which.
    usual["samples"] = None if wish.samples is None else wish.samples.resolve()
    own: dict[str, Any] = {"task": wish.task, "sessions": wish.sessions, "threads": wish.threads}
    limits = wish.limits or ModelLimitsSpec()
    if wish.limits is not None:
        own["limits"] = limits.resolve().model_dump(by_alias=True)
    if wish.idle is not None:
        own["idleMillis"] = millis(wish.idle)
    settings = usual | {key: value for key, value in own.items() if value is not None}
    data = {"name": name, "version": version, "blob": wish.file, **content, **settings}
    return served_model(data, code="request_invalid")


def _kept(model: ServedModel, actor: str) -> KeptVersion:
    definition = json.dumps(wire_value(model), sort_keys=True)
    return KeptVersion(model.name, model.version, model.blob, definition, now(), actor)
