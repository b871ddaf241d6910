"""What a part that asks a node of models is given.

Owns: Task. Must not: start or stop anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from load import LoadTools
from node import Node


@dataclass(frozen=True)
class Task:
    """A bare node on the server's core, a folder for files, and how it is asked."""

    node: Node
    folder: Path
    tools: LoadTools
    rounds: int
    seconds: float
    say: Callable[[str], None]
