"""Models as a person sees them: what the snapshot says, beside the registry and what the keeper says of workers.

Owns: the one place where these meet. Pure. Must not: ask anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby, repeat

from vedette.clock import to_rfc3339
from vedette.config.model import build
from vedette.config.served import ServedModel
from vedette.config.snapshot import Snapshot
from vedette.control.desired_models import own_route_name, routes_to
from vedette.control.model_messages import ModelStatus, ModelVersion, ModelWorker
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
    found = []
    for name, kept in groupby(versions, key=lambda each: each.name):
        known = sorted(kept, key=lambda each: each.version, reverse=True)
        models = [build(ServedModel, json.loads(each.definition)) for each in known]
        served = snapshot.model(name)
        told = served or models[0]
        numbers = registered.get(name, Registered())
        routes = routes_to(snapshot.routes, name)
        best = next((each for each in routes if each.name == own_route_name(name)), None)
        best = best or next(iter(routes), None)
        found.append(
            ModelStatus(
                name=name,
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
                url=route_url(base, best) if best else None,
                routes=tuple(each.name for each in routes),
                versions=tuple(map(_version, known, models, repeat(numbers))),
                worker=_worker(states.get(served.worker)) if served else None,
                manifest=owners.get(name),
            )
        )
    return found


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
