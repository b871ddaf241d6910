"""Commands in the documents are really run, line by line, against a node as the document would start it.

A block of ```sh is run unless the line before it says `<!-- not run: why -->`. `make` and `vedette up` lines are not
run again here: their targets and flags are checked to exist, and the node they would start is already there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tests.components import MINUTES
from tests.e2e.node import PROGRAM, Node, new_home

ROOT = Path(__file__).parents[2]
GROUPS = (
    "audit",
    "authority",
    "certificate",
    "federation",
    "issuer",
    "model",
    "policy",
    "workload",
)
BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>.+?) -->\n)?^```sh\n(?P<text>.*?)^```", re.M | re.S)
RUN = [
    "README.md",
    "docs/audit.md",
    "docs/manifests.md",
    "examples/01-hello/README.md",
    "examples/02-service/README.md",
]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands: where it starts, and its text."""

    line: int
    text: str


def blocks(document: Path) -> list[Block]:
    """The blocks of a document that are to be run."""
    text = document.read_text("utf-8")
    return [
        Block(text.count("\n", 0, match.start("text")) + 1, match["text"])
        for match in BLOCK.finditer(text)
        if not match["why"]
    ]


@pytest.fixture(scope="module")
def home_node() -> Iterator[Node]:
    """A node with the example, as `make up` starts it, on a free port."""
    node = Node(new_home())
    node.run("up", "--detach", "--metrics", "127.0.0.1:0", "--listen", "127.0.0.1:0", timeout=300)
    node.run("ca", "--out", str(node.ca_file))
    yield node
    node.discard()


def _script(block: Block, node: Node) -> str:
    lines = [line for line in block.text.splitlines() if not _starts_the_node(line)]
    script = "\n".join(lines).replace("localhost:8443", node.endpoint.authority)
    return f"set -euo pipefail\n{script}\n"


def _starts_the_node(line: str) -> bool:
    return (
        re.match(r"\s*(make\b|vedette up\b|vedette down\b|git clone\b|cd vedette\b)", line)
        is not None
    )


@pytest.mark.timeout(20 * MINUTES)
@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_the_document_work(name: str, home_node: Node, tmp_path: Path) -> None:
    document = ROOT / name
    found = blocks(document)
    assert found, f"{name} has no command to run"
    environment = {
        **os.environ,
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "VEDETTE_HOME": str(home_node.home),
    }
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("target")
    )
    for block in found:
        done = subprocess.run(
            ["bash", "-c", _script(block, home_node)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )
        assert done.returncode == 0, (
            f"{name}:{block.line} failed with {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}"
        )


@pytest.mark.parametrize("name", RUN)
def test_make_targets_in_the_document_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    used = re.findall(r"^\s*make ([a-z-]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert set(used) <= targets


@pytest.mark.parametrize("name", RUN)
def test_flags_of_vedette_in_the_document_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for line in re.findall(r"^\s*(vedette .*)$", text, re.MULTILINE):
        words = shlex.split(
            line.split("#")[0].split("|")[0].split("$(")[0].split(">")[0], posix=False
        )
        depth = 3 if words[1:2] and words[1] in GROUPS else 2
        shown = _help(*(word for word in words[1:depth] if not word.startswith("-")))
        assert shown.returncode == 0, line
        for flag in (word for word in words if word.startswith("--")):
            assert flag.partition("=")[0] in shown.stdout, f"{name}: {line}: no {flag}"


@cache
def _help(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"},
    )
