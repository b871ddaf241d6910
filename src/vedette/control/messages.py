"""What the admin API takes and gives: one model for each request and answer, camelCase on the wire.

Owns: the shapes in docs/reference/openapi.json and status.schema.json. Must not: hold behaviour.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr

from vedette.config.addresses import CountryRule
from vedette.config.addresses_manifest import CrowdSecSource
from vedette.config.difference import FieldChange, ObjectChange
from vedette.config.manifests import ManifestObject
from vedette.config.model import Model
from vedette.config.snapshot import FunctionLimits, Issuer, IssuerKey, Reuse, StaticBackend
from vedette.config.waf import WafOverride
from vedette.control.drift_messages import ModelDrift
from vedette.control.federation.messages import FederationStatus
from vedette.control.sidecar_messages import SidecarSummary
from vedette.identity.revocation import Kind


class SnapshotStatus(Model):
    """The active snapshot."""

    digest: str = Field(description="Digest of the active snapshot.")
    generation: int = Field(description="How many activations there have been.")
    activated_at: str = Field(description="When it became active, RFC 3339.")


class ListenerStatus(Model):
    """One address the node accepts on."""

    name: str = Field(description="Name of the listener; policies see it as `context.listener`.")
    address: str = Field(description="IP:PORT.")
    url: str = Field(description="Where a person on this machine reaches it.")


class MetricsStatus(Model):
    """Where Prometheus finds the metrics."""

    url: str = Field(description="URL of the metrics, on loopback.")


class SupervisorStatus(Model):
    """The process that watches the others."""

    pid: int | None = Field(description="Process id.")


class ProcessStatus(Model):
    """One watched process."""

    pid: int | None = Field(description="Process id; null while it is not running.")
    state: str = Field(description="running, waiting (before a restart) or stopped.")
    restarts: int = Field(description="Restarts since the node was started.")
    started_at: str | None = Field(description="When this process started, RFC 3339.")


class ProcessesStatus(Model):
    """The processes of the node."""

    supervisor: SupervisorStatus = Field(description="Starts and restarts the others.")
    engine: ProcessStatus = Field(description="The request path.")
    control: ProcessStatus = Field(description="Desired state and the admin API.")
    models: ProcessStatus = Field(description="Keeps the processes of models.")


class EngineState(Model):
    """What the engine says of itself; all null while it does not answer."""

    version: str | None = Field(default=None, description="Its version.")
    allocator: str | None = Field(default=None, description="pooling or on-demand.")
    allocator_reason: str | None = Field(default=None, description="Why not pooling, if so.")
    pagemap_scan: bool | None = Field(default=None, description="Whether page-map scan is used.")
    landlock: str | None = Field(
        default=None,
        description="Files, network and signals the engine is kept to: enforced, partial or unavailable.",
    )
    seccomp: str | None = Field(
        default=None, description="System calls the engine is denied: enforced or unavailable."
    )
    digest: str | None = Field(default=None, description="Digest of the snapshot it serves.")
    generation: int | None = Field(default=None, description="Generation it serves.")
    error: str | None = Field(default=None, description="Why it serves none, if so.")
    policy_holds: bool | None = Field(
        default=None,
        description="False: control was away for so long that everything but fixed answers is refused.",
    )
    in_flight: int | None = Field(default=None, description="Requests being answered.")
    unready_upstreams: tuple[str, ...] = Field(
        default=(), description="Services of which no endpoint can be expected to answer."
    )


class FeedStatus(Model):
    """How it stands with a list that control fetches."""

    url: str = Field(description="Where from.")
    polled_at: str | None = Field(description="When it last answered, RFC 3339; null: never yet.")
    age_seconds: int | None = Field(description="How long ago that is.")
    next_at: str | None = Field(description="When it is asked next, RFC 3339.")
    failures: int = Field(description="Tries that have failed since.")
    failing_since: str | None = Field(description="When the first of them was, RFC 3339.")
    error: str | None = Field(description="Why the last try failed, if it did.")
    left_out: dict[str, int] = Field(
        description="Decisions that are no bans, and how many: such as captcha."
    )


class AddressListStatus(Model):
    """One list of addresses: as it is declared, and what the engine made of it."""

    name: str = Field(description="Name of the list.")
    action: str = Field(description="Allow or Block.")
    networks: int | None = Field(description="Networks it names; null while the engine is away.")
    left_out: int | None = Field(description="Lines that are no address; null as above.")
    bad_lines: tuple[str, ...] = Field(description="The first of them, with their numbers.")
    updated_at: str | None = Field(
        description="When its file was last changed, or what was fetched was another, RFC 3339."
    )
    age_seconds: int | None = Field(
        description="How old it is: since then, or since the feed last answered."
    )
    expired: bool = Field(
        description="Whether it is older than it may be; it is used all the same."
    )
    feed: FeedStatus | None = Field(default=None, description="Of a list that control fetches.")


class CountriesStatus(Model):
    """The database of countries."""

    networks: int = Field(description="Networks that have a country.")
    built_at: str = Field(description="When the database was made, RFC 3339.")


class PressureStatus(Model):
    """Whether the node has more to do than it can, and what it sheds then."""

    level: str = Field(
        description="calm, challenge, unknownExpensive, unknown or knownExpensive: what is shed."
    )
    since: str = Field(description="Since when, RFC 3339.")
    reason: str | None = Field(
        default=None, description="The gauge that brought it about; null: it was never another."
    )


class SourcesStatus(Model):
    """How many connections a source may have, and who is counted."""

    most: int = Field(description="Most open at once of one source.")
    remembered: int = Field(description="Sources and /48 networks that have a count of their own.")
    dropped: int = Field(description="Counts that gave way to another and left their debts behind.")


class BlockedStatus(Model):
    """A source that is blocked because it kept offending."""

    source: str = Field(description="IPv4 address, or the first address of the IPv6 /64.")
    seconds: int = Field(description="How long its block goes on.")
    strike: int = Field(description="Which of its blocks in a row it is.")


class OffendersStatus(Model):
    """Sources that keep offending."""

    sources: int = Field(description="Sources that are remembered.")
    capacity: int = Field(description="Most there is room for.")
    dropped: int = Field(description="Sources that gave way to another.")
    unseen: int = Field(description="Offences for which there was no room.")
    blocked: int = Field(description="Sources that are blocked.")
    first: tuple[BlockedStatus, ...] = Field(description="Some of them, at most 20.")


class FunctionStatus(Model):
    """One deployed function."""

    name: str = Field(description="Name of the function.")
    digest: str = Field(description="Digest of its component.")
    route: str = Field(description="Path prefix it answers.")
    domains: tuple[str, ...] = Field(description="Hosts it answers; empty: every host of the node.")
    public: bool = Field(description="Whether callers need no token.")
    url: str = Field(description="Where it answers.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Where it may send HTTP requests; empty: nowhere."
    )
    reuse: Reuse | None = Field(
        default=None, description="How its instances are used again; absent: a fresh one each time."
    )


class AuditStatus(Model):
    """How it stands with the audit log."""

    records: int | None = Field(default=None, description="Records that the newest head is of.")
    head: int | None = Field(default=None, description="Number of the newest head.")
    signed_at: str | None = Field(default=None, description="When it was signed.")
    error: str | None = Field(default=None, description="Why no head can be signed now.")


class RotateWish(Model):
    """A rotation that somebody asks for."""

    jwt: bool = Field(default=False, description="The key of JWT-SVIDs instead of the CA's.")
    now: bool = Field(
        default=False, description="Sign with the next key in 40 seconds instead of a day."
    )


class KeyStatus(Model):
    """One key that is trusted."""

    kind: str = Field(description="ca or jwt-svid.")
    phase: str = Field(description="prepared, active or old.")
    key_id: str = Field(description="Serial number of the CA's certificate, or the kid of tokens.")
    stored: str = Field(description="file or pkcs11: where the key is.")
    since: str = Field(description="Since when it is in this phase (RFC 3339).")
    ends: str = Field(description="Until when what it signs is believed at most (RFC 3339).")
    next_phase: str = Field(description="What it is next: active, old or gone.")
    next_at: str | None = Field(
        description="When that is; null: when the next key takes its place."
    )


class ModelSummary(Model):
    """A model in the status of a node."""

    name: str = Field(description="Name of the model.")
    version: int | None = Field(
        description="The version that serves; null: only tiers have the model."
    )
    state: str | None = Field(
        default=None, description="State of its process; null: nobody knows of one."
    )
    drift: ModelDrift | None = Field(
        default=None,
        description="Whether what it is asked and answers is as it was; null: nobody knows.",
    )


class NodeStatus(Model):
    """The answer of `vedette status --json`."""

    version: str = Field(description="Version of the node.")
    home: str = Field(description="Home folder of the node.")
    trust_domain: str = Field(description="SPIFFE trust domain.")
    location: str = Field(description="Name of the place, as in x-edge-location.")
    snapshot: SnapshotStatus | None = Field(description="The active snapshot.")
    listeners: tuple[ListenerStatus, ...] = Field(description="Where the node accepts requests.")
    metrics: MetricsStatus = Field(description="Where the metrics are.")
    processes: ProcessesStatus = Field(description="The node's processes.")
    engine: EngineState = Field(description="What the engine says of itself.")
    functions: tuple[FunctionStatus, ...] = Field(description="Deployed functions, by name.")
    workload_api: str | None = Field(
        default=None,
        description="Where the SPIFFE Workload API is (SPIFFE_ENDPOINT_SOCKET); null: started by an older version.",
    )
    sidecars: tuple[SidecarSummary, ...] = Field(
        default=(), description="Programs that the engine speaks for in the mesh, by name."
    )
    models: tuple[ModelSummary, ...] = Field(
        default=(), description="Models that the node serves, by name."
    )
    address_lists: tuple[AddressListStatus, ...] = Field(
        default=(), description="Lists of addresses, by name."
    )
    countries: CountriesStatus | None = Field(
        default=None, description="The database of countries; null: none, or the engine is away."
    )
    pressure: PressureStatus | None = Field(
        default=None, description="What is shed; null: the engine is away."
    )
    sources: SourcesStatus | None = Field(
        default=None,
        description="Connections of a source; null: any number, or the engine is away.",
    )
    offenders: OffendersStatus | None = Field(
        default=None, description="Who keeps offending; null: nobody looks, or the engine is away."
    )
    audit: AuditStatus | None = Field(
        default=None, description="The audit log; null: control is away."
    )
    federation: FederationStatus | None = Field(
        default=None, description="Trust bundles over the network; null: control is away."
    )
    keys: tuple[KeyStatus, ...] = Field(
        default=(),
        description="Keys of the CA and of JWT-SVIDs that are trusted; empty: control is away.",
    )


class FunctionWish(Model):
    """A function to deploy; its component was uploaded before."""

    component: str = Field(description="Digest of the uploaded component.")
    domains: tuple[str, ...] = Field(default=(), description="Hosts; none: every host of the node.")
    route: str | None = Field(
        default=None, description="Path prefix; default /NAME, or / on domains."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the function.")
    config: dict[str, str] = Field(default_factory=dict, description="Values for wasi:config.")
    limits: FunctionLimits = Field(
        default_factory=FunctionLimits, description="Limits of a request."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Where it may send HTTP requests; none: nowhere."
    )
    reuse: Reuse | None = Field(default=None, description="Whether instances are used again.")
    public: bool = Field(default=False, description="Whether callers need no token.")
    waf: WafOverride | None = Field(
        default=None, description="How its requests are inspected; absent: as the node says."
    )
    countries: CountryRule | None = Field(
        default=None, description="From which countries; absent: from everywhere."
    )


class Activation(Model):
    """A change that is durable. `applied` is false when the engine was away; it loads the state when it returns."""

    digest: str = Field(description="Digest of the active snapshot.")
    generation: int = Field(description="Its generation.")
    applied: bool = Field(description="Whether the engine serves it already.")


class Adopted(Activation):
    """The activation of what an installation brings."""

    brought: tuple[str, ...] = Field(description="What a person should know of it.")


class Deployed(Activation):
    """A deployed function."""

    name: str = Field(description="Name of the function.")
    component: str = Field(description="Digest of its component.")
    route: str = Field(description="Path prefix it answers.")
    url: str = Field(description="Where it answers.")
    changes: tuple[FieldChange, ...] = Field(
        default=(),
        description="Settings that are not what they were, of a function that was there: those of "
        "Function, `route.*` of its Route, and `public`.",
    )
    notes: tuple[str, ...] = Field(default=(), description="What a person should know.")


class Stored(Model):
    """An uploaded component."""

    digest: str = Field(description="Digest it is stored under.")
    size: int = Field(description="Size in bytes.")


class StaticRouteWish(Model):
    """A route that the node answers itself."""

    hosts: tuple[str, ...] = Field(default=(), description="Hosts; none: every host of the node.")
    path: str = Field(description="Path.")
    exact: bool = Field(default=False, description="This path only, not those below it.")
    backend: StaticBackend = Field(description="The answer.")


class PolicyText(Model):
    """A Cedar policy file."""

    name: str = Field(description="File name, such as team.cedar.")
    text: str = Field(description="Cedar text.")


class PolicyWish(Model):
    """Cedar text to store under the name in the path."""

    text: str = Field(max_length=1_000_000, description="Cedar text.")


class PolicyChecked(Model):
    """A policy that was checked and not stored."""

    warnings: tuple[str, ...] = Field(description="What is allowed but looks like a mistake.")


class Jwks(Model):
    """Where the keys of an issuer are fetched from."""

    url: str = Field(max_length=2_048, description="https URL of a JWKS.")
    ca: str | None = Field(
        default=None,
        max_length=262_144,
        description="CA of that server, PEM; default the system's.",
    )
    alg: str | None = Field(default=None, description="Algorithm of RSA keys that do not say.")


class IssuerWish(Model):
    """An issuer to trust under the name in the path."""

    issuer: str = Field(description="The `iss` claim of its tokens.")
    audiences: tuple[str, ...] = Field(min_length=1, description="Accepted `aud` claims.")
    leeway_seconds: int = Field(default=5, ge=0, le=300, description="Clock difference forgiven.")
    keys: tuple[IssuerKey, ...] = Field(default=(), description="Public keys, or `jwks`.")
    jwks: Jwks | None = Field(default=None, description="Where the keys are, or `keys`.")


class JwksStatus(Model):
    """How it stands with keys that come from a URL."""

    url: str = Field(description="Where the keys are.")
    fetched_at: str = Field(description="When they were last fetched, RFC 3339.")
    age_seconds: int = Field(description="How long ago that is.")
    next_at: str = Field(description="When they are fetched next, RFC 3339.")
    failures: int = Field(description="Tries that have failed since.")
    error: str | None = Field(description="Why the last try failed, if it did.")


class IssuerStatus(Issuer):
    """A trusted issuer."""

    jwks: JwksStatus | None = Field(default=None, description="Of keys that come from a URL.")


class AuthorityWish(Model):
    """An authority of client certificates to trust under the name in the path."""

    certificates: str = Field(max_length=262_144, description="Its certificates, PEM.")
    trust_domain: str | None = Field(
        default=None, description="SPIFFE trust domain of its clients; absent: any certificate."
    )
    pins: tuple[str, ...] = Field(
        default=(), max_length=1_000, description="SHA-256 of accepted keys (SPKI), hex."
    )


class CertificateWish(Model):
    """A certificate to show to services under the name in the path."""

    pem: SecretStr = Field(
        max_length=131_072, description="The chain, leaf first, and its private key, PEM."
    )


class CertificateStatus(Model):
    """A certificate that services are shown. Its key is never told."""

    name: str = Field(description="Name on this node.")
    subject: str = Field(description="Whom it is for, RFC 4514.")
    issuer: str = Field(description="Who issued it, RFC 4514.")
    not_after: str = Field(description="When it expires, RFC 3339.")
    upstreams: tuple[str, ...] = Field(description="Services it is shown to.")


class CredentialWish(Model):
    """What destinations are shown by rules that give the name in the path."""

    value: SecretStr = Field(
        max_length=16_384, description="The value, without what a rule puts before it."
    )


class CredentialStatus(Model):
    """A credential. What it is, is never told."""

    name: str = Field(description="Name on this node.")
    changed_at: str = Field(description="When it was last changed, RFC 3339.")
    policies: tuple[str, ...] = Field(description="Egress policies that name it.")


class SerialWish(Model):
    """A certificate to revoke."""

    serial: str = Field(min_length=1, max_length=128, description="Its serial number, hex.")


class RevokeWish(Model):
    """A token to revoke."""

    jti: str = Field(min_length=1, max_length=1_024, description="Its `jti` claim.")
    issuer: str | None = Field(default=None, description="Its `iss` claim; default this node.")
    expires_at: str | None = Field(default=None, description="When it ends, RFC 3339.")


class RevocationWish(Model):
    """What to revoke, and why."""

    what: str = Field(
        min_length=1,
        max_length=4_096,
        description="`spiffe://DOMAIN/PATH`, `spiffe://DOMAIN` or a trust domain that the node knows, "
        "`AUTHORITY/SERIAL`, `ISSUER#JTI`, or the `jti` of a token of this node.",
    )
    reason: str | None = Field(default=None, max_length=256, description="Why, for people.")
    expires_at: str | None = Field(default=None, description="When a token ends, RFC 3339.")


class LiftWish(Model):
    """What to revoke no more."""

    what: str = Field(
        min_length=1, max_length=4_096, description="As the list of revocations writes it."
    )


class RevocationStatus(Model):
    """Something that counts no more."""

    what: str = Field(description="What, as it can be lifted.")
    kind: Kind = Field(description="What it is.")
    revoked_at: str | None = Field(description="When, RFC 3339; null where nobody noted it.")
    actor: str | None = Field(description="Who revoked it.")
    reason: str | None = Field(description="Why.")
    expires_at: str | None = Field(
        description="When a token ends by itself, RFC 3339; then it is forgotten."
    )


class FactWish(Model):
    """A fact about a principal."""

    subject: str = Field(
        description="`ISSUER#SUBJECT`, a subject of this node's own tokens, a SPIFFE ID, or `x509:AUTHORITY#SUBJECT`."
    )
    fact: str = Field(description="Its name, such as `disk-encrypted`.")
    value: bool = Field(default=True, description="Whether it is so.")
    seconds: int = Field(description="How long that is known, in seconds; at most 30 days.")
    reason: str | None = Field(default=None, max_length=256, description="Why, for people.")


class ForgetWish(Model):
    """What to know no more."""

    subject: str = Field(description="Of whom.")
    fact: str | None = Field(default=None, description="Which fact; absent: all.")


class FactStatus(Model):
    """A fact that has not ended."""

    subject: str = Field(description="The principal, as records have it.")
    fact: str = Field(description="Its name.")
    value: bool = Field(description="Whether it is so.")
    expires_at: str = Field(description="When it ends, RFC 3339.")
    set_at: str = Field(description="When it was said, RFC 3339.")
    actor: str = Field(description="Who said so.")
    reason: str | None = Field(description="Why.")


class GrantWish(Model):
    """A permit for a while."""

    principal: str = Field(
        description="`ISSUER#SUBJECT`, a subject of this node's own tokens, a SPIFFE ID, or `x509:AUTHORITY#SUBJECT`."
    )
    target: str = Field(description="`function/NAME`, `route/NAME`, or the name alone.")
    seconds: int = Field(description="How long, in seconds; at most 30 days.")
    methods: tuple[str, ...] = Field(default=(), description="Only these methods; empty: all.")
    name: str | None = Field(default=None, description="What to call it; default: made up.")
    reason: str | None = Field(default=None, max_length=256, description="Why, for people.")


class GrantStatus(Model):
    """A permit that ends."""

    name: str = Field(
        description="Its name; the policy is `grant NAME`, the file `grant-NAME.cedar`."
    )
    principal: str | None = Field(description="Who may; null where nobody noted it.")
    target: str | None = Field(description="What: `function/NAME` or `route/NAME`.")
    methods: tuple[str, ...] = Field(description="Only these methods; empty: all.")
    expires_at: str = Field(description="When it ends, RFC 3339.")
    granted_at: str | None = Field(description="When it began, RFC 3339.")
    actor: str | None = Field(description="Who granted it.")
    reason: str | None = Field(description="Why.")


class Granted(Activation):
    """A new grant, and the snapshot that holds it."""

    name: str = Field(description="Its name.")
    expires_at: str = Field(description="When it ends, RFC 3339.")


class RevokedToken(Model):
    """A token that counts no more."""

    issuer: str = Field(description="Its `iss` claim.")
    jti: str = Field(description="Its `jti` claim.")
    expires_at: str = Field(description="When it ends, RFC 3339; then it is forgotten.")


class AskedRequest(Model):
    """A request to explain. Without subject, spiffe and asFunction the caller is anonymous."""

    subject: str | None = Field(default=None, max_length=2_048, description="`sub` of a token.")
    issuer: str | None = Field(default=None, description="`iss` of the token; default this node.")
    audiences: tuple[str, ...] = Field(default=(), description="`aud`; default this node's.")
    scopes: tuple[str, ...] = Field(default=(), description="`scope` of the token.")
    spiffe: str | None = Field(default=None, description="SPIFFE ID of a client certificate.")
    authority: str | None = Field(
        default=None, description="Authority of the certificate; default that of the trust domain."
    )
    certificate_subject: str | None = Field(
        default=None, description="Subject of a certificate without SPIFFE ID; needs `authority`."
    )
    as_function: str | None = Field(
        default=None, description="The caller is this function, which asks `model`."
    )
    method: str = Field(default="GET", max_length=64, description="Method.")
    host: str = Field(default="localhost", max_length=512, description="Host.")
    path: str = Field(default="/", max_length=65_536, description="Path.")
    function: str | None = Field(default=None, description="Function, whatever the path.")
    model: str | None = Field(default=None, description="Model, whatever the path.")
    route: str | None = Field(default=None, description="Route, whatever the path.")
    source_ip: str = Field(default="127.0.0.1", max_length=64, description="Address of the client.")
    posture: tuple[str, ...] | None = Field(
        default=None, description="What is known of the caller; absent: what is set now."
    )
    scheme: str = Field(default="https", pattern="^https?$", description="https or http.")
    listener: str | None = Field(default=None, description="Listener; default the first.")


class ExplainWish(Model):
    """Requests to explain under the active snapshot."""

    requests: tuple[AskedRequest, ...] = Field(max_length=10_000, description="The requests.")
    policies: tuple[PolicyText, ...] | None = Field(
        default=None, description="Policies to ask instead of the active ones."
    )


class FailedPart(Model):
    """The first part of a policy that did not hold."""

    part: str = Field(description="principal, action, resource, when or unless.")
    text: str = Field(description="The part, in Cedar.")
    values: dict[str, Any] = Field(description="What the attributes in it were.")
    error: str | None = Field(description="Why it could not be evaluated, if so.")


class JudgedPolicy(Model):
    """One policy, and why it did not apply if it did not."""

    id: str = Field(description="Its `@id`, else file and place, as in records.")
    file: str = Field(description="Its file.")
    line: int = Field(description="Its line there.")
    effect: str = Field(description="permit or forbid.")
    applies: bool = Field(description="Whether scope and conditions hold.")
    decided: bool = Field(description="Whether it is why the request is allowed or denied.")
    lower_cased: bool = Field(description="Whether it holds for the lower-cased path only.")
    failed: FailedPart | None = Field(description="What did not hold.")


class Explanation(Model):
    """What is decided about one request, and why."""

    allowed: bool = Field(description="Whether it is let through.")
    status: int | None = Field(description="Status of the refusal.")
    stage: str | None = Field(description="Stage that refuses.")
    cause: str | None = Field(description="Cause of the refusal, as in records.")
    detail: str | None = Field(description="More about it.")
    route: str | None = Field(description="Route that host and path lead to.")
    principal: dict[str, Any] | None = Field(description="Principal: type, id, attributes.")
    resource: dict[str, Any] | None = Field(description="Resource: type, id, attributes.")
    context: dict[str, Any] | None = Field(description="Context.")
    decided_by: tuple[str, ...] = Field(description="Policies that decided, as in records.")
    policies: tuple[JudgedPolicy, ...] = Field(description="Every policy.")


class Explained(Model):
    """The explanations, and the snapshot they are of."""

    digest: str = Field(description="Digest of the snapshot.")
    generation: int = Field(description="Its generation.")
    answers: tuple[Explanation, ...] = Field(description="One for each request.")


class TokenWish(Model):
    """A token to mint."""

    subject: str = Field(min_length=1, max_length=255, description="The `sub` claim.")
    # Loose here: the issuer of tokens says what is too long, and how to mend it.
    ttl_seconds: int = Field(
        default=3600, ge=0, le=1_000_000_000, description="Life in seconds, at most 30 days."
    )
    scopes: tuple[str, ...] = Field(default=(), description="The `scope` claim.")
    audience: str | None = Field(default=None, description="The `aud` claim; default this node.")


class Token(Model):
    """A minted token; it is not kept."""

    token: str = Field(description="The JWT.")
    expires_at: str = Field(description="When it ends, RFC 3339.")


class HistoryEntry(Model):
    """One activation."""

    generation: int = Field(description="Counts up by one.")
    digest: str = Field(description="Digest of the snapshot.")
    action: str = Field(description="What was done, such as deploy hello.")
    actor: str = Field(description="Who did it.")
    activated_at: str = Field(description="When, RFC 3339.")


class RollbackWish(Model):
    """Where to go back to."""

    digest: str | None = Field(
        default=None, description="A snapshot of the history; default the previous."
    )


class ErrorDetail(Model):
    """What went wrong and how to mend it."""

    code: str = Field(description="Code, as in docs/reference/errors.md.")
    message: str = Field(description="What went wrong.")
    hint: str | None = Field(default=None, description="How to mend it.")
    file: str | None = Field(default=None, description="The file at fault.")
    line: int | None = Field(default=None, description="The line at fault.")


class ErrorAnswer(Model):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail = Field(description="The error.")


IssuerAnswer = Issuer


class ManifestSetWish(Model):
    """Manifests to plan, as they were read, with what the files they name hold."""

    objects: tuple[ManifestObject, ...] = Field(min_length=1, description="The manifests.")
    prune: bool = Field(
        default=False, description="Whether what was applied before and is not here is deleted."
    )


class AppliedObject(Model):
    """An object of the snapshot that belongs to a manifest."""

    kind: str = Field(max_length=64, description="Its kind.")
    name: str = Field(max_length=128, description="Its name.")
    owner: str = Field(max_length=256, description="Kind and name of the manifest.")
    file: str = Field(max_length=4_096, description="Where the manifest stood.")


class PlanWish(Model):
    """A plan to apply as it is."""

    base: str = Field(description="Digest of the snapshot it starts from; must still be active.")
    payload: str = Field(description="The next snapshot, canonical JSON.")
    texts: dict[str, str] = Field(default_factory=dict, description="Policy texts by digest.")
    applied: tuple[AppliedObject, ...] = Field(
        default=(), max_length=1_000_000, description="What then belongs to manifests."
    )
    feeds: dict[str, CrowdSecSource | None] = Field(
        default_factory=dict, description="As in the plan."
    )
    ground: str | None = Field(default=None, description="As in the plan.")


class AbsentManifest(Model):
    """A manifest that was applied before, is not among these, and stays in force."""

    owner: str = Field(description="Its kind and name, such as Upstream/shop.")
    file: str = Field(description="Where it stood.")


class PlanAnswer(Model):
    """What applying the manifests would do; nothing was done."""

    base: str = Field(description="Digest of the active snapshot.")
    digest: str | None = Field(
        description="Digest of the next snapshot; null while a component is still to be built."
    )
    changes: tuple[ObjectChange, ...] = Field(description="What changes, by kind and name.")
    notes: tuple[str, ...] = Field(description="What a person should know.")
    unbuilt: tuple[str, ...] = Field(description="Functions whose component is still to be built.")
    blobs: tuple[str, ...] = Field(description="Blobs to upload before it is applied.")
    payload: str | None = Field(description="The next snapshot, canonical JSON.")
    texts: dict[str, str] = Field(description="Policy texts by digest.")
    applied: tuple[AppliedObject, ...] = Field(description="What then belongs to manifests.")
    feeds: dict[str, CrowdSecSource | None] = Field(
        default_factory=dict,
        description="Lists of addresses of these manifests, and where each is fetched from.",
    )
    ground: str | None = Field(
        default=None,
        description="Digest of the snapshot it starts from without what feeds brought: a feed that "
        "changes meanwhile makes no plan stale.",
    )
    absent: tuple[AbsentManifest, ...] = Field(
        default=(), description="Manifests applied before that are not here; `prune` deletes them."
    )


class DiffAnswer(Model):
    """The difference of two snapshots."""

    before: str = Field(description="Digest of the first.")
    after: str = Field(description="Digest of the second.")
    changes: tuple[ObjectChange, ...] = Field(description="What changes, by kind and name.")


class SnapshotAnswer(Model):
    """A snapshot of the history."""

    digest: str = Field(description="Its digest.")
    payload: str = Field(description="The snapshot, canonical JSON.")
