"""Something to look at while the node does what takes a while.

Owns: a line on a terminal that says what is going on and for how long. Must not: print where there is no terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def waiting(sentence: str) -> Iterator[None]:
    """Shows `sentence` and the seconds since then on stderr, gone when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from vedette.cli.deploying import progress_bar

    with progress_bar() as progress:
        progress.add_task(sentence, total=None)
        yield
