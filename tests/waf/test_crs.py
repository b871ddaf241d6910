"""The pin of the Core Rule Set: another content than the pinned is refused, and nothing of it is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from vedette.policy import coreruleset as crs

GO_DIRHASH = "h1:ohH3LXOZvB1unaKSF5doILdr1WrJTyymaTMcewqEMiQ="


def module(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{crs.MODULE}@{crs.VERSION}/{name}", text)
    return path


def test_the_checksum_is_the_one_of_go(tmp_path: Path) -> None:
    # `h1:` of a module with these two files, computed with the Go client's own dirhash.
    archive = tmp_path / "module.zip"
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("b@v1/b.txt", "world\n")
        written.writestr("b@v1/a.txt", "hello\n")
    with zipfile.ZipFile(archive) as read:
        assert crs.content_checksum(read) == GO_DIRHASH


def test_a_rule_set_with_another_content_is_refused_and_not_unpacked(tmp_path: Path) -> None:
    archive = module(tmp_path / "module.zip", {"rules/a.conf": "SecRuleEngine Off"})
    with pytest.raises(crs.FetchError, match="pinned is h1:"):
        crs.unpack(archive, tmp_path / "crs")
    assert not (tmp_path / "crs").exists()


def test_the_rules_and_tests_are_unpacked_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"rules/a.conf": "a", "tests/b.yaml": "b", "LICENSE": "c", "mage.go": "d"}
    archive = module(tmp_path / "module.zip", files)
    with zipfile.ZipFile(archive) as read:
        monkeypatch.setattr(crs, "CHECKSUM", crs.content_checksum(read))
    crs.unpack(archive, tmp_path / "crs")
    found = {
        str(path.relative_to(tmp_path / "crs"))
        for path in tmp_path.rglob("crs/**/*")
        if path.is_file()
    }
    assert found == {"rules/a.conf", "tests/b.yaml", "LICENSE"}
