"""The tree against RFC 6962's own vectors and against its definition, written down once more."""

from __future__ import annotations

import hashlib
import random

import pytest

from vedette.observability.audit.tree import EMPTY_ROOT, Range, leaf_hash, levels

# The leaves and roots of the test data of certificate-transparency's reference implementation.
LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def defined(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    halves = defined(leaves[:split]) + defined(leaves[split:])
    return hashlib.sha256(b"\1" + halves).digest()


def test_roots_are_those_of_the_published_vectors() -> None:
    tree = Range()
    assert tree.root() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        assert tree.root().hex() == root


def test_a_tree_of_parts_is_the_tree_of_its_leaves() -> None:
    draw = random.Random(1)
    for _ in range(60):
        leaves = [draw.randbytes(3) for _ in range(draw.randrange(1, 120))]
        tree, at = Range(), 0
        while at < len(leaves):
            end = min(len(leaves), at + draw.randrange(1, 30))
            part = Range(at)
            for leaf in leaves[at:end]:
                part.append(leaf_hash(leaf))
            assert len(part.nodes) == len(list(levels(at, end)))
            tree.extend(Range.of(at, end, part.nodes))
            at = end
        assert tree.root() == defined(leaves)
        assert Range.of(0, tree.end, tree.nodes).root() == tree.root()


def test_parts_that_do_not_fit_are_refused() -> None:
    tree = Range()
    tree.append(leaf_hash(b"a"))
    with pytest.raises(ValueError):
        tree.extend(Range(2))
    for first, end, nodes in [
        (0, 1, []),
        (0, 2, [b"x" * 32] * 2),
        (0, 1, [b"x"]),
        (2, 1, []),
        (0, 2**63, []),
    ]:
        with pytest.raises(ValueError):
            Range.of(first, end, nodes)
    with pytest.raises(ValueError):
        Range(1).root()
