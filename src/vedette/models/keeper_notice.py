"""Noticing that files of a folder were replaced, without looking again and again (inotify(7)).

Owns: the one watch. Must not: read the files. Where the kernel gives no watch, whoever asked looks now and then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
_MUCH: Final = 65_536
_libc = ctypes.CDLL(None, use_errno=True)


def watch(folder: Path) -> int | None:
    """A descriptor that becomes readable when a file there was written or replaced; None when it cannot be had."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if _libc.inotify_add_watch(descriptor, os.fsencode(folder), _CLOSE_WRITE | _MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return descriptor


def drain(descriptor: int) -> None:
    """Forgets what was noticed."""
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, _MUCH):
            pass
