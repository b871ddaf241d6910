"""How the next version of a model is fed and read."""

from __future__ import annotations

import json

import pytest
from tests.config.samples import DIGEST, OTHER_DIGEST
from tests.config.test_media_manifest import PICTURE, SCORES, served

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import build, wire_value
from vedette.control.model_media import extras_of, media_of
from vedette.control.resolve_models import ModelFile
from vedette.errors import ConfigError
from vedette.store.models import KeptVersion

FOUND = ModelFile(
    format="onnx", size=7, inputs=(PICTURE,), outputs=(SCORES,), load_millis=1.0, runtime="r"
)
NAMED = {"output": {"labels": {"names": DIGEST}}}


def stored(digest: str) -> int:
    assert digest == DIGEST
    return 9


def test_what_is_not_said_stays_and_what_is_said_replaces_all_of_it() -> None:
    before = served((PICTURE,), input={"image": {}}, output={"labels": {"names": "names.txt"}})
    kept = media_of(None, FOUND, before, stored)
    assert set(kept) == {"input", "output", "files"}
    assert kept["files"] == wire_value(before)["files"]
    assert media_of(None, FOUND, None, stored) == {}
    assert media_of(MediaSpec(), FOUND, before, stored) == {}
    said = media_of(build(MediaSpec, NAMED), FOUND, before, stored)
    assert said["files"] == [{"role": "names", "blob": DIGEST, "size": 9}]
    assert "input" not in said


def test_a_file_is_an_upload_within_limits() -> None:
    path = build(MediaSpec, {"output": {"labels": {"names": "names.txt"}}})
    with pytest.raises(ConfigError, match="no digest"):
        media_of(path, FOUND, None, stored)
    with pytest.raises(ConfigError, match="bytes"):
        media_of(build(MediaSpec, NAMED), FOUND, None, lambda _: 33 << 20)


def test_the_files_of_versions_that_are_kept_are_needed() -> None:
    model = served((PICTURE,), output={"labels": {"names": "names.txt"}})
    text = json.dumps(wire_value(model))
    kept = KeptVersion("m", 1, OTHER_DIGEST, text, "2026-01-01T00:00:00Z", "me")
    plain = KeptVersion("m", 2, OTHER_DIGEST, "{}", "2026-01-01T00:00:00Z", "me")
    assert extras_of([kept, plain]) == {OTHER_DIGEST}
