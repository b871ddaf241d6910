"""Gets a Debian package and what it needs without root: download and unpack, no install.

Installing nginx system wide would also start it; unpacking runs no script and changes nothing.
Owns: apt-get and dpkg-deb.
Must not: install, need root, or write outside the folder it is given.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from processes import BenchError


def unpack(package: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Unpacks package and its missing dependencies into folder/PACKAGE and returns that."""
    root = folder / package
    if root.exists():
        return root
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise BenchError(f"{package} is missing and there is no apt-get; install it yourself")
    say(f"apt-get download: {package}")
    partial = folder / f"{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    downloads = partial / "archives"
    downloads.mkdir(parents=True)
    options = _own_lists(folder)
    if not any((folder / "lists").glob("*Packages*")):
        _apt(["apt-get", *options, "update", "-q"], downloads)
    _apt(["apt-get", *options, "download", "-q", *_missing(package, options)], downloads)
    for archive in downloads.glob("*.deb"):
        _apt(["dpkg-deb", "-x", str(archive), str(partial)], downloads)
    shutil.rmtree(downloads)
    partial.rename(root)
    return root


def programs(root: Path) -> Iterator[Path]:
    """The programs an unpacked package holds."""
    for folder in ("usr/bin", "usr/sbin", "usr/local/bin"):
        yield from sorted((root / folder).glob("*"))


def library_environment(root: Path) -> dict[str, str]:
    """LD_LIBRARY_PATH for the libraries that came along."""
    folders = sorted({str(file.parent) for file in root.glob("usr/lib/**/*.so*")})
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}


def _own_lists(folder: Path) -> list[str]:
    """Package lists of our own: the system's may be absent, and need root to renew."""
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State::lists": str(lists),
        "Dir::Cache": str(cache),
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _missing(package: str, options: list[str]) -> list[str]:
    """The packages an install would bring: the one asked for, and what this machine lacks."""
    plan = _apt(
        ["apt-get", *options, "install", "-s", "-q", "--no-install-recommends", package], None
    )
    return sorted({*re.findall(r"^Inst (\S+)", plan, re.MULTILINE), package})


def _apt(command: list[str], folder: Path | None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(
            f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr[-800:]}"
        )
    return done.stdout
