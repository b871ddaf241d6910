"""`vedette verify`: attack the node, say what held, sign what was seen; and read such evidence again.

Owns: the options of the command and how a report reads. Must not: attack or judge; `verification` does.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.cli.audit import KeyOption, read_key
from vedette.cli.interrupting import said_on_interrupt
from vedette.cli.options import HomeOption, JsonOption, home_of
from vedette.cli.render import print_json, print_table, printable, say, short
from vedette.errors import ConfigError

if TYPE_CHECKING:
    from vedette.verification.checks import Check


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: vedette verify --only 3,7 --out evidence.json")(verify)


def verify(
    home: HomeOption = None,
    only: Annotated[
        str | None, typer.Option(help="Numbers of the checks to run, e.g. 3,7; default: all.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the checks and run none.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the report, signed with the audit key, to this file.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Run nothing: show a report that --out wrote, if its signature holds."),
    ] = None,
    key_text: KeyOption = None,
    as_compromised: Annotated[
        bool,
        typer.Option(
            "--as-compromised",
            help="Run nodes of their own instead, and attack the others with everything that one of them has.",
        ),
    ] = False,
    nodes: Annotated[
        int, typer.Option(min=3, max=5, help="How many nodes --as-compromised runs.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Attack the node and check that it holds. Exit code 0: every check has passed, 1: one has not or is not available.

    Nothing is changed on the node: what must change something is done to a twin, which is gone afterwards.
    """
    _require_one_way(only, list_, out, check, as_compromised)
    if list_:
        _print_list(as_json)
        return
    if check is not None:
        report = _checked(check, key_text, home)
    else:
        if out is not None:
            _require_key(home)
        signal.signal(signal.SIGTERM, _interrupt)
        with said_on_interrupt("Stopped; nothing is left of it"):
            report = _compromised(nodes) if as_compromised else _run(home, only)
        if out is not None:
            _write(out, report, home)
    if as_json:
        print_json(report)
    elif "matrix" in report:
        _print_matrix(report)
    else:
        _print(report)
    if not report["passed"]:
        raise typer.Exit(1)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _require_one_way(
    only: str | None, list_: bool, out: Path | None, check: Path | None, as_compromised: bool
) -> None:
    """Raises `ConfigError` request_invalid for options that exclude each other."""
    ways = {"--list": list_, "--check": check is not None, "--as-compromised": as_compromised}
    said = [name for name, given in ways.items() if given]
    if only is not None:
        said.append("--only")
    if len(said) > 1:
        raise ConfigError("request_invalid", f"{' and '.join(said)} exclude each other")
    if out is not None and (list_ or check is not None):
        raise ConfigError("request_invalid", f"--out has nothing to write with {said[0]}")


def _run(home: Path | None, only: str | None) -> dict[str, Any]:
    from vedette.verification.catalogue import chosen
    from vedette.verification.suite import run_suite

    return run_suite(home_of(home), chosen(only), say).as_dict()


def _compromised(nodes: int) -> dict[str, Any]:
    from vedette.verification.suite import run_compromised

    return run_compromised(nodes, say)


def _require_key(home: Path | None) -> None:
    from vedette.verification.evidence import require_key

    require_key(home_of(home))


def _checked(path: Path, key_text: str | None, home: Path | None) -> dict[str, Any]:
    from vedette.verification.evidence import opened

    report = opened(path, read_key(key_text, home_of(home).root))
    say(f"{path}: the signature holds")
    return report


def _write(path: Path, report: dict[str, Any], home: Path | None) -> None:
    from vedette.verification.evidence import signed

    data = signed(report, home_of(home))
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise ConfigError("file_unwritable", message) from None
    say(f"Wrote {path}; `vedette verify --check {path} --key KEY` verifies it anywhere")


# --- telling -------------------------------------------------------------------------------------------------------


def _print_list(as_json: bool) -> None:
    from vedette.verification.catalogue import ALL

    if as_json:
        print_json([_as_row(check) for check in ALL])
        return
    rows = [
        (
            check.id,
            check.name,
            _where(check),
            ", ".join(tenet.value.split(" ")[0] for tenet in check.tenets),
            ", ".join(check.pillars),
        )
        for check in ALL
    ]
    print_table(("id", "check", "on", "NIST tenets", "CISA pillars"), rows, "")


def _as_row(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "name": check.name,
        "available": check.is_available,
        "tenets": [tenet.value for tenet in check.tenets],
        "pillars": [pillar.value for pillar in check.pillars],
    }


def _where(check: Check) -> str:
    parts = [name for name, part in (("node", check.on_node), ("twin", check.on_twin)) if part]
    return " and ".join(parts) or "not available"


def _print(report: dict[str, Any]) -> None:
    """A table for each tenet; each check under the first that it is about."""
    for tenet in report["tenets"]:
        those = [one for one in report["checks"] if one["tenets"][:1] == [tenet["name"]]]
        if not those:
            continue
        print(f"\n{tenet['name']}")
        rows = [
            (
                one["id"],
                one["name"],
                _verdict(one),
                ", ".join(one["pillars"]),
                printable(one["evidence"]),
            )
            for one in those
        ]
        print_table(("id", "check", "passed", "CISA pillars", "evidence"), rows, "")
    failed = [one for one in report["checks"] if not one["passed"]]
    if failed:
        print()
    for one in failed:
        print(f"{one['id']} {one['name']}: {_verdict(one)}\n  mend: {one['mend']}")
    passed = len(report["checks"]) - len(failed)
    snapshot = short(report["snapshot"])
    print(
        f"\n{passed} of {len(report['checks'])} checks passed in {report['durationSeconds']:.1f} s: "
        f"{report['node']}, snapshot {snapshot}, version {report['version']}"
    )


def _verdict(one: dict[str, Any]) -> str:
    if one["passed"]:
        return "yes"
    return "NO" if one["available"] else "not available"


def _print_matrix(report: dict[str, Any]) -> None:
    rows = [
        (
            one["source"],
            one["destination"],
            one["attempt"],
            "REACHED" if one["reached"] else "refused",
            printable(one["saw"]),
        )
        for one in report["matrix"]
    ]
    print_table(("source", "destination", "attempt", "outcome", "what was seen"), rows, "")
    print()
    controls = [
        (one["what"], "yes" if one["works"] else "NO", printable(one["saw"]))
        for one in report["controls"]
    ]
    print_table(("control", "works", "what was seen"), controls, "")
    print(
        f"\n{report['reached']} foreign resources reached in {len(report['matrix'])} attempts, "
        f"{report['nodes']} nodes, {report['durationSeconds']:.1f} s"
    )
