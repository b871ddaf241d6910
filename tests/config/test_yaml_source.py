"""YAML in, plain data and lines out; what could hurt is refused."""

from __future__ import annotations

import pytest

from vedette.config import yaml_source
from vedette.config.yaml_source import parse_documents, parse_yaml
from vedette.errors import ConfigError


def _refused(text: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_documents(text, "x.yaml")
    assert caught.value.code == "manifest_invalid"
    return caught.value


def test_several_documents_keep_their_lines() -> None:
    first, second = parse_documents(b"a: 1\n---\n# only a comment\n---\nb:\n  c: 2\n", "x.yaml")
    assert (first.data, second.data) == ({"a": 1}, {"b": {"c": 2}})
    assert second.line_of(("b", "c", "nowhere")) == 6


def test_a_block_of_text_knows_where_it_begins() -> None:
    document = parse_yaml(b"spec:\n  cedar: |\n\n    permit ();\n  other: x\n", "x.yaml")
    assert document.texts == {("spec", "cedar"): 3}
    assert document.data["spec"]["cedar"] == "\npermit ();\n"


def test_a_bomb_of_aliases_is_refused_at_the_first() -> None:
    bomb = b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    assert "aliases are not accepted" in _refused(bomb).message
    assert _refused(b"x: &x {y: *x}\n").line == 1
    assert "accepted" in _refused(b"base: &b {a: 1}\nmore: {<<: *b}\n").message


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (b"a: 1\n---\nb: 1\nb: 2\n", 4, "'b' is there twice"),
        (b"a: 1\n---\nb: !!python/name:os.system x\n", 3, "is not accepted"),
        (b"? [a]\n: b\n", 1, "a key must be a word"),
        (b"a: 1\n---\nb: [\n", 4, "expected"),
    ],
)
def test_what_is_wrong_in_a_later_document_is_told_with_its_line(
    text: bytes, line: int, sentence: str
) -> None:
    error = _refused(text)
    assert (error.file, error.line) == ("x.yaml", line)
    assert sentence in error.message


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    assert "nested too deeply" in _refused(b"[" * 100_000).message
    assert "nested too deeply" in _refused(b"{a: " * 50_000).message


def test_size_and_number_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "4 MiB" in _refused(b"#" * (yaml_source.MAX_BYTES + 1)).message
    monkeypatch.setattr(yaml_source, "MAX_DOCUMENTS", 3)
    assert len(parse_documents(b"--- {a: 1}\n" * 3, "x.yaml")) == 3
    assert "more than 3 documents" in _refused(b"--- {a: 1}\n" * 4).message


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a: \x00", b"a: \xed\xa0\x80"])
def test_what_is_not_utf_8_text_is_refused(text: bytes) -> None:
    assert "YAML" in _refused(text).message
