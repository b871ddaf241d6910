"""YAML that remembers its lines.

Owns: reading YAML documents into plain data, and telling on which line a place in them stands.
Accepts the part of YAML that JSON can say: no aliases (they can grow without bound), no tags, no
duplicate keys. Must not: know a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from vedette.config.model import Place
from vedette.errors import ConfigError

MAX_BYTES: Final = 4 << 20
MAX_DOCUMENTS: Final = 10_000
_MAX_DEPTH: Final = 32
_COLLECTIONS: Final = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(slots=True)
class Document:
    """Plain data, and the line (from 1) of every key and item in it; of a text of several lines also
    the line where the text itself begins.
    """

    data: Any
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, int] = field(default_factory=dict)

    def line_of(self, place: Place) -> int | None:
        """The line of `place`, or of the nearest place around it that exists."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def read_yaml(path: Path) -> Document:
    """Reads the one document in `path`. Raises `ConfigError` manifest_missing or manifest_invalid
    with the line.
    """
    return parse_yaml(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a YAML file, no more than are accepted. Raises `ConfigError` manifest_missing."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise ConfigError("manifest_missing", f"cannot read it: {reason}", file=str(path)) from None


def parse_yaml(text: bytes, file: str) -> Document:
    """Reads the one document in `text`; `file` is named in errors. Raises `ConfigError`
    manifest_invalid.
    """
    with _explained(file):
        return _document(yaml.compose(_decoded(text, file), Loader=_JsonLoader))


def parse_documents(text: bytes, file: str) -> list[Document]:
    """Reads every document in `text` (`---` between them); those that are empty are left out. Raises
    `ConfigError` manifest_invalid.
    """
    found = []
    with _explained(file):
        for number, node in enumerate(yaml.compose_all(_decoded(text, file), Loader=_JsonLoader)):
            if number >= MAX_DOCUMENTS:
                message = f"it has more than {MAX_DOCUMENTS:,} documents"
                raise ConfigError("manifest_invalid", message, file=file)
            document = _document(node)
            if document.data is not None:
                found.append(document)
    return found


def _decoded(text: bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise ConfigError("manifest_invalid", "it is larger than 4 MiB", file=file)
    return text.decode("utf-8")


def _document(node: yaml.Node | None) -> Document:
    document = Document(None)
    if node is not None:
        document.lines[()] = node.start_mark.line + 1
        document.data = _plain(node, (), document)
    return document


@contextlib.contextmanager
def _explained(file: str) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError("manifest_invalid", str(error.problem), file=file, line=line) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError("manifest_invalid", "it is not YAML in UTF-8", file=file) from None


# libyaml reads ten times as fast; composing stays here, where aliases and depth are seen.
_BASES: Final[tuple[Any, ...]] = (
    (yaml.composer.Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)
)
_Loader: Any = type("_Loader", _BASES, {})


class _JsonLoader(_Loader):  # type: ignore[misc]
    """Composes nodes; refuses aliases and deep nesting."""

    depth = 0

    def __init__(self, stream: str) -> None:
        _BASES[-1].__init__(self, stream)
        yaml.composer.Composer.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases are not accepted", mark)
        if self.depth >= _MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _plain(node: yaml.Node, place: Place, document: Document) -> Any:
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise _mark(f"the tag {node.tag} is not accepted", node)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, document)
    if isinstance(node, yaml.SequenceNode):
        return _sequence(node, place, document)
    return _scalar(node)


def _mapping(node: yaml.MappingNode, place: Place, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise _mark("a key must be a word", key_node)
        if key in data:
            raise _mark(f"{key!r} is there twice", key_node)
        document.lines[(*place, key)] = key_node.start_mark.line + 1
        data[key] = _plain(value_node, (*place, key), document)
        if isinstance(value_node, yaml.ScalarNode) and value_node.style in ("|", ">"):
            document.texts[(*place, key)] = value_node.start_mark.line + 2
    return data


def _sequence(node: yaml.SequenceNode, place: Place, document: Document) -> list[Any]:
    items = []
    for index, item in enumerate(node.value):
        document.lines[(*place, index)] = item.start_mark.line + 1
        items.append(_plain(item, (*place, index), document))
    return items


_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "timestamp": str,
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}.get(text.lower(), text),
    "int": int,
    "float": float,
}


def _scalar(node: yaml.Node) -> Any:
    """The value of a scalar; `yes`, `on` and dates stay words, as in the core schema of YAML 1.2."""
    kind = _SCALARS.get(node.tag.removeprefix("tag:yaml.org,2002:"))
    if kind is None:
        raise _mark(f"the tag {node.tag} is not accepted", node)
    try:
        return kind(node.value)
    except ValueError:
        return node.value


def _mark(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
