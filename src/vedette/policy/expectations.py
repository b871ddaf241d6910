"""A table of expectations: requests, and whether policies should allow them.

Owns: the shape of the table (YAML), comparing it with what was decided, the JUnit report. Must not: decide anything.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from vedette.config.model import Model, Place, build, wire_value
from vedette.config.yaml_source import read_yaml
from vedette.errors import ConfigError

MAX_EXPECTATIONS: Final = 10_000


class Caller(Model):
    """A request of the table; the fields are those of `vedette policy explain`."""

    subject: str | None = Field(default=None, description="`sub` of a token.")
    issuer: str | None = Field(default=None, description="`iss` of the token; default this node.")
    audiences: tuple[str, ...] = Field(default=(), description="`aud` of the token.")
    scopes: tuple[str, ...] = Field(default=(), description="`scope` of the token.")
    spiffe: str | None = Field(default=None, description="SPIFFE ID of a client certificate.")
    authority: str | None = Field(default=None, description="Authority of the certificate.")
    certificate_subject: str | None = Field(default=None, description="Subject of a certificate.")
    as_function: str | None = Field(default=None, description="A function that asks the model.")
    method: str = Field(default="GET", description="Method.")
    host: str = Field(default="localhost", description="Host.")
    path: str = Field(default="/", description="Path.")
    function: str | None = Field(default=None, description="Function, whatever the path.")
    model: str | None = Field(default=None, description="Model, whatever the path.")
    route: str | None = Field(default=None, description="Route, whatever the path.")
    source_ip: str = Field(default="127.0.0.1", description="Address of the client.")
    posture: tuple[str, ...] | None = Field(
        default=None, description="What is known of the caller; default what is set."
    )
    scheme: Literal["http", "https"] = Field(default="https", description="http or https.")
    listener: str | None = Field(default=None, description="Listener; default the first.")


class Row(Model):
    """One row of the table."""

    name: str | None = Field(default=None, description="What is expected, in words.")
    request: Caller = Field(description="The request; anonymous unless it says who calls.")
    expect: Literal["allow", "deny"] = Field(description="What should be decided.")
    policy: str | None = Field(default=None, description="A policy (its @id) that should decide.")
    cause: str | None = Field(default=None, description="Cause of the refusal, as in records.")


class Table(Model):
    """The whole file."""

    expectations: tuple[Row, ...] = Field(min_length=1, max_length=MAX_EXPECTATIONS)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One row, where it stands and what it is called."""

    name: str
    line: int
    row: Row

    def asked(self) -> Mapping[str, Any]:
        """The request, as the admin API takes it."""
        return wire_value(self.row.request)


@dataclass(frozen=True, slots=True)
class Result:
    """An expectation and what was decided; without problems it holds."""

    expectation: Expectation
    answer: dict[str, Any]
    problems: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "name": self.expectation.name,
            "line": self.expectation.line,
            "passed": not self.problems,
            "problems": list(self.problems),
            "answer": self.answer,
        }


def read_expectations(file: Path) -> list[Expectation]:
    """The rows of a table. Raises `ConfigError` expectations_invalid with file and line."""
    try:
        document = read_yaml(file)
    except ConfigError as error:
        raise ConfigError(
            "expectations_invalid", error.message, file=error.file, line=error.line
        ) from None
    table = build(
        Table,
        document.data,
        code="expectations_invalid",
        file=str(file),
        line_of=document.line_of,
    )
    found = []
    for index, row in enumerate(table.expectations):
        place: Place = ("expectations", index)
        name = row.name or f"{row.expect} {row.request.method} {row.request.path}"
        found.append(Expectation(name, document.line_of(place) or 1, row))
    return found


def compare(table: Sequence[Expectation], answers: Sequence[dict[str, Any]]) -> list[Result]:
    """Each expectation with what was decided about it."""
    pairs = zip(table, answers, strict=True)
    return [Result(one, answer, tuple(_problems(one.row, answer))) for one, answer in pairs]


def _problems(row: Row, answer: Mapping[str, Any]) -> list[str]:
    got = "allow" if answer["allowed"] else "deny"
    problems = [] if got == row.expect else [f"expected {row.expect}, got {got}"]
    if row.policy is not None and row.policy not in answer["decidedBy"]:
        by = ", ".join(answer["decidedBy"]) or "none"
        problems.append(f"expected the policy {row.policy} to decide, got {by}")
    if row.cause is not None and row.cause != answer["cause"]:
        problems.append(f"expected the cause {row.cause}, got {answer['cause'] or 'none'}")
    return problems


def junit_report(name: str, results: Sequence[Result]) -> bytes:
    """The results as JUnit XML."""
    failures = sum(1 for one in results if one.problems)
    counts = {"tests": str(len(results)), "failures": str(failures)}
    suite = ET.Element("testsuite", {"name": _printable(name), **counts})
    for one in results:
        attributes = {"name": _printable(one.expectation.name), "classname": _printable(name)}
        case = ET.SubElement(suite, "testcase", attributes)
        if one.problems:
            message = _printable("; ".join(one.problems))
            ET.SubElement(case, "failure", {"message": message}).text = message
    report: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return report


def _printable(text: str) -> str:
    """XML 1.0 has no control characters, not even escaped."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
