"""The control process: `python -P -m vedette.control.process`, started by the supervisor.

Owns: putting the node together, its servers (admin socket, metrics port, Workload API) and the reconcile thread. Must
not: bind a socket; all come from the supervisor, so that a restart refuses nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from vedette.control.activate import Activator
from vedette.control.api import create_app, metrics_text
from vedette.control.bootstrap import open_keys, read_facts
from vedette.control.node import Node
from vedette.control.peers import protocol_of
from vedette.control.reconcile import Reconciler
from vedette.control.workload.server import WorkloadServer
from vedette.engine.client import EngineClient
from vedette.engine.native import Native, load_native
from vedette.errors import UnavailableError, VedetteError
from vedette.observability.metrics import CONTENT_TYPE
from vedette.store.history import History
from vedette.store.home import Home

CONFIG_VARIABLE = "VEDETTE_CONTROL_CONFIG"
_GRACE_SECONDS = 2


def open_node(home: Home, native: Native) -> tuple[Node, Activator]:
    """The node whose home is `home`. Raises `UnavailableError` node_start_failed before its bootstrap."""
    facts = read_facts(home)
    if facts is None:
        raise UnavailableError("node_start_failed", f"{home.node_file} is missing")
    keys = open_keys(home, facts)
    activator = Activator(
        home, History(home.database), keys, EngineClient(home.engine_socket), native
    )
    return Node(home, keys, activator), activator


class _Server(uvicorn.Server):
    """A server that leaves signals alone: two of them share this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs nothing."""
        yield


def _server(app: ASGIApp, http: type[asyncio.Protocol] | Literal["h11"]) -> _Server:
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=256,
    )
    return _Server(config)


def metrics_app(node: Node) -> ASGIApp:
    """`GET /metrics`, and 404 for everything else: the port is the only thing here that is not a Unix socket."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = scope["method"] in ("GET", "HEAD") and scope["path"] == "/metrics"
        body = await asyncio.to_thread(metrics_text, node) if found else b"not found\n"
        kind = CONTENT_TYPE if found else "text/plain"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send(
            {"type": "http.response.start", "status": 200 if found else 404, "headers": headers}
        )
        await send({"type": "http.response.body", "body": body})

    return app


class Servers:
    """The two servers of a control process."""

    def __init__(self, node: Node) -> None:
        self._admin = _server(create_app(node), protocol_of(node.home))
        self._metrics = _server(metrics_app(node), "h11")

    async def run(self, admin: socket.socket, metrics: socket.socket) -> None:
        """Serves until `stop`; then gives open requests two seconds."""
        await asyncio.gather(
            self._admin.serve(sockets=[admin]), self._metrics.serve(sockets=[metrics])
        )

    def stop(self) -> None:
        """Makes `run` return."""
        self._admin.should_exit = self._metrics.should_exit = True


async def _serve_until_signal(
    servers: Servers, admin: socket.socket, metrics: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, servers.stop)
    await servers.run(admin, metrics)


def main() -> int:
    """Runs control. Exit code 0 after SIGTERM, 4 when it could not start."""
    parser = argparse.ArgumentParser(prog="python -m vedette.control.process")
    parser.add_argument("--role")
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    os.umask(0o077)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO
    )
    config = json.loads(os.environ.pop(CONFIG_VARIABLE))
    try:
        node, activator = open_node(Home(options.home), load_native())
    except VedetteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    stopping = threading.Event()
    node.record_start()
    chores = [node.revocations.prune, node.grants.prune, node.posture.prune, node.audit.prune]
    reconciler = Reconciler(node.home, activator, stopping, chores=chores)
    threading.Thread(target=reconciler.run, name="reconcile", daemon=True).start()
    # A thread of its own: a slow server of keys or of bans must not hold up anything else.
    threading.Thread(target=node.jwks.run, args=(stopping,), name="jwks", daemon=True).start()
    threading.Thread(target=node.feeds.run, args=(stopping,), name="feeds", daemon=True).start()
    threading.Thread(target=node.rotation.run, args=(stopping,), name="keys", daemon=True).start()
    threading.Thread(target=node.engine_svids.run, args=(stopping,), daemon=True).start()
    following = threading.Thread(target=node.following.run, args=(stopping,), daemon=True)
    following.start()
    serving = threading.Thread(target=node.serving.run, args=(stopping,), daemon=True)
    serving.start()
    auditing = threading.Thread(target=node.audit.run, args=(stopping,), name="audit", daemon=True)
    auditing.start()
    drift = threading.Thread(target=node.models.drift.run, args=(stopping,), daemon=True)
    drift.start()  # likewise: a process of somebody's model
    samples = threading.Thread(target=node.models.samples.run, args=(stopping,), daemon=True)
    samples.start()  # likewise
    admin = socket.socket(fileno=config["adminFd"])
    metrics = socket.socket(fileno=config["metricsFd"])
    workloads = WorkloadServer(
        node.home, node.workloads, node.identities, joining=node.joining, boxes=node.boxes
    )
    if "workloadFd" in config:  # not, when an older version started the node
        workloads.start(socket.socket(fileno=config["workloadFd"]))
    asyncio.run(_serve_until_signal(Servers(node), admin, metrics))
    workloads.stop()
    node.admin.close()
    stopping.set()
    serving.join(_GRACE_SECONDS)
    drift.join(_GRACE_SECONDS)  # what models have learnt is kept
    samples.join(_GRACE_SECONDS)
    auditing.join(_GRACE_SECONDS)  # what was asked last is in the log, with a head
    return 0


if __name__ == "__main__":
    sys.exit(main())
