"""`vedette sidecar`: have the node's engine speak for a program of this machine in the mesh.

Owns: the options, the sockets' addresses, waiting for the SVID, and what a person is told. Must not: know who may call
(control), or serve a socket (the engine).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, home_of, split_list
from vedette.cli.render import print_json, print_table, printable, say, say_if_away
from vedette.errors import ConfigError, UnavailableError, VedetteError

if TYPE_CHECKING:
    import socket

    from vedette.control.client import ControlClient
    from vedette.engine.sidecar import Side

# Loopback, as the node's own listener: what reaches others is said, above all of a program that had no door until now.
LISTEN: Final = "127.0.0.1:15443"
OUTBOUND: Final = "127.0.0.1:15001"
_NONE: Final = "none"
_PATIENCE: Final = 15.0  # seconds for the SVID; control looks for new ones twice a second
_QUIET: Final = 1.5  # of these before a person is told what is waited for
_LOOK: Final = 0.1


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "sidecar",
        epilog="Example: vedette sidecar --for 9000 --as billing --caller spiffe://edge-1.example.org/shop "
        "--listen 0.0.0.0:15443",
    )(sidecar)


def sidecar(
    home: HomeOption = None,
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Who it is: the path of its SPIFFE ID."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--for",
            metavar="PORT",
            min=1,
            max=65_535,
            help="Where the program answers on 127.0.0.1; default: as the Sidecar was made.",
        ),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPIFFE-ID",
            help="Who may call it; commas or repeated. Default: those who may already.",
        ),
    ] = None,
    permissive: Annotated[
        bool,
        typer.Option("--permissive", help="Let in those whom strict would refuse, and record it."),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where others call it, by mTLS; or none.", show_default=LISTEN
        ),
    ] = None,
    outbound: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where it calls others, on loopback; or none."),
    ] = OUTBOUND,
    list_: Annotated[bool, typer.Option("--list", help="List sidecars.")] = False,
    remove: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take a sidecar and its identity away.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Who would be refused under strict, from the records; exit code 1 if any.",
        ),
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only the last such time, as 24h (--report).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Speak for a program in the mesh: mTLS with its own identity, for who calls it and whom it calls; until Ctrl-C.

    `--list` shows sidecars, `--remove NAME` takes one away, `--report` says who would be refused if it were strict.
    """
    if (list_, remove is not None, report).count(True) > 1:
        raise ConfigError("request_invalid", "--list, --remove and --report exclude each other")
    if since is not None and not report:
        raise ConfigError("request_invalid", "--since is of --report")
    if list_:
        _list(home, as_json)
    elif remove is not None:
        _remove(home, remove)
    elif report:
        _report(home, name, since, as_json)
    else:
        wish = _Wish(home, name or "", port, split_list(caller or []), permissive, listen, outbound)
        _serve(wish, as_json)


def _list(home: Path | None, as_json: bool) -> None:
    from vedette.cli.traffic import callers

    found = client_of(home).get("/v1/sidecars")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["spiffeId"] + (" (revoked)" if one["revoked"] else ""),
            one["mode"].lower(),
            one["program"] or ("by routes" if one["routes"] else "only calls"),
            callers(one) if one["routes"] else "-",
            one["file"] or "a command",
        )
        for one in found
    ]
    columns = ("name", "is", "mode", "program", "who may call", "made by")
    print_table(columns, rows, "The node has no sidecar")


def _remove(home: Path | None, name: str) -> None:
    from vedette.control.client import segment

    client = client_of(home)
    known = _find(client, name)
    say_if_away(client.delete(f"/v1/sidecars/{segment(name)}"))
    file = known["file"] if known else None
    say(f"Removed {name}" + (f"; {file} makes it again when it is applied" if file else ""))


def _report(home: Path | None, name: str | None, since: str | None, as_json: bool) -> None:
    """Reads the records itself, as with the node down: they may be a gigabyte, and control has others to answer."""
    from vedette.cli.sidecar_report import print_report, report_of
    from vedette.clock import now, parse_duration, to_rfc3339
    from vedette.control.supervisor.launch import is_running, require_node
    from vedette.observability.mesh import mesh_calls

    node = home_of(home)
    require_node(node)
    asked = to_rfc3339(now() - parse_duration(since), microseconds=True) if since else ""
    known = client_of(home).get("/v1/sidecars") if is_running(node) else []
    calls = mesh_calls(node.spool_requests, asked)
    modes: dict[str, str | None] = dict.fromkeys(calls.sidecars)
    modes |= {one["name"]: one["mode"] for one in known}
    if name is not None:
        if name not in modes:
            raise _unknown(name)
        modes = {name: modes[name]}
    only_call = {one["name"] for one in known if not one["routes"]}
    told = report_of(calls, modes, asked, only_call)
    print_report(told, as_json)
    raise typer.Exit(1 if told["wouldBreak"] or told["untold"] else 0)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What was asked for on the command line."""

    home: Path | None
    name: str
    port: int | None
    callers: list[str]
    permissive: bool
    listen: str | None
    outbound: str

    def wants_inbound(self, known: dict[str, Any] | None) -> bool:
        """Others call it: it answers somewhere, or somebody says so (its routes are then of one's own)."""
        answers = self.port is not None or (known is not None and known["program"] is not None)
        return self.listen != _NONE and (self.listen is not None or answers)


def _serve(wish: _Wish, as_json: bool) -> None:
    from vedette.control.supervisor.launch import is_running, not_running
    from vedette.engine.sidecar import serve
    from vedette.ids import require_name

    node = home_of(wish.home)
    if not is_running(node):
        raise not_running(node)
    if not wish.name:
        raise ConfigError("request_invalid", "say who the program is: --as NAME")
    require_name(wish.name, "sidecar")
    if wish.port is None and (wish.callers or wish.permissive):
        message = "--caller and --permissive need --for PORT: else it is as it was made"
        raise ConfigError("request_invalid", message)
    client = client_of(wish.home)
    known = _find(client, wish.name)
    with ExitStack() as bound:
        sockets = _sockets(wish, known, bound)
        _require_apart(wish, known, sockets)
        _make(client, wish, known)
        status = _await_svid(client, wish.name)
        _require_way(status, sockets)
        _note_callers(client, wish.callers, status)
        serve(
            node.engine_socket,
            wish.name,
            sockets,
            lambda: _say_begun(status, sockets, as_json),
            _say_turn,
        )


def _sockets(
    wish: _Wish, known: dict[str, Any] | None, bound: ExitStack
) -> dict[Side, socket.socket]:
    """Bound before anything is changed: an address that is taken is the likeliest mistake."""
    from vedette.engine.sidecar import listening

    places: dict[Side, tuple[str, int]] = {}
    if wish.wants_inbound(known):
        places["inbound"] = _address(wish.listen or LISTEN)
    if wish.outbound != _NONE:
        places["outbound"] = _address(wish.outbound)
        if not ipaddress.ip_address(places["outbound"][0]).is_loopback:
            message = (
                f"{wish.outbound}: whoever reaches it speaks as {wish.name}, so it is on loopback"
            )
            hint = f"Write a loopback HOST:PORT, such as --outbound {OUTBOUND}."
            raise ConfigError("address_invalid", message, hint)
    if not places:
        message = "with neither --listen nor --outbound nothing is served"
        raise ConfigError("request_invalid", message)
    return {side: bound.enter_context(listening(*place)) for side, place in places.items()}


def _address(text: str) -> tuple[str, int]:
    """One IP address and port. Raises `ConfigError` address_invalid."""
    from vedette.control.supervisor.sockets import parse_address, resolve

    if "://" in text:
        raise ConfigError("address_invalid", f"{text!r}: write HOST:PORT, without a scheme")
    address = parse_address(text)
    return resolve(address.host)[0], address.port


def _make(client: ControlClient, wish: _Wish, known: dict[str, Any] | None) -> None:
    """Makes the sidecar as it was said, when something was said. Raises `ConfigError` sidecar_unknown."""
    from vedette.control.client import segment

    path = f"/v1/sidecars/{segment(wish.name)}"
    if wish.port is not None:
        mode = "Permissive" if wish.permissive else "Strict"
        before = callers_given(known)
        after = list(dict.fromkeys(wish.callers)) or before
        said = {"port": wish.port, "mode": mode, "callers": after}
        say_if_away(client.put(path, said))
        if known is not None and (changed := changes(known, f"127.0.0.1:{wish.port}", mode, after)):
            say(printable(f"changes {wish.name}: {'; '.join(changed)}"))
    elif known is None:
        if wish.listen != _NONE:
            raise _unknown(wish.name)
        say_if_away(client.put(path, {}))


def callers_given(known: dict[str, Any] | None) -> list[str]:
    """SPIFFE IDs that the sidecar's own policy lets in: those of `--caller` or of its manifest, no other policy's."""
    from vedette.policy.defaults import sidecar_policy_name

    if known is None:
        return []
    own = sidecar_policy_name(known["name"])
    found = (each["principalId"] for each in known["callers"] if each["file"] == own)
    return [each for each in found if each is not None]


def changes(known: dict[str, Any], program: str, mode: str, callers: list[str]) -> list[str]:
    """What becomes of a sidecar that there is, a part each; nothing when it is so already."""
    before = callers_given(known)
    pairs = (
        (known["mode"].lower(), mode.lower()),
        (known["program"] or "only calls", program),
    )
    said = [f"{old} -> {new}" for old, new in pairs if old != new]
    said += [f"caller {one} removed" for one in before if one not in callers]
    return said + [f"caller {one} added" for one in callers if one not in before]


def _unknown(name: str) -> ConfigError:
    return ConfigError("sidecar_unknown", f"there is no sidecar {name!r}")


def _find(client: ControlClient, name: str) -> dict[str, Any] | None:
    found = [one for one in client.get("/v1/sidecars") if one["name"] == name]
    return found[0] if found else None


def _await_svid(client: ControlClient, name: str) -> dict[str, Any]:
    """The sidecar, once the engine shows its SVID. Raises `UnavailableError` sidecar_not_served."""
    start, told = time.monotonic(), False
    while True:
        status = None
        with contextlib.suppress(UnavailableError):  # control restarts within a second
            status = _find(client, name)
            if status is None:
                raise _unknown(name)
        if status is not None and status["revoked"]:
            message = f"{status['spiffeId']} is revoked"
            hint = f"Lift that with: vedette revoke --lift {status['spiffeId']}"
            raise UnavailableError("sidecar_not_served", message, hint)
        if status is not None and status["svidUntil"] is not None:
            return status
        waited = time.monotonic() - start
        if waited > _PATIENCE:
            message = f"{name} has no SVID after {_PATIENCE:.0f} s"
            hint = "Look into log/control.log, and at `vedette status`: the engine must be there."
            raise UnavailableError("sidecar_not_served", message, hint)
        if waited > _QUIET and not told:
            told = True
            say(f"Waiting for the SVID of {name}")
        time.sleep(_LOOK)


def _require_apart(
    wish: _Wish, known: dict[str, Any] | None, sockets: dict[Side, socket.socket]
) -> None:
    """No socket is the program's own, or it would call itself. Raises `ConfigError` sidecar_invalid."""
    program = known["program"] if known is not None and known["program"] is not None else ":0"
    port = wish.port or int(program.rpartition(":")[2])
    for side, one in sockets.items():
        if one.getsockname()[1] == port:
            message = f"the {side} socket has the program's own port {port}"
            raise ConfigError("sidecar_invalid", message, "Choose another port for one of them.")


def _require_way(status: dict[str, Any], sockets: dict[Side, socket.socket]) -> None:
    """Raises `ConfigError` sidecar_invalid when nothing leads on from the inbound socket."""
    if "inbound" in sockets and not status["routes"]:
        message = f"{status['name']} only calls: nothing takes {status['host']}"
        hint = "Say where the program answers with --for PORT, or leave --listen out."
        raise ConfigError("sidecar_invalid", message, hint)


def _say_begun(status: dict[str, Any], sockets: dict[Side, socket.socket], as_json: bool) -> None:
    from vedette.engine.sidecar import shown_address

    places = {side: shown_address(one.getsockname()) for side, one in sockets.items()}
    proxy = f"http://{places['outbound']}" if "outbound" in places else None
    if as_json:
        said = {key: status[key] for key in ("name", "spiffeId", "host", "mode", "program")}
        sides = {side: places.get(side) for side in ("inbound", "outbound")}
        print(json.dumps({**said, **sides, "proxy": proxy}), flush=True)
        return
    print(f"{status['name']} is {status['spiffeId']} ({status['mode'].lower()})")
    if "inbound" in places:
        leads = status["program"] or ", ".join(status["routes"])
        print(f"  in   {places['inbound']}, by mTLS to {leads}")
    if proxy is not None:
        print(f"  out  {proxy}: HTTP_PROXY={proxy}, or {proxy}/ with Host: NAME.mesh")
    print("Ctrl-C stops it.", flush=True)
    _say_notes(status, sockets)


def _note_callers(client: ControlClient, callers: list[str], status: dict[str, Any]) -> None:
    """Says whose callers nobody can prove to be who they are yet."""
    from vedette.control.sidecar_parts import unknown_domains

    if not callers:
        return
    own = status["spiffeId"].split("/")[2]
    known = {own, *(one["trustDomain"] for one in client.get("/v1/bundles"))}
    for each in unknown_domains(callers, known):
        say(printable(f"note: {each}"))


def _say_notes(status: dict[str, Any], sockets: dict[Side, socket.socket]) -> None:
    if "inbound" not in sockets:
        return
    ip = sockets["inbound"].getsockname()[0]
    if ipaddress.ip_address(ip).is_loopback:
        say(
            "note: others on this machine alone reach it; --listen 0.0.0.0:PORT lets other machines"
        )
    elif status["mode"] == "Permissive":
        say(
            "note: permissive: whoever reaches that address is let in; see vedette sidecar --report"
        )


def _say_turn(side: Side, why: str | None) -> None:
    """Called on a thread: that nobody reads stderr any more must not end it."""
    with contextlib.suppress(OSError, VedetteError):
        say(f"{side}: served again" if why is None else f"{side}: {printable(why)}; waiting")
