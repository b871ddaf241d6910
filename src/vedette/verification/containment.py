"""Checks 20, 21 and 26: what was taken over stays where it is.

Owns: what a foreign authority may try against the node, what the engine tries from inside (`inside`), and what leaves
the network namespace. Must not: weaken the sandbox to look into it.
"""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Final

from vedette.verification import forgery
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.forgery import Leaf
from vedette.verification.inside import DID_IT, REPORT
from vedette.verification.listening import tcp_listeners
from vedette.verification.place import Place
from vedette.verification.twin import MESH, Twin
from vedette.verification.web import bearer

_CONFINED: Final = ("EACCES", "EPERM")


# --- 20 ------------------------------------------------------------------------------------------------------------


def stolen_authority(twin: Twin, trial: Trial) -> None:
    """The authority of one trust domain is stolen: it is nobody of another one."""
    mesh, own = twin.mesh, twin.place.issuer
    for what, uri in (
        ("a workload of the node's own trust domain", f"{own}/shop"),
        ("the node itself", f"{own}/gateway"),
        ("a workload of a third trust domain", "spiffe://third.invalid/shop"),
        ("a trust domain that begins alike", f"spiffe://{MESH}.evil/shop"),
        ("a trust domain in capitals", f"spiffe://{MESH.upper()}/shop"),
    ):
        known = twin.handshakes()
        answer = twin.ask("/orders", credential=mesh.issue(Leaf((uri,))).file)
        trial.attack(f"a certificate as {what}", answer.status == 0, answer)
        cause = str(twin.handshake_record(known).get("cause", ""))
        trial.record(f"a certificate as {what}", cause.startswith("certificate_"), cause)
    _forged_tokens(twin, trial)
    answer = twin.ask("/orders", credential=mesh.issue(Leaf((f"spiffe://{MESH}/shop",))).file)
    trial.control("a workload of its own trust domain", answer.status == 200, answer)
    trial.note("between nodes, with all state of one: vedette verify --as-compromised")


def _forged_tokens(twin: Twin, trial: Trial) -> None:
    right = twin.token("alice")
    kid, good = forgery.header_of(right)["kid"], forgery.claims_of(right)
    for what, token in (
        (
            "a token under a stolen key with the node's key id",
            forgery.token(good, twin.mesh.key, kid),
        ),
        (
            "a token of an issuer of its own",
            forgery.token({**good, "iss": f"spiffe://{MESH}"}, twin.mesh.key, kid),
        ),
        ("a token without a signature", forgery.unsigned(good, kid)),
        ("a token under the public key", forgery.keyed(good, kid, twin.mesh.key.public_key())),
    ):
        answer = twin.ask("/orders", headers=[bearer(token)])
        trial.attack(what, answer.status == 401, answer)
        cause = str(twin.record(answer).get("cause", ""))
        trial.record(what, cause.startswith("token_"), cause)


# --- 21 ------------------------------------------------------------------------------------------------------------


def engine_status(place: Place, trial: Trial) -> None:
    """Every thread of the engine is confined, and it says so."""
    pid = place.pids()["engine"]
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    for name, value in (("NoNewPrivs", "1"), ("Seccomp", "2")):
        free = [thread.name for thread in threads if _field(thread, name) != value]
        trial.attack(f"a thread without {name}", not free, f"{len(free)} of {len(threads)}")
    engine = place.client.get("/v1/status")["engine"]
    for name in ("landlock", "seccomp"):
        trial.attack(f"an engine without {name}", engine[name] == "enforced", engine[name])
    try:
        keys = [name for name in _open_files(pid) if name.startswith(str(place.home.control))]
        trial.attack("an open file of control", not keys, ", ".join(keys))
    except PermissionError:
        trial.note("its open files cannot be looked at by this user")
    trial.control("looking at the engine", len(threads) > 1, f"{len(threads)} threads")


def _field(thread: Path, name: str) -> str:
    found = re.search(rf"^{name}:\s+(\d+)$", (thread / "status").read_text("ascii"), re.MULTILINE)
    return found[1] if found else ""


def _open_files(pid: int) -> list[str]:
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except OSError:
            continue
    return found


def from_inside(twin: Twin, trial: Trial) -> None:
    """The twin's engine, told to stop, attacks from inside the process that the kernel confines. Ends the twin."""
    twin.stop()
    report = twin.place.home.root / "spool" / REPORT
    found: dict[str, str] = json.loads(report.read_text("utf-8")) if report.is_file() else {}
    judge_inside(found, trial)


def judge_inside(found: dict[str, str], trial: Trial) -> None:
    """What an engine may is what it must be able to; all else ends with EACCES or EPERM."""
    for what, ended in found.items():
        if what.startswith("may "):
            trial.control(what, ended == DID_IT, ended)
        else:
            trial.attack(f"{what} from inside the engine", ended in _CONFINED, ended)


# --- 26 ------------------------------------------------------------------------------------------------------------


def air_gap(twin: Twin, trial: Trial) -> None:
    """The whole suite ran with loopback and a counted way out that leads nowhere: nothing took it."""
    if twin.outlet is None:
        trial.attack(
            "looking at what leaves", False, str(twin.kept.get("namespace", "no namespace"))
        )
        return
    packets, lookups = twin.outlet.counted()
    trial.attack("a packet to another machine", packets == 0, f"{packets} packets")
    trial.attack("a question to a name server", lookups == 0, f"{lookups} questions")
    _leave()
    deadline = time.monotonic() + 5.0
    while twin.outlet.counted() == (packets, lookups) and time.monotonic() < deadline:
        time.sleep(0.01)
    after = twin.outlet.counted()
    trial.control("counting a packet that does leave", after > (packets, lookups), after)
    inside = tcp_listeners(twin.place.pids().values())
    outside = [host for host, _ in inside if host not in ("127.0.0.1", "::1")]
    trial.attack("a listener beyond loopback", not outside, ", ".join(outside))
    trial.note(f"{packets} packets, {lookups} DNS questions in a network namespace of its own")


def _leave() -> None:
    """A question to a name server that is not there (RFC 5737), as a control for the counter."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(b"\0" * 12, ("192.0.2.53", 53))


CHECKS: Final = (
    Check(
        20,
        "a stolen authority is nobody elsewhere",
        (Tenet.ENFORCED, Tenet.PER_SESSION),
        (Pillar.IDENTITY, Pillar.NETWORKS),
        "Look at `vedette authority list`: each entry needs its own --trust-domain.",
        on_twin=stolen_authority,
    ),
    Check(
        21,
        "an engine that was taken over is confined",
        (Tenet.INTEGRITY,),
        (Pillar.APPLICATIONS, Pillar.DEVICES),
        "Use a kernel with Landlock and seccomp (`vedette status` says what is missing), then restart the node.",
        on_node=engine_status,
        on_twin=from_inside,
    ),
    Check(
        26,
        "nothing calls home",
        (Tenet.SECURED,),
        (Pillar.NETWORKS, Pillar.VISIBILITY),
        "Allow user namespaces (sysctl user.max_net_namespaces) or run as root; else find out who sent packets.",
        on_twin=air_gap,
    ),
)
