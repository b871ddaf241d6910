"""The policies that the node itself writes.

Owns: what is allowed when nobody said anything (holders of this node's own tokens may call what is
deployed, and ask every model), and what `--public` and `callers` mean. Must not: allow anything that is not visible as
a policy file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from vedette.config.snapshot import Route
from vedette.ids import require_name
from vedette.policy.check import action_of
from vedette.policy.resources import Resource, resources_of

DEFAULT_POLICY_NAME: Final = "default.cedar"


def default_policy(trust_domain: str) -> str:
    """Who holds a token of this node may call every function and ask every model; nobody else may any."""
    issuer = json.dumps(f"spiffe://{trust_domain}")
    return f"""\
// Who holds a token of this node may call what is deployed, and ask every model. Everybody else is refused: Cedar
// denies by default.
@id("node-token")
permit (
  principal is Subject,
  action in [Action::"invoke", Action::"predict"],
  resource
)
when {{ principal.issuer == {issuer} }};
"""


def public_policy_name(function: str) -> str:
    """The file name of the policy that makes a function public."""
    return f"public-{require_name(function)}.cedar"


def public_policy(function: str) -> str:
    """Anybody may call this function, without a token. Raises `ConfigError` invalid_name."""
    name = require_name(function)
    return f"""\
// Deployed with --public: anybody may call {name}, without a token.
@id("public-{name}")
permit (
  principal,
  action == Action::"invoke",
  resource == Function::"{name}"
);
"""


def public_route_policy_name(name: str) -> str:
    """The file name of the policy that makes the routes of a manifest public."""
    return f"public-route.{require_name(name)}.cedar"


def public_route_policy(name: str, routes: Sequence[Route]) -> str:
    """Anybody may call these routes, without a token. A function or model behind one is open for the hosts,
    the path and the method of the route only, not for its other routes.
    """
    said = f"// The Route {require_name(name)} is public: anybody may call it, without a token."
    return "\n".join([said, *_permits(routes, "public-route", "principal")]) + "\n"


def callers_route_policy_name(name: str) -> str:
    """The file name of the policy that says who may call the routes of a manifest."""
    return f"callers-route.{require_name(name)}.cedar"


def callers_route_policy(name: str, routes: Sequence[Route], callers: Sequence[str]) -> str:
    """These SPIFFE IDs may call these routes; a function behind one as far as a public route opens it."""
    lines = [f"// Who may call the Route {require_name(name)}, as its manifest says."]
    for number, caller in enumerate(callers, 1):
        lines += _permits(routes, f"caller-{number}-of-route", _workload(caller))
    return "\n".join(lines) + "\n"


def sidecar_policy_name(name: str) -> str:
    """The file name of the policy that says who may call a sidecar."""
    return f"sidecar.{require_name(name)}.cedar"


def sidecar_policy(name: str, route: Route, callers: Sequence[str]) -> str:
    """These SPIFFE IDs may call the program behind a sidecar, to which `route` leads."""
    lines = [f"// Who may call the program behind the sidecar {require_name(name)}."]
    for number, caller in enumerate(callers, 1):
        lines += _permits([route], f"caller-{number}-of", _workload(caller))
    return "\n".join(lines) + "\n"


def _permits(routes: Sequence[Route], identity: str, principal: str) -> Iterator[str]:
    for route in routes:
        for number, (kind, asked) in enumerate(resources_of(route), 1):
            known = f"{identity}-{route.name}"
            if kind == "Route":
                yield _permit(known, principal, (kind, asked), "")
            else:
                known = f"{known}-{kind.lower()}-{number}"
                yield _permit(known, principal, (kind, asked), _conditions(route))


def _workload(caller: str) -> str:
    return f"principal == Workload::{_text(caller)}"


def _permit(identity: str, principal: str, resource: Resource, conditions: str) -> str:
    kind, name = resource
    when = f"\nwhen {{ {conditions} }}" if conditions else ""
    return f"""\
@id("{identity}")
permit (
  {principal},
  action == Action::"{action_of(kind)}",
  resource == {kind}::"{name}"
){when};"""


def _conditions(route: Route) -> str:
    """What a policy can see of a route's match."""
    parts = []
    hosts = [
        f"context.host like {_text(host)}" if host[0] == "*" else f"context.host == {_text(host)}"
        for host in route.hosts
    ]
    if hosts:
        parts.append(f"({' || '.join(hosts)})")
    path = route.path.value
    if route.path.type == "Exact":
        parts.append(f"context.path == {_text(path)}")
    elif path != "/":
        pattern = _text(path).replace("*", r"\*")[:-1] + '/*"'
        parts.append(f"(context.path == {_text(path)} || context.path like {pattern})")
    if route.method is not None:
        parts.append(f"context.method == {_text(route.method)}")
    return " && ".join(parts)


def _text(value: str) -> str:
    return json.dumps(value)
