"""What leaves, as a snapshot says it: which functions, programs and routes may call where, how, and how often.

Owns: the shape. Must not: read a destination; `config.written` and the engine do.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config.breaker import Breaker
from vedette.config.model import Model
from vedette.config.rate import Rate
from vedette.ids import NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")]


SpiffeIdText = Annotated[
    str,
    StringConstraints(
        max_length=2_048, pattern=r"^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+$"
    ),
]


NOT_CREDENTIALS: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that say how a message is read or sent on (RFC 9110 §7.6.1)."""


Audience = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,254}[!-~])?$")]
MAX_AUDIENCES: Final = 16  # with the longest ones a token still fits the head that servers take
MAX_TOKENS: Final = 10_000


class EgressJwtSvid(Model):
    """Which JWT-SVID of the function is added."""

    audience: tuple[Audience, ...] = Field(
        min_length=1, max_length=MAX_AUDIENCES, description="Whom it is for (`aud`), sorted."
    )


class EgressCredential(Model):
    """A header field that is added to calls; whoever makes them never sees its value."""

    credential: Name | None = Field(
        default=None,
        description="Name of the credential (`vedette credential`); absent where it is a JWT-SVID.",
    )
    jwt_svid: EgressJwtSvid | None = Field(
        default=None,
        description="The function's own JWT-SVID, for its component alone; absent where it is a credential.",
    )
    header: str = Field(
        default="authorization",
        pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$",
        description="Name of the field, lower case.",
    )
    prefix: str = Field(
        default="Bearer ", max_length=64, pattern=r"^[ -~]*$", description="What stands before it."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.credential is None) == (self.jwt_svid is None):
            raise ValueError("it is a credential or a JWT-SVID: exactly one")
        return self


class EgressRule(Model):
    """One destination that may be called, and how."""

    to: str = Field(
        min_length=1,
        max_length=512,
        description="`https://api.example.com`, `http://10.0.0.7:8080`, `https://*.example.com`, "
        "`http://10.0.0.0/8:8080`; `tcp://db.example.com:5432` for a tunnel of a program whose "
        "content nobody looks at. A private address only when it is named, itself or in a range.",
    )
    methods: tuple[Method, ...] = Field(
        default=(),
        max_length=32,
        description="Methods, sorted; empty: any. A rule that names methods allows no tunnel.",
    )
    rate: Rate | None = Field(
        default=None, description="Calls in a time, of all workers; absent: any number."
    )
    breaker: Breaker | None = Field(
        default=None, description="When it is left alone for a while; absent: never."
    )
    credential: EgressCredential | None = Field(
        default=None,
        description="What calls are given; absent: nothing. A rule with one allows no tunnel.",
    )
    peers: tuple[SpiffeIdText, ...] = Field(
        default=(),
        max_length=256,
        description="SPIFFE IDs of which the destination must have one, sorted; then both sides prove "
        "themselves by SVIDs, the function by its own. Empty: as everywhere on the web.",
    )


class EgressPolicy(Model):
    """What some functions, programs and routes may call; nothing else leaves."""

    name: Name = Field(description="Name of the policy, unique on the node.")
    functions: tuple[Name, ...] = Field(
        default=(), max_length=10_000, description="Functions it is for, sorted."
    )
    workloads: tuple[Name, ...] = Field(
        default=(),
        max_length=10_000,
        description="Programs it is for, sorted: names given to `vedette run --as`.",
    )
    routes: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="Routes it is for, sorted: calls of whichever function answers their requests, while it does. "
        "Absent: none.",
    )
    rules: tuple[EgressRule, ...] = Field(max_length=1_000, description="Where they may call.")
