"""The Merkle tree of RFC 6962 §2.1 (RFC 9162 §2.1), as a range that only grows.

Owns: leaf and node hashes, and ranges of leaves as the fewest hashes that stand for them. Must not: know what a leaf
holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
MAX_SIZE: Final = 2**63
MAX_NODES: Final = 126
"""More nodes than any range of leaves below `MAX_SIZE` has."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf: SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\0" + data).digest()


def levels(first: int, end: int) -> Iterator[int]:
    """The levels of the largest aligned subtrees that make up the leaves `first` to `end` (not included), in order."""
    while first < end:
        fits = (end - first).bit_length() - 1
        aligned = (first & -first).bit_length() - 1 if first else fits
        level = min(fits, aligned)
        yield level
        first += 1 << level


class Range:
    """Leaves `first` to `end` (not included) as hashes of subtrees: at most two for each bit of their number.

    A range that begins at 0 is a whole tree. Grows at its end, by a leaf or by the range that follows.
    """

    __slots__ = ("_nodes", "end", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = self.end = first
        self._nodes: list[tuple[int, bytes]] = []

    @classmethod
    def of(cls, first: int, end: int, nodes: Iterable[bytes]) -> Range:
        """The range whose `nodes` were. Raises `ValueError` when they cannot be those of these leaves."""
        found = list(nodes)
        if not 0 <= first <= end < MAX_SIZE:
            raise ValueError("no such range of leaves")
        wanted = list(levels(first, end))
        if len(wanted) != len(found) or any(len(node) != HASH_BYTES for node in found):
            raise ValueError("these are not the hashes of that range")
        made = cls(first)
        made._nodes = list(zip(wanted, found, strict=True))
        made.end = end
        return made

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The hashes, left to right."""
        return tuple(node for _, node in self._nodes)

    def copy(self) -> Range:
        """Another range that is equal now."""
        return Range.of(self.first, self.end, self.nodes)

    def append(self, leaf: bytes) -> None:
        """Adds the hash of the leaf at `end`."""
        self._push(0, leaf)

    def extend(self, following: Range) -> None:
        """Adds the range that begins where this one ends. Raises `ValueError` for any other."""
        if following.first != self.end:
            raise ValueError(f"leaf {self.end} is next, not {following.first}")
        for level, node in following._nodes:
            self._push(level, node)

    def root(self) -> bytes:
        """The root of the whole tree. Raises `ValueError` for a range that does not begin at 0."""
        if self.first:
            raise ValueError("only a whole tree has a root")
        if not self._nodes:
            return EMPTY_ROOT
        _, root = self._nodes[-1]
        for _, left in reversed(self._nodes[:-1]):
            root = hashlib.sha256(b"\1" + left + root).digest()
        return root

    def _push(self, level: int, node: bytes) -> None:
        """Adds a subtree that begins at `end`, and joins what became whole: its left half ends in a one bit."""
        nodes, position = self._nodes, self.end >> level
        self.end += 1 << level
        while position & 1 and nodes and nodes[-1][0] == level:
            node = hashlib.sha256(b"\1" + nodes.pop()[1] + node).digest()
            level += 1
            position >>= 1
        nodes.append((level, node))
