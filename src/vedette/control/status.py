"""The status of a node, put together from what is known.

Owns: the one place where supervisor, history, snapshot and engine meet in a `NodeStatus`; also when control is down
(`offline_status`). Must not: change anything.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from vedette import __version__
from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.model import Model, build
from vedette.config.sidecar import is_mesh
from vedette.config.snapshot import FunctionBackend, Route, Snapshot
from vedette.control.messages import (
    AddressListStatus,
    CountriesStatus,
    EngineState,
    FeedStatus,
    FunctionStatus,
    ListenerStatus,
    MetricsStatus,
    ModelSummary,
    NodeStatus,
    OffendersStatus,
    PressureStatus,
    ProcessesStatus,
    ProcessStatus,
    SnapshotStatus,
    SourcesStatus,
    SupervisorStatus,
)
from vedette.control.sidecar_messages import SidecarSummary
from vedette.control.supervisor.launch import read_node_state
from vedette.control.supervisor.state import ProcessState, SupervisorState
from vedette.engine.client import EngineClient, EngineStatus
from vedette.errors import VedetteError
from vedette.models.keeper_state import WorkerState, read_states
from vedette.policy.defaults import public_policy_name
from vedette.store.activation import read_active
from vedette.store.atomic import read_json
from vedette.store.history import Entry
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore

M = TypeVar("M", bound=Model)


def node_status(
    home: Home,
    state: SupervisorState,
    entry: Entry | None,
    snapshot: Snapshot | None,
    engine: EngineStatus | None,
    feeds: Mapping[str, FeedStatus],
) -> NodeStatus:
    """The whole status; what is not known is null or empty. `feeds`: of lists that are fetched."""
    active = None
    if entry is not None:
        active = SnapshotStatus(
            digest=entry.digest,
            generation=entry.generation,
            activated_at=to_rfc3339(entry.activated_at, microseconds=True),
        )
    return _assemble(home, state, active, snapshot, engine, feeds)


def offline_status(home: Home) -> NodeStatus:
    """What can be known while control does not answer. Raises `UnavailableError` node_not_running."""
    state = read_node_state(home)
    engine: EngineStatus | None = None
    with contextlib.suppress(VedetteError):
        engine = EngineClient(home.engine_socket, timeout=2.0).status()
    active = read_active(home)
    snapshot = None
    if active is not None:
        with contextlib.suppress(VedetteError, ValueError, KeyError):
            envelope = json.loads(SnapshotStore(home.snapshots).get(active.digest))
            snapshot = Snapshot.parse(base64.b64decode(envelope["payload"]))
    known = None
    if active is not None:
        known = SnapshotStatus(
            digest=active.digest, generation=active.generation, activated_at=_modified(home)
        )
    return _assemble(home, state, known, snapshot, engine, {})


def _modified(home: Home) -> str:
    moment = datetime.fromtimestamp(home.active_file.stat().st_mtime, UTC)
    return to_rfc3339(moment, microseconds=True)


def _assemble(
    home: Home,
    state: SupervisorState,
    active: SnapshotStatus | None,
    snapshot: Snapshot | None,
    engine: EngineStatus | None,
    feeds: Mapping[str, FeedStatus],
) -> NodeStatus:
    facts = read_json(home.node_file) or {}
    return NodeStatus(
        version=__version__,
        home=str(home.root),
        trust_domain=str(facts.get("trustDomain", "")),
        location=state.location,
        snapshot=active,
        listeners=tuple(
            ListenerStatus(name=one["name"], address=one["address"], url=one["url"])
            for one in state.listeners
        ),
        metrics=MetricsStatus(url=state.metrics.get("url", "")),
        processes=ProcessesStatus(
            supervisor=SupervisorStatus(pid=state.supervisor.pid),
            engine=_process(state.engine),
            control=_process(state.control),
            models=_process(state.models),
        ),
        engine=engine_state(engine),
        workload_api=_workload_api(home),
        functions=tuple(function_statuses(snapshot, base_url(state))) if snapshot else (),
        sidecars=tuple(sidecar_summaries(snapshot)) if snapshot else (),
        models=tuple(model_summaries(snapshot, read_states(home.models_state))) if snapshot else (),
        address_lists=tuple(list_statuses(snapshot, engine, now(), feeds)) if snapshot else (),
        countries=_countries(engine),
        pressure=_of_engine(engine, "pressure", PressureStatus),
        sources=_of_engine(engine, "sources", SourcesStatus),
        offenders=_of_engine(engine, "offenders", OffendersStatus),
    )


def _workload_api(home: Home) -> str | None:
    return f"unix://{home.workload_socket}" if home.workload_socket.exists() else None


def list_statuses(
    snapshot: Snapshot,
    engine: EngineStatus | None,
    at: datetime,
    feeds: Mapping[str, FeedStatus],
) -> list[AddressListStatus]:
    """One entry for each list of addresses, by name; `at` is now. A list that is fetched is as old as
    its feed's last answer: often there is nothing new to tell.
    """
    rows = {row["name"]: row for row in (engine.get("addressLists", []) if engine else [])}
    found = []
    for declared in snapshot.addresses.lists if snapshot.addresses else ():
        row, feed = rows.get(declared.name), feeds.get(declared.name)
        age = feed.age_seconds if feed else None
        if feed is None and declared.updated_at is not None:
            age = max(0, int((at - from_rfc3339(declared.updated_at)).total_seconds()))
        most = declared.max_age_seconds
        found.append(
            AddressListStatus(
                name=declared.name,
                action=declared.action,
                networks=row["networks"] if row else None,
                left_out=row["leftOut"] if row else None,
                bad_lines=tuple(row["badLines"]) if row else (),
                updated_at=declared.updated_at,
                age_seconds=age,
                expired=age is not None and most is not None and age > most,
                feed=feed,
            )
        )
    return found


def sidecar_summaries(snapshot: Snapshot) -> list[SidecarSummary]:
    """One entry for each sidecar, by name."""
    return [SidecarSummary(name=each.name, mode=each.mode) for each in snapshot.sidecars or ()]


def model_summaries(snapshot: Snapshot, states: Mapping[str, WorkerState]) -> list[ModelSummary]:
    """One entry for each model that is served, by name. `states`: of workers, as the keeper says."""
    found = []
    for each in snapshot.models or ():
        state = states.get(each.worker)
        shown = state["state"] if state else None
        found.append(ModelSummary(name=each.name, version=each.version, state=shown))
    found += [ModelSummary(name=each.name, version=None) for each in snapshot.remote_models or ()]
    return sorted(found, key=lambda each: each.name)


def _countries(engine: EngineStatus | None) -> CountriesStatus | None:
    row = engine.get("countries") if engine else None
    if row is None:
        return None
    built = datetime.fromtimestamp(row["built"], UTC)
    return CountriesStatus(networks=row["networks"], built_at=to_rfc3339(built))


def _of_engine(engine: EngineStatus | None, name: str, model: type[M]) -> M | None:
    """What the engine says under this name; an engine of before says nothing of it."""
    row = cast("Any", engine).get(name) if engine else None
    return None if row is None else build(model, row)


def _process(process: ProcessState) -> ProcessStatus:
    return ProcessStatus(
        pid=process.pid,
        state=process.state,
        restarts=process.restarts,
        started_at=process.startedAt,
    )


def engine_state(engine: EngineStatus | None) -> EngineState:
    """The part of the engine's answer that people see."""
    if engine is None:
        return EngineState()
    return EngineState(
        version=engine["version"],
        allocator=engine["allocator"],
        allocator_reason=engine.get("allocatorReason"),
        pagemap_scan=engine["pagemapScan"],
        landlock=engine["landlock"],
        seccomp=engine["seccomp"],
        digest=engine["digest"],
        generation=engine["generation"],
        error=engine["error"],
        in_flight=engine["inFlight"],
        policy_holds=engine.get("policyHolds"),
        # An engine of before is asked while it is being replaced.
        unready_upstreams=tuple(engine.get("unreadyUpstreams", ())),
    )


def base_url(state: SupervisorState | None) -> str:
    """The URL of the first listener; the default one before there is any."""
    if state is None or not state.listeners:
        return "https://localhost:8443"
    return state.listeners[0]["url"]


def route_url(base: str, route: Route) -> str:
    """Where a person reaches a route: its first host that is no wildcard, else the node's own. In the mesh: what a
    program asks its sidecar for.
    """
    named = [host for host in route.hosts if not host.startswith("*.")]
    if named and is_mesh(named[0]):
        return f"http://{named[0]}{route.path.value}"
    if named:
        parts = urlsplit(base)
        host = f"[{named[0]}]" if ":" in named[0] else named[0]
        base = f"{parts.scheme}://{host}:{parts.port}"
    return base + route.path.value


def function_statuses(snapshot: Snapshot, base: str) -> list[FunctionStatus]:
    """One entry for each function, by name."""
    policies = {policy.name for policy in snapshot.policy.policies}
    routes = {
        route.backend.function: route
        for route in snapshot.routes
        if isinstance(route.backend, FunctionBackend)
    }
    return [
        FunctionStatus(
            name=function.name,
            digest=function.component,
            route=route.path.value if route else "",
            domains=route.hosts if route else (),
            public=public_policy_name(function.name) in policies,
            url=route_url(base, route) if route else "",
            allowed_hosts=function.allowed_hosts,
            reuse=function.reuse,
        )
        for function in snapshot.functions
        for route in [routes.get(function.name)]
    ]
