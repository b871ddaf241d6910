"""Check 22: a join token makes one caller a workload, once, in time; what is wrong with one, nobody is told.

Owns: the calls that redeem tokens. Must not: share code with the desk that takes them but the shapes of messages.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from typing import Any, Final

from vedette.control.workload.joining import KINDS, PATH
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.records import Records
from vedette.verification.twin import Twin
from vedette.verification.workload_caller import OK, PERMISSION_DENIED, calling

_LIFE: Final = 10  # seconds; the least that there is
_ENDING: Final = "token that ends"
_ACTION: Final = "redeem join token"
Told = tuple[int, str]


def begin(twin: Twin) -> None:
    """Makes the token that is to have ended when the check comes."""
    token = _token(twin, "latecomer", _LIFE)
    twin.kept[_ENDING] = (token, time.monotonic() + _LIFE + 1.0)


def join_tokens(twin: Twin, trial: Trial) -> None:
    """One caller joins; whoever comes again, too late or with a guess hears the same, and the record says why."""
    if _ENDING not in twin.kept:
        begin(twin)
    ended, due = twin.kept.pop(_ENDING)
    records = Records(twin.place.home.admin_records)
    token = _token(twin, "joiner", 600)
    try:
        told, joined = _redeem(twin, token)
        right = f"{twin.place.issuer}/joiner"
        trial.control("the first use", (told[0], joined) == (OK, right), told)
        trial.control("an SVID of whom it joined", _svids(twin) == [right], _svids(twin))
        time.sleep(max(0.0, due - time.monotonic()))
        answers = {
            _refused(twin, trial, records, *one)
            for one in (
                ("a second use", token, "token_used"),
                ("a token that has ended", ended, "token_ended"),
                ("a guess", f"vjt_{secrets.token_urlsafe(32)}", "token_unknown"),
            )
        }
        trial.attack("telling refusals apart", len(answers) == 1, answers)
        trial.control("being who it joined as before", _svids(twin) == [right], _svids(twin))
    finally:
        for name in ("joiner", "latecomer"):
            with suppress(Exception):
                twin.client.delete(f"/v1/workloads/{name}")


def _token(twin: Twin, name: str, seconds: int) -> str:
    wish = {"name": name, "path": f"/{name}", "tokenTtlSeconds": seconds, "bind": ["uid"]}
    return str(twin.client.post("/v1/join-tokens", wish)["token"])


def _redeem(twin: Twin, token: str) -> tuple[Told, str]:
    """What the caller is told, and the SPIFFE ID that it got."""
    message = KINDS["RedeemRequest"](token=token).SerializeToString()
    with calling(twin.place.home.workload_socket) as caller:
        caller.begin(PATH.decode(), message)
        body = caller.next_bytes()
        if body is None:
            return (caller.status(), caller.told), ""
        answer: Any = KINDS["RedeemResponse"].FromString(body)
        return (OK, ""), str(answer.spiffe_id)


def _refused(twin: Twin, trial: Trial, records: Records, what: str, token: str, code: str) -> Told:
    told, joined = _redeem(twin, token)
    trial.attack(what, told[0] == PERMISSION_DENIED and not joined, told)
    found = records.find(lambda line: line.get("action") == _ACTION and line.get("code") == code)
    actor = f"uid:{os.getuid()}"
    right = found is not None and (found["outcome"], found["actor"]) == ("refused", actor)
    trial.record(what, right, found)
    return told


def _svids(twin: Twin) -> list[str]:
    with calling(twin.place.home.workload_socket) as caller:
        caller.begin("FetchX509SVID", b"")
        answer = caller.next("X509SVIDResponse")
        return [one.spiffe_id for one in answer.svids] if answer else []


CHECKS: Final = (
    Check(
        22,
        "a join token counts once",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY, Pillar.DEVICES),
        "Remove join tokens (`vedette join-token remove`) and name workloads by their selectors instead.",
        on_twin=join_tokens,
        prepare=begin,
    ),
)
