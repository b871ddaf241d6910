"""Changes of desired state that are about models.

Owns: what serving a version and removing a model mean for routes. Pure, as `desired`. Must not: know which versions are
kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vedette.config.served import RemoteModel, ServedModel
from vedette.config.snapshot import ModelBackend, PathMatch, Route, Snapshot
from vedette.control import desired
from vedette.errors import ConfigError
from vedette.ids import is_name

PREFIX: Final = "/v2/models/"
"""Where the Open Inference Protocol has models (KServe V2, Inference Protocol)."""
_ROUTE: Final = "model-"


def model_route(name: str) -> Route:
    """The route of a model that no Route leads to. Raises `ConfigError` invalid_name for a name too long for one."""
    own = own_route_name(name)
    path = PathMatch(type="PathPrefix", value=f"{PREFIX}{name}")
    return Route(name=own, path=path, backend=ModelBackend(model=name))


def own_route_name(name: str) -> str:
    """What a model's own route is called. Raises `ConfigError` invalid_name."""
    own = f"{_ROUTE}{name}"
    if not is_name(name) or not is_name(own):
        message = f"{name!r} is not a valid model name"
        hint = "Use 1 to 57 lower-case letters, digits and hyphens; start with a letter."
        raise ConfigError("invalid_name", message, hint)
    return own


def routes_to(routes: Iterable[Route], name: str) -> tuple[Route, ...]:
    """The routes that lead to a model."""
    return tuple(
        each
        for each in routes
        if isinstance(each.backend, ModelBackend) and each.backend.model == name
    )


def put_model(snapshot: Snapshot, model: ServedModel, hosts: frozenset[str]) -> Snapshot:
    """Serves a model in place of the one of its name, also of one that only tiers had, by its own route unless another
    leads to it.

    Raises `ConfigError` route_conflict, invalid_name.
    """
    others = (each for each in snapshot.models or () if each.name != model.name)
    models = tuple(sorted([*others, model], key=lambda each: each.name))
    after = snapshot.with_(models=models, remote_models=_others(snapshot, model.name))
    if routes_to(after.routes, model.name):
        return after
    return desired.put_route(after, model_route(model.name), hosts)


def remove_model(
    snapshot: Snapshot,
    name: str,
    hosts: frozenset[str],
    files: Mapping[str, str] | None = None,
) -> Snapshot:
    """Serves a model no more, and removes the routes to it; unchanged when none of that name is served.

    Raises `ConfigError` route_in_use when a limit is for one of them; `files`: manifests of limits, by name.
    """
    ways = routes_to(snapshot.routes, name)
    desired.require_free(snapshot, {each.name for each in ways}, files)
    rest = tuple(each for each in snapshot.routes if each not in ways)
    models = tuple(each for each in snapshot.models or () if each.name != name)
    return desired.with_routes(
        snapshot,
        rest,
        hosts,
        models=models or None,
        remote_models=_others(snapshot, name),
    )


def _others(snapshot: Snapshot, name: str) -> tuple[RemoteModel, ...] | None:
    rest = tuple(each for each in snapshot.remote_models or () if each.name != name)
    return rest or None
