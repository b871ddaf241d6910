//! A snapshot, compiled: what the path looks things up in. Immutable, swapped whole.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, atomic};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use vedette_limit::{CompileError, Image, Limit, LimitSet, Memory, Per, Period, Quota, Rate};
use vedette_upstream::{Hedge, Retry, SendOptions, Upstream};
use vedette_wasm::{Failure, FunctionSpec, Limits, LogSink, Outbound, Reuse, Runtime};

use crate::addresses::{Addresses, CountryRule};
use crate::caller::Caller;
use crate::certificate::Authorities;
use crate::challenge::{self, Challenge};
use crate::changes::{Changes, Redirect};
use crate::clients::ClientRule;
use crate::conditions::{Conditions, cookie};
use crate::egress::{self, Asking, Egress, Subject, Ways};
use crate::fault::Fault;
use crate::files::Files;
use crate::inference::{self, Asked};
use crate::jwt::Issuers;
use crate::load::{EngineDir, LoadError, sha256};
use crate::models::{self, Models, Served, Version};
use crate::node::{Counter, Node, now};
use crate::policy::{Policies, ResourceKind, Slice};
use crate::remembered::Remembered;
use crate::revoked::{Revocation, Revoked};
use crate::routes::{PathRule, RouteIndex, RouteTable};
use crate::services::{self, Services};
use crate::snapshot::{
    self, BackendRefKind, ChallengeMode, LimitPer, ModelBackendCriticality, PathMatchType,
    QuotaPeriod, RouteBackend, SidecarMode, Snapshot,
};
use crate::tiers::{Leaving, Tiers};
use crate::trace::next_random;
use crate::waf;

/// What the engine serves.
pub struct Plan {
    /// The digest of the snapshot.
    pub digest: Arc<str>,
    /// Different for every plan of this process.
    pub serial: u64,
    /// What is let in.
    pub admit: Admit,
    /// Lists of addresses, and countries.
    pub addresses: Addresses,
    /// Which TLS clients are let in; `None`: all.
    pub clients: Option<ClientRule>,
    /// Who is asked for a little work first; `None`: nobody.
    pub challenge: Option<Challenge>,
    /// Whose tokens are believed.
    pub issuers: Issuers,
    /// What may be asked for.
    pub limits: LimitSet,
    /// Whose clients may prove themselves with a certificate.
    pub authorities: Option<Arc<Authorities>>,
    /// Identities that count no more.
    pub revoked: Revoked,
    routes: RouteTable,
    /// Routes that lead to a model, by host and its name as a path: calls have no path that leads there.
    model_routes: RouteTable,
    rules: Vec<Rule>,
    /// Services behind the node, by name.
    pub services: Services,
    functions: HashMap<String, Arc<Deployed>>,
    models: Models,
    /// Who may ask each of them, for those who need no route.
    askers: HashMap<String, Slice>,
    workloads: egress::Workloads,
    sidecars: HashMap<String, SidecarMode>,
}

/// What a plan goes on from.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// Nothing: it is only checked.
    Nothing,
    /// What an earlier process had counted, if it left anything.
    Quotas(Option<&'a [u8]>),
    /// The plan before it: functions stay loaded, limits keep their counts.
    Plan(&'a Plan),
}

/// Hosts and sizes.
pub struct Admit {
    hosts: HashSet<Box<str>>,
    wildcards: Vec<Box<str>>,
    /// The sizes, as the snapshot gives them.
    pub limits: snapshot::Admit,
}

/// One route: when it is taken, and the services that share its requests.
pub struct Rule {
    conditions: Option<Conditions>,
    services: Vec<Service>,
    /// The cookie that remembers the choice.
    sticky: Option<String>,
}

/// One service of a route; most routes have one.
pub struct Service {
    /// The sum of the weights up to and with this one.
    up_to: u64,
    /// What the cookie says of it.
    pub cookie: Box<str>,
    /// Where it leads.
    pub target: Arc<Target>,
}

/// Where a route leads, and who may go there.
pub struct Target {
    /// Its place in the plan.
    pub index: u32,
    /// The route's name.
    pub route: String,
    /// Who answers.
    pub backend: Backend,
    /// The policies that can matter here.
    pub slice: Slice,
    /// What is changed on the way there and back.
    pub changes: Option<Changes>,
    /// The path that the route matched, for what replaces it; of an exact match as well.
    pub path: Box<str>,
    /// How its requests are inspected; `None`: not at all.
    pub waf: Option<Arc<waf::Policy>>,
    /// From which countries it may be asked; `None`: from everywhere.
    pub countries: Option<Arc<CountryRule>>,
    /// Whose pages are behind the challenge; `None`: as the plan says.
    pub challenge: Option<ChallengeMode>,
    /// What goes wrong on purpose; `None`: nothing.
    pub fault: Option<Arc<Fault>>,
    /// Who answers in place of its model; `None`: nobody.
    pub tiers: Option<Arc<Tiers>>,
    /// Which answers of its model are remembered; `None`: none.
    pub remembered: Option<Arc<Remembered>>,
    outbound: OnceLock<Arc<dyn Outbound>>,
}

/// How a route has its model asked.
#[derive(Debug, Clone, Copy)]
pub struct ModelTerms {
    /// How long it gives it; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// Whose turn is first where requests wait; `None`: in between.
    pub criticality: Option<ModelBackendCriticality>,
}

/// Who answers.
pub enum Backend {
    /// A function.
    Function(Arc<Deployed>),
    /// Always the same.
    Static(Fixed),
    /// The caller, elsewhere.
    Redirect(Redirect),
    /// A tree of files.
    Files(Files),
    /// A service behind the node.
    Upstream(Forward),
    /// A model, on these terms.
    Model(Arc<Served>, ModelTerms),
    /// The node, by the Open Inference Protocol.
    Inference(Asked),
    /// The same over gRPC, or the model that a call names.
    Calls,
}

impl Backend {
    /// The function, service or model; other backends are their route's.
    fn name(&self) -> Option<(Discriminant<Self>, &str)> {
        let name = match self {
            Self::Function(function) => &function.declared.name,
            Self::Upstream(forward) => &forward.upstream.config().name,
            Self::Model(model, _) => &model.declared.name,
            Self::Static(_)
            | Self::Redirect(_)
            | Self::Files(_)
            | Self::Inference(_)
            | Self::Calls => return None,
        };
        Some((discriminant(self), name))
    }
}

/// How a service is asked.
pub struct Forward {
    /// The service.
    pub upstream: Arc<Upstream>,
    /// How its requests are sent.
    pub options: SendOptions,
    /// Who gets copies, and of how many requests in a hundred.
    pub mirror: Option<(Arc<Upstream>, u64)>,
}

/// An answer that is always the same.
pub struct Fixed {
    /// Its status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}

/// A function of the snapshot, loaded on its first request.
pub struct Deployed {
    /// Its name.
    pub name: Arc<str>,
    /// What it is and may do.
    pub declared: snapshot::Function,
    /// The same, as the runtime wants it.
    pub spec: Arc<FunctionSpec>,
    /// Its requests under way.
    pub in_flight: Counter,
    /// Who it is for those that it calls.
    pub identity: Arc<Caller>,
    log: OnceLock<Arc<dyn LogSink>>,
    egress: Arc<Egress>,
    compiled: PathBuf,
    loaded: OnceLock<vedette_wasm::Function>,
    loading: Mutex<()>,
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

impl Plan {
    /// Compiles `snapshot`. Functions that have not changed since `previous` stay loaded.
    pub fn compile(
        snapshot: Snapshot,
        digest: String,
        dir: &EngineDir,
        before: Before<'_>,
    ) -> Result<Self, LoadError> {
        let previous = match before {
            Before::Plan(plan) => Some(plan),
            Before::Nothing | Before::Quotas(_) => None,
        };
        let limits = limits(&snapshot.limits, before)?;
        let services = services::compile(&snapshot, dir, previous.map(|plan| &plan.services))?;
        let sidecars = snapshot.sidecars.iter().flatten();
        let sidecars = sidecars.map(|it| (it.name.clone(), it.mode)).collect();
        let addresses = Addresses::compile(
            snapshot.addresses,
            dir,
            previous.map(|plan| &plan.addresses),
        )?;
        let policies = read_policies(&snapshot.policy, dir)?;
        let identity = snapshot.identity;
        let authorities = Authorities::compile(
            identity.authorities,
            previous.and_then(|plan| plan.authorities.as_ref()),
        )?;
        let leaving = snapshot.egress.unwrap_or_default();
        let workloads = egress::workloads(&leaving, dir, previous.map(|plan| &plan.workloads))?;
        let answered = egress::answered(&leaving, &snapshot.routes);
        let functions = snapshot
            .functions
            .into_iter()
            .map(|function| {
                let ways = egress::ways_of_function(&function, &leaving, &answered, dir)?;
                let id = format!(
                    "spiffe://{}/fn/{}",
                    snapshot.node.trust_domain, function.name
                );
                deploy(function, (ways, id), dir, previous)
            })
            .collect::<Result<HashMap<_, _>, _>>()?;
        let models = snapshot.models.unwrap_or_default();
        let remote = snapshot.remote_models.unwrap_or_default();
        let models = models::compile((models, remote), dir, previous.map(|plan| &plan.models))?;
        let askers = askers_of(&models, &policies)?;
        let mut builder = Builder {
            functions: &functions,
            models: &models,
            services: &services,
            policies: &policies,
            dir,
            inspection: waf::Compiler::new(snapshot.waf.as_ref(), dir)?,
            leaving: Leaving {
                policies: &leaving,
                is_revoked: &|id| {
                    let ids = identity.revoked_spiffe_ids.as_deref();
                    let domains = identity.revoked_trust_domains.as_deref();
                    services::is_revoked(ids.unwrap_or_default(), domains.unwrap_or_default(), id)
                },
                dir,
            },
            previous,
            claims: HashSet::new(),
            next: 0,
        };
        let (mut routes, mut model_routes) = (RouteTable::default(), RouteTable::default());
        let mut rules = Vec::with_capacity(snapshot.routes.len());
        let mut declared = snapshot.routes;
        declared.sort_by(by_precedence);
        for (index, route) in (0u32..).zip(declared) {
            builder.place(&mut routes, &route, index)?;
            place_model(&mut model_routes, &route, index);
            rules.push(builder.rule(route)?);
        }
        if !models.is_empty() {
            builder.place_own(&mut routes, &mut rules)?;
        }
        builder.inspection.finish();
        Ok(Self {
            digest: digest.into(),
            serial: NEXT_SERIAL.fetch_add(1, atomic::Ordering::Relaxed),
            challenge: challenge_of(&snapshot.admit, dir, previous)?,
            clients: snapshot
                .admit
                .tls_clients
                .as_ref()
                .map(ClientRule::compile)
                .transpose()?,
            admit: Admit::new(snapshot.admit),
            addresses,
            revoked: Revoked::identities(
                identity.revoked_spiffe_ids,
                identity.revoked_trust_domains,
            ),
            issuers: Issuers::compile(identity.issuers, identity.revoked_tokens)?,
            authorities,
            limits,
            routes,
            model_routes,
            rules,
            services,
            functions,
            models,
            askers,
            workloads,
            sidecars,
        })
    }

    /// How strict the sidecar of that name is; `None`: there is none.
    pub fn sidecar(&self, name: &str) -> Option<SidecarMode> {
        self.sidecars.get(name).copied()
    }

    /// The way out of the program of that name; `None`: it has none.
    pub fn workload(&self, name: &str) -> Option<&Arc<Egress>> {
        self.workloads.get(name)
    }

    /// The route that takes `path` (decoded normal form) on `host` (lower case, no port) with the
    /// method, header fields and query of `parts`.
    pub fn find(&self, host: &str, path: &str, parts: &Parts) -> Option<&Rule> {
        let rule = |index: RouteIndex| self.rules.get(index as usize);
        let accepts = |index| {
            rule(index).is_some_and(|it| it.conditions.as_ref().is_none_or(|it| it.hold(parts)))
        };
        rule(self.routes.find(host, path, accepts)?)
    }

    /// Where a call of the model `name` leads on `host`: the route by which it is asked there, if there is one.
    pub fn find_model(&self, host: &str, name: &str, parts: &Parts) -> Option<&Arc<Target>> {
        let rule = |index: RouteIndex| self.rules.get(index as usize);
        let accepts = |index| {
            rule(index).is_some_and(|it| it.conditions.as_ref().is_none_or(|it| it.hold(parts)))
        };
        let found = self.model_routes.find(host, &model_place(name), accepts)?;
        rule(found)?.first()
    }

    /// The route of that name.
    pub fn route(&self, name: &str) -> Option<&Arc<Target>> {
        let mut targets = self.rules.iter().filter_map(Rule::first);
        targets.find(|target| target.route == name)
    }

    /// Where requests lead now that led to a target of an earlier plan: the same route, the same who answers.
    pub fn successor(&self, target: &Target) -> Option<&Arc<Target>> {
        let targets = self.rules.iter().flat_map(|rule| &rule.services);
        targets
            .map(|service| &service.target)
            .find(|it| it.route == target.route && it.backend.name() == target.backend.name())
    }

    /// Whether all that `one` would refuse is refused by this plan.
    pub fn refuses(&self, one: &Revocation) -> bool {
        match one {
            Revocation::Token { issuer, id } => self.issuers.refuses(issuer, id),
            Revocation::Certificate { authority, serial } => {
                let trusted = self.authorities.as_deref();
                trusted.is_none_or(|it| it.refuses(authority, serial))
            }
            Revocation::SpiffeId { .. } | Revocation::TrustDomain { .. } => self.revoked.has(one),
        }
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Served> {
        self.models.get(name).map(Arc::as_ref)
    }

    /// The models of the plan.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models.values()
    }

    /// The same, with the policies that can matter for it.
    pub fn asked(&self, name: &str) -> Option<(&Arc<Served>, &Slice)> {
        Some((self.models.get(name)?, self.askers.get(name)?))
    }

    /// The function of that name, as long as it is this component.
    pub fn function(&self, name: &str, component: &str) -> Option<&Deployed> {
        let function = self.functions.get(name)?;
        (function.declared.component == component).then_some(function.as_ref())
    }

    /// The functions of the plan.
    pub fn functions(&self) -> impl Iterator<Item = &Deployed> {
        self.functions.values().map(Arc::as_ref)
    }
}

impl Admit {
    fn new(limits: snapshot::Admit) -> Self {
        let suffix = |host: &String| host.strip_prefix('*').map(Box::from);
        Self {
            hosts: limits
                .hosts
                .iter()
                .map(|host| host.as_str().into())
                .collect(),
            wildcards: limits.hosts.iter().filter_map(suffix).collect(),
            limits,
        }
    }

    /// Whether requests may name `host`.
    pub fn allows(&self, host: &str) -> bool {
        let is_under = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        self.hosts.contains(host) || self.wildcards.iter().any(|it| is_under(it))
    }
}

impl Rule {
    /// Where its first service leads.
    pub fn first(&self) -> Option<&Arc<Target>> {
        self.services.first().map(|service| &service.target)
    }

    /// The service that answers this request, and whether the caller is to be told to stay with it.
    pub fn choose(&self, headers: &HeaderMap) -> Option<(&Service, Option<&str>)> {
        if let [only] = self.services.as_slice() {
            return Some((only, None));
        }
        let known = self
            .sticky
            .as_deref()
            .and_then(|name| cookie(headers, name))
            .and_then(|value| {
                self.services
                    .iter()
                    .find(|it| it.cookie.as_bytes() == value)
            });
        if let Some(service) = known {
            return Some((service, None));
        }
        let total = self.services.last()?.up_to;
        let drawn = next_random() % total.max(1);
        let service = self.services.iter().find(|it| drawn < it.up_to)?;
        Some((service, self.sticky.as_deref()))
    }
}

impl Target {
    /// The name of the function behind the route, if it is one.
    pub fn function(&self) -> Option<&str> {
        match &self.backend {
            Backend::Function(function) => Some(&function.name),
            _ => None,
        }
    }

    /// The name of the service behind the node, if it is one.
    pub fn upstream(&self) -> Option<&str> {
        match &self.backend {
            Backend::Upstream(forward) => Some(&forward.upstream.config().name),
            _ => None,
        }
    }

    /// The model behind the route, if it is one.
    pub fn model(&self) -> Option<&Served> {
        match &self.backend {
            Backend::Model(model, _) => Some(model),
            _ => None,
        }
    }

    /// The version of the model, if it is one: what policies are told beside the request.
    pub fn version(&self) -> Option<&Version> {
        self.model().map(|model| &model.version)
    }

    /// Makes the outbound calls of `function`, which answers here.
    pub fn outbound(&self, node: &Arc<Node>, function: &Deployed) -> Arc<dyn Outbound> {
        let made = || {
            let log = function.log(node);
            let asking = Asking::of(node, &function.declared.component);
            function.egress.on_route(&self.route, log, asking)
        };
        Arc::clone(self.outbound.get_or_init(made))
    }

    /// The digest of its component.
    pub fn component(&self) -> Option<&str> {
        match &self.backend {
            Backend::Function(function) => Some(&function.declared.component),
            _ => None,
        }
    }
}

impl Deployed {
    /// Where its output goes.
    pub fn log(&self, node: &Node) -> Arc<dyn LogSink> {
        Arc::clone(self.log.get_or_init(|| node.log.of_function(&self.name)))
    }

    /// The function, loaded, and whether it had to be loaded now.
    ///
    /// Mapping compiled code takes about 0.1 ms and happens once, on the worker that needs it:
    /// handing it to another thread would cost as much as it saves (ADR 0004).
    pub fn load(&self, runtime: &Runtime) -> Result<(&vedette_wasm::Function, bool), Failure> {
        if let Some(function) = self.loaded.get() {
            return Ok((function, false));
        }
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = self.loaded.get() {
            return Ok((function, false));
        }
        let function = runtime.load(&self.compiled, Arc::clone(&self.spec))?;
        Ok((self.loaded.get_or_init(|| function), true))
    }
}

fn limits(declared: &[snapshot::Limit], before: Before<'_>) -> Result<LimitSet, LoadError> {
    let invalid = |error: CompileError| LoadError::new("limit_invalid", error.to_string());
    let limits = declared.iter().map(limit).collect();
    let memory = Memory::default();
    let image = match before {
        Before::Quotas(Some(bytes)) => Image::parse(bytes)
            .inspect_err(|error| crate::sys::say(&format_args!("quotas start anew: {error}")))
            .ok(),
        _ => None,
    };
    match (before, image) {
        (_, Some(image)) => LimitSet::restore(limits, memory, &image, now()),
        (Before::Plan(plan), None) => LimitSet::compile(limits, memory, Some(&plan.limits)),
        (_, None) => LimitSet::compile(limits, memory, None),
    }
    .map_err(invalid)
}

fn limit(declared: &snapshot::Limit) -> Limit {
    let per = |wanted| declared.per.contains(&wanted);
    Limit {
        name: declared.name.as_str().into(),
        per: Per {
            principal: per(LimitPer::Principal),
            route: per(LimitPer::Route),
            source: per(LimitPer::Source),
        },
        routes: declared
            .routes
            .iter()
            .map(|it| it.as_str().into())
            .collect(),
        rate: declared.rate.as_ref().map(|rate| Rate {
            requests: rate.requests,
            period_millis: rate.period_millis,
            burst: rate.burst,
        }),
        concurrency: declared
            .concurrency
            .map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        quota: declared.quota.as_ref().map(|quota| Quota {
            requests: quota.requests,
            period: match quota.period {
                QuotaPeriod::Hour => Period::Hour,
                QuotaPeriod::Day => Period::Day,
                QuotaPeriod::Month => Period::Month,
            },
        }),
    }
}

/// Who may ask each model.
fn askers_of(models: &Models, policies: &Policies) -> Result<HashMap<String, Slice>, LoadError> {
    let askers = models.keys().map(|name| {
        let slice = policies.slice(ResourceKind::Model, name)?;
        Ok((name.clone(), slice))
    });
    askers.collect()
}

fn challenge_of(
    declared: &snapshot::Admit,
    dir: &EngineDir,
    previous: Option<&Plan>,
) -> Result<Option<Challenge>, LoadError> {
    let declared = declared.challenge.as_ref();
    let before = previous.and_then(|plan| plan.challenge.as_ref());
    declared
        .map(|it| Challenge::compile(it, dir, before))
        .transpose()
}

fn read_policies(set: &snapshot::PolicySet, dir: &EngineDir) -> Result<Policies, LoadError> {
    let text = |digest: &str| {
        String::from_utf8(dir.blob(digest)?)
            .map_err(|_| LoadError::new("policy_invalid", format!("{digest} is not UTF-8")))
    };
    let schema = text(&set.schema)?;
    let policies = set
        .policies
        .iter()
        .map(|policy| Ok((policy.name.clone(), text(&policy.blob)?)))
        .collect::<Result<Vec<_>, LoadError>>()?;
    let ending = |policy: &snapshot::PolicyRef| Some((policy.name.clone(), policy.expires_at?));
    let endings = set.policies.iter().filter_map(ending).collect();
    Policies::with_endings(&schema, &policies, &endings)
}

fn deploy(
    function: snapshot::Function,
    (ways, id): (Ways, String),
    dir: &EngineDir,
    previous: Option<&Plan>,
) -> Result<(String, Arc<Deployed>), LoadError> {
    let before = previous.and_then(|plan| plan.functions.get(&function.name));
    let is_same = |it: &&Arc<Deployed>| {
        it.declared == function && it.egress.ways == ways && *it.identity.principal == *id
    };
    if let Some(same) = before.filter(is_same) {
        return Ok((function.name, Arc::clone(same)));
    }
    let compiled = dir.compiled(&function.component)?;
    if !compiled.is_file() {
        return Err(LoadError::new(
            "compiled_missing",
            format!(
                "the function {} is not compiled for this engine",
                function.name
            ),
        ));
    }
    let limits = Limits {
        cpu: Duration::from_millis(function.limits.cpu_millis),
        wall: Duration::from_millis(function.limits.wall_millis),
        memory_bytes: function.limits.memory_bytes,
        response_bytes: function.limits.response_bytes,
        request_bytes: function.limits.request_bytes,
    };
    let mut spec = FunctionSpec::new(function.env.clone(), function.config.clone(), limits);
    spec.reuse = function.reuse.as_ref().map(|reuse| Reuse {
        max_requests: reuse.max_requests,
        max_age: Duration::from_millis(reuse.max_age_millis),
    });
    let deployed = Deployed {
        name: function.name.as_str().into(),
        egress: Egress::new(Subject::Function(function.name.as_str().into()), ways),
        spec: Arc::new(spec),
        in_flight: Counter::default(),
        identity: Arc::new(Caller::of_function(&function.name, id)),
        log: OnceLock::new(),
        compiled,
        loaded: OnceLock::new(),
        loading: Mutex::new(()),
        declared: function,
    };
    Ok((deployed.declared.name.clone(), Arc::new(deployed)))
}

/// Gateway API, `HTTPRouteMatch`: of routes with one place the one with a method, then the one with
/// more conditions, comes first.
fn by_precedence(one: &snapshot::Route, other: &snapshot::Route) -> Ordering {
    let rank = |route: &snapshot::Route| {
        (
            route.method.is_none(),
            Reverse(route.headers.len()),
            Reverse(route.query.len()),
            Reverse(route.cookies.len()),
        )
    };
    rank(one)
        .cmp(&rank(other))
        .then_with(|| numbered(&one.name).cmp(&numbered(&other.name)))
}

/// The rules of one manifest are `NAME`, `NAME-2`, …, `NAME-10`: the first that matches wins.
fn numbered(name: &str) -> (&str, u64) {
    name.rsplit_once('-')
        .and_then(|(base, number)| Some((base, number.parse().ok()?)))
        .unwrap_or((name, 1))
}

fn model_place(name: &str) -> String {
    format!("/{name}")
}

/// Notes on which hosts a route leads to a model.
fn place_model(table: &mut RouteTable, route: &snapshot::Route, index: u32) {
    let RouteBackend::Model(backend) = &route.backend else {
        return;
    };
    let place = model_place(&backend.model);
    let hosts = route.hosts.iter().map(|host| Some(host.as_str()));
    let every_host = route.hosts.is_empty().then_some(None);
    for host in hosts.chain(every_host) {
        table.insert(host, PathRule::Exact(&place), index);
    }
}

/// One who answers on a route: its weight, what the cookie says of it, who it is, and the policies that can matter.
type Weighted = (u64, String, Backend, Slice);

/// What routes are compiled with.
struct Builder<'a> {
    functions: &'a HashMap<String, Arc<Deployed>>,
    models: &'a Models,
    services: &'a Services,
    policies: &'a Policies,
    dir: &'a EngineDir,
    inspection: waf::Compiler<'a>,
    leaving: Leaving<'a>,
    previous: Option<&'a Plan>,
    claims: HashSet<String>,
    next: u32,
}

impl Builder<'_> {
    fn place(
        &mut self,
        table: &mut RouteTable,
        route: &snapshot::Route,
        index: u32,
    ) -> Result<(), LoadError> {
        let path = match route.path.kind {
            PathMatchType::Exact => PathRule::Exact(&route.path.value),
            PathMatchType::PathPrefix => PathRule::Prefix(&route.path.value),
        };
        let hosts = route.hosts.iter().map(|host| Some(host.as_str()));
        let every_host = route.hosts.is_empty().then_some(None);
        for host in hosts.chain(every_host) {
            let conditions = (&route.method, &route.headers, &route.query, &route.cookies);
            if !self
                .claims
                .insert(format!("{host:?} {path:?} {conditions:?}"))
            {
                return Err(LoadError::new(
                    "route_conflict",
                    format!("the route {} takes a place that is taken", route.name),
                ));
            }
            table.insert(host, path, index);
        }
        Ok(())
    }

    /// The places of the node itself, but for those that a route has.
    fn place_own(
        &mut self,
        table: &mut RouteTable,
        rules: &mut Vec<Rule>,
    ) -> Result<(), LoadError> {
        for (route, backend) in inference::routes()? {
            let index = u32::try_from(rules.len()).unwrap_or(u32::MAX);
            if self.place(table, &route, index).is_err() {
                continue;
            }
            let services = vec![(1, String::new(), backend, self.slice(&route)?)];
            rules.push(self.made(route, services)?);
        }
        Ok(())
    }

    fn rule(&mut self, route: snapshot::Route) -> Result<Rule, LoadError> {
        let services = self.services(&route)?;
        self.made(route, services)
    }

    /// The rule of a route, by which these services answer.
    fn made(&mut self, route: snapshot::Route, services: Vec<Weighted>) -> Result<Rule, LoadError> {
        let conditions = Conditions::of(&route)?;
        let changes = Changes::of(&route)?;
        let is_model = |it: &Weighted| matches!(it.2, Backend::Model(..));
        let kind = match services.iter().all(is_model) {
            true => waf::Answerer::Model,
            false => waf::Answerer::Other,
        };
        let inspection = self.inspection.policy(&route, kind)?;
        let countries = route.countries.as_ref();
        let countries = countries
            .map(|rule| CountryRule::compile(&route.name, rule).map(Arc::new))
            .transpose()?;
        let fault = route.fault.as_ref();
        let fault = fault
            .map(|it| Fault::compile(it).map(Arc::new))
            .map(|it| it.ok_or_else(|| invalid(&route, "fault.abort.status")))
            .transpose()?;
        let before = self.previous.and_then(|plan| plan.route(&route.name));
        let known = before.and_then(|target| target.tiers.as_deref());
        let tiers = Tiers::compile(&route, self.leaving, known)?;
        let known = before.and_then(|target| target.remembered.as_ref());
        let remembered = self.remembered(&route, known);
        let mut up_to = 0u64;
        let services = services
            .into_iter()
            .map(|(weight, cookie, backend, slice)| {
                up_to = up_to.saturating_add(weight);
                let target = Target {
                    index: self.next,
                    route: route.name.clone(),
                    backend,
                    slice,
                    changes: changes.clone(),
                    path: route.path.value.as_str().into(),
                    waf: inspection.clone(),
                    countries: countries.clone(),
                    challenge: route.challenge.map(challenge::mode_of),
                    fault: fault.clone(),
                    tiers: tiers.clone(),
                    remembered: remembered.clone(),
                    outbound: OnceLock::new(),
                };
                self.next += 1;
                Service {
                    up_to,
                    cookie: cookie.into(),
                    target: Arc::new(target),
                }
            })
            .collect();
        Ok(Rule {
            conditions,
            services,
            sticky: route.sticky.map(|it| it.cookie),
        })
    }

    /// Who answers on a route.
    fn services(&self, route: &snapshot::Route) -> Result<Vec<Weighted>, LoadError> {
        let own = |backend, slice| (1, String::new(), backend, slice);
        Ok(match &route.backend {
            RouteBackend::Function(it) => {
                let (backend, slice) = self.function(route, &it.function)?;
                vec![own(backend, slice)]
            }
            RouteBackend::Static(it) => {
                vec![own(Backend::Static(fixed(route, it)?), self.slice(route)?)]
            }
            RouteBackend::Redirect(it) => {
                vec![own(
                    Backend::Redirect(Redirect::new(&route.name, it)?),
                    self.slice(route)?,
                )]
            }
            RouteBackend::Files(it) => {
                vec![own(
                    Backend::Files(Files::new(&route.name, it, self.dir)?),
                    self.slice(route)?,
                )]
            }
            RouteBackend::Model(it) => {
                let (backend, slice) = self.model(route, it)?;
                vec![own(backend, slice)]
            }
            RouteBackend::Services(it) => it
                .services
                .iter()
                .map(|service| self.service(route, service))
                .collect::<Result<_, _>>()?,
        })
    }

    fn service(
        &self,
        route: &snapshot::Route,
        service: &snapshot::BackendRef,
    ) -> Result<Weighted, LoadError> {
        let (backend, slice) = match service.kind {
            BackendRefKind::Function => self.function(route, &service.name)?,
            BackendRefKind::Upstream => {
                let forward = self.forward(route, &service.name)?;
                (Backend::Upstream(forward), self.slice(route)?)
            }
        };
        // Says which service without telling its name.
        let cookie = sha256(format!("{:?} {}", service.kind, service.name).as_bytes());
        let cookie = cookie.chars().skip("sha256:".len()).take(12).collect();
        Ok((service.weight, cookie, backend, slice))
    }

    fn function(&self, route: &snapshot::Route, name: &str) -> Result<(Backend, Slice), LoadError> {
        let function = self
            .functions
            .get(name)
            .ok_or_else(|| invalid(route, &format!("no function {name}")))?;
        let slice = self.policies.slice(ResourceKind::Function, name)?;
        Ok((Backend::Function(Arc::clone(function)), slice))
    }

    fn model(
        &self,
        route: &snapshot::Route,
        backend: &snapshot::ModelBackend,
    ) -> Result<(Backend, Slice), LoadError> {
        let name = &backend.model;
        let model = self
            .models
            .get(name)
            .ok_or_else(|| invalid(route, &format!("no model {name}")))?;
        let slice = self.policies.slice(ResourceKind::Model, name)?;
        let terms = ModelTerms {
            timeout: route.timeout_millis.map(Duration::from_millis),
            criticality: backend.criticality,
        };
        Ok((Backend::Model(Arc::clone(model), terms), slice))
    }

    /// What the route remembers of its model.
    fn remembered(
        &self,
        route: &snapshot::Route,
        known: Option<&Arc<Remembered>>,
    ) -> Option<Arc<Remembered>> {
        let RouteBackend::Model(backend) = &route.backend else {
            return None;
        };
        let model = self.models.get(&backend.model)?;
        Remembered::of(route.cache.as_ref(), &model.declared, known)
    }

    fn forward(&self, route: &snapshot::Route, name: &str) -> Result<Forward, LoadError> {
        let service = |name: &str| {
            let found = self.services.get(name).cloned();
            found.ok_or_else(|| invalid(route, &format!("no upstream {name}")))
        };
        let mirror = match &route.mirror {
            None => None,
            Some(mirror) => Some((service(&mirror.upstream)?, mirror.percent)),
        };
        Ok(Forward {
            upstream: service(name)?,
            options: SendOptions {
                timeout: route.timeout_millis.map(Duration::from_millis),
                try_timeout: route.try_millis.map(Duration::from_millis),
                retry: route.retry.as_ref().map(retry),
                hedge: route.hedge.as_ref().map(|it| Hedge {
                    after: Duration::from_millis(it.after_millis),
                    attempts: u32::try_from(it.attempts).unwrap_or(u32::MAX),
                }),
                ..SendOptions::default()
            },
            mirror,
        })
    }

    fn slice(&self, route: &snapshot::Route) -> Result<Slice, LoadError> {
        self.policies.slice(ResourceKind::Route, &route.name)
    }
}

fn retry(declared: &snapshot::Retry) -> Retry {
    let code = |code: &u64| StatusCode::from_u16(u16::try_from(*code).ok()?).ok();
    Retry {
        attempts: u32::try_from(declared.attempts).unwrap_or(u32::MAX),
        codes: declared.codes.iter().filter_map(code).collect(),
        backoff: Duration::from_millis(declared.backoff_millis),
    }
}

fn invalid(route: &snapshot::Route, what: &str) -> LoadError {
    LoadError::new("route_invalid", format!("{}: {what}", route.name))
}

fn fixed(route: &snapshot::Route, backend: &snapshot::StaticBackend) -> Result<Fixed, LoadError> {
    Ok(Fixed {
        status: u16::try_from(backend.status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| invalid(route, &format!("status {}", backend.status)))?,
        content_type: HeaderValue::from_str(&backend.content_type)
            .map_err(|_| invalid(route, "contentType"))?,
        body: backend.body.clone().into(),
    })
}
