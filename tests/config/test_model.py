"""What is wrong with data, in the words of whoever wrote it."""

from __future__ import annotations

import pytest

from vedette.config.model import attempt
from vedette.config.routes import RouteManifest

HEAD = {"apiVersion": "vedette.dev/v1alpha1", "kind": "Route", "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"rules": [{"matches": [{"path": "/y"}], "static": {"body": "a"}}]},
            "spec.rules.0.matches.0.path is a mapping with any of type, value",
        ),
        ({"rules": {"matches": 1}}, "spec.rules is a list; write [ … ]"),
        ({"rules": []}, "spec.rules has too few items"),
    ],
)
def test_a_wrong_shape_is_said_once_and_in_the_words_of_the_manifest(
    spec: object, sentence: str
) -> None:
    manifest, failures = attempt(RouteManifest, {**HEAD, "spec": spec})
    assert manifest is None
    assert [failure.sentence for failure in failures] == [sentence]
