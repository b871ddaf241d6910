"""What the admin API takes and gives about bundles over the network: camelCase on the wire.

Owns: the shapes. Must not: hold behaviour.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from vedette.config.model import Model


class Profile(StrEnum):
    """How a bundle endpoint proves who it is (SPIFFE Federation §5.2)."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


class ServeWish(Model):
    """Where and how the node serves its bundle."""

    listen: str = Field(description="HOST:PORT; port 0: any free one, which is then kept.")
    profile: Profile = Field(description="https_web or https_spiffe.")
    certificate: str | None = Field(
        default=None, description="https_web: file with the certificate chain, PEM."
    )
    key: str | None = Field(default=None, description="https_web: file with its key, 0600, PEM.")
    oidc_issuer: str | None = Field(
        default=None,
        description="URL of this server as others reach it: it is `iss` of JWT-SVIDs, and OIDC discovery is served.",
    )


class EndpointStatus(ServeWish):
    """The bundle endpoint."""

    address: str = Field(description="Where it listens; what was asked for while it does not.")
    endpoint_id: str | None = Field(description="https_spiffe: the SPIFFE ID that it shows.")
    error: str | None = Field(description="Why it does not serve; null: it does.")


class FollowWish(Model):
    """Where the bundle of a trust domain is fetched from."""

    url: str = Field(description="https URL of its bundle endpoint.")
    profile: Profile = Field(description="https_web or https_spiffe.")
    endpoint_id: str | None = Field(
        default=None,
        description="https_spiffe: SPIFFE ID of the endpoint; absent: that of a Vedette node.",
    )
    ca: str | None = Field(
        default=None, description="https_web: CA of the endpoint, PEM; absent: the system's."
    )


class FollowStatus(FollowWish):
    """How it stands with a trust domain that is followed."""

    trust_domain: str = Field(description="Name of the trust domain.")
    fetched_at: str | None = Field(description="When it was last fetched (RFC 3339); null: never.")
    age_seconds: int | None = Field(description="How long that is ago.")
    next_at: str = Field(description="When it is fetched next (RFC 3339).")
    failures: int = Field(description="How often in a row that failed.")
    error: str | None = Field(description="Why, the last time.")


class FederationStatus(Model):
    """Bundles over the network."""

    endpoint: EndpointStatus | None = Field(description="Where the node serves; null: nowhere.")
    followed: tuple[FollowStatus, ...] = Field(description="Trust domains that are followed.")
