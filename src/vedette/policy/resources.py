"""What policies are asked about: the functions, models and routes of a snapshot.

Owns: which resource each of them is (docs/request.md), and finding names in policies that nothing has.
Must not: judge a request; the engine does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from vedette.config.manifests import nearest
from vedette.config.snapshot import FunctionBackend, ModelBackend, Route, ServicesBackend, Snapshot
from vedette.policy.check import Finding, Outline

Resource = tuple[str, str]
OPEN_INFERENCE: Final = "open-inference"
"""The engine's own places of the Open Inference Protocol, which are there where models are (docs/request.md)."""


def resources_of(route: Route) -> tuple[Resource, ...]:
    """What is asked about when a request takes this route: the functions or the model behind it, and the
    route itself where anything else answers.
    """
    backend = route.backend
    if isinstance(backend, FunctionBackend):
        return (("Function", backend.function),)
    if isinstance(backend, ModelBackend):
        return (("Model", backend.model),)
    if isinstance(backend, ServicesBackend):
        functions = [("Function", one.name) for one in backend.services if one.kind == "Function"]
        others = [one for one in backend.services if one.kind != "Function"]
        return (*functions, *([("Route", route.name)] if others else []))
    return (("Route", route.name),)


def all_resources(snapshot: Snapshot) -> frozenset[Resource]:
    """Everything that policies can be asked about. Functions and models count though no route leads to them."""
    functions = {("Function", each.name) for each in snapshot.functions}
    models = {("Model", each.name) for each in snapshot.models or ()}
    models |= {("Model", each.name) for each in snapshot.remote_models or ()}
    behind = {one for route in snapshot.routes for one in resources_of(route)}
    own = {("Route", OPEN_INFERENCE)} if models else set[Resource]()
    return frozenset(functions | models | behind | own)


def unknown_names(outlines: Iterable[Outline], snapshot: Snapshot) -> Iterator[Finding]:
    """A warning for each name in a policy that no request is ever asked about."""
    known = all_resources(snapshot)
    for outline in outlines:
        for resource in outline.names:
            if resource not in known:
                message = f"{outline.id} names {_why(resource, known, snapshot)}"
                yield Finding(outline.file, outline.line, None, message, None)


def _why(resource: Resource, known: frozenset[Resource], snapshot: Snapshot) -> str:
    kind, name = resource
    route = snapshot.route(name) if kind == "Route" else None
    if route is not None:
        behind = " or ".join(f'{one}::"{each}"' for one, each in resources_of(route))
        led = "functions" if behind.startswith("Function") else "a model"
        return f'Route::"{name}", which only leads to {led}; write {behind}'
    named = [each for one, each in known if one == kind]
    return f'{kind}::"{name}", which does not exist{nearest(name, named)}'
