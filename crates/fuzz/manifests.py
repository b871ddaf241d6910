"""The fuzz target `manifests`: YAML of any shape is resolved or refused with an error that names the file.

Owns: changing manifests, as bytes and as trees, and what must hold: no exception but `VedetteError`, an answer within
seconds, memory within bounds. Speaks to `run.py` as libFuzzer does: its flags, its words at the end.

There is no coverage to follow in Python 3.11 that does not cost more than it finds: the changes are made where the
grammar is, and the seeds have every kind.
"""

from __future__ import annotations

import copy
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from vedette.config.manifests import ManifestObject
from vedette.config.snapshot import Snapshot
from vedette.config.yaml_source import parse_documents
from vedette.control.resolve import resolve
from vedette.errors import VedetteError

BASE_HOSTS = frozenset({"127.0.0.1", "localhost"})

_MEMORY = 2 << 30
_LONGEST = 64_000
_ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        float("nan"),
        "",
        " ",
        "a" * 300,
        "é\u2028",
        "\ud7ff",
        "/..",
        "%2f",
    ),
    *(
        "*",
        "*.",
        "[::1",
        "https://",
        "http://a:99999",
        "1KB",
        "-1s",
        "9" * 40 + "h",
        "(",
        "(a+)+$",
        "(?P<a",
    ),
    *([], {}, [[]], {"": None}, "2026-13-45", "0x_", "~", "1:2:3"),
]


def check(data: bytes, base: Snapshot) -> None:
    """Resolves the manifests. Anything raised but a `VedetteError` is a finding."""
    try:
        found = [
            ManifestObject.of(each, "fuzz.yaml") for each in parse_documents(data, "fuzz.yaml")
        ]
        resolved = resolve(found, base, [], BASE_HOSTS, prune=True)
    except VedetteError as error:
        if not (error.message and error.hint):
            raise AssertionError("an error says what is wrong and how to mend it") from error
        return
    payload = resolved.snapshot.canonical_bytes()
    assert Snapshot.parse(payload).digest() == resolved.snapshot.digest()


def changed(text: bytes, choose: random.Random) -> bytes:
    """The text with a few changes, to its tree or to its bytes."""
    if choose.random() < 0.7:
        try:
            trees = list(yaml.safe_load_all(text))
            for _ in range(choose.randint(1, 3)):
                trees = _changed_tree(trees, choose)
            return yaml.safe_dump_all(trees, allow_unicode=True, sort_keys=False).encode()
        except (yaml.YAMLError, ValueError, RecursionError):
            pass  # then its bytes
    data = bytearray(text)
    for _ in range(choose.randint(1, 8)):
        at = choose.randrange(len(data) + 1)
        match choose.randrange(4):
            case 0:
                data[at:at] = choose.choice(
                    [b"&a ", b"*a", b"!!", b"<<: *a", b"\t", b"\0", b"---\n", b"? ", b"|2\n"]
                )
            case 1:
                del data[at : at + choose.randint(1, 20)]
            case 2:
                data[at:at] = data[: choose.randint(0, 400)]
            case _:
                data[at : at + 1] = bytes([choose.randrange(256)])
    return bytes(data[:_LONGEST])


def _changed_tree(trees: list[Any], choose: random.Random) -> list[Any]:
    """One node anywhere becomes something odd, another node, or two of its kind."""
    places = list(_places(trees))
    if not places:
        return [copy.deepcopy(choose.choice(_ODD))]
    holder, key = choose.choice(places)
    match choose.randrange(5):
        case 0:
            holder[key] = choose.choice(_ODD)
        case 1:
            other, name = choose.choice(places)
            holder[key] = copy.deepcopy(other[name])
        case 2 if isinstance(holder, dict):
            holder[str(choose.choice(_ODD))] = holder.pop(key)
        case 3 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case _:
            del holder[key]
    return trees


def _places(node: Any) -> Any:
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], (dict, list)) and node[key]:
            yield from _places(node[key])


def _flag(name: str, otherwise: str) -> str:
    found = [word.partition("=")[2] for word in sys.argv if word.startswith(f"-{name}=")]
    return found[-1] if found else otherwise


def main() -> int:
    """Replays the files named, then changes them until the time is over. Exit code 1 at the first finding."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    base = Snapshot.parse((Path(__file__).parent / "base.json").read_bytes())
    named = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    files = [
        file for path in named for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    pool = [file.read_bytes() for file in files]
    choose, runs = random.Random(time.time_ns()), 0
    ends = time.monotonic() + float(_flag("max_total_time", "0"))
    waiting = list(pool)
    while waiting or time.monotonic() < ends:
        data = waiting.pop() if waiting else changed(choose.choice(pool), choose)
        signal.alarm(
            int(_flag("timeout", "10"))
        )  # its default action ends the process: that is a finding
        Path(f"{_flag('artifact_prefix', './')}current").write_bytes(data)
        check(data, base)
        runs += 1
        if runs % 50 == 0 and len(pool) < 2000:
            pool.append(data)  # changes of changes
    signal.alarm(0)
    Path(f"{_flag('artifact_prefix', './')}current").unlink(missing_ok=True)
    print(f"stat::number_of_executed_units: {runs}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
