"""The country of an address as the regional Internet registries have it: the database that a node brings.

Owns the pin, and the packed form (MaxMind's format), which is a part of the installed package and
never of the repository: `make countries` brings the registries' delegated statistics with cargo, in
a crate that compiles them each night, and packs them beside this module with the licences. Run as a
program it needs the standard library alone. Must not: say who is let in; ADR 0024 says how right it is.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CRATE = "iptocc"
VERSION = "1.4.175"
BUILT = 1_793_491_200  # 2026-11-01, when that version was published
# The two files of the crate that are read. cargo checks the crate itself against its index.
DIGESTS = {
    "v4.bin": "36a5de4f3eb14ec3fba2fdd3bf29fa99928a19b81585b0f0853cb9f6a098309e",
    "v6.bin": "4760d5bb60d8b830b1e48556dd70bd598d8c763334b5a75712f33b6d03f1a52a",
}

# Beside this module, both.
PACKED = Path(__file__).with_name("countries.mmdb")
NOTICE = Path(__file__).with_name("countries-NOTICE.txt")
NO_COUNTRIES = frozenset({"AP", "EU", "ZZ"})  # regions, and nobody

_BUCKETS = 1 << 16
_EMPTY, _PURE, _TAGS = 2 << 30, 1 << 30, 3 << 30
_UNASSIGNED = 0xFF
_SUB_INDEX = 257 * 2
_DEEP_PAIRS = 257 * 4
_RECORD, _SIDE = 6, 33
_NOTICE = """\
countries.mmdb says which country a regional Internet registry gave an address to.

Data: the delegated statistics of AFRINIC, APNIC, ARIN, LACNIC and RIPE NCC, published together by the Number Resource
Organization (https://www.nro.net) under the Creative Commons Attribution 4.0 International License
(https://creativecommons.org/licenses/by/4.0/). They were changed: compiled by {crate} {version}, then put into
MaxMind's format; entries of regions (AP, EU) were left out. There is no warranty.

{crate} {version} is licensed under MIT OR Apache-2.0, taken under MIT:

{licence}"""

Network = tuple[int, int, int, str]
"""IP version, first address, length of the prefix, country."""


class FetchError(Exception):
    """The data could not be had, or is other than the pinned."""


def networks(v4: bytes, v6: bytes) -> Iterator[Network]:
    """What the crate's two files say, in order of addresses, without overlap."""
    for version, ranges in ((4, _ranges_v4(v4)), (6, _ranges_v6(v6))):
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        for first, last, country in _joined(ranges):
            if country in NO_COUNTRIES:
                continue
            for network in ipaddress.summarize_address_range(kind(first), kind(last)):
                yield version, int(network.network_address), network.prefixlen, country


def database(found: Iterable[Network], built: int) -> bytes:
    """A database in MaxMind's format (version 2.0, records of 24 bits), of networks without overlap."""
    tree, data = _Tree(), _Data()
    for version, first, length, country in found:
        tree.insert(first, length + (96 if version == 4 else 0), data.place_of(country))
    body = bytes(tree.separator) + bytes(data.written)
    return tree.written() + body + b"\xab\xcd\xefMaxMind.com" + _metadata(len(tree.nodes), built)


def installed() -> bytes | None:
    """The database that this installation brings; None in a checkout in which `make countries` did not run."""
    try:
        return PACKED.read_bytes()
    except FileNotFoundError:
        return None


def _ranges_v4(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Of each /16: one country, none, or where in it the country changes."""
    codes, at = _codes(data, _BUCKETS * 4)
    (mixed,) = struct.unpack_from("<I", data, at)
    borders = struct.unpack_from(f"<{mixed + 1}I", data, at + 4)
    initial = at + 4 + (mixed + 1) * 4
    (count,) = struct.unpack_from("<I", data, initial + mixed)
    offsets = initial + mixed + 4
    changes = struct.unpack_from(f"<{count}H", data, offsets)
    after = offsets + count * 2
    for bucket, entry in enumerate(struct.unpack_from(f"<{_BUCKETS}I", data)):
        base, tag, index = bucket << 16, entry & _TAGS, entry & ~_TAGS
        if tag == _EMPTY:
            continue
        if tag == _PURE:
            yield base, base | 0xFFFF, codes[index & 0xFF]
            continue
        start, code = 0, data[initial + index]
        for change in range(borders[index], borders[index + 1]):
            if code != _UNASSIGNED and changes[change] > start:
                yield base | start, base | changes[change] - 1, codes[code]
            start, code = changes[change], data[after + change]
        if code != _UNASSIGNED:
            yield base | start, base | 0xFFFF, codes[code]


def _ranges_v6(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Networks sorted within each /16, their offset being the 32 bits that follow it; odd ranges lie aside."""
    (populated,) = struct.unpack_from("<I", data, _BUCKETS)
    firsts = struct.unpack_from(f"<{populated + 1}I", data, _BUCKETS + 4)
    at = _BUCKETS + 4 + (populated + 1) * 4 + populated * _SUB_INDEX
    for _ in range(2):
        (deep,) = struct.unpack_from("<I", data, at)
        at += 4 + deep * (2 + _DEEP_PAIRS)
    codes, at = _codes(data, at)
    (sides,) = struct.unpack_from("<I", data, at)
    primary = at + 4 + sides * _SIDE + 4
    for bucket in range(_BUCKETS):
        index = data[bucket]
        if index == _UNASSIGNED:
            continue
        for entry in range(firsts[index], firsts[index + 1]):
            offset, length, code = struct.unpack_from("<IBB", data, primary + entry * _RECORD)
            if length:
                first = bucket << 112 | offset << 80
                yield first, first | (1 << 128 - length) - 1, codes[code]
            else:
                side = at + 4 + offset * _SIDE
                ends = data[side : side + 16], data[side + 16 : side + 32]
                first, last = (int.from_bytes(each, "little") for each in ends)
                yield first, last, codes[data[side + 32]]


def _codes(data: bytes, at: int) -> tuple[list[str], int]:
    """The countries by their numbers, and where what follows them begins."""
    (count,) = struct.unpack_from("<I", data, at)
    letters = data[at + 4 : at + 4 + count * 2].decode("ascii")
    return [letters[each : each + 2] for each in range(0, count * 2, 2)], at + 4 + count * 2


def _joined(ranges: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """The same with neighbours of one country as one."""
    open_: tuple[int, int, str] | None = None
    for first, last, country in ranges:
        if open_ is not None and open_[1] + 1 == first and open_[2] == country:
            open_ = (open_[0], last, country)
            continue
        if open_ is not None:
            yield open_
        open_ = (first, last, country)
    if open_ is not None:
        yield open_


class _Data:
    """The records: one for each country."""

    def __init__(self) -> None:
        self.written = bytearray()
        self._places: dict[str, int] = {}

    def place_of(self, country: str) -> int:
        if country not in self._places:
            self._places[country] = len(self.written)
            self.written += b"\xe1" + _text("country_code") + _text(country)
        return self._places[country]


class _Tree:
    """Nodes with two branches each: to a node, to a record (counted from -2 downwards), or to nothing."""

    separator = 16
    _NOTHING = -1

    def __init__(self) -> None:
        self.nodes = [[self._NOTHING, self._NOTHING]]

    def insert(self, first: int, length: int, place: int) -> None:
        node = 0
        for depth in range(length - 1):
            bit = first >> (127 - depth) & 1
            if self.nodes[node][bit] == self._NOTHING:
                self.nodes.append([self._NOTHING, self._NOTHING])
                self.nodes[node][bit] = len(self.nodes) - 1
            node = self.nodes[node][bit]
        self.nodes[node][first >> (128 - length) & 1] = -2 - place

    def written(self) -> bytes:
        return b"".join(self._record(each) for node in self.nodes for each in node)

    def _record(self, branch: int) -> bytes:
        count = len(self.nodes)
        if branch == self._NOTHING:
            branch = count
        elif branch < self._NOTHING:
            branch = count + self.separator - 2 - branch
        return branch.to_bytes(3, "big")


def _text(word: str) -> bytes:
    return bytes([0x40 | len(word)]) + word.encode()


def _short(value: int) -> bytes:
    return b"\xa2" + value.to_bytes(2, "big")


def _metadata(nodes: int, built: int) -> bytes:
    fields = {
        "binary_format_major_version": _short(2),
        "binary_format_minor_version": _short(0),
        "build_epoch": b"\x04\x02" + built.to_bytes(4, "big"),
        "database_type": _text("Country"),
        "description": b"\xe0",
        "ip_version": _short(6),
        "languages": b"\x00\x04",
        "node_count": b"\xc4" + nodes.to_bytes(4, "big"),
        "record_size": _short(24),
    }
    written = b"".join(_text(name) + value for name, value in fields.items())
    return bytes([0xE0 | len(fields)]) + written


@dataclass(frozen=True, slots=True)
class Source:
    """What the crate brings."""

    v4: bytes
    v6: bytes
    licence: str


def fetch(cargo: str) -> Source:
    """The pinned crate's data, by the cargo client. Raises `FetchError`."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "src").mkdir()
        (Path(scratch) / "src/lib.rs").touch()
        manifest = f'[package]\nname = "scratch"\nedition = "2021"\n[dependencies]\n{CRATE} = "={VERSION}"\n'
        (Path(scratch) / "Cargo.toml").write_text(manifest)
        command = [cargo, "vendor", "--quiet", "--versioned-dirs", "vendor"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FetchError(f"`cargo vendor` failed: {done.stderr.strip()[-500:]}")
        return read(Path(scratch) / "vendor" / f"{CRATE}-{VERSION}")


def read(crate: Path) -> Source:
    """The data in the folder of a crate. Raises `FetchError` for any other than the pinned."""
    data = {}
    for name, digest in DIGESTS.items():
        data[name] = (crate / "src/data" / name).read_bytes()
        if (found := hashlib.sha256(data[name]).hexdigest()) != digest:
            raise FetchError(f"{name} of {CRATE} {VERSION} is {found}, pinned is {digest}")
    return Source(data["v4.bin"], data["v6.bin"], (crate / "LICENSE-MIT").read_text())


def main() -> int:
    """Fetch the statistics unless they are packed, and pack them."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--is-there", action="store_true", help="only say whether they are")
    arguments.add_argument("--cargo", default=shutil.which("cargo") or "cargo")
    given = arguments.parse_args()
    pinned = f"{CRATE} {VERSION}"
    if given.is_there:
        return not (PACKED.exists() and NOTICE.exists() and pinned in NOTICE.read_text())
    print(f"Fetching the registries' statistics ({pinned})")
    try:
        source = fetch(given.cargo)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        print("mend: give this machine the registry of crates, or copy", end=" ", file=sys.stderr)
        print(f"{PACKED} and {NOTICE.name} from one that has it", file=sys.stderr)
        return 1
    PACKED.write_bytes(database(networks(source.v4, source.v6), BUILT))
    NOTICE.write_text(_NOTICE.format(crate=CRATE, version=VERSION, licence=source.licence))
    return 0


if __name__ == "__main__":
    sys.exit(main())
