"""There are 26 checks, each maps to tenets and pillars, and the document has them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.verification.catalogue import ALL, WAITING, chosen, in_order
from vedette.verification.checks import Pillar, Tenet


def test_there_are_twenty_six_and_each_says_what_it_maps_to() -> None:
    assert [check.id for check in ALL] == list(range(1, 27))
    assert all(check.tenets and check.pillars and check.mend for check in ALL)
    assert {tenet for check in ALL for tenet in check.tenets} == set(Tenet)
    assert {pillar for check in ALL for pillar in check.pillars} == set(Pillar)
    assert all(check.is_available for check in ALL)


def test_checks_are_chosen_by_number() -> None:
    assert [check.id for check in chosen("7, 3")] == [3, 7]
    assert len(chosen(None)) == 26


@pytest.mark.parametrize("text", ["0", "27", "x", "", "3,x", "3;7"])
def test_an_unknown_number_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(text)
    assert caught.value.code == "check_unknown"


def test_what_looks_back_comes_last_and_what_ends_the_twin_at_the_end() -> None:
    assert [check.id for check in in_order(ALL)][-3:] == [25, 26, 21]


def test_those_that_wait_come_first_so_that_they_wait_side_by_side() -> None:
    assert tuple(check.id for check in in_order(ALL))[: len(WAITING)] == WAITING
    assert [check.id for check in in_order(chosen("5,6,1,25"))] == [6, 1, 5, 25]


def test_the_document_has_every_check(checkout: Path) -> None:
    text = (checkout / "docs" / "verify.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    cells = {int(row.split("|")[1]): row.split("|")[2].strip() for row in rows}
    assert cells == {check.id: check.name for check in ALL}
