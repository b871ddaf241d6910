"""A list is read as the engine reads it (docs/admit.md)."""

from __future__ import annotations

import ipaddress

import pytest

from vedette.policy.listed import Networks, canonical

LIST = b"""\xef\xbb\xbf192.0.2.0/24 ; SBL1
# 203.0.113.9
  198.51.100.7 and words
::ffff:203.0.113.0/120
2001:db8:1::/48
nonsense
10.0.0.0/7
2000::/3
"""


@pytest.mark.parametrize(
    ("address", "is_listed"),
    [
        ("192.0.2.200", True),
        ("192.0.3.1", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("203.0.113.200", True),
        ("::ffff:192.0.2.1", True),
        ("2001:db8:1:ffff::1", True),
        ("2001:db8:2::1", False),
        ("10.0.0.1", False),
    ],
)
def test_an_address_is_on_a_list_or_not(address: str, is_listed: bool) -> None:
    assert (canonical(ipaddress.ip_address(address)) in Networks(LIST)) is is_listed
