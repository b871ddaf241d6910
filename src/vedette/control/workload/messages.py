"""What the admin API takes and gives about workloads: camelCase on the wire.

Owns: the shapes. Must not: hold behaviour.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Model


class WorkloadWish(Model):
    """Who gets which identity."""

    path: str = Field(description="Path of its SPIFFE ID in the node's trust domain, e.g. /shop.")
    selectors: tuple[str, ...] = Field(
        description="What a caller must all be: unix:uid:N, unix:gid:N, unix:path:/…, unix:sha256:HEX; or "
        "vedette:run:NAME, a program that `vedette run` has started under that name."
    )
    ttl_seconds: int | None = Field(
        default=None, description="Life of its X509-SVIDs in seconds; absent: 900."
    )
    jwt_ttl_seconds: int | None = Field(
        default=None, description="Life of its JWT-SVIDs in seconds; absent: 300."
    )
    hint: str = Field(default="", description="Tells its SVIDs apart for a caller with several.")
    dns_names: tuple[str, ...] = Field(default=(), description="DNS names in its X509-SVIDs.")
    federates_with: tuple[str, ...] = Field(
        default=(), description="Trust domains whose bundles it gets."
    )


class WorkloadStatus(WorkloadWish):
    """An entry as it is kept."""

    name: str = Field(description="Name on this node.")
    spiffe_id: str = Field(description="The whole SPIFFE ID.")


class BoxWish(Model):
    """A program that `vedette run` is about to start."""

    workload: str = Field(description="The name it was given.")
    pid: int = Field(ge=1, description="The launcher's process: the box lasts as long as it does.")


class BoxStatus(Model):
    """A program that runs in a box."""

    name: str = Field(description="Name of the box.")
    workload: str = Field(description="The name its program was given.")
    pid: int = Field(description="The launcher's process.")
    since: str = Field(description="Since when, RFC 3339.")
    socket: str = Field(description="Where the launcher reaches the Workload API for it.")


class JoinTokenWish(Model):
    """A join token to be made: what its bearer becomes."""

    name: str = Field(description="Name of the workload entry that it is exchanged for.")
    path: str = Field(description="Path of its SPIFFE ID in the node's trust domain, e.g. /shop.")
    token_ttl_seconds: int = Field(
        default=600, description="Life of the token in seconds: 10 to 86,400."
    )
    bind: tuple[str, ...] = Field(
        default=("uid",),
        description="What of its bearer becomes selectors of the entry: uid, and any of gid, path, sha256.",
    )
    ttl_seconds: int | None = Field(
        default=None, description="Life of its X509-SVIDs in seconds; absent: 900."
    )
    jwt_ttl_seconds: int | None = Field(
        default=None, description="Life of its JWT-SVIDs in seconds; absent: 300."
    )
    federates_with: tuple[str, ...] = Field(
        default=(), description="Trust domains whose bundles it gets."
    )


class JoinToken(Model):
    """A join token, told this once."""

    token: str = Field(repr=False, description="The token, a secret; only its hash is kept.")
    id: str = Field(description="What the list and the records call it.")
    name: str = Field(description="Name of the workload entry that it is exchanged for.")
    spiffe_id: str = Field(description="The SPIFFE ID that its bearer gets.")
    bind: tuple[str, ...] = Field(description="What of its bearer becomes selectors.")
    expires_at: str = Field(description="When it ends (RFC 3339).")


class JoinTokenStatus(Model):
    """A join token that is known, until a day after its end."""

    id: str = Field(description="What the list and the records call it.")
    name: str = Field(description="Name of the workload entry.")
    path: str = Field(description="Path of the SPIFFE ID.")
    bind: tuple[str, ...] = Field(description="What of its bearer becomes selectors.")
    expires_at: str = Field(description="When it ends (RFC 3339).")
    state: str = Field(description="open, used or ended.")


class BundleWish(Model):
    """A trust bundle of somebody else."""

    document: str = Field(description="The SPIFFE bundle, JSON (a JWKS).")


class BundleStatus(Model):
    """What is known of a trust domain."""

    trust_domain: str = Field(description="Name of the trust domain.")
    own: bool = Field(description="Whether it is this node's.")
    sequence: int | None = Field(description="How often it changed, as its document says.")
    x509_authorities: int = Field(description="Certificates of its CAs.")
    jwt_keys: int = Field(description="Keys of its JWT-SVIDs.")
