"""Which files a program in a box may touch: the system's, its own, and what somebody lists.

Owns: the lists. Must not: let a program near the node's home; its sockets and keys would be a way out.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError

_SYSTEM: Final = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys",
)
_DEVICES: Final = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/shm",
)


def readable(program: Path, listed: Sequence[Path], home: Path) -> list[Path]:
    """What it may read and run: the system, what everybody may read of /etc, its own program, the folder it starts in
    (unless that holds the node, or is everything), and what is listed. `home`: of the node.

    Raises `ConfigError` folder_refused.
    """
    here = Path.cwd()
    own = [here] if _is_apart(here, home) and here not in (Path("/"), Path.home()) else []
    system = [Path(one) for one in _SYSTEM]
    return [
        *system,
        *_open_to_all(Path("/etc")),
        *_of_program(program, home),
        *own,
        *_apart(listed, home),
    ]


def writable(listed: Sequence[Path], home: Path, scratch: Path) -> list[Path]:
    """What it may change: devices that hold nothing, `scratch`, what is listed. Raises as `readable`."""
    return [*(Path(one) for one in _DEVICES), scratch, *_apart(listed, home)]


def program_of(command: str) -> Path:
    """The file that a command names. Raises `ConfigError` command_not_found."""
    found = shutil.which(command)
    if found is None:
        raise ConfigError("command_not_found", f"{command}: there is no such program")
    return Path(found).absolute()


def _apart(listed: Iterable[Path], home: Path) -> Iterator[Path]:
    for one in listed:
        path = one.expanduser().resolve()
        if not path.exists():
            raise ConfigError("folder_refused", f"{one} is not there")
        if not _is_apart(path, home):
            raise ConfigError("folder_refused", f"{one} holds the node, or is a part of it")
        yield path


def _is_apart(path: Path, home: Path) -> bool:
    """Neither holds the other."""
    path, home = path.resolve(), home.resolve()
    return not path.is_relative_to(home) and not home.is_relative_to(path)


def _open_to_all(folder: Path) -> list[Path]:
    """What any user may read there, to the last file: for root, and for members of groups, the modes say what is
    nobody's business.
    """
    whole, found = _look(folder)
    return [folder] if whole else found


def _look(folder: Path) -> tuple[bool, list[Path]]:
    """Whether all of it is open to everybody, and what is where not."""
    whole, found = True, []
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        try:
            mode = entry.stat().st_mode
            if not _is_open(mode):
                whole = False
            elif not entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
            else:
                inner_whole, inner = _look(Path(entry.path))
                found += [Path(entry.path)] if inner_whole else inner
                whole = whole and inner_whole
        except OSError:
            whole = False
    return whole, found


def _is_open(mode: int) -> bool:
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & wanted == wanted


def _of_program(program: Path, home: Path) -> Iterator[Path]:
    """The file, where links lead, and the installations they are in, such as that of an interpreter."""
    seen: list[Path] = []
    while program not in seen and len(seen) < 16:
        seen.append(program)
        if program.is_symlink():
            program = Path(os.path.normpath(program.parent / program.readlink()))
    for one in (*seen, seen[-1].resolve()):
        yield one
        prefix = one.parent.parent
        is_installation = one.parent.name == "bin" and (
            (prefix / "pyvenv.cfg").is_file() or (prefix / "lib").is_dir()
        )
        if is_installation and _is_apart(prefix, home) and prefix != Path.home():
            yield prefix
