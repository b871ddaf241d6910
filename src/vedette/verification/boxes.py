"""The part of check 18 that is about programs: in a box there is one way out, and it leads where rules say.

Owns: starting `boxed` as `vedette run` starts any program, and what each of its tries must end with. Must not: try
anything itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from vedette import processes
from vedette.engine.box import PROXY_PORT
from vedette.errors import UnavailableError
from vedette.verification.boxed import DID_IT
from vedette.verification.checks import Trial
from vedette.verification.twin import Twin, apply

NAME: Final = "boxed"
_PROGRAM: Final = Path(__file__).with_name("boxed.py")
_PATIENCE: Final = 40.0
_REFUSED: Final = frozenset({"EACCES", "EPERM"})
_NOWHERE: Final = frozenset({"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"})
_ENDINGS: Final = {
    # In a box loopback is its own: nobody listens at that port there.
    "a port of this machine": frozenset({"ECONNREFUSED"}),
    "a raw address": _NOWHERE,
    "metadata of a cloud": _NOWHERE,
    "an IPv6 address": _NOWHERE,
    "a name server": _NOWHERE,
    "writing beside": frozenset({"EACCES", "EROFS"}),
}
_BY_PROXY: Final = {
    "a call to another port": ("403", "destination_not_allowed"),
    "a call to a raw address": ("403", "destination_not_allowed"),
    "a call to a private address": ("403", "destination_not_allowed"),
    "a call to metadata of a cloud": ("403", "destination_not_allowed"),
    "a call to a name that leads inside": ("403", "address_not_allowed"),
    "a tunnel to a raw address": ("403", "destination_not_allowed"),
    "a tunnel to a private address": ("403", "destination_not_allowed"),
    "a tunnel with another name in TLS": ("closed", "name_not_allowed"),
    "a tunnel without a name in TLS": ("closed", "name_not_allowed"),
    "a tunnel without TLS": ("closed", "not_tls"),
    "SOCKS to a raw address": ("SOCKS 02", "destination_not_allowed"),
    "SOCKS to a name": ("SOCKS 02", "destination_not_allowed"),
    "SOCKS to another port": ("SOCKS 02", "destination_not_allowed"),
    "SOCKS over UDP": ("SOCKS 07", None),
}
"""What the program is told of each, and the cause in its record."""
_POLICY: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: boxed}}
spec:
  workloads: [boxed]
  allow:
    - {{to: "http://127.0.0.1:{listed}"}}
    - {{to: "http://localhost:{trap}"}}
    - {{to: "https://localhost:{node}"}}
    - {{to: "https://127.0.0.0/8:{node}"}}
"""


def programs(twin: Twin, trial: Trial) -> None:
    """A program in a box reaches what its rules allow by the engine's gate, and has no other way."""
    listed, node = twin.service.port, twin.place.tls.port
    apply(twin.client, _POLICY.format(listed=listed, node=node, trap=twin.service.trap_port))
    before = len([line for line in twin.records.lines() if _is_ours(line)])
    reached, sprung = len(twin.service.arrived), twin.service.sprung
    found = in_box(twin, wish_of(twin))
    judge(found, trial)
    arrived = len(twin.service.arrived) - reached
    trial.control("the arrival of the one listed call", arrived == 1, arrived)
    trial.attack("reaching what is not listed", twin.service.sprung == sprung)
    _require_records(twin, trial, before)


def wish_of(twin: Twin) -> dict[str, Any]:
    """What `boxed` is told of the twin."""
    return {
        "home": str(twin.place.home.root),
        "folder": str(twin.folder),
        "proxy": PROXY_PORT,
        "listed": twin.service.port,
        "node": twin.place.tls.port,
        "unlisted": twin.service.trap_port,
    }


def in_box(twin: Twin, wish: dict[str, Any]) -> dict[str, str]:
    """How each try ended, from a box on the twin. Raises `UnavailableError` when it could not be started."""
    program = [sys.executable, "-I", "-B", str(_PROGRAM), json.dumps(wish)]
    options = ["--home", str(twin.place.home.root), "--as", NAME, "--quiet"]
    options += ["--read", str(_PROGRAM)]
    command = [*processes.module_command("vedette"), "run", *options, "--", *program]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
        cwd=twin.folder,  # it holds the node, so the box has nothing of it
    )
    if done.returncode != 0:
        raise UnavailableError("verification_failed", f"no box: {done.stderr.strip()[-160:]}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def judge(found: dict[str, str], trial: Trial) -> None:
    """What a program may is what it must be able to; all else ends as it should in a box."""
    for what, ended in found.items():
        if what.startswith("may "):
            trial.control(f"a program that {what}", ended == DID_IT, ended)
        elif what in _BY_PROXY:
            trial.attack(f"{what} from a box", ended == _BY_PROXY[what][0], ended)
        else:
            held = ended in _ENDINGS.get(what, _REFUSED)
            trial.attack(f"{what} from a box", held, ended)
    for what in _BY_PROXY:
        trial.control(f"trying {what}", what in found)


def _require_records(twin: Twin, trial: Trial, before: int) -> None:
    """Each cause is in the records as often as it was earned."""
    wanted = [cause for _, cause in _BY_PROXY.values() if cause is not None]
    allowed = 2
    twin.records.find(lambda _line: len(_ours(twin, before)) >= len(wanted) + allowed)
    causes = [str(line.get("cause")) for line in _ours(twin, before)]
    for cause in sorted(set(wanted)):
        right = causes.count(cause) == wanted.count(cause)
        trial.record(f"what programs tried: {cause}", right, causes.count(cause))
    let_go = [line for line in _ours(twin, before) if line.get("cause") not in wanted]
    # How the program ends a tunnel is its own affair.
    trial.record("what programs may", len(let_go) == allowed, let_go)


def _ours(twin: Twin, before: int) -> list[dict[str, Any]]:
    return [line for line in twin.records.lines() if _is_ours(line)][before:]


def _is_ours(line: dict[str, Any]) -> bool:
    return line["kind"] == "egress" and line.get("workload") == NAME
