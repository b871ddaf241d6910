"""Models as a person sees them: what the snapshot says, beside the registry and what the keeper says of workers.

Owns: the one place where these meet. Pure. Must not: ask anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, repeat
from typing import Any

from vedette.clock import to_rfc3339
from vedette.config.model import build
from vedette.config.served import RemoteModel, ServedModel
from vedette.config.snapshot import Route, Snapshot
from vedette.control.desired_models import own_route_name, routes_to
from vedette.control.model_messages import ModelStatus, ModelTier, ModelVersion, ModelWorker
from vedette.control.status import route_url
from vedette.models.keeper_state import WorkerState
from vedette.models.registry import Registered
from vedette.store.models import KeptVersion

States = Mapping[str, WorkerState]


def model_statuses(
    snapshot: Snapshot,
    versions: Iterable[KeptVersion],
    registered: Mapping[str, Registered],
    states: States,
    owners: Mapping[str, str],
    base: str,
) -> list[ModelStatus]:
    """The models by name. `versions`: by name; `states`: of workers; `owners`: files of manifests; `base`: URL of the
    node.
    """
    kept = {name: [*each] for name, each in groupby(versions, key=lambda each: each.name)}
    remote = {each.name: each for each in snapshot.remote_models or ()}
    found = []
    for name in sorted({*kept, *remote}):
        known = sorted(kept.get(name, ()), key=lambda each: each.version, reverse=True)
        models = [build(ServedModel, json.loads(each.definition)) for each in known]
        numbers = registered.get(name, Registered())
        routes = routes_to(snapshot.routes, name)
        best = next((each for each in routes if each.name == own_route_name(name)), None)
        best = best or next(iter(routes), None)
        common: dict[str, Any] = {
            "name": name,
            "url": route_url(base, best) if best else None,
            "routes": tuple(each.name for each in routes),
            "tiers": tuple(_tiers(routes)),
            "versions": tuple(map(_version, known, models, repeat(numbers))),
            "manifest": owners.get(name),
        }
        if name in remote:
            found.append(_remote(remote[name], common))
        else:
            found.append(_with_file(snapshot.model(name), models, states, common))
    return found


def _with_file(
    served: ServedModel | None,
    models: Sequence[ServedModel],
    states: States,
    common: Mapping[str, Any],
) -> ModelStatus:
    told = served or models[0]
    return ModelStatus(
        version=served.version if served else None,
        task=told.task,
        format=told.format,
        size=told.size,
        inputs=told.inputs,
        outputs=told.outputs,
        sessions=told.sessions,
        threads=told.threads,
        input=told.input,
        output=told.output,
        stream=told.stream,
        samples=told.samples,
        limits=told.limits,
        worker=_worker(states.get(served.worker)) if served else None,
        **common,
    )


def _remote(model: RemoteModel, common: Mapping[str, Any]) -> ModelStatus:
    """Of a model that only tiers have: no version of it serves here."""
    return ModelStatus(
        remote=True,
        version=None,
        task=model.task,
        format=None,
        size=None,
        inputs=model.inputs,
        outputs=model.outputs,
        sessions=None,
        threads=None,
        limits=None,
        **common,
    )


def _tiers(routes: Iterable[Route]) -> Iterator[ModelTier]:
    for route in routes:
        for each in route.tiers or ():
            yield ModelTier(
                route=route.name,
                name=each.name,
                url=each.url,
                model=each.model,
                timeout_millis=each.timeout_millis,
            )


def _version(kept: KeptVersion, model: ServedModel, known: Registered) -> ModelVersion:
    state = {known.previous: "previous", known.serving: "serving"}.get(kept.version, "kept")
    return ModelVersion(
        version=kept.version,
        file=kept.blob,
        size=model.size,
        format=model.format,
        task=model.task,
        added_at=to_rfc3339(kept.added_at),
        actor=kept.actor,
        state=state,
    )


def _worker(state: WorkerState | None) -> ModelWorker | None:
    """What the keeper says; what it leaves out is not known."""
    if state is None:
        return None
    error = state.get("error")
    return ModelWorker(
        state=state["state"],
        pid=state.get("pid"),
        restarts=state.get("restarts", 0),
        since=state.get("since"),
        error=error["message"] if error else None,
        load_millis=state.get("loadMillis"),
        memory_bytes=state.get("memoryBytes"),
    )
