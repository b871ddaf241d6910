"""DER forms at their edges; whole certificates are read back in test_x509_svid."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from vedette.identity.der import OCTET_STRING, integer, time, tlv


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "020100"), (127, "02017f"), (128, "02020080"), (255, "020200ff"), (256, "02020100")],
)
def test_a_number_is_never_read_as_negative(value: int, encoded: str) -> None:
    assert integer(value).hex() == encoded


@pytest.mark.parametrize(
    ("size", "head"), [(127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100")]
)
def test_a_length_has_its_shortest_form(size: int, head: str) -> None:
    assert tlv(OCTET_STRING, b"x" * size).hex() == head + "78" * size


def test_times_change_their_form_with_2050() -> None:
    assert time(datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)) == b"\x17\x0d491231235959Z"
    assert time(datetime(2050, 1, 1, tzinfo=UTC)) == b"\x18\x0f20500101000000Z"
