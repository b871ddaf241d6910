"""A stand-in for the pure functions of `_native`, and for compiling. A policy that says `mistake` is invalid."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vedette.config.snapshot import Snapshot
from vedette.functions.compile import CompileResult
from vedette.identity.signer import verify_envelope
from vedette.ids import digest_hex

COMPONENT = b"\0asm\x0d\x00\x01\x00" + b"simulated component"
ENGINE_KEY = "simulated"


class NativeSimulator:
    """Checks what the real one checks that control relies on: signature, shape, blobs, machine code."""

    def version(self) -> str:
        return "simulator"

    def engine_key(self) -> str:
        return ENGINE_KEY

    def analyse_rules(self, rules: bytes) -> bytes:
        """Nothing is known of them."""
        return b"analysis of " + rules[:20]

    def check_snapshot(self, envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes:
        snapshot = Snapshot.parse(verify_envelope(envelope, public_key_pem))
        folder = Path(engine_dir)
        for blob in snapshot.blobs():
            if not (folder / "blobs" / "sha256" / digest_hex(blob)).is_file():
                raise ValueError(json.dumps({"code": "blob_missing", "message": blob}))
        for function in snapshot.functions:
            code = folder / "compiled" / ENGINE_KEY / f"{digest_hex(function.component)}.cwasm"
            if not code.is_file():
                raise ValueError(json.dumps({"code": "compiled_missing", "message": function.name}))
        return json.dumps({"digest": snapshot.digest()}).encode()

    def check_policies(self, request: bytes) -> bytes:
        findings = [
            {"file": one["name"], "line": number, "column": 1, "message": "a mistake", "help": None}
            for one in json.loads(request)["policies"]
            for number, line in enumerate(one["text"].splitlines(), 1)
            if "mistake" in line
        ]
        outlines = [
            outline for one in json.loads(request)["policies"] for outline in _outlines(one)
        ]
        answer = {"errors": findings, "warnings": [], "outlines": outlines}
        return json.dumps(answer).encode()

    def explain(self, query: bytes, engine_dir: str) -> bytes:
        """Nobody is allowed anything."""
        assert Path(engine_dir).is_dir()
        denied = {
            "allowed": False,
            "status": 403,
            "stage": "authorize",
            "cause": "policy_denied",
            "decidedBy": [],
            "policies": [],
        }
        empty = dict.fromkeys(("detail", "route", "principal", "resource", "context"))
        asked = json.loads(query)["requests"]
        return json.dumps([{**empty, **denied} for _ in asked]).encode()

    def judge(self, query: bytes, engine_dir: str) -> bytes:
        """A target with `attack` is blocked, unless the node's firewall is off or its route excludes rule 1."""
        assert Path(engine_dir).is_dir()
        asked = json.loads(query)
        is_off = asked.get("waf", {}).get("policy", {}).get("mode") == "off"

        def answer(request: dict[str, str]) -> dict[str, object]:
            route = request.get("route") or "none"
            own = asked["routes"].get(route) or {}
            excluded = any("1" in each["rules"] for each in own.get("exclusions", ()))
            found = {"rule": 1, "message": "attack", "location": "ARGS:q", "size": 6}
            is_attack = "attack" in request["target"] and not excluded
            action = "uninspected" if is_off else "blocked" if is_attack else "passed"
            score = 5 if action == "blocked" else 0
            violations = [found] if score else []
            told = {"route": route, "action": action, "score": score, "threshold": 5}
            empty = dict.fromkeys(("cause", "detail"))
            status = 403 if score else None
            return {**told, **empty, "status": status, "violations": violations}

        return json.dumps([answer(one) for one in asked["requests"]]).encode()


def _outlines(file: dict[str, str]) -> list[dict[str, object]]:
    """Of each `permit` or `forbid` what its text plainly says."""
    found: list[dict[str, object]] = []
    lines = file["text"].splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith(("permit", "forbid")):
            continue
        text = "\n".join(lines[number - 1 :]).partition(";")[0]
        names = re.findall(r'(Function|Model|Route)::"([^"]*)"', text)
        said = re.search(r'@id\("([^"]*)"\)', "\n".join(lines[: number - 1]))
        scope = re.search(r'resource == (\w+)::"([^"]*)"', text.partition(")")[0])
        outline = {
            "file": file["name"],
            "line": number,
            "id": said[1] if said else f"{file['name']}/policy0",
            "effect": line[:6],
            "principal": _principal(text),
            "resource": {"type": scope[1], "id": scope[2]} if scope else {"type": None, "id": None},
            "conditional": "when" in text,
            "names": [{"type": kind, "id": name} for kind, name in names],
            "actions": re.findall(r'Action::"(\w+)"', text.partition(")")[0]),
        }
        found.append(outline)
    return found


def _principal(text: str) -> dict[str, str | None]:
    named = re.search(r'principal == (\w+)::"([^"]*)"', text)
    if named:
        return {"type": named[1], "id": named[2]}
    typed = re.search(r"principal is (\w+)", text)
    return {"type": typed[1] if typed else None, "id": None}


def compile_to(component: Path, output: Path) -> CompileResult:
    """Writes a copy where the machine code belongs."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(component.read_bytes())
    return CompileResult(output, False, 0.0)
