"""Manifests from files, folders and standard input, with the files they name.

Owns: which files of a folder count, that a link leads nowhere else, limits on what is read, and
types of content. Must not: check a manifest's meaning, or send anything anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vedette.clock import to_rfc3339
from vedette.config.manifest import MANIFEST_NAME
from vedette.config.manifests import ManifestObject
from vedette.config.snapshot import StaticFile
from vedette.config.yaml_source import MAX_DOCUMENTS, parse_documents, read_bytes
from vedette.errors import ConfigError

STDIN: Final = "-"
MAX_TEXT_BYTES: Final = 1_000_000
MAX_FILE_BYTES: Final = 64 << 20
MAX_FILES: Final = 10_000
MAX_TREE_BYTES: Final = 1 << 30
MAX_SOURCES: Final = 1_000
_SUFFIXES: Final = (".yaml", ".yml")

# Spelt out here: the tables of the machine differ, and a digest of a snapshot must not.
_TYPES: Final = {
    ".avif": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".gz": "application/gzip",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp4": "video/mp4",
    ".otf": "font/otf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    ".zip": "application/zip",
}


def read_sources(names: Iterable[str], read_stdin: Callable[[], bytes]) -> list[ManifestObject]:
    """Every manifest in the files and folders named; `-` is standard input, nothing is
    `vedette.yaml` here.

    Raises `ConfigError` manifest_missing, manifest_invalid with file and line.
    """
    objects: list[ManifestObject] = []
    for file in _files(list(names) or [MANIFEST_NAME]):
        shown = "standard input" if file == STDIN else file
        text = read_stdin() if file == STDIN else read_bytes(Path(file))
        for document in parse_documents(text, shown):
            objects.append(ManifestObject.of(document, shown))
            if len(objects) > MAX_DOCUMENTS:
                message = f"more than {MAX_DOCUMENTS:,} documents in all"
                raise ConfigError("manifest_invalid", message, file=shown)
    if not objects:
        raise ConfigError("manifest_invalid", f"there is no manifest in {', '.join(names)}")
    return objects


def _files(names: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for name in names:
        for file in _files_of(name):
            found.setdefault(file if file == STDIN else os.path.realpath(file), file)
            if len(found) > MAX_SOURCES:
                raise ConfigError("manifest_invalid", f"more than {MAX_SOURCES:,} files", file=name)
    return list(found.values())


def _files_of(name: str) -> list[str]:
    path = Path(name)
    if name == STDIN or path.is_file():
        return [name]
    if not path.is_dir():
        reason = "there is no such file or folder" if not path.exists() else "it is no plain file"
        raise ConfigError(
            "manifest_missing", reason, "Name files or folders with manifests.", file=name
        )
    files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
    if not files:
        reason = "the folder holds no .yaml file"
        raise ConfigError(
            "manifest_missing", reason, "Name files or folders with manifests.", file=name
        )
    for file in files:
        require_inside(file, path, str(file))
    return [str(file) for file in files]


def require_inside(path: Path, folder: Path, shown: str) -> Path:
    """The real path of `path`. Raises `ConfigError` manifest_invalid when links lead out of
    `folder`: what is written is what is read.
    """
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise ConfigError("manifest_invalid", f"{shown} is a link that leads out of {folder}")
    return real


def place_of(source: ManifestObject, written: str) -> Path:
    """The file or folder that a manifest names by a path relative to itself.

    Raises `ConfigError` manifest_invalid when a link leads elsewhere than what is written.
    """
    base = Path() if source.file == "standard input" else Path(source.file).parent
    parts = Path(os.path.normpath(written)).parts
    ups = len([part for part in parts if part == ".."])
    root = base.joinpath(*parts[:ups])
    require_inside(root.joinpath(*parts[ups:]), root, repr(written))
    return base / written


def read_text(path: Path, shown: str) -> str:
    """A small text file. Raises `ConfigError` manifest_invalid."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise _unreadable(shown, error) from None
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError("manifest_invalid", f"{shown} is larger than {MAX_TEXT_BYTES:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError("manifest_invalid", f"{shown} is not UTF-8") from None


def read_blob(path: Path, shown: str, most: int) -> tuple[StaticFile, str]:
    """A file that goes to the node as it is, by digest, and when it was last changed (RFC 3339).

    Raises `ConfigError` manifest_invalid.
    """
    digest, size = _digest(path, shown, most)
    found = StaticFile(path=path.name, blob=digest, size=size, content_type=content_type(path.name))
    return found, to_rfc3339(datetime.fromtimestamp(int(path.stat().st_mtime), UTC))


@dataclass
class Tree:
    """The files of a folder, where they lie, and what was left out."""

    files: list[StaticFile] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)


def read_tree(folder: Path, shown: str) -> Tree:
    """Every file of a folder, by digest. Files whose name begins with a dot are left out: `.env` and
    `.git` are not for the public.

    Raises `ConfigError` manifest_invalid for a link that leads out, and for what is too much.
    """
    if not folder.is_dir():
        raise ConfigError("manifest_invalid", f"there is no folder {shown}")
    tree, total = Tree(), 0
    for path in _walk(folder, tree):
        name = path.relative_to(folder).as_posix()
        if not name.isprintable() or "\\" in name or len(name) > 1_024:
            raise ConfigError("manifest_invalid", f"{shown} holds {name!r}, a name no URL can have")
        place = f"{shown}/{name}"
        digest, size = _digest(require_inside(path, folder, place), place, MAX_FILE_BYTES)
        total += size
        if total > MAX_TREE_BYTES or len(tree.files) >= MAX_FILES:
            message = f"{shown} is more than {MAX_FILES:,} files or 1 GiB"
            raise ConfigError("manifest_invalid", message)
        tree.files.append(
            StaticFile(path=name, blob=digest, size=size, content_type=content_type(name))
        )
        tree.paths[digest] = path
    tree.files.sort(key=lambda each: each.path)
    return tree


def _walk(folder: Path, tree: Tree) -> Iterator[Path]:
    """Files below `folder`. A linked folder is refused by `os.walk` not entering it, and said."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        hidden = [name for name in (*folders, *files) if name.startswith(".")]
        tree.hidden += [(here / name).relative_to(folder).as_posix() for name in hidden]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (here / name).is_symlink():
                raise ConfigError("manifest_invalid", f"{here / name} is a link to a folder")
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _digest(path: Path, shown: str, most: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    try:
        if not path.is_file():
            raise ConfigError("manifest_invalid", f"{shown} is no plain file")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
                if size > most:
                    message = f"{shown} is larger than {most:,} bytes"
                    raise ConfigError("manifest_invalid", message)
    except OSError as error:
        raise _unreadable(shown, error) from None
    return f"sha256:{digest.hexdigest()}", size


def content_type(name: str) -> str:
    """The content-type of a file, by its name."""
    return _TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def _unreadable(shown: str, error: OSError) -> ConfigError:
    return ConfigError("manifest_invalid", f"cannot read {shown}: {error.strerror}")
