"""The operations of a node: one method for each thing a person or the admin API can ask for.

Owns: what an operation means, in terms of `desired`, `activate` and the stores. Must not: know HTTP, or log a token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from vedette import __version__
from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.hosts import normalise_host
from vedette.config.model import build
from vedette.config.snapshot import (
    ClientAuthority,
    Function,
    Issuer,
    IssuerKey,
    PathMatch,
    PolicyRef,
    Route,
    Snapshot,
)
from vedette.config.written import parse_destination, route_path
from vedette.control import desired, planning
from vedette.control.activate import Activator, Outcome
from vedette.control.admin_records import AdminLog
from vedette.control.audit import Auditor
from vedette.control.bootstrap import Keys
from vedette.control.client_certificates import ClientCertificates
from vedette.control.credentials import Credentials
from vedette.control.engine_svids import EngineSvids
from vedette.control.federation.following import Following
from vedette.control.federation.messages import FederationStatus
from vedette.control.federation.serving import BundleServing
from vedette.control.feeds import Feeds
from vedette.control.firewall import Firewall
from vedette.control.function_tokens import FunctionTokens
from vedette.control.grants import Grants
from vedette.control.inspections import exclusions_without_effect
from vedette.control.installed import brought, told
from vedette.control.jwks import JwksRefresher
from vedette.control.messages import (
    Activation,
    Adopted,
    AskedRequest,
    AuthorityWish,
    CertificateWish,
    CredentialWish,
    Deployed,
    DiffAnswer,
    Explained,
    Explanation,
    FactStatus,
    FactWish,
    ForgetWish,
    FunctionStatus,
    FunctionWish,
    Granted,
    GrantWish,
    HistoryEntry,
    IssuerStatus,
    IssuerWish,
    LiftWish,
    ManifestSetWish,
    ModelSummary,
    NodeStatus,
    PlanAnswer,
    PlanWish,
    PolicyText,
    RevocationWish,
    RevokedToken,
    RevokeWish,
    SnapshotAnswer,
    StaticRouteWish,
    Stored,
    Token,
    TokenWish,
)
from vedette.control.models import Models
from vedette.control.posture import Posture
from vedette.control.redeploy import changed_settings
from vedette.control.resolve import Kept
from vedette.control.revocations import Revocations
from vedette.control.rotation import Rotation
from vedette.control.sidecars import Sidecars
from vedette.control.status import base_url, function_statuses, node_status, route_url
from vedette.control.supervisor.state import SupervisorState, read_state
from vedette.control.traffic import route_statuses, upstream_statuses
from vedette.control.traffic_messages import RouteStatus, UpstreamStatus
from vedette.control.workload.boxes import Boxes
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.joining import JoinTokens
from vedette.engine.client import EngineStatus
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.functions.admit import read_component
from vedette.identity.certificates import authority_pem, pin_of
from vedette.identity.domain import spiffe_id, token_audience
from vedette.identity.revocation import Revocation, parse_revocation
from vedette.identity.tokens import ISSUER_NAME, MAX_TTL
from vedette.ids import digest_of, require_digest, require_name
from vedette.observability.metrics import DriftFact, EngineCounters
from vedette.observability.metrics import NodeFacts as MetricFacts
from vedette.policy.defaults import public_policy, public_policy_name
from vedette.policy.grants import is_grant_file
from vedette.store.history import FEED, Entry
from vedette.store.home import Home


class Node:
    """One node, as control sees it. Methods may be called from any thread."""

    def __init__(self, home: Home, keys: Keys, activator: Activator) -> None:
        self.home = home
        self._keys = keys
        self._activator = activator
        self.jwks = JwksRefresher(home, activator)
        self.feeds = Feeds(home, activator)
        self.revocations = Revocations(home, activator)
        self.grants = Grants(home, activator)
        self.posture = Posture(home, keys.signer, activator.engine)
        activator.told = lambda status: self.posture.settle(status.get("posture"))
        self.certificates = ClientCertificates(home, activator)
        self.credentials = Credentials(home, activator)
        self.firewall = Firewall(home, activator)
        self.audit = Auditor(home, keys.audit)
        self.admin = AdminLog(home.admin_records)
        activator.witness = self._record_own
        self.identities = Identities(home, keys)
        self.workloads = Workloads(self.identities.store, self.identities.trust_domain)
        self.boxes = Boxes(home.run)
        self.joining = JoinTokens(self.identities.store, self.workloads, self.admin.write)
        self.following = Following(home, self.identities)
        self.serving = BundleServing(home, self.identities)
        self.rotation = Rotation(home, keys, self.identities, activator, self._note)
        self.revocations.listen(self._take_back)
        self.engine_svids = EngineSvids(
            home,
            self.identities,
            lambda: activator.active()[1],
            activator.engine,
            FunctionTokens(self.identities, activator.version_of),
        )
        self.sidecars = Sidecars(activator, self.engine_svids, self._base)
        self.models = Models(
            home,
            activator,
            self._base,
            lambda: base_url(self._supervised()),
            lambda: keys.authority,
        )
        activator.noted = self.models.note
        activator.besides = self.models.needed
        activator.vouched = self.models.signatures.require
        activator.loadable = self.models.signatures.loadable
        activator.proved = self.models.golden.require

    # --- reading ---------------------------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        """Everything about the node now; the engine's part is empty while it is away."""
        entry, snapshot = self._activator.active()
        told = node_status(
            self.home,
            self._supervised(),
            entry,
            snapshot,
            self._engine_status(),
            self.feeds.status(snapshot),
        )
        return told.model_copy(
            update={
                "audit": self.audit.status(),
                "federation": self.federation(),
                "keys": tuple(self.rotation.statuses()),
                "models": self._with_drift(told.models, snapshot),
            }
        )

    def _with_drift(
        self, models: Iterable[ModelSummary], snapshot: Snapshot
    ) -> tuple[ModelSummary, ...]:
        def told(each: ModelSummary) -> ModelSummary:
            served = snapshot.model(each.name)
            drift = self.models.drift.of(served) if served is not None else None
            return each.model_copy(update={"drift": drift})

        return tuple(map(told, models))

    def _drift_facts(self, snapshot: Snapshot) -> Iterator[DriftFact]:
        for model in snapshot.models or ():
            drift = self.models.drift.of(model)
            for each in drift.columns if drift else ():
                if each.psi is not None:
                    yield DriftFact(model.name, model.version, each.side, each.name, each.psi)

    def federation(self) -> FederationStatus:
        """Where the node serves its trust bundle, and whose it fetches."""
        followed = tuple(self.following.statuses())
        return FederationStatus(endpoint=self.serving.status(), followed=followed)

    def functions(self) -> list[FunctionStatus]:
        """Deployed functions, by name."""
        return function_statuses(self._activator.active()[1], base_url(self._supervised()))

    def upstreams(self) -> list[UpstreamStatus]:
        """Services by name; how they do is unknown while the engine is away."""
        rows = None
        with contextlib.suppress(VedetteError):
            rows = self._activator.engine.upstreams()
        return upstream_statuses(self._activator.active()[1], rows)

    def routes(self) -> list[RouteStatus]:
        """Routes by name, with who answers and which policies are about them."""
        snapshot = self._activator.active()[1]
        checked = self._activator.check_texts(self._activator.policy_texts(snapshot, {}))
        base = base_url(self._supervised())
        return route_statuses(snapshot, base, checked.outlines, self.upstreams(), now())

    def require_function(self, name: str) -> None:
        """Raises `ConfigError` function_unknown."""
        if self._activator.active()[1].function(require_name(name)) is None:
            raise ConfigError("function_unknown", f"no function {name!r} is deployed")

    def history(self, limit: int) -> list[HistoryEntry]:
        """Activations, newest first."""
        return [
            HistoryEntry(
                generation=entry.generation,
                digest=entry.digest,
                action=entry.action,
                actor=entry.actor,
                activated_at=to_rfc3339(entry.activated_at, microseconds=True),
            )
            for entry in self._activator.history.entries(limit)
        ]

    def policies(self) -> list[PolicyText]:
        """The active policy files."""
        refs = self._activator.active()[1].policy.policies
        blobs = self._activator.blobs
        return [PolicyText(name=ref.name, text=blobs.get(ref.blob).decode()) for ref in refs]

    def policy(self, name: str) -> PolicyText:
        """One policy file. Raises `ConfigError` policy_unknown."""
        for policy in self.policies():
            if policy.name == name:
                return policy
        raise ConfigError("policy_unknown", f"there is no policy {name!r}")

    def issuers(self) -> list[IssuerStatus]:
        """Trusted issuers, by name."""
        jwks = self.jwks.status()
        return [
            IssuerStatus(**issuer.model_dump(), jwks=jwks.get(issuer.name))
            for issuer in self._activator.active()[1].identity.issuers
        ]

    def authorities(self) -> list[ClientAuthority]:
        """Authorities of client certificates, by name."""
        return list(self._activator.active()[1].identity.authorities)

    def revoked_tokens(self) -> list[RevokedToken]:
        """Tokens that count no more."""
        return self.revocations.tokens()

    def explain(
        self, requests: Iterable[AskedRequest], policies: Iterable[PolicyText] | None
    ) -> Explained:
        """What the engine would decide about requests, and why. Raises `ConfigError` function_unknown and the like."""
        entry, _ = self._activator.active()
        texts = None if policies is None else {one.name: one.text for one in policies}
        asked = [self._asked(request) for request in requests]
        answers = self._activator.explain(asked, texts)
        return Explained(
            digest=entry.digest,
            generation=entry.generation,
            answers=tuple(build(Explanation, one, code="request_invalid") for one in answers),
        )

    def ca_certificate(self) -> bytes:
        """The certificates of the CAs that are trusted, PEM: the active one first."""
        return self._keys.ca_pem()

    def engine_metrics(self) -> EngineCounters | None:
        """The engine's counters; None while it is away."""
        with contextlib.suppress(VedetteError):
            return self._activator.engine.metrics()
        return None

    def metric_facts(self) -> MetricFacts:
        """What control knows for the metrics."""
        entry, snapshot = self._activator.active()
        state = self._supervised()
        audit = self.audit.status()
        return MetricFacts(
            version=__version__,
            location=state.location,
            generation=entry.generation,
            functions=len(snapshot.functions),
            restarts={
                role: getattr(state, role).restarts for role in ("engine", "control", "models")
            },
            drift=tuple(self._drift_facts(snapshot)),
            audited=audit.records,
            audited_at=None
            if audit.signed_at is None
            else from_rfc3339(audit.signed_at).timestamp(),
        )

    # --- changing --------------------------------------------------------------------------------------------------

    def store_component(self, digest: str, file: Path) -> Stored:
        """Admits an uploaded file as a component. Raises `ConfigError` digest_mismatch or why it is not one."""
        admitted = read_component(file)
        if admitted.digest != require_digest(digest):
            raise ConfigError("digest_mismatch", f"the content is not {digest}")
        self._activator.blobs.put(admitted.data)
        return Stored(digest=admitted.digest, size=admitted.size)

    def store_file(self, digest: str, file: Path) -> Stored:
        """Stores an uploaded file, whatever it is. Raises `ConfigError` digest_mismatch."""
        data = file.read_bytes()
        if digest_of(data) != require_digest(digest):
            raise ConfigError("digest_mismatch", f"the content is not {digest}")
        self._activator.blobs.put(data)
        return Stored(digest=digest, size=len(data))

    def plan(self, wish: ManifestSetWish) -> PlanAnswer:
        """What applying manifests would do. Raises `ConfigError` with file and line."""
        domains = {*self.identities.federation.bundles(), self.identities.trust_domain}
        names = self.certificates.names(), self.credentials.names()
        kept = Kept(*names, frozenset(domains), self.models.known(wish.objects))
        return planning.plan(self._activator, self.feeds, wish, self._base(), kept)

    def apply(self, wish: PlanWish, actor: str) -> Activation:
        """Applies a plan. Raises `ConfigError` plan_stale, `TrustError` payload_invalid, plan_altered."""
        require = self.models.require_true
        return activation(planning.apply(self._activator, self.feeds, wish, actor, require))

    def snapshot(self, name: str) -> SnapshotAnswer:
        """A snapshot of the history by name. Raises `ConfigError` snapshot_unknown."""
        snapshot = self._named(name)
        return SnapshotAnswer(digest=snapshot.digest(), payload=snapshot.canonical_bytes().decode())

    def diff(self, before: str, after: str) -> DiffAnswer:
        """The difference of two snapshots of the history."""
        return planning.diff(self._activator, self._named(before), self._named(after))

    def deploy(self, name: str, wish: FunctionWish, actor: str) -> Deployed:
        """Deploys an uploaded component as `name`, replacing what had that name; returns when it is active."""
        function = self._function(require_name(name), wish)
        path = None if wish.route is None else route_path(wish.route)
        route = desired.function_route(name, wish.domains, path, wish.waf, wish.countries)
        public = (
            self._policy_ref(public_policy_name(name), public_policy(name)) if wish.public else None
        )
        before: list[Snapshot] = []

        def change(active: Snapshot) -> Snapshot:
            before.append(active)
            return desired.put_function(
                active, function, route, public, public_policy_name(name), self._base()
            )

        outcome = self._activator.change(change, f"deploy {name}", actor)
        return Deployed(
            **activation(outcome).model_dump(),
            name=name,
            component=wish.component,
            route=route.path.value,
            url=route_url(base_url(self._supervised()), route),
            changes=changed_settings(before[0], outcome.snapshot, name),
            notes=tuple(
                exclusions_without_effect(self._activator.blobs, outcome.snapshot, wish.waf)
            ),
        )

    def adopt(self, actor: str) -> Adopted:
        """Puts in force what this installation brings and an older one did not. Nothing changes when
        the node has it all.
        """
        before: list[Snapshot] = []

        def change(active: Snapshot) -> Snapshot:
            before.append(active)
            return brought(active, self._activator.blobs, self._activator.history)

        outcome = self._activator.change(change, "upgrade", actor)
        found = told(before[0], outcome.snapshot)
        return Adopted(**activation(outcome).model_dump(), brought=tuple(found))

    def remove(self, name: str, actor: str) -> Activation:
        """Removes a function with its routes and its public policy."""
        public = public_policy_name(require_name(name))
        return self._change(
            lambda active: desired.remove_function(active, name, public, self._base()),
            f"remove {name}",
            actor,
        )

    def put_static_route(self, name: str, wish: StaticRouteWish, actor: str) -> Activation:
        """Makes the node itself answer a path."""
        route = Route(
            name=require_name(name, "route"),
            hosts=tuple(sorted({normalise_host(host) for host in wish.hosts})),
            path=PathMatch(
                type="Exact" if wish.exact else "PathPrefix", value=route_path(wish.path)
            ),
            backend=wish.backend,
        )
        return self._change(
            lambda active: desired.put_route(active, route, self._base()), f"route {name}", actor
        )

    def remove_route(self, name: str, actor: str) -> Activation:
        """Removes a route."""
        return self._change(
            lambda active: desired.remove_route(active, name, self._base()),
            f"remove route {name}",
            actor,
        )

    def put_policy(self, name: str, text: str, actor: str) -> Activation:
        """Checks and activates a policy file. Raises `ConfigError` policy_invalid with file and line."""
        policy = self._policy_ref(name, text)
        return self._change(
            lambda active: desired.put_policy(active, policy), f"policy {name}", actor
        )

    def check_policy(self, name: str, text: str) -> list[str]:
        """Checks a policy file beside the active ones, and activates nothing; returns warnings."""
        policy = self._policy_ref(name, text)
        candidate = desired.put_policy(self._activator.active()[1], policy)
        return self._activator.check_policies(candidate)

    def remove_policy(self, name: str, actor: str) -> Activation:
        """Removes a policy file."""
        return self._change(
            lambda active: desired.remove_policy(active, name), f"remove policy {name}", actor
        )

    def put_issuer(self, name: str, wish: IssuerWish, actor: str) -> Activation:
        """Trusts an issuer. Raises `ConfigError` issuer_reserved for the node's own."""
        self._require_foreign(name)
        if bool(wish.keys) == (wish.jwks is not None):
            raise ConfigError("request_invalid", "an issuer has either keys or a URL of keys")
        fetched = None if wish.jwks is None else self.jwks.first(wish.jwks)
        keys: tuple[IssuerKey, ...] = wish.keys if fetched is None else fetched.keys or ()
        issuer = build(
            Issuer,
            {
                "name": require_name(name, "issuer"),
                "issuer": wish.issuer,
                "audiences": tuple(sorted(set(wish.audiences))),
                "leewaySeconds": wish.leeway_seconds,
                "keys": tuple(sorted(keys, key=lambda key: f"{key.kid or ''} {key.alg}")),
            },
            code="request_invalid",
        )
        with self.jwks.lock:
            activation = self._change(
                lambda active: desired.put_issuer(active, issuer), f"issuer {name}", actor
            )
            if wish.jwks is not None and fetched is not None:
                self.jwks.add(name, wish.jwks, fetched)
            else:
                self.jwks.remove(name)
        return activation

    def refresh_issuer(self, name: str, actor: str) -> IssuerStatus:
        """Fetches the keys of an issuer now. Raises `UnavailableError` jwks_unavailable; its keys then stay."""
        self.jwks.refresh(name, actor)
        for issuer in self.issuers():
            if issuer.name == name:
                return issuer
        raise ConfigError("issuer_unknown", f"no issuer {name!r} is trusted")

    def put_authority(self, name: str, wish: AuthorityWish, actor: str) -> Activation:
        """Trusts an authority of client certificates. Raises `ConfigError` certificate_refused."""
        fields = {
            "name": require_name(name, "authority"),
            "certificates": authority_pem(wish.certificates),
            "trustDomain": wish.trust_domain,
            "pins": tuple(sorted({pin_of(pin) for pin in wish.pins})),
        }
        authority = build(ClientAuthority, fields, code="request_invalid")
        return self._change(
            lambda active: desired.put_authority(active, authority), f"authority {name}", actor
        )

    def remove_authority(self, name: str, actor: str) -> Activation:
        """Stops trusting an authority."""
        return self._change(
            lambda active: desired.remove_authority(active, name), f"remove authority {name}", actor
        )

    def revoke_certificate(self, name: str, serial: str, actor: str) -> Activation:
        """Refuses a certificate of an authority from the next request on."""
        one = Revocation.of_certificate(name, serial)
        return activation(self.revocations.revoke(one, actor))

    def put_credential(self, name: str, wish: CredentialWish, actor: str) -> Activation:
        """Keeps a credential that the node adds to calls. Raises `ConfigError` credential_refused."""
        return activation(self.credentials.put(name, wish, actor))

    def put_certificate(self, name: str, wish: CertificateWish, actor: str) -> Activation:
        """Keeps a client certificate that services are shown. Raises `ConfigError` certificate_refused."""
        return activation(self.certificates.put(name, wish, actor))

    def revoke_token(self, wish: RevokeWish, actor: str) -> Activation:
        """Refuses a token from the next request on."""
        one = Revocation.of_token(wish.issuer or self._own_issuer(), wish.jti)
        end = None if wish.expires_at is None else from_rfc3339(wish.expires_at)
        return activation(self.revocations.revoke(one, actor, None, end))

    def revoke(self, wish: RevocationWish, actor: str) -> Activation:
        """Revokes whatever it is: a token, a certificate, a SPIFFE ID, a trust domain."""
        end = None if wish.expires_at is None else from_rfc3339(wish.expires_at)
        one = self._revocation(wish.what)
        return activation(self.revocations.revoke(one, actor, wish.reason, end))

    def lift(self, wish: LiftWish, actor: str) -> Activation:
        """Takes a revocation back. Raises `ConfigError` revocation_unknown."""
        return activation(self.revocations.lift(self._revocation(wish.what), actor))

    def grant(self, wish: GrantWish, actor: str) -> Granted:
        """Permits something for a while."""
        status, outcome = self.grants.grant(wish, self._own_issuer(), actor)
        made = activation(outcome).model_dump()
        return Granted(**made, name=status.name, expires_at=status.expires_at)

    def set_fact(self, wish: FactWish, actor: str) -> FactStatus:
        """Says something of a principal, for a while."""
        return self.posture.set(wish, self._own_issuer(), actor)

    def forget_fact(self, wish: ForgetWish) -> list[FactStatus]:
        """Forgets what is known of a principal. Raises `ConfigError` posture_unknown."""
        return self.posture.remove(wish.subject, wish.fact, self._own_issuer())

    def end_grant(self, name: str, actor: str) -> Activation:
        """Ends a grant before its time. Raises `ConfigError` grant_unknown."""
        return activation(self.grants.end(name, actor))

    def remove_issuer(self, name: str, actor: str) -> Activation:
        """Stops trusting an issuer."""
        self._require_foreign(name)
        activation = self._change(
            lambda active: desired.remove_issuer(active, name), f"remove issuer {name}", actor
        )
        self.jwks.remove(name)
        return activation

    def roll_back(self, digest: str | None, actor: str) -> Activation:
        """Activates an older snapshot."""
        wanted = None if digest is None else self._full_digest(digest)
        return activation(self._activator.roll_back(wanted, actor))

    def mint(self, wish: TokenWish) -> Token:
        """A token of this node; it is not kept and not logged."""
        ttl = timedelta(seconds=wish.ttl_seconds)
        minted = self._keys.tokens.mint(
            wish.subject, ttl, scopes=wish.scopes, audience=wish.audience, long=ttl > MAX_TTL
        )
        return Token(token=minted.token, expires_at=to_rfc3339(minted.expires_at))

    def record_start(self) -> None:
        """Keeps a record of control's start, and of what the node is to serve then."""
        entry, _ = self._activator.active()
        with contextlib.suppress(
            UnavailableError
        ):  # a full disk; changes are refused until there is room
            self._record("start", "control", entry)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _change(self, change: desired.Change, action: str, actor: str) -> Activation:
        return activation(self._activator.change(change, action, actor))

    def _take_back(self, revoked: frozenset[Revocation]) -> None:
        """No identity that is revoked is issued, and no bundle of a trust domain that is handed out."""
        self.identities.suspend({one.name for one in revoked if one.kind == "trustDomain"})
        self.workloads.suspend({one.name for one in revoked if one.kind == "spiffeId"})

    def _record_own(self, entry: Entry) -> None:
        """Keeps a record of what control activates by itself; what people ask for is recorded with their answer, and
        lists of feeds change too often.
        """
        if not entry.actor.startswith("uid:") and not entry.action.startswith(FEED):
            with contextlib.suppress(
                UnavailableError
            ):  # it is active all the same, and in the history
                self._record(entry.action, entry.actor, entry)

    def _record(self, action: str, actor: str, entry: Entry) -> None:
        self.admin.write(
            actor=actor,
            action=action,
            outcome="done",
            digest=entry.digest,
            generation=entry.generation,
            version=__version__,
        )

    def _note(self, **fields: str) -> None:
        """Keeps a record of what control did by itself; that is done all the same when the disk is full."""
        with contextlib.suppress(UnavailableError):
            self.admin.write(**fields)

    def _function(self, name: str, wish: FunctionWish) -> Function:
        digest = require_digest(wish.component)
        if not self._activator.blobs.has(digest):
            raise ConfigError("blob_missing", f"the component {digest} was not uploaded")
        self._activator.ensure_compiled(digest)
        return Function(
            name=name,
            component=digest,
            size=self._activator.blobs.path(digest).stat().st_size,
            env=wish.env,
            config=wish.config,
            limits=wish.limits,
            allowed_hosts=tuple(sorted({parse_destination(it) for it in wish.allowed_hosts})),
            reuse=wish.reuse,
        )

    def _policy_ref(self, name: str, text: str) -> PolicyRef:
        if not name.endswith(".cedar"):
            message = f"{name!r}: the name of a policy ends in .cedar"
            raise ConfigError("invalid_name", message, f"Call it {name}.cedar.")
        if is_grant_file(name):
            message = f"{name!r}: names with grant- are those of grants"
            raise ConfigError("invalid_name", message, "Run `vedette grant`, or call it otherwise.")
        return PolicyRef(name=name, blob=self._activator.blobs.put(text.encode()))

    def _revocation(self, what: str) -> Revocation:
        trusted = self._activator.latest().identity.authorities
        domains = {one.trust_domain for one in trusted if one.trust_domain is not None}
        known = {*domains, *self.identities.federation.bundles(), self.identities.trust_domain}
        return parse_revocation(what, self._own_issuer(), known)

    def _own_issuer(self) -> str:
        return spiffe_id(self._keys.authority.trust_domain)

    def _asked(self, request: AskedRequest) -> dict[str, Any]:
        """A request as the engine is asked about it, with what it left open filled in."""
        listeners = self._supervised().listeners
        listener = request.listener or (listeners[0]["name"] if listeners else "https")
        asked: dict[str, Any] = {
            "principal": self._principal(request),
            "method": request.method,
            "host": request.host,
            "path": request.path,
            "scheme": request.scheme,
            "sourceIp": request.source_ip,
            "listener": listener,
            "function": request.function,
            "model": request.model,
            "route": request.route,
        }
        if request.as_function is not None:
            asked |= _as_a_function_asks(request)
        proof = self._certificate(request)
        if proof is not None and request.subject is not None:
            asked["certificate"] = proof
        asked["posture"] = self._known(asked, proof) if request.posture is None else request.posture
        return asked

    def _known(self, asked: dict[str, Any], proof: dict[str, Any] | None) -> list[str]:
        """What the engine knows of the caller."""
        who, named = asked["principal"], []
        if who["kind"] == "token":
            named.append(f"{who['issuer']}#{who['subject']}")
        if who["kind"] == "function":
            named.append(f"{self._own_issuer()}/fn/{who['name']}")
        if proof is not None:
            other = f"x509:{proof['authority']}#{proof['subject']}"
            named.append(proof["spiffeId"] or other)
        return self.posture.of(tuple(named))

    def _principal(self, request: AskedRequest) -> dict[str, Any]:
        if request.as_function is not None:
            return {"kind": "function", "name": request.as_function}
        proof = self._certificate(request)
        if request.subject is not None:
            domain = self._keys.authority.trust_domain
            return {
                "kind": "token",
                "issuer": request.issuer or self._own_issuer(),
                "subject": request.subject,
                "audiences": request.audiences or (token_audience(domain),),
                "scopes": request.scopes,
            }
        return {"kind": "anonymous"} if proof is None else {"kind": "certificate", **proof}

    def _certificate(self, request: AskedRequest) -> dict[str, Any] | None:
        if request.spiffe is None and request.certificate_subject is None:
            return None
        domain = None
        if request.spiffe is not None:
            domain = request.spiffe.removeprefix("spiffe://").partition("/")[0]
        for authority in self.authorities():
            wanted = request.authority in (None, authority.name)
            if wanted and authority.trust_domain == domain:
                proof = {"authority": authority.name, "spiffeId": request.spiffe}
                return {**proof, "subject": request.certificate_subject or ""}
        who = request.spiffe or request.certificate_subject
        raise ConfigError("authority_unknown", f"no trusted authority could vouch for {who!r}")

    def _require_foreign(self, name: str) -> None:
        if name == ISSUER_NAME:
            raise ConfigError("issuer_reserved", f"the issuer {name!r} is this node itself")

    def _named(self, name: str) -> Snapshot:
        """`active`, `previous`, or by the first digits of its digest."""
        if name == "active":
            return self._activator.active()[1]
        if name == "previous":
            entry = self._activator.history.previous()
            if entry is None:
                raise ConfigError("nothing_to_roll_back", "there is no earlier snapshot")
            return self._activator.snapshot(entry.digest)
        return self._activator.snapshot(self._full_digest(name))

    def _full_digest(self, text: str) -> str:
        """A digest from the history by its first digits, at least 6, as `vedette history` shows them."""
        start = text.removeprefix("sha256:")
        known: Iterable[str] = {entry.digest for entry in self._activator.history.entries(10_000)}
        found = [digest for digest in known if digest.removeprefix("sha256:").startswith(start)]
        if len(start) >= 6 and len(found) == 1:
            return found[0]
        if len(start) >= 6 and len(found) > 1:
            raise ConfigError(
                "snapshot_unknown", f"{text!r} names {len(found)} snapshots; write more digits"
            )
        raise ConfigError("snapshot_unknown", f"there is no snapshot {text!r} in the history")

    def _base(self) -> frozenset[str]:
        urls = [listener["url"] for listener in self._supervised().listeners]
        return desired.base_hosts(_host_of_url(url) for url in urls)

    def _supervised(self) -> SupervisorState:
        state = read_state(self.home.supervisor_file)
        return state or SupervisorState(__version__, str(self.home.root), "local")

    def _engine_status(self) -> EngineStatus | None:
        with contextlib.suppress(VedetteError):
            return self._activator.engine.status()
        return None


def activation(outcome: Outcome) -> Activation:
    """What is answered of a change."""
    entry = outcome.entry
    return Activation(digest=entry.digest, generation=entry.generation, applied=outcome.applied)


def _as_a_function_asks(request: AskedRequest) -> dict[str, str]:
    """How policies see a call of a function to a model, of which nothing but method and path is its own to say."""
    below = f"/v2/models/{request.model}"
    is_whole = request.path == below or request.path.startswith(f"{below}/")
    return {
        "host": f"{request.model}.model",
        "path": request.path if is_whole else f"{below}{request.path.rstrip('/')}",
        "scheme": "http",
        "sourceIp": "127.0.0.1",
        "listener": "function",
    }


def _host_of_url(url: str) -> str:
    return url.partition("://")[2].rpartition(":")[0].strip("[]")
