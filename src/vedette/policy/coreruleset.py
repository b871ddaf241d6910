"""The OWASP Core Rule Set: which version, where from, that it is that one, and how a node packs it.

Owns the pin and the packed form, which is a part of the installed package and never of the
repository: `make crs` brings the rules and their tests into the cache with a Go client, once, and
packs the rules beside this module. Run as a program it needs the standard library alone. Must not:
know what a rule means.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

MODULE = "github.com/corazawaf/coraza-coreruleset/v4"
VERSION = "v4.25.0"
# Go's own form (base64 of a SHA-256 over the SHA-256 of each file), so that one pin is checked twice: by the Go client
# against the public checksum database, and here against the bytes that were unpacked.
CHECKSUM = "h1:tqFO1lfVpTiyWtlN618OXpZMfw+nnN0Q4///W5W+/HM="

# Beside this module: the rules as a blob of the snapshot.
PACKED = Path(__file__).with_name("coreruleset.json")
# Beside it: what the rules' own tests send, to try on parameters (`vedette waf tune`).
ATTACKS = Path(__file__).with_name("coreruleset-attacks.json")
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vedette/crs" / VERSION
RULES = FOLDER / "rules/@owasp_crs"
SETUP = FOLDER / "rules/@crs-setup.conf.example"
TESTS = FOLDER / "tests"
MISSING = f"{FOLDER} does not exist: run `make crs`"
_SETUP_PATH = "crs-setup.conf"
_LONGEST_ATTACK = 512


class FetchError(Exception):
    """The rule set could not be had, or is another one than the pinned."""


def content_checksum(archive: zipfile.ZipFile) -> str:
    """The checksum of a Go module's archive (golang.org/x/mod/sumdb/dirhash, Hash1)."""
    lines = (
        f"{hashlib.sha256(archive.read(name)).hexdigest()}  {name}\n"
        for name in sorted(archive.namelist())
    )
    digest = hashlib.sha256("".join(lines).encode()).digest()
    return "h1:" + base64.b64encode(digest).decode()


def unpack(archive: Path, folder: Path) -> None:
    """Check `archive` against the pin and lay its rules and tests into `folder`, whole or not at all."""
    with zipfile.ZipFile(archive) as module:
        if (found := content_checksum(module)) != CHECKSUM:
            raise FetchError(f"{MODULE} {VERSION} has the checksum {found}, pinned is {CHECKSUM}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            prefix = f"{MODULE}@{VERSION}/"
            wanted = (prefix + "rules/", prefix + "tests/", prefix + "LICENSE")
            module.extractall(
                scratch, [name for name in module.namelist() if name.startswith(wanted)]
            )
            shutil.rmtree(folder, ignore_errors=True)
            (Path(scratch) / prefix).rename(folder)


def fetch(go: str) -> None:
    """Download the module with the Go client and unpack it into the cache."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"GOMODCACHE": f"{scratch}/modules", "GOFLAGS": "-modcacherw"}
        done = subprocess.run(
            [go, "mod", "download", "-json", f"{MODULE}@{VERSION}"],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise FetchError(f"`go mod download` failed: {done.stdout}{done.stderr}".strip())
        unpack(Path(json.loads(done.stdout)["Zip"]), FOLDER)


def pack(rules: Path, setup: Path, version: str) -> bytes:
    """Every file of the rule set as one canonical JSON value: what the engine reads.

    `files` has the texts by path, `load` the rule files in order, the set-up first.
    """
    files = {_SETUP_PATH: setup.read_text()}
    files |= {f"rules/{path.name}": path.read_text() for path in sorted(rules.iterdir())}
    rule_files = [path for path in sorted(files) if path.endswith(".conf") and path != _SETUP_PATH]
    load = [_SETUP_PATH, *rule_files]
    value = {"version": version, "files": files, "load": load}
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def attacks(tests: Path) -> dict[str, list[str]]:
    """Values that the tests send and a rule must find, by rule: of each test the longest argument.

    Reads the lines that it needs of the tests' YAML and passes over what it cannot; the standard library has no reader.
    """
    found: dict[str, set[str]] = {}
    for file in sorted(tests.rglob("*.yaml")):
        for test in re.split(r"^ +- test_id:", file.read_text(), flags=re.MULTILINE)[1:]:
            rules = re.search(r"^ +expect_ids: \[(\d+)", test, re.MULTILINE)
            query = _scalar(test, "uri").partition("?")[2]
            sent = [*parse_qsl(_scalar(test, "data")), *parse_qsl(query)]
            values = [value for _, value in sent]
            if rules and values:
                longest = max(values, key=len)
                if len(longest) <= _LONGEST_ATTACK and "\ufffd" not in longest:
                    found.setdefault(rules[1], set()).add(longest)
    return {rule: sorted(values) for rule, values in sorted(found.items())}


def _scalar(test: str, name: str) -> str:
    """A value of one line; empty when there is none, or it is written over several."""
    line = re.search(rf"^ +{name}: (.+)$", test, re.MULTILINE)
    text = line[1].strip() if line else ""
    if text.startswith('"') and text.endswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return ""
    if text.startswith("'") and text.endswith("'"):
        return text[1:-1].replace("''", "'")
    return "" if text[:1] in "|>{[&*" else text


@dataclass(frozen=True, slots=True)
class CoreRuleSet:
    """A packed rule set."""

    version: str
    packed: bytes


def installed() -> CoreRuleSet | None:
    """The rule set that this installation brings; None in a checkout in which `make crs` did not run."""
    try:
        packed = PACKED.read_bytes()
    except FileNotFoundError:
        return None
    return CoreRuleSet(str(json.loads(packed)["version"]), packed)


def main() -> int:
    """Fetch the rule set unless it is there, and pack it."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--is-there", action="store_true", help="only say whether it is")
    arguments.add_argument("--rules", action="store_true", help="only say where the rules are")
    arguments.add_argument("--go", default="go", help="the Go client")
    given = arguments.parse_args()
    if given.rules:
        print(RULES)
        return 0
    if given.is_there:
        return not (FOLDER.exists() and PACKED.exists() and ATTACKS.exists())
    if FOLDER.exists():
        _write()
        return 0
    print(f"Fetching the Core Rule Set {VERSION} into {FOLDER}")
    try:
        fetch(given.go)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        print(
            f"mend: give this machine the Go module proxy, or copy {FOLDER} from one that has it",
            file=sys.stderr,
        )
        return 1
    _write()
    return 0


def _write() -> None:
    PACKED.write_bytes(pack(RULES, SETUP, VERSION.removeprefix("v")))
    ATTACKS.write_text(json.dumps(attacks(TESTS), ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
