"""`vedette up`, `down`, `status`, `version`: the life of a node.

Owns: what a person sees while a node starts. Must not: start processes itself; `control.supervisor.launch` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette import __version__
from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.render import print_json, print_table, printable, say, short
from vedette.errors import UnavailableError, VedetteError

if TYPE_CHECKING:
    from vedette.control.supervisor.launch import Launched
    from vedette.store.home import Home

_EXAMPLE = Path("examples/01-hello")


class TlsVersion(StrEnum):
    """The oldest TLS a node speaks."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette up --detach --listen localhost:9443 --home /tmp/node")(up)
    app.command(epilog="Example: vedette down --home /tmp/node")(down)
    app.command(epilog="Example: vedette status --json")(status)
    app.command(epilog="Example: vedette version")(version)


def up(
    home: HomeOption = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT, repeatable; port 0: any; http:// only on loopback. Default: as last "
            "time, at first localhost:8443."
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it serves.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Without the example function.")] = False,
    name: Annotated[str | None, typer.Option(help="Node name, at the first start.")] = None,
    site: Annotated[
        str | None,
        typer.Option(
            help="The rest of the trust domain NAME.SITE, at the first start, e.g. example.org."
        ),
    ] = None,
    location: Annotated[str | None, typer.Option(help="Name of the place, e.g. fra-1.")] = None,
    key_encryption_key: Annotated[
        Path | None,
        typer.Option(
            help="File (0600) whose first line encrypts the CA's key from now on; default: one in the home folder."
        ),
    ] = None,
    ca_key: Annotated[
        str | None,
        typer.Option(
            help="PKCS#11 token where new keys of the CA are made from now on: "
            "pkcs11:token=…;object=…?module-path=…&pin-source=FILE; default: files in the home folder."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=256,
            help="Engine workers, 0: one per core; default: as last time, at first 0.",
        ),
    ] = None,
    tls_min_version: Annotated[
        TlsVersion | None,
        typer.Option(
            help="1.2 lets old clients in, with AEAD and forward secrecy only. Default: as last "
            "time, at first 1.3."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Loopback HOST:PORT of the metrics; default: as last time, at first 127.0.0.1:9464."
        ),
    ] = None,
) -> None:
    """Start a node: in the foreground until Ctrl-C, or with --detach in the background.

    Addresses, metrics, workers and the oldest TLS are kept for the next start that does not say them.
    """
    from vedette.control.supervisor import launch, remembered

    place = home_of(home)
    options = launch.LaunchOptions(
        listen=listen,
        metrics=metrics,
        location=location,
        name=name,
        site=site,
        key_encryption_key=key_encryption_key.expanduser().absolute()
        if key_encryption_key
        else None,
        ca_key=ca_key,
        workers=workers,
        tls_min_version=tls_min_version.value if tls_min_version else None,
        foreground=not detach,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    kept = remembered.as_flags(options.recalled(place)[1])
    say(f"Starting the node, as last time with {kept}" if kept else "Starting the node")
    launched = launch.launch(place, options)
    try:
        launch.wait_until_ready(place)
        if not bare:
            _deploy_example(place)
        _print_summary(place, detach)
        if not detach:
            _wait_until_ended(place, launched)
    except KeyboardInterrupt:
        _stop(place)
    except BaseException:
        launch.stop(place)
        raise


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stop(home: Home) -> None:
    """Stops the node; a second Ctrl-C does not wait for requests in flight."""
    from vedette.control.supervisor import launch

    say("\nStopping the node (Ctrl-C again: at once)")
    try:
        launch.stop(home)
    except KeyboardInterrupt:
        launch.stop(home, patience=0.0)


_LONG = 3_600.0  # a signal is noticed within a second


def _wait_until_ended(home: Home, launched: Launched) -> None:
    """Returns when the node was stopped by somebody else. A killed guardian is replaced; that is not the end."""
    from vedette import processes
    from vedette.control.supervisor import launch

    guardians = [launched.guardian]
    while guardians:
        pidfd = processes.open_pidfd(guardians[0])
        if pidfd is not None:
            while not processes.has_ended(pidfd, _LONG):
                pass
            os.close(pidfd)
        processes.reap()
        # The supervisor takes a dead guardian's place and holds the lock meanwhile.
        guardians = []
        while not guardians and launch.is_running(home):
            guardians = [found.pid for found in processes.find(home.root, "guardian")]
    say("The node has stopped")


def _deploy_example(home: Home) -> None:
    """Deploys the example of the checkout on a node that has never had a function."""
    from vedette.cli.deploying import deploy_path
    from vedette.control.client import ControlClient

    client = ControlClient(home)
    if client.get("/v1/functions") or len(client.get("/v1/history?limit=1000")) > 1:
        return
    folder = Path(__file__).resolve().parents[3] / _EXAMPLE
    if not folder.is_dir():
        say("No example to deploy: this is not a checkout. Make a function with: vedette new hello")
        return
    try:
        deploy_path(client, folder)
    except VedetteError as error:
        say(f"The example was not deployed: {error.message}\nmend: {error.hint}")


def _print_summary(home: Home, detached: bool) -> None:
    from vedette.control.client import ControlClient

    status = ControlClient(home).get("/v1/status")
    command = own_command()
    flag = _home_flag(home)
    function = next(iter(status["functions"]), None)
    url = function["url"] if function else status["listeners"][0]["url"] + "/"
    curl = f"curl --cacert {home.ca_certificate}"
    lines = [
        "",
        f"Vedette {status['version']} serves {status['listeners'][0]['url']}",
        f"  trust domain  {status['trustDomain']}    location  {status['location']}",
        f"  CA file       {home.ca_certificate}",
        f"  metrics       {status['metrics']['url']}",
        f"  home          {home.root}",
        "",
        "Refused, because it carries no token (401):",
        f"  {curl} {url}",
    ]
    if function:
        lines += [
            "Served:",
            f"  {command} token --subject me --header{flag} | {curl} -H @- {url}",
        ]
    lines += ["", f"Stop it with: {command} down{flag}" if detached else "Ctrl-C stops it."]
    print("\n".join(lines), flush=True)


def own_command() -> str:
    """How this person calls vedette: by name when that finds this program, else by its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{sys.executable} -m vedette"
    found = shutil.which("vedette")
    if found and called.exists() and Path(found).resolve() == called.resolve():
        return "vedette"
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def _home_flag(home: Home) -> str:
    import shlex

    return "" if home == home_of(None) else f" --home {shlex.quote(str(home.root))}"


def down(home: HomeOption = None) -> None:
    """Stop a node and wait until all of it has ended; requests in flight get ten seconds."""
    from vedette.control.supervisor import launch

    place = home_of(home)
    if not launch.stop(place):
        running = launch.not_running(place)
        raise UnavailableError(running.code, running.message, "There is nothing to stop.")
    say("The node has stopped")


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a node is and does; works, with less to say, while its control process is down."""
    answer = _status(home)
    if as_json:
        print_json(answer)
        return
    _print_status(answer)


def _status(home: Path | None) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = client_of(home).get("/v1/status", timeout=3.0)
    except VedetteError as error:
        if error.code != "control_away":
            raise
        from vedette.control.status import offline_status

        answer = offline_status(home_of(home)).model_dump(mode="json", by_alias=True)
    return answer


def _print_status(answer: dict[str, Any]) -> None:
    snapshot, engine, processes = answer["snapshot"], answer["engine"], answer["processes"]
    rows = [("version", answer["version"]), ("home", answer["home"])]
    rows += [("trust domain", answer["trustDomain"]), ("location", answer["location"])]
    if snapshot:
        shown = f"generation {snapshot['generation']}, {short(snapshot['digest'])}"
        rows.append(("snapshot", f"{shown}, since {snapshot['activatedAt']}"))
    rows += [("listens", f"{one['url']} ({one['address']})") for one in answer["listeners"]]
    rows.append(("metrics", answer["metrics"]["url"]))
    rows.append(("workload API", answer["workloadApi"] or "-"))
    rows.append(("supervisor", f"pid {processes['supervisor']['pid']}"))
    for name in ("engine", "control", "models"):
        one = processes.get(name)
        if one is None:  # a control of before
            continue
        shown = f"{one['state']}, pid {one['pid']}, since {one['startedAt']}"
        rows.append((name, f"{shown}, {one['restarts']} restarts"))
    rows.append(("engine version", engine["version"] or "-"))
    serves = short(engine["digest"]) if engine["digest"] else "nothing"
    rows.append(("engine serves", engine["error"] or serves))
    if engine["policyHolds"] is False:
        rows.append(
            ("policy", "holds no more: control is away, everything but fixed answers is refused")
        )
    if engine["unreadyUpstreams"]:
        names = ", ".join(engine["unreadyUpstreams"])
        rows.append(("services", f"no healthy endpoint: {names} (vedette upstreams)"))
    if answer.get("sidecars"):  # not of a control of before
        modes = (f"{one['name']} ({one['mode'].lower()})" for one in answer["sidecars"])
        rows.append(("sidecars", ", ".join(modes)))
    if answer.get("models"):  # not of a control of before
        models = (_shown_model(one) for one in answer["models"])
        rows.append(("models served", ", ".join(models)))
        rows += [("drift", _shown_drift(one)) for one in answer["models"] if _has_drifted(one)]
    rows += [("addresses", _shown_list(one)) for one in answer["addressLists"]]
    if answer["countries"]:
        countries = answer["countries"]
        rows.append(
            ("countries", f"{countries['networks']:,} networks, made {countries['builtAt']}")
        )
    if answer["pressure"]:
        pressure = answer["pressure"]
        because = f" ({pressure['reason']})" if pressure["reason"] else ""
        rows.append(("pressure", f"{pressure['level']}, since {pressure['since']}{because}"))
    if answer["sources"]:
        most, known = answer["sources"]["most"], answer["sources"]["remembered"]
        rows.append(("sources", f"{most:,} connections each at most, {known:,} counted"))
    if answer["offenders"]:
        rows.append(("offenders", _shown_offenders(answer["offenders"])))
    if answer["audit"]:
        rows.append(("audit log", _shown_audit(answer["audit"])))
    rows += _shown_rotation(answer.get("keys", []))
    if answer.get("federation"):  # not of a control of before
        rows += _shown_federation(answer["federation"])
    rows.append(
        ("allocator", " ".join(filter(None, (engine["allocator"], engine["allocatorReason"]))))
    )
    rows.append(("landlock", engine["landlock"] or "-"))
    rows.append(("seccomp", engine["seccomp"] or "-"))
    print_table(("what", "value"), rows, "")
    if answer["functions"]:
        print()
        from vedette.cli.functions import print_functions

        print_functions(answer["functions"])


def _has_drifted(one: dict[str, Any]) -> bool:
    drift = one.get("drift") or {}  # not of a control of before
    return drift.get("state") == "drifted"


def _shown_drift(one: dict[str, Any]) -> str:
    """What of a model has drifted, and how far."""
    columns = [each for each in one["drift"]["columns"] if each["state"] == "drifted"]
    far = (f"{each['side']} {printable(each['name'])} (PSI {each['psi']:.2f})" for each in columns)
    return f"{one['name']} {one['version']}: {', '.join(far)}"


def _shown_model(one: dict[str, Any]) -> str:
    """A model in a few words; that its process is ready goes without saying."""
    state = "" if one["state"] in (None, "ready") else f" ({one['state']})"
    return f"{one['name']} {one['version'] or '(by tiers)'}{state}"


def _shown_list(one: dict[str, Any]) -> str:
    """A list of addresses in a few words; what a person should mend comes last."""
    shown = f"{one['name']}: {one['action'].lower()}"
    if one["networks"] is not None:
        shown += f" {one['networks']:,} networks"
    if one["feed"]:
        shown += f", {_shown_feed(one['feed'])}"
    elif one["updatedAt"]:
        shown += f", of {one['updatedAt']}"
    if one["expired"]:
        shown += ", EXPIRED"
    if one["leftOut"]:
        shown += f", {one['leftOut']} lines left out ({printable('; '.join(one['badLines'][:3]))})"
    return shown


def _shown_feed(feed: dict[str, Any]) -> str:
    """Where a list comes from, since when it does not, and what of it is no ban."""
    shown = f"from {printable(feed['url'])}"
    if feed["ageSeconds"] is not None:
        shown += f", asked {feed['ageSeconds']} s ago"
    elif not feed["error"]:
        shown += ", not asked yet"
    if feed["error"]:
        shown += f", FAILING since {feed['failingSince']} ({printable(feed['error'])})"
    if feed["leftOut"]:
        others = (f"{count:,} {printable(kind)}" for kind, count in feed["leftOut"].items())
        shown += f", not banned: {', '.join(others)}"
    return shown


def _shown_audit(audit: dict[str, Any]) -> str:
    if audit["error"]:
        return str(audit["error"])
    if audit["records"] is None:
        return "no head yet"
    return f"{audit['records']:,} records, head {audit['head']} at {audit['signedAt']}"


def _shown_rotation(keys: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a person must know of keys that follow one another; nothing while one of each is all there is."""
    rows = []
    for one in keys:
        if one["phase"] == "prepared":
            mend = "; fetch it again: vedette ca --out ca.pem" if one["kind"] == "ca" else ""
            rows.append((f"next {one['kind']} key", f"signs from {one['nextAt']} on{mend}"))
        elif one["phase"] == "old":
            rows.append((f"old {one['kind']} key", f"trusted until {one['nextAt']}"))
    return rows


def _shown_federation(federation: dict[str, Any]) -> list[tuple[str, str]]:
    from vedette.cli.federation import shown_endpoint, shown_followed

    rows = [("bundle", shown_endpoint(federation["endpoint"]))] if federation["endpoint"] else []
    followed = federation["followed"]
    return rows + [("follows", f"{one['trustDomain']}: {shown_followed(one)}") for one in followed]


def _shown_offenders(offenders: dict[str, Any]) -> str:
    """Who is blocked, as far as a line has room."""
    shown = f"{offenders['blocked']:,} blocked, {offenders['sources']:,} remembered"
    first = [f"{one['source']} for {one['seconds']} s" for one in offenders["first"][:3]]
    return f"{shown} ({', '.join(first)})" if first else shown


def version() -> None:
    """Print the version."""
    print(__version__)
