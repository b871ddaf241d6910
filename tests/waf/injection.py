"""Our reading of SQL and HTML against libinjection's, over millions of values: `python -m tests.waf.injection`.

The C library is the one inside Debian's libmodsecurity3. The values are those of the Core Rule Set's tests, and changed
and spliced copies of them.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO
from urllib.parse import unquote_to_bytes

from tests.waf import engines, ftw
from tests.waf.modsecurity import load

SPECIAL = b"'\"`()<>=!-#/*;,.&|\\@%+ \x00\x0b\xa0\xff\t\nxXeEnNqQuUbB0123456789{}[]$:_^~?"
LONGEST = 600


@dataclass(frozen=True)
class Judged:
    """What one library says of a value."""

    fingerprint: str
    is_xss: bool


class Library:
    """libinjection."""

    def __init__(self) -> None:
        self._library = load()
        self._fingerprint = ctypes.create_string_buffer(16)

    def judge(self, value: bytes) -> Judged:
        """Ask the C library."""
        length = ctypes.c_size_t(len(value))
        is_sql = self._library.libinjection_sqli(value, length, self._fingerprint)
        fingerprint = self._fingerprint.value.decode("latin-1") if is_sql else "-"
        return Judged(fingerprint, bool(self._library.libinjection_xss(value, length)))


def ours(values: Iterable[bytes]) -> Iterator[Judged]:
    """Ask our crate, through its example."""
    with tempfile.TemporaryFile("w+") as asked:
        asked.writelines(f"{value.hex()}\n" for value in values)
        asked.seek(0)
        program = engines.built_example("injection")
        with subprocess.Popen([program], stdin=asked, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            yield from _judged(child.stdout)
        if child.returncode:
            raise RuntimeError(f"{program} ended with {child.returncode}")


def _judged(lines: IO[str]) -> Iterator[Judged]:
    for line in lines:
        fingerprint, is_xss = line.split()
        yield Judged(fingerprint, is_xss == "1")


def seeds() -> list[bytes]:
    """Every value in the Core Rule Set's tests, as it is and decoded."""
    found: set[bytes] = set()
    for exchange in (stage.exchange for case in ftw.corpus() for stage in case.stages):
        texts = [
            exchange.uri.encode(),
            exchange.body,
            *(value.encode() for _, value in exchange.headers),
        ]
        for text in texts:
            parts = [text, *text.replace(b"?", b"&").replace(b"=", b"&").split(b"&")]
            found.update(parts, (unquote_to_bytes(part.replace(b"+", b" ")) for part in parts))
    return sorted(value for value in found if 0 < len(value) < LONGEST)


def values(seed: int) -> Iterator[bytes]:
    """The seeds, then changed copies of them without end."""
    known = seeds()
    yield from known
    chance = random.Random(seed)
    while True:
        value = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, 5)):
            _change(value, known, chance)
        yield bytes(value)


def _change(value: bytearray, known: list[bytes], chance: random.Random) -> None:
    at = chance.randint(0, len(value))
    match chance.randrange(6):
        case 0:
            value.insert(at, chance.choice(SPECIAL))
        case 1:
            del value[at : at + 1]
        case 2:
            value[at : at + 1] = bytes([chance.choice(SPECIAL)])
        case 3:
            other = chance.choice(known)
            start = chance.randrange(len(other))
            value[at:at] = other[start : start + chance.randint(0, 24)]
        case 4:
            del value[slice(at) if chance.random() < 0.5 else slice(at, None)]
        case _:
            value[at : at + 1] = bytes([chance.randrange(256)])


def differences(count: int, seed: int) -> list[tuple[bytes, Judged, Judged]]:
    """The values, of `count`, on which the libraries differ: value, ours, theirs."""
    library = Library()
    asked = list(islice(values(seed), count))
    found = []
    for value, mine in zip(asked, ours(asked), strict=True):
        theirs = library.judge(value)
        if mine != theirs:
            found.append((value, mine, theirs))
    return found


def main() -> int:
    """Print the values on which the libraries differ."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--inputs", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    found = differences(given.inputs, given.seed)
    for value, mine, theirs in found:
        print(f"{value!r}: ours {mine}, libinjection {theirs}")
    print(f"{given.inputs} values, {len(found)} differences")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
