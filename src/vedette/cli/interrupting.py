"""Ctrl-C in a command that builds or changes something: what state things are in, and exit code 130.

Owns: the exit code (128 and SIGINT, as shells have it) and saying the sentence once. Must not: catch anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vedette.cli.render import say

EXIT_CODE = 130


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C whose message says what state things are in."""


@contextmanager
def said_on_interrupt(sentence: str) -> Iterator[None]:
    """Ends the command on Ctrl-C with `sentence`, unless an `Interrupted` knows better."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        say(f"\n{str(stopped) or sentence}")
        raise typer.Exit(EXIT_CODE) from None
