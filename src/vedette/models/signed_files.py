"""Files of a model as signatures see them: one file, or a folder with all that is in it.

Owns: which files of a folder count, their digests, and what differs from what was signed (OpenSSF Model Signing v1,
"files"). Must not: judge a signature (`signing`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError, TrustError
from vedette.models.signing import ALONE, IGNORED, MAX_RESOURCES, MAX_SIGNATURE_BYTES

SIGNATURE_NAME: Final = "model.sig"
_PART: Final = 1 << 20


def signature_beside(path: Path) -> Path | None:
    """The signature that lies in a model's folder, or beside its file; None: there is none."""
    place = (path if path.is_dir() else path.parent) / SIGNATURE_NAME
    return place if place.is_file() else None


def read_signature(file: Path) -> bytes:
    """The bytes of a signature. Raises `ConfigError` file_unreadable."""
    try:
        with open(file, "rb", opener=_open) as content:
            _require_plain(content.fileno(), file)
            data = content.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    if len(data) > MAX_SIGNATURE_BYTES:
        raise ConfigError("file_unreadable", f"{file} is larger than {MAX_SIGNATURE_BYTES:,} bytes")
    return data


def resources_of(path: Path) -> dict[str, str]:
    """SHA-256 in hex of every file by its path within, `/` between parts; of a file alone by `.`.

    Raises `ConfigError` file_unreadable, also for links, pipes and more files than a signature may name.
    """
    if not path.is_dir():
        return {ALONE: _digest(path)}
    found: dict[str, str] = {}
    for file in _walk(path):
        if len(found) >= MAX_RESOURCES:
            raise ConfigError("file_unreadable", f"{path} holds more than {MAX_RESOURCES:,} files")
        found[file.relative_to(path).as_posix()] = _digest(file)
    if not found:
        raise ConfigError("file_unreadable", f"{path} holds no file")
    return found


def require_same(path: Path, signed: Mapping[str, str], signature: Path | None = None) -> None:
    """Raises `TrustError` model_signature_invalid when what is there is not what was signed, with what differs; a file
    that was signed within a folder is found by its content. `signature`: what is not looked at, wherever it lies.
    """
    there = resources_of(path)
    if signature is not None and path.is_dir():
        there = {name: each for name, each in there.items() if not _is_same(path / name, signature)}
    if set(there) == {ALONE} and ALONE not in signed:
        if there[ALONE] in signed.values():
            return
        raise TrustError("model_signature_invalid", f"{path} is none of the files that were signed")
    wrong = [
        f"{name} has changed" for name in signed if name in there and there[name] != signed[name]
    ]
    wrong += [f"{name} is missing" for name in signed if name not in there]
    wrong += [f"{name} was not signed" for name in there if name not in signed]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        message = f"{path} is not what was signed: {', '.join(sorted(wrong)[:5])}{more}"
        raise TrustError("model_signature_invalid", message)


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder` but those that are never signed."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if name not in IGNORED]
            files = [name for name in files if name not in IGNORED]
        for name in (*folders, *files):
            if (here / name).is_symlink():
                raise ConfigError(
                    "file_unreadable", f"{here / name} is a link, which is not signed"
                )
        yield from (here / name for name in sorted(files))


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(file, "rb", opener=_open) as content:
            _require_plain(content.fileno(), file)
            while part := content.read(_PART):
                digest.update(part)
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    return digest.hexdigest()


def _open(path: str, flags: int) -> int:
    """Opens without waiting for somebody who writes into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _require_plain(descriptor: int, file: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ConfigError("file_unreadable", f"{file} is no plain file")
