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
        description="What a caller must all be: unix:uid:N, unix:gid:N, unix:path:/…, unix:sha256:HEX."
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
