"""The firewall: how requests and answers of a route are inspected, as the snapshot says it.

Owns: the shape of rules, exclusions and limits of inspection. Must not: know SecLang; the engine
compiles what is written here, and control has it checked before it is signed.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Count, Model
from vedette.ids import DIGEST_PATTERN, NAME_PATTERN

Mode = Literal["block", "detect", "off"]
Operator = Literal["Equals", "Contains", "StartsWith", "EndsWith", "Matches", "InNetworks"]
Action = Literal["Block", "Allow", "Log"]
# `942100`, `942100-942199`, `tag:attack-sqli`.
RuleSelector = Annotated[
    str, StringConstraints(pattern=r"^([0-9]{1,9}(-[0-9]{1,9})?|tag:[\x21-\x7E]{1,128})$")
]
# `ARGS:comment`, `REQUEST_COOKIES:/^_ga/`, `REQUEST_BODY`.
Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Z_]{2,64}(:[\x20-\x7E]{1,256})?$")]
# `path`, `header:user-agent`, `argument:q`.
FieldName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(path|query|method|address|argument|body|(header|cookie|argument):[\x21-\x7E]{1,128})$"
    ),
]
MediaType = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}$")
]

# Those of the Core Rule Set, and what services behind a node are asked with.
DEFAULT_CONTENT_TYPES: Final = (
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/csp-report",
    "application/grpc",
    "application/grpc+json",
    "application/grpc+proto",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/json",
    "application/json-patch+json",
    "application/ld+json",
    "application/merge-patch+json",
    "application/octet-stream",
    "application/protobuf",
    "application/reports+json",
    "application/soap+xml",
    "application/vnd.api+json",
    "application/x-ndjson",
    "application/x-protobuf",
    "application/x-www-form-urlencoded",
    "application/xml",
    "audio/wav",
    "image/jpeg",
    "image/png",
    "multipart/form-data",
    "text/plain",
    "text/xml",
)
DEFAULT_RESPONSE_TYPES: Final = ("application/json", "text/html", "text/plain", "text/xml")


class WafExclusion(Model):
    """What is not inspected on a route, why, and until when."""

    rules: tuple[RuleSelector, ...] = Field(
        min_length=1,
        max_length=64,
        description="Rules: an id, a range of ids (`942100-942199`), or `tag:` and a tag.",
    )
    parameter: Parameter | None = Field(
        default=None,
        description="The part they do not look at, such as `ARGS:comment` or "
        "`REQUEST_COOKIES:/^_ga/`; absent: the rules are left out altogether.",
    )
    until: Count | None = Field(
        default=None, description="When it ends, in seconds since 1970; absent: never."
    )
    reason: str = Field(
        min_length=1, max_length=512, description="Why, for whoever reads it later."
    )

    def is_over(self, at: float) -> bool:
        """Whether it has ended at that time, in seconds since 1970."""
        return self.until is not None and self.until <= at


class WafRule(Model):
    """A rule of a user's own."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="What events call it."
    )
    field: FieldName = Field(
        description="What it looks at: `path`, `query`, `method`, `address`, `header:NAME`, "
        "`cookie:NAME`, `argument:NAME`, `argument` (any), `body` (of a form)."
    )
    operator: Operator = Field(description="How the field is compared with the value.")
    value: str = Field(min_length=1, max_length=4_096, description="For what.")
    action: Action = Field(
        default="Block",
        description="`Block`: 403. `Allow`: no further rule is asked. `Log`: it is told.",
    )


class WafRuleFile(Model):
    """A file of SecLang rules, before those of the Core Rule Set."""

    name: str = Field(min_length=1, max_length=256, description="Its name, for messages.")
    blob: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of its text."
    )


class WafBody(Model):
    """How much of a request's body is kept back until it is inspected."""

    limit_bytes: Count = Field(
        default=131_072,
        ge=1_024,
        le=16_777_216,
        description="Most bytes of a body but for uploaded files.",
    )
    upload_limit_bytes: Count = Field(
        default=13_107_200,
        ge=1_024,
        le=134_217_728,
        description="Most bytes of a body with files (multipart/form-data), the files included.",
    )
    beyond: Literal["Reject", "Pass"] = Field(
        default="Reject",
        description="What becomes of a larger body: `Reject`: 413. `Pass`: what fits is inspected, "
        "the rest flows on unseen.",
    )


class WafResponse(Model):
    """Which answers are inspected, and how much of them."""

    limit_bytes: Count = Field(
        default=524_288,
        ge=1_024,
        le=16_777_216,
        description="Most bytes of an answer that are kept back and inspected; the rest flows on.",
    )
    content_types: tuple[MediaType, ...] = Field(
        default=DEFAULT_RESPONSE_TYPES,
        max_length=64,
        description="Answers that are inspected, sorted; event streams never are.",
    )


class WafPolicy(Model):
    """How a route is inspected."""

    mode: Mode = Field(
        default="block",
        description="`block`: refuse what scores too high. `detect`: only tell. `off`: do not look.",
    )
    paranoia_level: Count = Field(
        default=1, ge=1, le=4, description="How suspicious the Core Rule Set is."
    )
    inbound_threshold: Count = Field(
        default=5, ge=1, le=10_000, description="Anomaly score at which a request is refused."
    )
    outbound_threshold: Count = Field(
        default=4, ge=1, le=10_000, description="Anomaly score at which an answer is refused."
    )
    content_types: tuple[MediaType, ...] = Field(
        default=DEFAULT_CONTENT_TYPES,
        max_length=128,
        description="Types of bodies that requests may have, sorted.",
    )
    body: WafBody = Field(default_factory=WafBody, description="Bodies of requests.")
    response: WafResponse | None = Field(
        default=None, description="Inspection of answers; absent: none."
    )
    exclusions: tuple[WafExclusion, ...] = Field(
        default=(), max_length=256, description="What is not inspected."
    )
    rules: tuple[WafRule, ...] = Field(
        default=(), max_length=256, description="Rules of a user's own."
    )
    rule_files: tuple[WafRuleFile, ...] = Field(
        default=(), max_length=16, description="SecLang files of a user's own."
    )
    matched_data: Literal["Redact", "Keep"] = Field(
        default="Redact",
        description="Whether events hold the bytes that matched, or only how many there were.",
    )


class WafOverride(Model):
    """What a route has otherwise than `waf.policy`."""

    mode: Mode | None = Field(default=None, description="Whether it is inspected.")
    paranoia_level: Count | None = Field(
        default=None, ge=1, le=4, description="How suspicious the Core Rule Set is."
    )
    inbound_threshold: Count | None = Field(
        default=None, ge=1, le=10_000, description="Anomaly score at which a request is refused."
    )
    outbound_threshold: Count | None = Field(
        default=None, ge=1, le=10_000, description="Anomaly score at which an answer is refused."
    )
    content_types: tuple[MediaType, ...] | None = Field(
        default=None, max_length=128, description="Types of bodies that requests may have, sorted."
    )
    body: WafBody | None = Field(default=None, description="Bodies of requests.")
    response: WafResponse | None = Field(default=None, description="Inspection of answers.")
    exclusions: tuple[WafExclusion, ...] = Field(
        default=(), max_length=256, description="What is not inspected, beside what the node says."
    )
    rules: tuple[WafRule, ...] = Field(
        default=(), max_length=256, description="Rules of its own, after the node's."
    )
    rule_files: tuple[WafRuleFile, ...] = Field(
        default=(), max_length=16, description="SecLang files of its own, after the node's."
    )
    matched_data: Literal["Redact", "Keep"] | None = Field(
        default=None, description="Whether events hold the bytes that matched."
    )


class Waf(Model):
    """The Core Rule Set of the node, and how routes that say nothing themselves are inspected."""

    version: str = Field(
        min_length=1, max_length=64, description="Version of the Core Rule Set, such as 4.25.0."
    )
    rules: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of its files."
    )
    policy: WafPolicy = Field(
        default_factory=WafPolicy, description="What holds for routes without one of their own."
    )
