"""What the admin API takes and gives about the firewall, camelCase on the wire.

Owns: the shapes in docs/reference/openapi.json. Must not: hold behaviour.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Model
from vedette.config.waf import Mode, WafExclusion

MOST_REQUESTS = 2_000


class DescribedRequest(Model):
    """A request as a client would send it."""

    method: str = Field(default="GET", max_length=32, description="Method.")
    host: str = Field(default="localhost", max_length=512, description="Host, with a port if any.")
    target: str = Field(default="/", max_length=1_000_000, description="Path and query.")
    headers: tuple[tuple[str, str], ...] = Field(
        default=(), max_length=1_000, description="Header fields but for `host`, in order."
    )
    body: str = Field(default="", description="The body, base64.")
    address: str = Field(default="192.0.2.1", max_length=64, description="Address of the client.")
    route: str | None = Field(
        default=None, description="The route that takes it, whatever host and path."
    )


class JudgeWish(Model):
    """Requests to judge under the active snapshot."""

    requests: tuple[DescribedRequest, ...] = Field(
        min_length=1, max_length=MOST_REQUESTS, description="The requests."
    )


class FoundViolation(Model):
    """What one rule found."""

    rule: int = Field(description="The rule's id.")
    message: str = Field(description="Its message.")
    location: str = Field(description="Where, such as `ARGS:q`.")
    size: int = Field(description="Bytes that matched.")
    matched: str | None = Field(default=None, description="Those bytes, as text.")
    severity: int | None = Field(default=None, description="0 (emergency) to 7 (debug).")


class EarlierRefusal(Model):
    """A stage that refuses a request before the firewall is asked."""

    stage: str = Field(description="The stage.")
    cause: str = Field(description="Why, as in records.")
    status: int = Field(description="What the caller would get.")
    detail: str = Field(description="More about it.")


class JudgedRequest(Model):
    """What the firewall says of a request."""

    route: str | None = Field(description="The route that takes it.")
    action: str = Field(
        description="`passed`, `noted` (below the threshold), `detected` (above it, and not refused), `blocked`, "
        "`uninspected` (its route has no firewall), `refused` (by a stage before)."
    )
    status: int | None = Field(description="What the caller would get, when it is refused.")
    cause: str | None = Field(description="Why, as in records.")
    detail: str | None = Field(description="More about it.")
    score: int = Field(description="Its anomaly score.")
    threshold: int = Field(description="The score at which its route refuses.")
    violations: tuple[FoundViolation, ...] = Field(description="What rules found.")
    before: tuple[EarlierRefusal, ...] = Field(
        default=(),
        description="What refuses it before the firewall is asked, as far as that is known; first of all the first. "
        "A replay does not ask.",
    )


class JudgeAnswer(Model):
    """The judgements, and the snapshot they are of."""

    digest: str = Field(description="Digest of the snapshot.")
    answers: tuple[JudgedRequest, ...] = Field(description="One for each request.")
    not_asked: tuple[str, ...] = Field(
        description="Stages before the firewall that were not asked, in words."
    )


class FirewallCandidate(Model):
    """A firewall to compare with the active one."""

    payload: str | None = Field(
        default=None, description="A snapshot of a plan: its firewall counts, and nothing else."
    )
    texts: dict[str, str] = Field(
        default_factory=dict, description="Rule files that the plan brings, by digest."
    )
    rules: str | None = Field(
        default=None, description="A signed rule set (DSSE), base64; with `key`."
    )
    key: str | None = Field(default=None, description="The publisher's public key, PEM.")
    mode: Mode | None = Field(default=None, description="Mode of the node and of all routes.")
    paranoia_level: int | None = Field(
        default=None, ge=1, le=4, description="Paranoia level of the node and of all routes."
    )


class ReplayWish(Model):
    """Requests to judge under the active firewall and under another."""

    requests: tuple[DescribedRequest, ...] = Field(
        min_length=1, max_length=MOST_REQUESTS, description="The requests."
    )
    candidate: FirewallCandidate = Field(description="The other firewall.")


class ReplayAnswer(Model):
    """What both say of each request."""

    digest: str = Field(description="Digest of the active snapshot.")
    before: tuple[JudgedRequest, ...] = Field(
        description="The active firewall, request by request."
    )
    after: tuple[JudgedRequest, ...] = Field(description="The other, request by request.")


class TuneWish(Model):
    """Which events are looked at, and what is worth a proposal."""

    events: int = Field(
        default=10_000, ge=1, le=1_000_000, description="The last so many security events."
    )
    route: str | None = Field(default=None, description="Only this route.")
    min_requests: int = Field(default=3, ge=1, description="Fewer requests propose nothing.")
    min_clients: int = Field(default=2, ge=1, description="Fewer addresses propose nothing.")
    most: int = Field(default=20, ge=1, le=100, description="Proposals at most.")
    days: int = Field(default=90, ge=1, le=3_650, description="Days until a proposal ends.")
    rule: int | None = Field(default=None, description="Try this rule, whatever the events say.")
    parameter: str | None = Field(
        default=None, max_length=256, description="With `rule`: the part, such as `ARGS:comment`."
    )


class AttackExample(Model):
    """An attack that would no longer be stopped."""

    rule: int = Field(description="The rule whose test it is.")
    value: str = Field(description="The value.")


class Proposal(Model):
    """An exclusion that events suggest, and what is known of it."""

    route: str = Field(description="The route.")
    rule: int = Field(description="The rule.")
    message: str = Field(description="The rule's message.")
    location: str = Field(description="Where it found something, as events say.")
    exclusion: WafExclusion = Field(description="What would let these requests pass.")
    requests: int = Field(description="Requests that were stopped with this rule in it.")
    clients: int = Field(description="Different addresses they came from.")
    would_pass: int = Field(description="How many of them would pass with the exclusion.")
    first: str = Field(description="Time of the first.")
    last: str = Field(description="Time of the last.")
    attacks: int = Field(
        description="Attacks of the rule set's tests that are stopped there today."
    )
    let_through: int = Field(description="How many of those would pass with the exclusion.")
    let_through_by_rule: dict[int, int] = Field(description="The same, by rule of the test.")
    examples: tuple[AttackExample, ...] = Field(description="A few of them.")


class JointProposal(Model):
    """Exclusions of which no single one, but all together let requests pass."""

    route: str = Field(description="The route.")
    rules: tuple[int, ...] = Field(description="The rules, without repetition.")
    exclusions: tuple[WafExclusion, ...] = Field(description="What would let these requests pass.")
    requests: int = Field(description="Requests that were stopped by these rules together.")
    clients: int = Field(description="Different addresses they came from.")
    would_pass: int = Field(description="How many of them would pass with all the exclusions.")
    attacks: int = Field(
        description="Attacks of the rule set's tests that are stopped in these parts today."
    )
    let_through: int = Field(description="How many of those would pass with all the exclusions.")
    let_through_by_rule: dict[int, int] = Field(description="The same, by rule of the test.")
    examples: tuple[AttackExample, ...] = Field(description="A few of them.")


class RefusedProposal(Model):
    """An exclusion that is not proposed."""

    route: str = Field(description="The route.")
    rule: int = Field(description="The rule.")
    location: str = Field(description="Where it found something.")
    why: str = Field(description="Why not.")


class TuneAnswer(Model):
    """What the events suggest."""

    events: int = Field(description="Security events that were looked at.")
    stopped: int = Field(description="Requests among them that were blocked or would have been.")
    settled: int = Field(
        description="Stopped requests that would pass today, by exclusions that are in force."
    )
    proposals: tuple[Proposal, ...] = Field(description="Most requests first.")
    joint: tuple[JointProposal, ...] = Field(
        description="Where no single exclusion lets requests pass; most requests first."
    )
    refused: tuple[RefusedProposal, ...] = Field(description="What is not proposed.")


class RuleSetStatus(Model):
    """The Core Rule Set of the node."""

    version: str | None = Field(description="Version that is in force; null: none.")
    digest: str | None = Field(description="Digest of its files.")
    stored_at: str | None = Field(description="Since when the node has it, RFC 3339.")
    installed: str | None = Field(description="Version that this installation brings.")
    installed_digest: str | None = Field(description="Digest of that one.")
    mode: str | None = Field(description="What the node does by default: block, detect or off.")
    paranoia_level: int | None = Field(description="How suspicious it is by default.")


class RuleSetWish(Model):
    """A rule set to put in force."""

    rules: str | None = Field(
        default=None, description="A signed rule set (DSSE), base64; absent: the installed one."
    )
    key: str | None = Field(default=None, description="The publisher's public key, PEM.")
