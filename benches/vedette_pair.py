"""Starts two nodes of ours, each with a sidecar: one before the client, one before the service.

Owns: the homes, the trust between them and the two sidecars.
Must not: give our pair less to do than the Envoy pair has (`envoy_pair`): both sides authenticate, decide and record.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from dataclasses import dataclass, replace
from typing import Any

import node
from node import VEDETTE, Node
from probe import require_right
from processes import READY_SECONDS, BenchError, Process, pinned, start
from server import KILOBYTE, MESH_NAME, Endpoint, Place, Server

_SERVICE = """\
apiVersion: vedette.dev/v1alpha1
kind: Sidecar
metadata: {{name: service}}
spec: {{port: {port}, callers: ["spiffe://{client}/client"]{waf}}}
"""
_CLIENT = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "https://{inbound}", protocol: http1, tls: {{peers: ["spiffe://{service}/service"]}}}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: service}}
spec:
  hostnames: [{host}]
  callers: ["spiffe://{client}/client"]{waf}
  rules: [{{backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]}}]
"""
_OFF = 'waf: {mode: "off"}'


@dataclass(frozen=True)
class _Sidecar:
    """`vedette sidecar` in the foreground, and the two sockets that it named once it was served."""

    process: Process
    inbound: str
    outbound: str


def vedette_pair(place: Place, *, judged: bool) -> Server:
    """Two nodes that know each other's bundle, `client` calls `service`; each looks through the firewall if `judged`.

    Raises BenchError when a node, a sidecar or the way between them does not come up.
    """
    with contextlib.ExitStack() as undo:
        nodes = _node(place, "client", undo), _node(place, "service", undo)
        domains = _follow(*nodes)
        service = _service(place, nodes[1], domains[0], judged)
        undo.callback(service.process.stop)
        client = _client(place, nodes[0], (*domains, service.inbound), judged)
        undo.callback(client.process.stop)
        server = _server(nodes, client, service)
        _wait_until_served(server)
        return replace(server, stop=undo.pop_all().close)


def _service(place: Place, home: Node, caller: str, judged: bool) -> _Sidecar:
    waf = "" if judged else f", {_OFF}"
    text = _SERVICE.format(port=place.service, client=caller, waf=waf)
    home.apply(place.folder / "service.yaml", text)
    return _sidecar(place, home, "service", ("127.0.0.1:0", "none"))


def _client(place: Place, home: Node, names: tuple[str, ...], judged: bool) -> _Sidecar:
    client, service, inbound = names
    waf = "" if judged else f"\n  {_OFF}"
    text = _CLIENT.format(client=client, service=service, inbound=inbound, host=MESH_NAME, waf=waf)
    home.apply(place.folder / "client.yaml", text)
    return _sidecar(place, home, "client", ("none", "127.0.0.1:0"))


def _node(place: Place, name: str, undo: contextlib.ExitStack) -> Node:
    """A node of its own home and trust domain, on the server's core."""
    folder = place.folder / name
    folder.mkdir(mode=0o755)
    up = node.up(replace(place, folder=folder), "https", "--name", f"bench-{name}")
    undo.callback(up.down)
    return up


def _follow(*nodes: Node) -> list[str]:
    """Gives each the other's bundle, as a file, and returns their trust domains."""
    domains = [str(each.status()["trustDomain"]) for each in nodes]
    for each, domain in zip(nodes, domains, strict=True):
        file = each.home.with_name("bundle.json")
        each.vedette("federation", "show", "--out", str(file))
        for other in nodes:
            if other is not each:
                other.vedette("federation", "set", domain, "--bundle", str(file))
    return domains


def _sidecar(place: Place, home: Node, name: str, sockets: tuple[str, str]) -> _Sidecar:
    """Serves `name`, inbound and outbound at these sockets."""
    listen, outbound = sockets
    words = ["--as", name, "--listen", listen, "--outbound", outbound, "--home", str(home.home)]
    command = [str(VEDETTE), "sidecar", "--json", *words]
    process = start(f"sidecar-{name}", pinned(command, place.mode.server_cores), place.folder)
    try:
        told = _first_words(process)
    except BaseException:
        process.stop()
        raise
    return _Sidecar(process, str(told.get("inbound")), str(told.get("outbound")))


def _first_words(process: Process) -> dict[str, Any]:
    """What a sidecar says as JSON once it is served."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for line in process.output.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                told: dict[str, Any] = json.loads(line)
                return told
        if process.child.poll() is not None:
            raise BenchError(f"{process.name} ended: {process.last_words()}")
        time.sleep(0.05)
    raise BenchError(f"{process.name} said nothing in {READY_SECONDS:.0f} s")


def _server(nodes: tuple[Node, Node], client: _Sidecar, service: _Sidecar) -> Server:
    """The pair; its CPU is that of both engines, `whole` that of all that runs for them."""
    fields = {"Host": MESH_NAME}
    parents = tuple(each.pid("supervisor") for each in nodes)
    return Server(
        name="vedette-pair",
        version=str(nodes[0].status()["version"]),
        command="; ".join(each.command for each in nodes) + "; vedette sidecar of each",
        endpoints={
            "mesh": Endpoint(f"http://{client.outbound}/", body=KILOBYTE, fields=fields),
            "inbound": Endpoint(f"https://{service.inbound}/", fields=fields),
        },
        roots=lambda: tuple(each.pid("engine") for each in nodes),
        whole=lambda: (*parents, client.process.pid, service.process.pid),
        stop=lambda: None,
    )


def _wait_until_served(server: Server) -> None:
    """The engines get their SVIDs after the sidecars are served."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return require_right(server, server.endpoints["mesh"])
        except (BenchError, OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise BenchError(f"the pair does not serve: {error}") from error
            time.sleep(0.1)
