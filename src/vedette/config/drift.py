"""Generated files: writing them, and saying which ones are not what they should be.

Owns: `--check` and `--write` of every generator in this room. Must not: know what is generated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """A generated file: its path below the repository root, and the text it must have."""

    path: Path
    text: str


def drifted(artifacts: Iterable[Artifact], root: Path) -> list[Path]:
    """The files below `root` whose text is not the generated one; a missing file counts."""
    return [
        each.path
        for each in artifacts
        if not (root / each.path).is_file()
        or (root / each.path).read_text(encoding="utf-8") != each.text
    ]


def write(artifacts: Iterable[Artifact], root: Path) -> list[Path]:
    """Writes what drifted and returns those paths; a current file keeps its time, so nothing
    rebuilds for it.
    """
    pending = list(artifacts)
    changed = drifted(pending, root)
    for each in pending:
        if each.path in changed:
            (root / each.path).parent.mkdir(parents=True, exist_ok=True)
            (root / each.path).write_text(each.text, encoding="utf-8")
    return changed


def main(artifacts: Callable[[], list[Artifact]], arguments: Sequence[str] | None = None) -> int:
    """The command line of a generator: `--check` exits 1 and names what drifted, `--write` mends
    it.
    """
    parser = argparse.ArgumentParser()
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail when a file drifted")
    action.add_argument("--write", action="store_true", help="write the files")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository")
    options = parser.parse_args(arguments)
    if options.write:
        for path in write(artifacts(), options.root):
            print(f"wrote {path}")
        return 0
    changed = drifted(artifacts(), options.root)
    for path in changed:
        print(f"{path} drifted: run `python -m vedette.config.generate --write`", file=sys.stderr)
    return 1 if changed else 0
