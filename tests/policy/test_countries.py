"""The countries that a node brings: what the crate's files say, and that the packed form says the same."""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from pathlib import Path

import pytest

from vedette.policy import countries
from vedette.policy.countries import FetchError, Network, database, networks

CODES = ("CH", "DE", "EU")
CH, DE, EU, NONE = 0, 1, 2, 0xFF


def codes() -> bytes:
    return struct.pack("<I", len(CODES)) + "".join(CODES).encode()


def v4_file(pure: dict[int, int], mixed: dict[int, tuple[int, list[tuple[int, int]]]]) -> bytes:
    """A file as the crate has it: /16 of one country, and those in which it changes, from where on."""
    first = [2 << 30] * 65536
    for bucket, code in pure.items():
        first[bucket] = 1 << 30 | code
    borders, changes = [0], []
    for index, (bucket, (_, within)) in enumerate(mixed.items()):
        first[bucket] = index
        changes += within
        borders.append(len(changes))
    initial = bytes(code for code, _ in mixed.values())
    written = struct.pack("<65536I", *first) + codes()
    written += struct.pack("<I", len(mixed)) + struct.pack(f"<{len(borders)}I", *borders) + initial
    written += struct.pack("<I", len(changes))
    written += struct.pack(f"<{len(changes)}H", *(each for each, _ in changes))
    return written + bytes(code for _, code in changes) + struct.pack("<I", 0)


def v6_file(bucket: int, regular: list[tuple[int, int, int]], side: tuple[int, int, int]) -> bytes:
    """One /16 with entries (the 32 bits after it, length, country), and one odd range at its end."""
    index = bytearray(b"\xff" * 65536)
    index[bucket] = 0
    written = bytes(index) + struct.pack("<III", 1, 0, len(regular) + 1) + bytes(257 * 2)
    written += struct.pack("<I", 1) + bytes(2 + 257 * 4) + struct.pack("<I", 0) + codes()
    first, last, code = side
    written += struct.pack("<I", 1) + first.to_bytes(16, "little") + last.to_bytes(16, "little")
    written += bytes([code]) + struct.pack("<I", len(regular) + 1)
    rows = [struct.pack("<IBB", *each) for each in regular]
    return written + b"".join(rows) + struct.pack("<IBB", 0, 0, 0)


EMPTY_V6 = v6_file(0x2001, [], (0, 0, EU))


def told(found: list[Network]) -> list[str]:
    return [
        f"{(ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(first)}/{length} {code}"
        for version, first, length, code in found
    ]


def test_a_range_of_one_country_is_one_network_and_neighbours_are_joined() -> None:
    v4 = v4_file({0x0A00: CH, 0x0A01: CH, 0x0A02: DE}, {})
    assert told(list(networks(v4, EMPTY_V6))) == ["10.0.0.0/15 CH", "10.2.0.0/16 DE"]


def test_countries_change_within_a_range_and_regions_are_none() -> None:
    changes = [(0x0100, NONE), (0x0200, EU), (0x0300, DE), (0x8000, CH)]
    v4 = v4_file({0x0A01: CH}, {0x0A00: (CH, changes), 0x0B00: (NONE, [(0xFF00, DE)])})
    assert told(list(networks(v4, EMPTY_V6))) == [
        "10.0.0.0/24 CH",
        "10.0.3.0/24 DE",
        "10.0.4.0/22 DE",
        "10.0.8.0/21 DE",
        "10.0.16.0/20 DE",
        "10.0.32.0/19 DE",
        "10.0.64.0/18 DE",
        "10.0.128.0/17 CH",
        "10.1.0.0/16 CH",
        "11.0.255.0/24 DE",
    ]


def test_networks_of_ipv6_are_read_odd_ranges_too() -> None:
    start = 0x2A00 << 112 | 0x0500_0000 << 80
    odd = (start, start + (3 << 96) - 1, DE)
    v6 = v6_file(0x2A00, [(0x0145_0000, 32, CH), (0x0145_8000, 48, EU)], odd)
    found = told(list(networks(v4_file({}, {}), v6)))
    assert found == ["2a00:145::/32 CH", "2a00:500::/31 DE", "2a00:502::/32 DE"]


def country(data: bytes, address: str) -> str | None:
    """What a database says of an address, by a walk of its tree (MaxMind DB 2.0, records of 24 bits)."""
    parsed = ipaddress.ip_address(address)
    at = data.rindex(b"node_count") + len("node_count")
    count = int.from_bytes(data[at + 1 : at + 5], "big")
    node = 0
    for depth in range(128):
        side = int(parsed) >> (127 - depth) & 1
        node = int.from_bytes(data[node * 6 + side * 3 : node * 6 + side * 3 + 3], "big")
        if node == count:
            return None
        if node > count:
            record = data[count * 6 + node - count :]
            assert record.startswith(b"\xe1\x4ccountry_code\x42")
            return record[15:17].decode()
    raise AssertionError("the tree is deeper than an address")


def test_the_packed_form_says_the_same() -> None:
    found: list[Network] = [
        (4, int(ipaddress.ip_address("192.0.2.0")), 24, "CH"),
        (4, int(ipaddress.ip_address("198.51.100.7")), 32, "DE"),
        (6, 0x2A00 << 112, 16, "CH"),
    ]
    data = database(found, 1_750_000_000)
    asked = ("192.0.2.0", "192.0.2.255", "192.0.3.0", "198.51.100.7", "198.51.100.6", "2a00::1")
    assert [country(data, each) for each in asked] == ["CH", "CH", None, "DE", None, "CH"]
    assert data.count(b"country_code") == 2, "one record a country"


def test_the_installed_database_has_no_country_for_what_is_nobodys() -> None:
    data = countries.installed()
    if data is None:
        pytest.fail("there is no database of countries: run `make countries`", pytrace=False)
    nobodys = ("10.1.2.3", "127.0.0.1", "100.64.0.1", "169.254.1.1", "192.168.1.1", "224.0.0.1")
    assert {country(data, each) for each in (*nobodys, "::1", "fe80::1", "fd00::1")} == {None}
    known = {"193.0.6.139": "NL", "2001:67c:2e8::1": "NL", "200.160.0.8": "BR", "1.1.1.1": "AU"}
    assert {each: country(data, each) for each in known} == known
    assert "Attribution" in countries.NOTICE.read_text("utf-8")


def test_other_data_than_the_pinned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "src/data").mkdir(parents=True)
    for name in countries.DIGESTS:
        (tmp_path / "src/data" / name).write_bytes(b"other")
    digest = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(FetchError, match=digest):
        countries.read(tmp_path)
