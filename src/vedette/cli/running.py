"""`vedette run`: a program of this machine in a box, with no way out but the gate for what leaves.

Owns: the options, what the program is told of the gate, and telling what was refused. Must not: decide where it may go.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, client_of, home_of, pairs
from vedette.cli.render import printable, say
from vedette.errors import ConfigError

_MOST_TOLD = 1_000
_USUAL = frozenset({"PATH", "HOME", "USER", "LANG", "TERM"})


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "run",
        epilog="Example: vedette run --as shop --read ./shop --write ./data -- python shop/main.py",
        context_settings={"allow_interspersed_args": False},
    )(run)


def run(
    command: Annotated[list[str], typer.Argument(help="The program and what it is given.")],
    home: HomeOption = None,
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name that policies know it by.", show_default="the program's"),
    ] = None,
    read: Annotated[
        list[Path] | None, typer.Option(help="File or folder that it may read; repeated.")
    ] = None,
    write: Annotated[
        list[Path] | None, typer.Option(help="File or folder that it may change; repeated.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="K=V for its environment; repeated.")
    ] = None,
    clear_env: Annotated[
        bool,
        typer.Option(
            "--clear-env", help="Pass on PATH, HOME, USER, LANG and TERM, and nothing else."
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Let it go where no rule lets it (never to this machine or link-local addresses), "
            "and say at the end which rules it needs.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not tell what is refused.")] = False,
) -> None:
    """Run a program in a network of its own: it reaches only what an EgressPolicy allows it, by HTTP or SOCKS proxy.

    It sees the system's files, the folder it starts in and what --read lists; it changes a folder of its own (TMPDIR)
    and what --write lists. Its exit code is this command's.
    """
    from vedette.control.supervisor.launch import is_running, not_running
    from vedette.engine import box, box_files
    from vedette.ids import require_name

    node = home_of(home)
    if not is_running(node):
        raise not_running(node)
    program = box_files.program_of(command[0])
    workload = require_name(name or _name_of(program), "workload")
    told = _Told(workload, report, quiet)
    with _scratch() as scratch:
        wanted = box.Box(
            workload,
            [str(program), *command[1:]],
            node.engine_socket,
            box_files.readable(program, read or [], node.root),
            box_files.writable(write or [], node.root, scratch),
            {**_environment(scratch, clear_env), **pairs(env or [], "--env")},
            partial(_workload_api, home, workload),
            report,
        )
        code = box.run(wanted, told.refused)
    told.end()
    raise typer.Exit(code)


def _workload_api(home: Path | None, workload: str) -> Path:
    """Opens the Workload API for this process's box, and says where it is."""
    wish = {"workload": workload, "pid": os.getpid()}
    return Path(client_of(home).post("/v1/boxes", wish)["socket"])


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vedette-run-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name_of(program: Path) -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", program.name.lower()).strip("-")
    if not name:
        raise ConfigError("invalid_name", f"{program.name!r} makes no name", "Give one with --as.")
    return name[:63]


def _environment(scratch: Path, clear: bool) -> dict[str, str]:
    """This one's, with the gate where programs look for a proxy, and without what is about the node."""
    from vedette.engine.box import PROXY_PORT, WORKLOAD_PORT

    kept = {
        key: value
        for key, value in os.environ.items()
        if (key in _USUAL if clear else not key.startswith("VEDETTE_"))
    }
    http, socks = f"http://127.0.0.1:{PROXY_PORT}", f"socks5h://127.0.0.1:{PROXY_PORT}"
    proxies = {"http_proxy": http, "https_proxy": http, "all_proxy": socks}
    proxies["no_proxy"] = "localhost,127.0.0.1,::1"
    proxies |= {key.upper(): value for key, value in proxies.items()}
    more = {
        "NODE_USE_ENV_PROXY": "1",
        "SPIFFE_ENDPOINT_SOCKET": f"tcp://127.0.0.1:{WORKLOAD_PORT}",
        "TMPDIR": str(scratch),
    }
    return {**kept, **proxies, **more}


class _Told:
    """What was refused, told once for each destination."""

    def __init__(self, workload: str, reports: bool, quiet: bool) -> None:
        self._workload = workload
        self._reports = reports
        self._quiet = quiet
        self._seen: set[tuple[str, ...]] = set()
        self._rules: dict[str, None] = {}

    def refused(self, line: dict[str, Any]) -> None:
        """One call that was refused, or let go to be reported."""
        rule, cause = str(line.get("wouldAllow", "")), str(line.get("cause", ""))
        place = f"{line.get('scheme')}://{line.get('host')}:{line.get('port')}"
        known = (str(line.get("method")), place, rule, cause)
        if known in self._seen or len(self._seen) >= _MOST_TOLD:
            return
        self._seen.add(known)
        if rule and cause == "address_not_allowed":
            self._rules.pop(rule, None)  # it leads to where nothing is let go, not even to learn
        elif rule:
            self._rules[rule] = None
        if self._quiet or self._reports:
            return
        mend = f"; the rule {rule} would allow it" if rule else ""
        text = f"vedette: refused {line.get('method')} {place}: {cause}{mend}"
        print(printable(text), file=sys.stderr)

    def end(self) -> None:
        """At the end of a report, the policy that the program needs."""
        if not self._reports:
            return
        if not self._rules:
            say("report: it called nothing that its rules do not allow")
            return
        say(f"report: {len(self._rules)} destinations would be refused. The policy it needs:")
        rules = "".join(f"    - to: {printable(rule)}\n" for rule in self._rules)
        print(
            "apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\n"
            f"metadata: {{name: {self._workload}}}\nspec:\n"
            f"  workloads: [{self._workload}]\n  allow:\n{rules}",
            end="",
            file=sys.stderr,
        )
