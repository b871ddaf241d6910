"""The firewall as people write it, in manifests of the node, of a route and of a function.

Owns: the written shape, its units, and what it says in the snapshot. Must not: read the files it
names, or know the Core Rule Set.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vedette.config.model import Count, Model, build, wire_value
from vedette.config.quantities import parse_size
from vedette.config.snapshot import Name
from vedette.config.waf import (
    Action,
    FieldName,
    MediaType,
    Mode,
    Operator,
    Parameter,
    RuleSelector,
    WafOverride,
    WafPolicy,
)
from vedette.config.written import FileReference, Size


def _as_text(value: Any) -> Any:
    """`942100` in YAML is a number, and a rule all the same."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_date(value: Any) -> Any:
    """A YAML date, or its text."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("write a date such as 2027-01-31") from None
    return value


Selector = Annotated[RuleSelector, BeforeValidator(_as_text)]
Day = Annotated[date, BeforeValidator(_as_date)]


class WafExclusionSpec(Model):
    """What is not inspected, why, and until when."""

    rules: tuple[Selector, ...] = Field(
        min_length=1,
        max_length=64,
        description="Rules: ids, ranges of ids (`942100-942199`), or `tag:attack-sqli`.",
    )
    parameter: Parameter | None = Field(
        default=None,
        description="The part they do not look at, such as `ARGS:comment` or "
        "`REQUEST_COOKIES:/^_ga/`; absent: the rules are left out altogether.",
    )
    until: Day | None = Field(
        default=None, description="The last day on which it holds, UTC; absent: no end."
    )
    reason: str = Field(
        min_length=1, max_length=512, description="Why, for whoever reads it later."
    )

    def resolve(self) -> dict[str, Any]:
        """The exclusion of a snapshot."""
        found: dict[str, Any] = {"rules": list(self.rules), "reason": self.reason}
        if self.parameter is not None:
            found["parameter"] = self.parameter
        if self.until is not None:
            end = datetime.combine(self.until, time.max, UTC)
            found["until"] = int(end.timestamp()) + 1
        return found


class WafRuleSpec(Model):
    """A rule of one's own."""

    name: Name = Field(description="What events call it.")
    field: FieldName = Field(
        description="What it looks at: `path`, `query`, `method`, `address`, `header:NAME`, "
        "`cookie:NAME`, `argument:NAME`, `argument` (any), `body` (of a form)."
    )
    operator: Operator = Field(default="Equals", description="How it is compared with the value.")
    value: str = Field(min_length=1, max_length=4_096, description="For what.")
    action: Action = Field(
        default="Block",
        description="`Block`: 403. `Allow`: no further rule is asked. `Log`: it is told.",
    )


class WafBodySpec(Model):
    """How much of a request's body is kept back until it is inspected."""

    limit: Size = Field(default="128KB", description="Most of a body but for uploaded files.")
    upload_limit: Size = Field(
        default="12800KB", description="Most of a body with files (multipart/form-data)."
    )
    beyond: Literal["Reject", "Pass"] = Field(
        default="Reject",
        description="A larger body: `Reject`: 413. `Pass`: what fits is inspected, the rest flows "
        "on unseen.",
    )


class WafResponseSpec(Model):
    """Which answers are inspected, and how much of them."""

    limit: Size = Field(default="512KB", description="Most of an answer that is inspected.")
    content_types: tuple[MediaType, ...] | None = Field(
        default=None, description="Answers that are inspected; absent: text and JSON."
    )


class WafSpec(Model):
    """How requests are inspected. On a route or function what is absent is as the node has it, and
    exclusions and rules are added to the node's.
    """

    mode: Mode | None = Field(
        default=None,
        description="`block`: refuse what scores too high. `detect`: only tell. `off`: do not "
        "look. The node's default is `block`.",
    )
    paranoia_level: Count | None = Field(
        default=None,
        description="How suspicious the Core Rule Set is, 1 to 4. The node's default is 1.",
    )
    inbound_threshold: Count | None = Field(
        default=None, description="Anomaly score at which a request is refused; default 5."
    )
    outbound_threshold: Count | None = Field(
        default=None, description="Anomaly score at which an answer is refused; default 4."
    )
    content_types: tuple[MediaType, ...] | None = Field(
        default=None, description="Types of bodies that requests may have, in place of the default."
    )
    body: WafBodySpec | None = Field(default=None, description="Bodies of requests.")
    response: WafResponseSpec | None = Field(
        default=None, description="Inspection of answers; absent: none."
    )
    exclusions: tuple[WafExclusionSpec, ...] = Field(default=(), description="What is left out.")
    rules: tuple[WafRuleSpec, ...] = Field(default=(), description="Rules of one's own.")
    rule_files: tuple[FileReference, ...] = Field(
        default=(), description="Files of SecLang rules of one's own, before the Core Rule Set."
    )
    matched_data: Literal["Redact", "Keep"] | None = Field(
        default=None,
        description="Whether events hold the bytes that matched; default `Redact`: their number.",
    )

    def policy(self, digests: Mapping[str, str]) -> WafPolicy:
        """What the node says. `digests`: of the rule files, by path as written. Raises `ConfigError`."""
        return build(WafPolicy, self._resolved(digests), code="manifest_invalid")

    def override(self, digests: Mapping[str, str]) -> WafOverride:
        """What a route has otherwise. `digests`: as above. Raises `ConfigError`."""
        return build(WafOverride, self._resolved(digests), code="manifest_invalid")

    def _resolved(self, digests: Mapping[str, str]) -> dict[str, Any]:
        plain = ("mode", "paranoiaLevel", "inboundThreshold", "outboundThreshold", "matchedData")
        written = wire_value(self)
        found = {name: written[name] for name in plain if name in written}
        if self.content_types is not None:
            found["contentTypes"] = sorted(set(self.content_types))
        if self.body is not None:
            found["body"] = {
                "limitBytes": parse_size(self.body.limit),
                "uploadLimitBytes": parse_size(self.body.upload_limit),
                "beyond": self.body.beyond,
            }
        if self.response is not None:
            found["response"] = {"limitBytes": parse_size(self.response.limit)}
            if self.response.content_types is not None:
                found["response"]["contentTypes"] = sorted(set(self.response.content_types))
        if self.exclusions:
            found["exclusions"] = [each.resolve() for each in self.exclusions]
        if self.rules:
            found["rules"] = [wire_value(each) for each in self.rules]
        if self.rule_files:
            found["ruleFiles"] = [{"name": file, "blob": digests[file]} for file in self.rule_files]
        return found
