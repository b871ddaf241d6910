"""Measures this node beside its peers: `make bench`, or `python benches/run.py --help`.

Owns: the command line and the order of a run.
Must not: hold a figure, a limit or a peer's settings; the modules beside it do.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import credentials
import density
import firewall
import install
import machine
import micro
import report
import revocation
import verify
from load import LoadTools
from processes import CORES, BenchError, free_port
from results import Results
from rich.console import Console
from rounds import (
    CONNECTION_SERVERS,
    RULED,
    Setting,
    prepare_tools,
    run_connections,
    run_flood,
    run_mode,
    services,
)
from rows import PARTS, ROOMS, ROWS, Row
from server import Mode
from serving import measure_serving
from verdicts import judge

import identity
import models

CHECKOUT = Path(__file__).resolve().parent.parent
GUESTS = CHECKOUT / "tests" / "fixtures" / "guests"
FULL_ROUNDS = 5

EXAMPLES = """\
examples:
  python benches/run.py                              everything; writes RESULTS.md and results.json
  python benches/run.py --list                       the names of all rows and parts
  python benches/run.py --only vedette,envoy-full --rounds 3
  python benches/run.py --only cold --functions 200 --json /tmp/cold.json
  python benches/run.py --with-wasmtime              builds wasmtime-cli first if it is missing
"""

Say = Callable[[str], None]


def main(arguments: Sequence[str]) -> int:
    """0 when all that can be measured was, 1 when one of our rows could not be, 130 on Ctrl-C."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.list:
        _list(console)
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running", style="yellow")
        return 130
    except BenchError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benches/run.py",
        description="Measures this node beside its peers on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.name for row in ROWS] + list(PARTS)
    add = parser.add_argument
    add("--only", type=_names(names), metavar="ROW,…", help="only these rows and parts")
    add("--modes", type=_modes, default=tuple(Mode), metavar="MODE,…", help="pinned, shared")
    add("--rounds", type=_positive, default=FULL_ROUNDS, help="rounds of each row (default 5)")
    add("--seconds", type=_positive, default=4, help="length of one load (default 4)")
    add("--functions", type=_positive, default=1000, help="for density (default 1000)")
    add("--json", type=Path, metavar="FILE", help="also write the JSON here")
    add("--no-write", action="store_true", help="leave RESULTS.md and results.json as they are")
    add("--with-wasmtime", action="store_true", help="build wasmtime-cli when it is missing")
    add("--list", action="store_true", help="name all rows and parts, measure nothing")
    return parser


def _names(known: Sequence[str]) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        names = frozenset(word for word in text.split(",") if word)
        if unknown := sorted(names - set(known)):
            raise argparse.ArgumentTypeError(f"no row {', '.join(unknown)}; see --list")
        return names

    return parse


def _modes(text: str) -> tuple[Mode, ...]:
    try:
        return tuple(Mode(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("modes are pinned and shared") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _list(console: Console) -> None:
    for row in ROWS:
        modes = "pinned, shared" if row.shared else "pinned"
        console.print(f"{row.name:16} {row.title} ({row.tool}; {modes})", highlight=False)
    for name, text in PARTS.items():
        console.print(f"{name:16} {text}", highlight=False)


def _run(options: argparse.Namespace, console: Console) -> int:
    rows = [row for row in ROWS if options.only is None or row.name in options.only]
    parts = {name for name in PARTS if options.only is None or name in options.only}
    modes = tuple(mode for mode in options.modes if any(row.runs_in(mode) for row in rows))
    _require_cores(modes, bool(parts))
    results = _empty(options)
    with (
        tempfile.TemporaryDirectory(prefix="vdb-", ignore_cleanup_errors=True) as folder,
        console.status("starting") as status,
    ):
        say: Say = status.update if console.is_terminal else console.print
        setting = _set_up(options, Path(folder), rows, parts, results, say)
        for mode in modes:
            run_mode(mode, [row for row in rows if row.runs_in(mode)], setting, results, say)
        if "connections" in parts:
            run_connections(setting, results, say)
        if "micro" in parts:
            _measure_micro(results, say)
        if "firewall" in parts:
            _measure_firewall(setting, results, say)
        if "flood" in parts:
            run_flood(setting, results, say)
        _measure_identity(options, parts, results, say)
        if "models" in parts:
            _measure_models(setting, results, say)
        measure_serving(parts, setting, results, say)
        if parts - ROOMS:
            _measure_parts(options, parts - ROOMS, setting, results, say)
    return _finish(options, console, results)


def _finish(options: argparse.Namespace, console: Console, results: Results) -> int:
    verdicts = judge(results)
    complete = options.only is None and options.modes == tuple(Mode)
    complete = complete and options.rounds >= FULL_ROUNDS
    report.print_results(console, results, verdicts)
    report.write(results, verdicts, complete and not options.no_write, options.json)
    if not complete:
        console.print("RESULTS.md is written by a full run of at least 5 rounds only")
    return 1 if any("vedette" in what for what in results.missing) else 0


def _require_cores(modes: Sequence[Mode], parts: bool) -> None:
    if len(CORES) < 2 and (Mode.PINNED in modes or parts):
        raise BenchError(
            "server and load are pinned to a core each and there is one; "
            "ask for --modes shared and rows only"
        )


def _empty(options: argparse.Namespace) -> Results:
    now = datetime.datetime.now(datetime.UTC)
    return Results(
        machine=machine.describe(),
        commit=_commit(),
        started=now.strftime("%Y-%m-%d %H:%M UTC"),
        rounds=options.rounds,
        seconds=options.seconds,
    )


def _commit() -> str:
    """The checkout's commit, with a + when files differ from it."""
    git = ["git", "-C", str(CHECKOUT)]
    head = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        return "none"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _set_up(
    options: argparse.Namespace,
    folder: Path,
    rows: Sequence[Row],
    parts: set[str],
    results: Results,
    say: Say,
) -> Setting:
    # nginx's workers run as another user when root starts it.
    folder.chmod(0o755)
    wrk = install.debian_tool("wrk", "wrk", ["-v"], say)
    h2load = install.debian_tool("h2load", "nghttp2-client", ["--version"], say)
    results.versions.update(wrk=wrk.version, h2load=h2load.version)
    servers = {str(row.server) for row in rows}
    servers.update(services(rows))
    if parts & {"connections"}:
        servers.update(CONNECTION_SERVERS)
    tools, missing = prepare_tools(servers, options.with_wasmtime, say)
    results.missing.update(missing)
    rules = []
    if "firewall" in parts or servers & RULED:
        rules = firewall.rule_files(CHECKOUT, say)
    component, component_3 = install.hello_components(GUESTS, say)
    return Setting(
        folder=folder,
        cache=install.cache_folder(),
        component=component,
        component_3=component_3,
        credentials=credentials.make(folder),
        load=LoadTools(wrk, h2load, install.paced(CHECKOUT, say)),
        origin=free_port(),
        service=free_port(),
        tools=tools,
        rules=rules,
        rounds=options.rounds,
        seconds=float(options.seconds),
    )


def _measure_micro(results: Results, say: Say) -> None:
    try:
        results.micro = micro.measure_micro(CHECKOUT, say)
    except (BenchError, OSError) as error:
        results.missing["vedette: micro"] = str(error)


def _measure_firewall(setting: Setting, results: Results, say: Say) -> None:
    try:
        found, versions, missing = firewall.measure_firewall(
            CHECKOUT, setting.rules, setting.folder, say
        )
    except (BenchError, OSError) as error:
        results.missing["vedette: firewall"] = str(error)
        return
    results.judging = found
    results.versions.update(versions)
    results.missing.update(missing)


def _measure_identity(
    options: argparse.Namespace, parts: set[str], results: Results, say: Say
) -> None:
    """What is not of one node's listener: SVIDs, revocations, the suite of attacks."""

    def issue() -> None:
        results.issued = identity.measure_identity(options.rounds, say)

    def revoke() -> None:
        results.revoked = revocation.measure_revocation(CHECKOUT, say)

    def attack() -> None:
        results.verify_seconds = verify.measure_verify(say)

    for name, measure in {"identity": issue, "revocation": revoke, "verify": attack}.items():
        if name in parts:
            try:
                measure()
            except (BenchError, OSError, subprocess.SubprocessError) as error:
                results.missing[f"vedette: {name}"] = str(error)


def _measure_models(setting: Setting, results: Results, say: Say) -> None:
    try:
        place = setting.place(Mode.PINNED, "models")
        results.modelled = models.measure_models(
            place, setting.load, setting.rounds, setting.seconds, say
        )
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        results.missing["vedette: models"] = str(error)


def _measure_parts(
    options: argparse.Namespace, parts: set[str], setting: Setting, results: Results, say: Say
) -> None:
    wanted = density.Wanted(
        cold="cold" in parts,
        density="density" in parts,
        functions=options.functions,
        rounds=options.rounds,
        seconds=float(options.seconds),
    )
    place = setting.place(Mode.PINNED, "density")
    results.parts = density.Parts()
    try:
        command = density.measure_parts(place, setting.load, wanted, results.parts, say)
    except (BenchError, OSError) as error:
        results.missing["vedette: " + ", ".join(sorted(parts))] = str(error)
        return
    results.commands.append(f"one node: {command}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
