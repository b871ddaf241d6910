"""What stands before the firewall: the stages that would refuse a described request, as far as that can be known.

Owns: lists of addresses, sizes of heads, the challenge of everybody, and policy for who brings no credentials; and
saying what was not asked. Must not: decide anything; policies are asked in the engine's own code.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from vedette.config.snapshot import Admit, Route, Snapshot
from vedette.control.activate import Activator
from vedette.control.firewall_messages import DescribedRequest, EarlierRefusal, JudgedRequest
from vedette.control.traffic import challenge_of
from vedette.policy.listed import Networks, canonical
from vedette.store.blobs import BlobStore


def with_earlier(
    activator: Activator,
    snapshot: Snapshot,
    requests: Sequence[DescribedRequest],
    told: Sequence[JudgedRequest],
) -> tuple[JudgedRequest, ...]:
    """The same judgements, each with what refuses the request before the firewall, in the order of the path."""
    lists = _Lists(activator.blobs, snapshot)
    denied = _denied(activator, requests, told)
    found = []
    for request, answer, denial in zip(requests, told, denied, strict=True):
        route = snapshot.route(answer.route) if answer.route else None
        known = (
            lists.refusal(request),
            _too_large(snapshot.admit, request),
            _challenged(snapshot, route, request),
            denial,
        )
        before = tuple(each for each in known if each is not None)
        found.append(answer.model_copy(update={"before": before}))
    return tuple(found)


def not_asked(snapshot: Snapshot, told: Sequence[JudgedRequest]) -> tuple[str, ...]:
    """The stages before the firewall that nobody asked, of those that the node has."""
    return tuple(_not_asked(snapshot, {each.route for each in told}))


def _not_asked(snapshot: Snapshot, asked: set[str | None]) -> Iterator[str]:
    yield "whether credentials are good, and what policy permits who brings some"
    if snapshot.limits:
        yield "limits of rate, concurrency and quota"
    for route in snapshot.routes:
        if route.name in asked and route.countries is not None:
            which = "only" if route.countries.action == "Allow" else "not"
            yield f"the country (route {route.name}: {which} {', '.join(route.countries.codes)})"
    admit = snapshot.admit
    if admit.challenge is not None:
        yield "the challenge of who looks like a program, or under pressure"
    if admit.offenders is not None:
        yield "addresses that keep offending"
    if admit.tls_clients is not None:
        yield "TLS clients"
    yield "how much the node has to do"


class _Lists:
    """The lists of addresses, read when they are first asked."""

    def __init__(self, blobs: BlobStore, snapshot: Snapshot) -> None:
        self._blobs = blobs
        self._declared = snapshot.addresses.lists if snapshot.addresses else ()
        self._read: dict[str, Networks] = {}

    def refusal(self, request: DescribedRequest) -> EarlierRefusal | None:
        """That of admit; an allow list wins."""
        try:
            address = canonical(ipaddress.ip_address(request.address))
        except ValueError:
            return None
        on = [each for each in self._declared if address in self._networks(each.blob)]
        if not on or any(each.action == "Allow" for each in on):
            return None
        detail = f"{request.address} is on the list {on[0].name}"
        return EarlierRefusal(stage="admit", cause="address_blocked", status=403, detail=detail)

    def _networks(self, blob: str) -> Networks:
        if blob not in self._read:
            self._read[blob] = Networks(self._blobs.get(blob))
        return self._read[blob]


def _too_large(limits: Admit, request: DescribedRequest) -> EarlierRefusal | None:
    """That of admit for a target or head beyond the Node's limits; counted as the engine counts HTTP/1.1
    (crates/engine/src/stages/admit.rs).
    """
    target = len(request.target.encode())
    if target > limits.max_uri_bytes:
        detail = f"the target has {target:,} bytes, {limits.max_uri_bytes:,} are allowed"
        return EarlierRefusal(stage="admit", cause="uri_too_long", status=414, detail=detail)
    fields = [("host", request.host), *request.headers]
    size = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in fields)
    if size <= limits.max_header_bytes and len(fields) <= limits.max_headers:
        return None
    detail = (
        f"the head has {len(fields):,} fields of {size:,} bytes, "
        f"{limits.max_headers:,} of {limits.max_header_bytes:,} are allowed"
    )
    return EarlierRefusal(stage="admit", cause="headers_too_large", status=431, detail=detail)


def _challenged(
    snapshot: Snapshot, route: Route | None, request: DescribedRequest
) -> EarlierRefusal | None:
    """That of limit, where everybody is asked who opens a page."""
    if route is None or _has_credentials(request):
        return None
    if challenge_of(snapshot, route) != "Always" or not _opens_a_page(request):
        return None
    detail = "the challenge asks every browser without a pass"
    return EarlierRefusal(stage="limit", cause="challenge_required", status=403, detail=detail)


def _opens_a_page(request: DescribedRequest) -> bool:
    """As the engine has it (crates/engine/src/challenge.rs)."""
    fields = [(name.lower(), value.lower()) for name, value in request.headers]
    accepts = any("text/html" in value for name, value in fields if name == "accept")
    given = dict(fields)
    navigates = given.get("sec-fetch-mode", "navigate") == "navigate"
    return request.method in ("GET", "HEAD") and accepts and navigates and "upgrade" not in given


def _denied(
    activator: Activator, requests: Sequence[DescribedRequest], told: Sequence[JudgedRequest]
) -> list[EarlierRefusal | None]:
    """What policy says of who brings no credentials; of others it is not asked."""
    found: list[EarlierRefusal | None] = [None] * len(requests)
    asking = [
        index
        for index, (request, answer) in enumerate(zip(requests, told, strict=True))
        if answer.route is not None and not _has_credentials(request)
    ]
    if not asking:
        return found
    asked = [
        {
            "principal": {"kind": "anonymous"},
            "method": requests[index].method,
            "host": requests[index].host,
            "path": requests[index].target,
            "scheme": "https",
            "sourceIp": requests[index].address,
            "listener": "https",
            "route": told[index].route,
        }
        for index in asking
    ]
    for index, answer in zip(asking, activator.explain(asked), strict=True):
        if answer["status"] is not None:
            found[index] = EarlierRefusal(
                stage=answer["stage"],
                cause=answer["cause"],
                status=answer["status"],
                detail="no credentials came with it",
            )
    return found


def _has_credentials(request: DescribedRequest) -> bool:
    return any(name.lower() == "authorization" for name, _ in request.headers)
