"""Versions of a model: integers that only go up.

Owns: which version a file gets, which is refused as a downgrade, and which old ones may go. Pure. Must not: keep
anything (`store.models`), or say which version serves (the snapshot).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vedette.errors import ConfigError

KEPT_VERSIONS: Final = 5
MAX_VERSION: Final = 2**53


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of one name: the digest of each version that is kept, the highest that ever was, the one that
    serves and the one that served before it.
    """

    versions: Mapping[int, str] = field(default_factory=dict)
    highest: int = 0
    serving: int | None = None
    previous: int | None = None


def new_version(name: str, known: Registered, given: int | None) -> int:
    """The version of a file that is new: `given`, else the next. Raises `ConfigError` model_downgrade, also for a
    version that was removed: what once had a number has it for ever.
    """
    if given is None:
        given = known.highest + 1
    if given <= known.highest:
        message = f"version {given} of {name!r} is not higher than {known.highest}, which there was"
        hint = f"Leave the version out, or give {known.highest + 1} or more."
        if given in known.versions:
            hint += (
                f" To serve version {given} again: vedette model promote {name} --version {given}"
            )
        raise ConfigError("model_downgrade", message, hint)
    if given > MAX_VERSION:
        raise ConfigError("model_downgrade", f"{given} is higher than any version can be")
    return given


def declared_version(name: str, known: Registered, blob: str, given: int | None) -> int:
    """The version that a manifest means by a file: one that is kept of this file, else a new one.

    Applying the same manifest twice is then no change, and going back to an older one serves the older version.
    Raises `ConfigError` model_downgrade for a number that another file has, or had.
    """
    if given is not None:
        return given if known.versions.get(given) == blob else new_version(name, known, given)
    same = [version for version, kept in known.versions.items() if kept == blob]
    if known.serving in same:
        assert known.serving is not None
        return known.serving
    return max(same, default=0) or new_version(name, known, None)


def superfluous(known: Registered, keep: int = KEPT_VERSIONS) -> tuple[int, ...]:
    """Versions that may go: all but the `keep` highest, the one that serves and the one before it."""
    newest = sorted(known.versions, reverse=True)[:keep]
    needed = {*newest, known.serving, known.previous}
    return tuple(sorted(version for version in known.versions if version not in needed))
