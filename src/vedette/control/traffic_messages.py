"""What the admin API says about routes and services: `GET /v1/routes` and `GET /v1/upstreams`.

Owns: the shapes in docs/reference/openapi.json and status-routes.schema.json, status-upstreams.schema.json.
Must not: hold behaviour.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vedette.config.addresses import CountryRule
from vedette.config.breaker import Breaker
from vedette.config.clients import Mode as ChallengeMode
from vedette.config.faults import Fault
from vedette.config.model import Model
from vedette.config.snapshot import ActiveHealth, PassiveHealth, PathMatch, ValueMatch
from vedette.config.waf import Mode


class RouteBackend(Model):
    """Who answers a route, or its share of it."""

    kind: Literal["Function", "Upstream", "Static", "Redirect", "Files", "Model"] = Field(
        description="What it is."
    )
    name: str | None = Field(default=None, description="Name of the function, upstream or model.")
    weight: int = Field(default=1, description="Its share, out of the sum of all weights.")
    detail: str | None = Field(
        default=None, description="What the node itself answers: status, location or files."
    )
    ready: bool | None = Field(
        default=None,
        description="Of an upstream: whether an endpoint can be expected to answer; null: not known.",
    )


class RouteCaller(Model):
    """A policy that is asked about a route. Without a permit that holds, nobody may call."""

    policy: str = Field(description="Its `@id`, else file and place, as in records.")
    file: str = Field(description="Its file.")
    line: int = Field(description="Its line there.")
    effect: Literal["permit", "forbid"] = Field(description="What it does where it holds.")
    principal_type: str | None = Field(
        description="Whom it is about: Subject (a token), Workload (a client certificate), "
        "Anonymous, Function; null: anybody."
    )
    principal_id: str | None = Field(description="The one caller it is about; null: all of them.")
    conditional: bool = Field(description="Whether it asks more: a `when` or `unless`.")


class RouteInspection(Model):
    """How the firewall inspects a route."""

    mode: Mode = Field(description="block, detect or off.")
    paranoia_level: int = Field(description="How suspicious the Core Rule Set is, 1 to 4.")
    exclusions: int = Field(description="How many exclusions there are, expired ones included.")
    expired: int = Field(description="How many of them have ended.")


class RouteStatus(Model):
    """A route: which requests it takes, who answers them, and who may send them."""

    name: str = Field(description="Name of the route.")
    hosts: tuple[str, ...] = Field(description="Hosts it takes; empty: every host of the node.")
    path: PathMatch = Field(description="Paths it takes.")
    method: str | None = Field(default=None, description="Method it takes; null: any.")
    headers: tuple[ValueMatch, ...] = Field(default=(), description="Header fields it asks for.")
    query: tuple[ValueMatch, ...] = Field(default=(), description="Query parameters it asks for.")
    cookies: tuple[ValueMatch, ...] = Field(default=(), description="Cookies it asks for.")
    url: str = Field(description="Where a person on this machine reaches it.")
    backends: tuple[RouteBackend, ...] = Field(description="Who answers, each with its weight.")
    mirror: str | None = Field(default=None, description="Upstream that gets copies of requests.")
    limits: tuple[str, ...] = Field(default=(), description="Limits a request must pass, by name.")
    waf: RouteInspection = Field(description="How the firewall inspects it.")
    countries: CountryRule | None = Field(
        default=None, description="From which countries it may be asked; null: from everywhere."
    )
    fault: Fault | None = Field(
        default=None, description="What goes wrong on it on purpose; null: nothing."
    )
    challenge: ChallengeMode = Field(
        description="Which browsers are asked for a little work first, the node's word included."
    )
    callers: tuple[RouteCaller, ...] = Field(
        description="Policies about it, permits first; `vedette policy explain` judges a request."
    )


class EndpointError(Model):
    """What was last wrong with an endpoint."""

    time: str = Field(description="When, RFC 3339.")
    message: str = Field(description="What, as in the `detail` of records.")


class EndpointStatus(Model):
    """One place where a service answers. Counted since its settings last changed or the engine started."""

    host: str = Field(description="Address or host name.")
    port: int = Field(description="Port.")
    weight: int = Field(description="Its share of the requests; 0: none.")
    state: Literal["healthy", "failing", "ejected", "recovering", "unhealthy", "unknown"] = Field(
        description="healthy; failing: it fails requests, too few in a row to be left out; ejected: "
        "it is left out for that (outlier detection); recovering: it is used again and nothing has "
        "gone well since; unhealthy: active health leaves it out; unknown: the engine is away."
    )
    ready: bool | None = Field(
        default=None, description="Whether it is healthy or failing; null: not known."
    )
    failing_since: str | None = Field(
        default=None, description="First failure that nothing good has followed, RFC 3339."
    )
    ejected_until: str | None = Field(
        default=None, description="When an ejected endpoint is used again, RFC 3339."
    )
    last_error: EndpointError | None = Field(
        default=None, description="What was last wrong, also when it is healthy by now."
    )
    in_flight: int = Field(default=0, description="Requests being answered.")
    connections: int = Field(default=0, description="Open connections.")
    requests: int = Field(default=0, description="Requests sent to it.")
    failures: int = Field(
        default=0, description="Of them: no answer, 502, 503, 504, or a body that broke off."
    )
    ejections: int = Field(default=0, description="Times it was left out.")


class CircuitStatus(Model):
    """How the circuit breaker of a service stands. Counted since its settings last changed or the engine started."""

    state: Literal["closed", "half-open", "open"] = Field(
        description="closed: requests go through; open: none does; half-open: a few do, as trials."
    )
    open_until: str | None = Field(default=None, description="When trials begin, RFC 3339.")
    opened: int = Field(default=0, description="Times it opened.")
    refused: int = Field(default=0, description="Tries that were not made since it was open.")
    why: str | None = Field(default=None, description="Why it opened last.")


class UpstreamStatus(Model):
    """A service behind the node, and how it does."""

    name: str = Field(
        description="Name of the upstream; `NAME@SIDECAR`: the same as that sidecar calls it."
    )
    protocol: Literal["auto", "http1", "http2"] = Field(description="What is spoken.")
    tls: bool = Field(description="Whether over TLS.")
    check: Literal["active", "passive"] = Field(
        description="active: it is asked too; passive: only what requests show counts."
    )
    health: ActiveHealth | None = Field(default=None, description="The questions of active health.")
    outlier: PassiveHealth = Field(description="When an endpoint is left out for failed requests.")
    breaker: Breaker | None = Field(
        default=None, description="When no endpoint is asked for a while; null: never."
    )
    circuit: CircuitStatus | None = Field(
        default=None, description="How its breaker stands; null: it has none, or not known."
    )
    ready: bool | None = Field(
        default=None, description="Whether an endpoint can be expected to answer; null: not known."
    )
    requests: int = Field(default=0, description="Requests for it.")
    failures: int = Field(default=0, description="Of them without an answer, after all tries.")
    retries: int = Field(default=0, description="Second and further tries.")
    hedges: int = Field(
        default=0, description="Requests sent to another endpoint while the first one waited."
    )
    hedges_won: int = Field(default=0, description="Of them those that answered first.")
    mirrors_dropped: int = Field(
        default=0, description="Copies not sent, since too many were under way."
    )
    endpoints: tuple[EndpointStatus, ...] = Field(description="Where it answers.")
    routes: tuple[str, ...] = Field(description="Routes that lead to it.")
