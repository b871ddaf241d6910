"""Runs the rows of one mode: all servers up, then round after round through all rows.

Owns: which peer is started how, interleaving, what happens when one of them fails.
Must not: print tables or judge; it says what it does through `say`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import envoy
import envoy_pair
import firewall
import install
import node
import peers
import shields
import vedette_pair
from connections import measure_connections
from credentials import Credentials
from flood import measure_flood
from install import Tool
from load import LoadTools
from measure import Load, measure
from probe import require_mutual, require_right
from processes import BenchError, uninterrupted
from results import Results
from rows import Row, ServerName
from server import Mode, Place, Server

WARM_UP_SECONDS = 1.0
Start = Callable[[Place], Server]


@dataclass(frozen=True)
class Setting:
    """What all modes share: tools, files, and how long the loads are."""

    folder: Path
    cache: Path
    component: Path
    component_3: Path
    credentials: Credentials
    load: LoadTools
    tools: dict[str, Tool]
    rounds: int
    seconds: float
    rules: list[Path]
    """The Core Rule Set in load order, where a row or part needs it."""
    origin: int
    """A port for the service that the proxies have behind them."""
    service: int
    """A port for the service that the sidecars have behind them."""

    def place(self, mode: Mode, name: str) -> Place:
        """A fresh folder for one server of one mode."""
        folder = self.folder / f"{mode.value}-{name}"
        folder.mkdir(mode=0o755)
        return Place(
            mode=mode,
            workers=len(mode.server_cores),
            folder=folder,
            cache=self.cache,
            component=self.component,
            component_3=self.component_3,
            credentials=self.credentials,
            origin=self.origin,
            service=self.service,
        )


def prepare_tools(
    names: set[str], with_wasmtime: bool, say: install.Say
) -> tuple[dict[str, Tool], dict[str, str]]:
    """Brings the named peers; returns the tools and, for those that did not come, the reason."""
    ways: dict[str, Callable[[], Tool]] = {
        "nginx": lambda: install.debian_tool("nginx", "nginx", ["-v"], say),
        "origin": lambda: install.debian_tool("nginx", "nginx", ["-v"], say),
        "service": lambda: install.debian_tool("nginx", "nginx", ["-v"], say),
        "workerd": lambda: install.workerd(say),
        "wasmtime": lambda: install.wasmtime(with_wasmtime, say),
        "envoy": lambda: install.envoy(say),
        "envoy-pair": lambda: install.envoy(say),
        "envoy-pair-logged": lambda: install.envoy(say),
        "nginx-modsecurity": lambda: shields.nginx_module(say),
        "coraza": lambda: firewall.coraza(say),
    }
    tools: dict[str, Tool] = {}
    missing: dict[str, str] = {}
    for name in sorted(names & ways.keys()):
        try:
            tools[name] = ways[name]()
        except BenchError as error:
            missing[name] = str(error)
    return tools, missing


def run_mode(
    mode: Mode, rows: Sequence[Row], setting: Setting, results: Results, say: Callable[[str], None]
) -> None:
    """Measures the rows of one mode into results; a row that fails is left out with its reason."""
    with _servers(mode, rows, setting, results, say) as servers:
        alive = [row for row in rows if row.server in servers]
        for number in range(1, setting.rounds + 1):
            for row in list(alive):
                say(f"{mode.value}: round {number} of {setting.rounds}: {row.name}")
                try:
                    _round(mode, row, servers[row.server], setting, results)
                except (BenchError, OSError) as error:
                    results.missing[f"{mode.value}: {row.name}"] = str(error)
                    results.samples.get(mode, {}).pop(row.name, None)
                    alive.remove(row)


CONNECTION_SERVERS: dict[ServerName, str] = {"nginx": "tls", "envoy": "tls", "vedette": "open"}
"""Whose idle connections are weighed, and the endpoint that opens them."""


def run_connections(setting: Setting, results: Results, say: Callable[[str], None]) -> None:
    """Opens ten thousand connections to each of the servers, one server after the other."""
    rows = [Row(name, name, name, "tls") for name in CONNECTION_SERVERS]
    for row in rows:
        with _servers(Mode.PINNED, [row], setting, results, say, "connections-") as servers:
            server = servers.get(row.server)
            if server is None:
                continue
            endpoint = server.endpoints[CONNECTION_SERVERS[row.server]]
            try:
                results.connections.update(measure_connections([(server, endpoint)], say))
            except (BenchError, OSError) as error:
                results.missing[f"connections: {row.server}"] = str(error)


RULED: frozenset[ServerName] = frozenset({"nginx-modsecurity", "coraza"})
"""The servers that need the Core Rule Set."""


FLOODED: tuple[ServerName, ...] = ("vedette", "vedette-blocking")


def run_flood(setting: Setting, results: Results, say: Callable[[str], None]) -> None:
    """Honest clients of a node, alone and beside a flood: one that is counted, and one that is blocked too."""
    for name in FLOODED:
        row = Row("flood", "flood", name, "flooded")
        with _servers(Mode.PINNED, [row], setting, results, say, "flood-") as servers:
            if server := servers.get(row.server):
                endpoint = server.endpoints[row.endpoint]
                require_right(server, endpoint)
                try:
                    paced = setting.load.paced.path
                    results.floods[name] = measure_flood(paced, server, endpoint, say)
                except (BenchError, OSError) as error:
                    results.missing[f"{name}: flood"] = str(error)


def _round(mode: Mode, row: Row, server: Server, setting: Setting, results: Results) -> None:
    endpoint = server.endpoints[row.endpoint]
    require_right(server, endpoint)
    require_mutual(server)
    seconds = max(setting.seconds, row.seconds)
    load = Load(row.tool, seconds, row.rate or _half(mode, row, results))
    sample = measure(setting.load, server, endpoint, load, mode, WARM_UP_SECONDS)
    results.samples.setdefault(mode, {}).setdefault(row.name, []).append(sample)


def _half(mode: Mode, row: Row, results: Results) -> float | None:
    """The rate of an open loop, from the round that is just over."""
    if row.half_of is None:
        return None
    reached = results.of(mode, row.half_of)
    if not reached:
        raise BenchError(f"{row.name} needs the row {row.half_of} in the same run")
    return reached[-1].requests_per_second / 2


@contextlib.contextmanager
def _servers(
    mode: Mode,
    rows: Sequence[Row],
    setting: Setting,
    results: Results,
    say: Callable[[str], None],
    folder: str = "",
) -> Iterator[dict[str, Server]]:
    """All servers the rows need, stopped in any case; Ctrl-C cannot cut a start or a stop short."""
    running: dict[str, Server] = {}
    try:
        for name in _needed(rows, results):
            say(f"{mode.value}: starting {name}")
            try:
                with uninterrupted():
                    running[name] = _starts(setting)[name](setting.place(mode, folder + name))
            except (BenchError, OSError) as error:
                results.missing[f"{mode.value}: {name}"] = str(error)
                continue
            results.versions[name.removesuffix("-open")] = running[name].version
            results.commands.append(f"{mode.value}: {running[name].command}")
        yield running
    finally:
        with uninterrupted():
            for server in running.values():
                say(f"{mode.value}: stopping {server.name}")
                server.stop()


def _needed(rows: Sequence[Row], results: Results) -> list[str]:
    """Each server once, the services behind them first."""
    names = services(rows) | dict.fromkeys(row.server for row in rows)
    return [name for name in names if name not in results.missing]


def services(rows: Sequence[Row]) -> dict[ServerName, None]:
    """What the rows' servers have behind them, in order."""
    behind: dict[str, ServerName] = {"proxy": "origin", "mesh": "service"}
    return {behind[row.endpoint]: None for row in rows if row.endpoint in behind}


def _starts(setting: Setting) -> dict[str, Start]:
    tools, rules = setting.tools, setting.rules
    return {
        "origin": lambda place: peers.origin(tools["origin"], place),
        "nginx": lambda place: peers.nginx(tools["nginx"], place),
        "workerd": lambda place: peers.workerd(tools["workerd"], place),
        "wasmtime": lambda place: peers.wasmtime(tools["wasmtime"], place),
        "envoy": lambda place: envoy.envoy(tools["envoy"], place),
        "service": lambda place: peers.service(tools["service"], place),
        "envoy-pair": lambda place: envoy_pair.envoy_pair(tools["envoy-pair"], place, logged=False),
        "envoy-pair-logged": lambda place: envoy_pair.envoy_pair(
            tools["envoy-pair-logged"], place, logged=True
        ),
        "vedette-pair": lambda place: vedette_pair.vedette_pair(place, judged=False),
        "vedette-pair-waf": lambda place: vedette_pair.vedette_pair(place, judged=True),
        "nginx-modsecurity": lambda place: shields.nginx_modsecurity(
            tools["nginx-modsecurity"], rules, place
        ),
        "coraza": lambda place: shields.coraza(tools["coraza"], rules, place),
        "vedette": node.secured,
        "vedette-open": node.opened,
        "vedette-blocking": node.blocking,
    }
