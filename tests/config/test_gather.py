"""Reading manifests and what they name: folders, links, sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.config import gather
from vedette.config.gather import (
    content_type,
    place_of,
    read_blob,
    read_sources,
    read_text,
    read_tree,
)
from vedette.config.manifests import ManifestObject
from vedette.errors import ConfigError
from vedette.ids import digest_of

NODE = b"apiVersion: vedette.dev/v1alpha1\nkind: Node\nmetadata: {name: n}\n"


def _no_stdin() -> bytes:
    raise AssertionError("nobody asked for standard input")


def _sources(*names: Path | str) -> list[str]:
    return [one.file for one in read_sources([str(name) for name in names], _no_stdin)]


def _refused(*names: Path | str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _sources(*names)
    return caught.value


def test_a_folder_gives_its_yaml_files_by_name_and_nothing_below(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "readme.md", "below/c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(NODE)
    assert _sources(tmp_path) == [str(tmp_path / "a.yml"), str(tmp_path / "b.yaml")]
    assert _sources(tmp_path, tmp_path / "b.yaml") == _sources(tmp_path), "once is enough"


def test_nothing_named_is_vedette_yaml_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _refused().code == "manifest_missing"
    (tmp_path / "vedette.yaml").write_bytes(NODE)
    assert _sources() == ["vedette.yaml"]


def test_standard_input_is_a_dash() -> None:
    (one,) = read_sources(["-"], lambda: NODE)
    assert one.file == "standard input"


def test_what_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    assert _refused(tmp_path / "none.yaml").code == "manifest_missing"
    assert "no .yaml file" in _refused(tmp_path).message
    (tmp_path / "empty.yaml").write_bytes(b"# nothing\n---\n")
    assert "there is no manifest" in _refused(tmp_path).message
    os.mkfifo(tmp_path / "pipe")
    assert "no plain file" in _refused(tmp_path / "pipe").message


def test_a_manifest_linked_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_bytes(NODE)
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "a.yaml").symlink_to(tmp_path / "secret.yaml")
    assert "leads out" in _refused(tmp_path / "edge").message


def _object(folder: Path) -> ManifestObject:
    return ManifestObject(file=str(folder / "edge.yaml"), data={})


def test_a_file_may_be_beside_or_above_as_written_but_not_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "ca.pem").write_text("x")
    assert read_text(place_of(_object(tmp_path / "edge"), "../shared/ca.pem"), "it") == "x"
    (tmp_path / "edge" / "ca.pem").symlink_to(tmp_path / "shared" / "ca.pem")
    (tmp_path / "edge" / "shared").symlink_to(tmp_path / "shared")
    for written in ("ca.pem", "shared/ca.pem", "./x/../ca.pem"):
        with pytest.raises(ConfigError) as caught:
            place_of(_object(tmp_path / "edge"), written)
        assert "leads out" in caught.value.message


def test_a_text_is_utf_8_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_text(tmp_path / "x", "it")
    monkeypatch.setattr(gather, "MAX_TEXT_BYTES", 0)
    with pytest.raises(ConfigError, match="larger"):
        read_text(tmp_path / "x", "it")
    with pytest.raises(ConfigError, match="cannot read it"):
        read_text(tmp_path / "none", "it")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "css").mkdir(parents=True)
    (folder / "index.html").write_text("<p>hi</p>")
    (folder / "css" / "a.css").write_text("p {}")
    (folder / ".env").write_text("SECRET=1")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    return folder


def test_a_tree_is_every_file_but_hidden_ones(site: Path) -> None:
    tree = read_tree(site, "'site'")
    assert [(each.path, each.size) for each in tree.files] == [("css/a.css", 4), ("index.html", 9)]
    assert tree.files[1].content_type == "text/html; charset=utf-8"
    assert sorted(tree.hidden) == [".env", ".git"]
    assert tree.paths[tree.files[1].blob].read_bytes() == b"<p>hi</p>"


def test_a_tree_never_leaves_its_folder(site: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (site / "leak").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="leads out"):
        read_tree(site, "'site'")
    (site / "leak").unlink()
    (site / "more").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="link to a folder"):
        read_tree(site, "'site'")


def test_a_tree_has_an_end(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAX_FILES", 1)
    with pytest.raises(ConfigError, match="more than 1 files"):
        read_tree(site, "'site'")
    monkeypatch.setattr(gather, "MAX_FILE_BYTES", 3)
    with pytest.raises(ConfigError, match="larger than 3 bytes"):
        read_tree(site, "'site'")


def test_names_no_url_can_have_are_refused(site: Path) -> None:
    (site / "a\nb").write_text("x")
    with pytest.raises(ConfigError, match="no URL can have"):
        read_tree(site, "'site'")
    with pytest.raises(ConfigError, match="there is no folder"):
        read_tree(site / "index.html", "'x'")


def test_types_do_not_depend_on_the_machine() -> None:
    assert content_type("a/App.JS") == "text/javascript; charset=utf-8"
    assert content_type("x.wasm") == "application/wasm"
    assert content_type("x.unknown") == content_type("LICENSE") == "application/octet-stream"


def test_a_file_that_goes_as_it_is_has_its_digest_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "drop.txt"
    file.write_bytes(b"192.0.2.0/24\n")
    os.utime(file, (1_750_000_000.9, 1_750_000_000.9))
    found, modified = read_blob(file, "'drop.txt'", 1 << 20)
    assert (found.blob, found.size) == (digest_of(b"192.0.2.0/24\n"), 13)
    assert modified == "2025-06-15T15:06:40Z"


def test_a_file_that_is_too_large_or_not_there_is_told_as_written(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    for name, sentence in (("large", "'large' is larger than 1,048,576 bytes"), ("none", "'none'")):
        with pytest.raises(ConfigError, match=sentence) as caught:
            read_blob(tmp_path / name, repr(name), 1 << 20)
        assert caught.value.code == "manifest_invalid"
