"""Starts two nodes of ours, each with a sidecar: one before the client, one before the service.

Owns: the homes, the trust between them and the two sidecars.
Must not: give our pair less to do than the Envoy pair has (`envoy_pair`), or the records off.
"""

from __future__ import annotations

from processes import BenchError
from server import Place, Server


def vedette_pair(place: Place) -> Server:
    """Two nodes, `a` and `b`, that follow each other's bundle, and their sidecars, on `place.mode.server_cores`.

    `b`: `vedette sidecar --for PORT --as service --listen …` before `place.service`; `a`: the same for the client,
    whose `--outbound` is asked for `server.MESH_NAME`. What the Server must have: the endpoint `mesh` (plain HTTP,
    `fields` with the Host, the body `KILOBYTE`), the endpoint `inbound` (https, where b's sidecar listens: a stranger
    must get nothing there), `roots` of both engines, `whole` of everything that the two nodes run, and a `stop` that
    ends sidecars before nodes.

    Raises BenchError: there is no command to start them with yet.
    """
    raise BenchError(f"there is no `vedette sidecar` yet to put before port {place.service}")
