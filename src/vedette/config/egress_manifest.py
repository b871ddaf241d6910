"""What leaves, as people write it: the kind EgressPolicy.

Owns: its shape. Must not: know which functions there are; `control.resolve` does.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from vedette.config.breaker_manifest import BreakerSpec
from vedette.config.egress import (
    MAX_AUDIENCES,
    NOT_CREDENTIALS,
    Audience,
    Method,
    Name,
    SpiffeIdText,
)
from vedette.config.manifest import Metadata
from vedette.config.model import Count, Model
from vedette.config.written import EgressDestination, RateText, parse_rate


class JwtSvidSpec(Model):
    """The function's own JWT-SVID: who it is, which component, which version of it."""

    audience: tuple[Audience, ...] = Field(
        min_length=1,
        max_length=MAX_AUDIENCES,
        description="Whom it is for (`aud`), as who is called expects it.",
    )


class CredentialSpec(Model):
    """A header field that the node adds to calls; whoever makes them never sees its value."""

    name: Name | None = Field(
        default=None, description="Credential of the node: a name of `vedette credential list`."
    )
    jwt_svid: JwtSvidSpec | None = Field(
        default=None,
        description="Instead of a name: the function's JWT-SVID as `spiffe://TRUST-DOMAIN/fn/NAME`, which lives "
        "for minutes and is for the component that was deployed. For functions alone.",
    )
    header: str = Field(
        default="authorization",
        description="Name of the field; none that says how a message is read or sent on.",
    )
    prefix: str = Field(default="Bearer ", description="What stands before the value.")

    @model_validator(mode="after")
    def _require_field(self) -> Self:
        if (self.name is None) == (self.jwt_svid is None):
            raise ValueError("a credential has either a name or a jwtSvid")
        if self.header.lower() in NOT_CREDENTIALS:
            raise ValueError(f"{self.header} is no field for a credential")
        return self

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        field = {"header": self.header.lower(), "prefix": self.prefix}
        if self.jwt_svid is None:
            return {"credential": self.name, **field}
        return {"jwtSvid": {"audience": sorted(set(self.jwt_svid.audience))}, **field}


class EgressRuleSpec(Model):
    """One destination that may be called, and how."""

    to: EgressDestination = Field(
        description="`https://api.example.com`, `https://*.example.com`, `http://10.0.0.7:8080`, "
        "`http://10.0.0.0/8:8080`; `tcp://db.example.com:5432` for a program's tunnel whose content "
        "nobody looks at. A name leads to a private address only within a range of the same scheme "
        "and port."
    )
    methods: tuple[Method, ...] | None = Field(
        default=None,
        min_length=1,
        description="Methods, such as `[GET, POST]`; absent: any. A rule that names methods allows no "
        "tunnel (CONNECT).",
    )
    rate: RateText | None = Field(
        default=None, description="Calls in a time, such as `100/m`, of the whole node."
    )
    burst: Count | None = Field(default=None, description="Most at once; absent: one period's.")
    breaker: BreakerSpec | None = Field(
        default=None, description="When it is left alone for a while; absent: never."
    )
    credential: CredentialSpec | None = Field(
        default=None,
        description="What the node adds to calls, over `https://` or to this machine alone. A rule with one "
        "allows no tunnel.",
    )

    peers: tuple[SpiffeIdText, ...] = Field(
        default=(),
        description="SPIFFE IDs of which the destination must have one: both sides then prove themselves by "
        "SVIDs, a function as `spiffe://TRUST-DOMAIN/fn/NAME`. Over `https://` alone, for functions alone.",
    )

    @model_validator(mode="after")
    def _require_sense(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst needs a rate")
        if (self.methods or self.credential) and self.to.startswith("tcp://"):
            raise ValueError("a tunnel has no methods and no credential")
        if self.peers and not self.to.startswith("https://"):
            raise ValueError("peers are proved over https:// only")
        if self.credential and not self.to.startswith("https://") and not _is_here(self.to):
            raise ValueError("a credential goes over https:// only, or to a loopback address")
        return self

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        data: dict[str, Any] = {"to": self.to, "methods": sorted(set(self.methods or ()))}
        if self.rate is not None:
            requests, period = parse_rate(self.rate)
            burst = {} if self.burst is None else {"burst": self.burst}
            data["rate"] = {"requests": requests, "periodMillis": period, **burst}
        if self.breaker is not None:
            data["breaker"] = self.breaker.resolve()
        if self.credential is not None:
            data["credential"] = self.credential.resolve()
        if self.peers:
            data["peers"] = sorted(set(self.peers))
        return data


def _is_here(to: str) -> bool:
    host = urlsplit(to).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EgressPolicySpec(Model):
    """Who may call where. What several policies allow together is allowed."""

    functions: tuple[Name, ...] = Field(default=(), description="Functions it is for.")
    workloads: tuple[Name, ...] = Field(
        default=(), description="Programs it is for: names given to `vedette run --as`."
    )
    routes: tuple[Name, ...] = Field(
        default=(),
        description="Routes it is for: what the function that answers a request of one may call meanwhile, besides "
        "what it may anyway. The name of a Route or HTTPRoute means all routes it makes, `NAME-2` that one.",
    )
    allow: tuple[EgressRuleSpec, ...] = Field(
        description="Where they may call; of several rules that fit, the first counts."
    )

    @model_validator(mode="after")
    def _require_subject(self) -> Self:
        if not self.functions and not self.workloads and not self.routes:
            raise ValueError("it is for nobody: give it functions, workloads or routes")
        if self.workloads and any(rule.peers for rule in self.allow):
            raise ValueError("peers are for functions: programs show SVIDs of their own")
        minted = (rule.credential for rule in self.allow if rule.credential)
        if self.workloads and any(one.jwt_svid for one in minted):
            raise ValueError("a jwtSvid is for functions: programs fetch JWT-SVIDs of their own")
        return self


class EgressPolicyManifest(Model):
    """What functions, programs and routes may call outside the node."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(description="Version of this shape.")
    kind: Literal["EgressPolicy"] = Field(description="Always `EgressPolicy`.")
    metadata: Metadata = Field(description="What it is called.")
    spec: EgressPolicySpec = Field(description="Who may call where.")
