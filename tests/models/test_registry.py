"""Versions only go up, and old ones go when there are enough."""

from __future__ import annotations

import pytest

from vedette.errors import ConfigError
from vedette.models.registry import (
    MAX_VERSION,
    Registered,
    declared_version,
    new_version,
    superfluous,
)

A, B, C = ("sha256:" + each * 64 for each in "abc")
KNOWN = Registered({2: A, 4: B}, highest=7, serving=4, previous=2)


def test_a_new_file_is_the_next_version_or_the_one_given() -> None:
    assert new_version("m", Registered(), None) == 1
    assert new_version("m", KNOWN, None) == 8
    assert new_version("m", KNOWN, 9) == 9


@pytest.mark.parametrize("given", [1, 4, 5, 7])
def test_a_number_that_there_was_is_never_given_again(given: int) -> None:
    with pytest.raises(ConfigError) as caught:
        new_version("m", KNOWN, given)
    error = caught.value
    assert error.code == "model_downgrade"
    assert "give 8 or more" in str(error.hint)
    assert ("vedette model promote m --version 4" in str(error.hint)) == (given == 4)


def test_a_version_has_an_end() -> None:
    with pytest.raises(ConfigError):
        new_version("m", Registered(highest=MAX_VERSION), None)


def test_a_manifest_means_the_version_of_its_file() -> None:
    assert declared_version("m", KNOWN, B, None) == 4
    assert declared_version("m", KNOWN, A, None) == 2, "going back to an older manifest"
    assert declared_version("m", KNOWN, C, None) == 8
    assert declared_version("m", KNOWN, A, 2) == 2
    assert declared_version("m", KNOWN, C, 12) == 12
    for blob, given in ((C, 2), (A, 4), (C, 7)):
        with pytest.raises(ConfigError) as caught:
            declared_version("m", KNOWN, blob, given)
        assert caught.value.code == "model_downgrade"


def test_of_one_file_with_two_numbers_the_one_that_serves_is_meant() -> None:
    known = Registered({1: A, 2: A, 3: A}, highest=3, serving=2)
    assert declared_version("m", known, A, None) == 2
    known = Registered({1: A, 2: A, 3: B}, highest=3, serving=3)
    assert declared_version("m", known, A, None) == 2


def test_old_versions_go_but_not_the_one_that_serves_nor_the_one_before() -> None:
    versions = dict.fromkeys(range(1, 10), A)
    known = Registered(versions, highest=9, serving=3, previous=1)
    assert superfluous(known) == (2, 4)
    assert superfluous(known, keep=2) == (2, 4, 5, 6, 7)
    assert superfluous(Registered(dict.fromkeys(range(1, 6), A), highest=5)) == ()
