//! A snapshot, compiled: what the path looks things up in. Immutable, swapped whole.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use vedette_wasm::{Failure, FunctionSpec, Limits, LogSink, Outbound, Reuse, Runtime};

use crate::egress::{AllowedHosts, Egress};
use crate::jwt::Issuers;
use crate::load::{EngineDir, LoadError};
use crate::node::{Counter, Node};
use crate::policy::{Policies, ResourceKind, Slice};
use crate::routes::{PathRule, RouteTable};
use crate::snapshot::{self, PathMatchType, RouteBackend, Snapshot};

/// What the engine serves.
pub struct Plan {
    /// The digest of the snapshot.
    pub digest: Arc<str>,
    /// Different for every plan of this process.
    pub serial: u64,
    /// What is let in.
    pub admit: Admit,
    /// Whose tokens are believed.
    pub issuers: Issuers,
    routes: RouteTable,
    targets: Vec<Arc<Target>>,
    functions: HashMap<String, Arc<Deployed>>,
}

/// Hosts and sizes.
pub struct Admit {
    hosts: HashSet<Box<str>>,
    wildcards: Vec<Box<str>>,
    /// The sizes, as the snapshot gives them.
    pub limits: snapshot::Admit,
}

/// Where a route leads, and who may go there.
pub struct Target {
    /// The route's place in the plan.
    pub index: u32,
    /// The route's name.
    pub route: String,
    /// Who answers.
    pub backend: Backend,
    /// The policies that can matter here.
    pub slice: Slice,
}

/// Who answers.
pub enum Backend {
    /// A function.
    Function(Arc<Deployed>),
    /// Always the same.
    Static(Fixed),
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
    log: OnceLock<Arc<dyn LogSink>>,
    outbound: Arc<dyn Outbound>,
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
        previous: Option<&Plan>,
    ) -> Result<Self, LoadError> {
        let policies = read_policies(&snapshot.policy, dir)?;
        let functions = snapshot
            .functions
            .into_iter()
            .map(|function| deploy(function, dir, previous))
            .collect::<Result<HashMap<_, _>, _>>()?;
        let mut routes = RouteTable::default();
        let mut targets = Vec::with_capacity(snapshot.routes.len());
        for (index, route) in (0u32..).zip(snapshot.routes) {
            place(&mut routes, &route, index)?;
            targets.push(Arc::new(target(index, route, &functions, &policies)?));
        }
        Ok(Self {
            digest: digest.into(),
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            admit: Admit::new(snapshot.admit),
            issuers: Issuers::compile(snapshot.identity.issuers)?,
            routes,
            targets,
            functions,
        })
    }

    /// The target of `path` (decoded normal form) on `host` (lower case, no port).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Target>> {
        let index = self.routes.find(host, path)?;
        self.targets.get(index as usize)
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

impl Target {
    /// The name of the function behind the route, if it is one.
    pub fn function(&self) -> Option<&str> {
        match &self.backend {
            Backend::Function(function) => Some(&function.name),
            Backend::Static(_) => None,
        }
    }

    /// The digest of its component.
    pub fn component(&self) -> Option<&str> {
        match &self.backend {
            Backend::Function(function) => Some(&function.declared.component),
            Backend::Static(_) => None,
        }
    }
}

impl Deployed {
    /// Where its output goes.
    pub fn log(&self, node: &Node) -> Arc<dyn LogSink> {
        Arc::clone(self.log.get_or_init(|| node.log.of_function(&self.name)))
    }

    /// Makes its outbound calls.
    pub fn outbound(&self) -> Arc<dyn Outbound> {
        Arc::clone(&self.outbound)
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
    Policies::compile(&schema, &policies)
}

fn deploy(
    function: snapshot::Function,
    dir: &EngineDir,
    previous: Option<&Plan>,
) -> Result<(String, Arc<Deployed>), LoadError> {
    let before = previous.and_then(|plan| plan.functions.get(&function.name));
    if let Some(same) = before.filter(|before| before.declared == function) {
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
    let name: Arc<str> = function.name.as_str().into();
    let allowed = AllowedHosts::compile(&function.allowed_hosts).map_err(|entry| {
        let what = format!("{name}: allowedHosts: {entry:?} is no destination");
        LoadError::new("allowed_host_invalid", what)
    })?;
    let deployed = Deployed {
        outbound: Arc::new(Egress::new(Arc::clone(&name), allowed)),
        name,
        spec: Arc::new(spec),
        in_flight: Counter::default(),
        log: OnceLock::new(),
        compiled,
        loaded: OnceLock::new(),
        loading: Mutex::new(()),
        declared: function,
    };
    Ok((deployed.declared.name.clone(), Arc::new(deployed)))
}

fn place(table: &mut RouteTable, route: &snapshot::Route, index: u32) -> Result<(), LoadError> {
    let rule = match route.path.kind {
        PathMatchType::Exact => PathRule::Exact(&route.path.value),
        PathMatchType::PathPrefix => PathRule::Prefix(&route.path.value),
    };
    let hosts = route.hosts.iter().map(|host| Some(host.as_str()));
    let every_host = route.hosts.is_empty().then_some(None);
    for host in hosts.chain(every_host) {
        if !table.insert(host, rule, index) {
            return Err(LoadError::new(
                "route_conflict",
                format!("the route {} takes a place that is taken", route.name),
            ));
        }
    }
    Ok(())
}

fn target(
    index: u32,
    route: snapshot::Route,
    functions: &HashMap<String, Arc<Deployed>>,
    policies: &Policies,
) -> Result<Target, LoadError> {
    let invalid = |what: String| LoadError::new("route_invalid", what);
    let (backend, slice) = match route.backend {
        RouteBackend::Function(backend) => {
            let function = functions.get(&backend.function).ok_or_else(|| {
                invalid(format!("{}: no function {}", route.name, backend.function))
            })?;
            let slice = policies.slice(ResourceKind::Function, &backend.function)?;
            (Backend::Function(Arc::clone(function)), slice)
        }
        RouteBackend::Static(backend) => {
            let fixed = Fixed {
                status: u16::try_from(backend.status)
                    .ok()
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .ok_or_else(|| invalid(format!("{}: status {}", route.name, backend.status)))?,
                content_type: HeaderValue::from_str(&backend.content_type)
                    .map_err(|_| invalid(format!("{}: contentType", route.name)))?,
                body: backend.body.into(),
            };
            let slice = policies.slice(ResourceKind::Route, &route.name)?;
            (Backend::Static(fixed), slice)
        }
        RouteBackend::Services(_) | RouteBackend::Redirect(_) | RouteBackend::Files(_) => {
            return Err(invalid(format!("{}: not served yet", route.name)));
        }
    };
    Ok(Target {
        index,
        route: route.name,
        backend,
        slice,
    })
}
