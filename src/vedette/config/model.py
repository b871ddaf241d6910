"""The base of every configuration model and the one way to build one from data.

Owns: how models spell their names on the wire (camelCase), that they are frozen, that an unknown
field is an error, and how a validation failure becomes a `ConfigError` a person can act on. Must
not: know any particular model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from vedette.errors import ConfigError

Place = tuple[str | int, ...]
Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Model(BaseModel):
    """A frozen, documented value: snake_case in Python, camelCase on the wire, unknown fields
    refused.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        use_attribute_docstrings=False,
    )


M = TypeVar("M", bound=Model)


def build(
    model: type[M],
    data: Any,
    *,
    code: str = "snapshot_invalid",
    file: str | None = None,
    line_of: Callable[[Place], int | None] | None = None,
) -> M:
    """Validates `data` (names in camelCase) into a `model`.

    Raises `ConfigError` with `code`, which tells every failure, and names the file and the line of
    the first when `line_of` knows it.
    """
    value, failures = attempt(model, data)
    if value is None:
        line = line_of(failures[0].place) if line_of else None
        text = "; ".join(failure.sentence for failure in failures)
        raise ConfigError(code, text, file=file, line=line)
    return value


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong with data: where, and what as a sentence."""

    place: Place
    sentence: str


def attempt(model: type[M], data: Any) -> tuple[M | None, list[Failure]]:
    """The `model` that `data` (names in camelCase) spells, or None and everything wrong with it."""
    try:
        return model.model_validate(data, by_name=False, by_alias=True), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return None, [
            Failure(each["loc"], _sentence(each["type"], each["loc"], each["msg"], model, data))
            for each in found
            if each["type"] != "too_short" or not _has_inner(found, each["loc"])
        ]


def _has_inner(found: Sequence[Mapping[str, Any]], place: Place) -> bool:
    """Whether an item of the list at `place` is wrong: then it is too short for that reason only."""
    return any(
        len(each["loc"]) > len(place) and each["loc"][: len(place)] == place for each in found
    )


def _sentence(kind: str, place: Place, message: str, model: type[Model], data: Any) -> str:
    where = ".".join(str(part) for part in place)
    if kind == "extra_forbidden":
        return _unknown_field(place, model, data)
    if kind == "missing":
        return f"{where} is missing"
    if kind == "string_type":
        return f"{where} must be text; write it in quotes"
    if kind in ("model_type", "model_attributes_type") and where:
        known = ", ".join(field_names(model, place, data))
        return f"{where} is a mapping" + (f" with any of {known}" if known else "")
    if kind == "too_short":
        return f"{where} has too few items"
    if kind in ("tuple_type", "list_type"):
        return f"{where} is a list; write [ … ]"
    text = message.removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _unknown_field(place: Place, model: type[Model], data: Any) -> str:
    name = str(place[-1])
    parent = ".".join(str(part) for part in place[:-1])
    sentence = f"unknown field {name!r}" + (f" in {parent}" if parent else "")
    near = difflib.get_close_matches(name, field_names(model, place[:-1], data), n=1, cutoff=0.6)
    return f"{sentence}; did you mean {near[0]!r}?" if near else sentence


def field_names(model: type[Model], place: Place, data: Any = None) -> list[str]:
    """The wire names of the fields at `place` below `model`; empty when `place` leads to no model."""
    current: list[type[Model]] = [model]
    for part in place:
        if isinstance(part, int):
            continue
        steps = [child for each in current for child in _children(each, part)]
        current = steps or [each for each in current if each.__name__ == part]
    return sorted({wire_name(each, name) for each in current for name in each.model_fields})


def wire_name(model: type[Model], name: str) -> str:
    """What a field is called in JSON and YAML."""
    return model.model_fields[name].alias or name


def _children(model: type[Model], part: str) -> list[type[Model]]:
    for name, field in model.model_fields.items():
        if part in (name, field.alias):
            return _models_in(field.annotation)
    return []


def _models_in(annotation: Any) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]


def bounds(model: type[Model], name: str) -> tuple[int, int]:
    """The least and the most that a `Count` with `ge` and `le` takes."""
    metadata = model.model_fields[name].metadata
    found = {
        side: getattr(each, side)
        for side in ("ge", "le")
        for each in metadata
        if hasattr(each, side)
    }
    return int(found["ge"]), int(found["le"])


def wire_value(model: Model) -> Mapping[str, Any]:
    """The JSON-ready mapping of a model: camelCase names, absent optionals left out."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
