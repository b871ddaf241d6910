//! What the snapshot says of egress, as rules of each who calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use vedette_upstream::{
    Credential, CredentialValue, EgressRate, EgressRule, EgressRules, SpiffeConfig,
};

use super::{Egress, Subject};
use crate::load::{EngineDir, LoadError};
use crate::services;
use crate::snapshot::{self, BackendRefKind, EgressPolicy, Function, RouteBackend};

/// The ways out of programs, by their name.
pub type Workloads = HashMap<Box<str>, Arc<Egress>>;

/// The routes that policies name, by the function that answers them.
pub type Answered = HashMap<String, HashSet<Box<str>>>;

/// Where a function may call: always, and on routes that policies name.
#[derive(Default, PartialEq)]
pub struct Ways {
    /// Where it may call whatever it answers.
    pub always: EgressRules,
    /// All that it may while it answers a request of one of these routes. What a rule has counted, it has counted
    /// for all of them.
    pub on_routes: HashMap<Box<str>, EgressRules>,
}

impl Ways {
    /// Where it may call while it answers a request of this route.
    pub fn on(&self, route: &str) -> &EgressRules {
        self.on_routes.get(route).unwrap_or(&self.always)
    }
}

/// Which functions answer the routes that policies name.
pub fn answered(policies: &[EgressPolicy], routes: &[snapshot::Route]) -> Answered {
    let named = policies.iter().filter_map(|it| it.routes.as_ref());
    let named: HashSet<&str> = named.flatten().map(String::as_str).collect();
    let mut answered = Answered::new();
    for route in routes.iter().filter(|it| named.contains(&*it.name)) {
        let functions: Vec<&String> = match &route.backend {
            RouteBackend::Function(it) => vec![&it.function],
            RouteBackend::Services(it) => it
                .services
                .iter()
                .filter(|service| service.kind == BackendRefKind::Function)
                .map(|service| &service.name)
                .collect(),
            RouteBackend::Static(_)
            | RouteBackend::Redirect(_)
            | RouteBackend::Files(_)
            | RouteBackend::Model(_) => vec![],
        };
        for function in functions {
            let routes = answered.entry(function.clone()).or_default();
            routes.insert(route.name.as_str().into());
        }
    }
    answered
}

/// One policy, as it is for one function.
struct Part<'a> {
    policy: &'a EgressPolicy,
    is_always: bool,
    rules: EgressRules,
}

/// Where a function may call: as policies for it or the route say, in their order, and where `allowedHosts` says, in
/// any way.
///
/// # Errors
/// A rule that names no destination, a credential that is not there.
pub fn ways_of_function(
    function: &Function,
    policies: &[EgressPolicy],
    answered: &Answered,
    dir: &EngineDir,
) -> Result<Ways, LoadError> {
    let nowhere = HashSet::new();
    let routes = answered.get(&function.name).unwrap_or(&nowhere);
    let mut parts = Vec::new();
    for policy in policies {
        let is_always = policy.functions.contains(&function.name);
        if is_always || routes.iter().any(|it| is_for(policy, it)) {
            let rules = policy.rules.iter();
            let rules = rules.map(|declared| rule_of(declared, dir, Some(function)));
            let rules = compiled(function, rules.collect::<Result<Vec<_>, _>>()?)?;
            parts.push(Part {
                policy,
                is_always,
                rules,
            });
        }
    }
    let hosts = function.allowed_hosts.iter();
    let hosts = compiled(function, hosts.map(|it| EgressRule::to(it)).collect())?;
    let joined = |route: Option<&str>| {
        let counts = |it: &&Part<'_>| it.is_always || route.is_some_and(|r| is_for(it.policy, r));
        let said = parts.iter().filter(counts).map(|it| &it.rules);
        EgressRules::joined(said.chain([&hosts]))
    };
    Ok(Ways {
        always: joined(None),
        on_routes: routes
            .iter()
            .map(|it| (it.clone(), joined(Some(it))))
            .collect(),
    })
}

fn is_for(policy: &EgressPolicy, route: &str) -> bool {
    let routes = policy.routes.as_ref();
    routes.is_some_and(|routes| routes.iter().any(|it| it == route))
}

fn compiled(function: &Function, rules: Vec<EgressRule>) -> Result<EgressRules, LoadError> {
    EgressRules::compile(rules).map_err(|error| {
        let what = format!("{}: allowedHosts: {error}", function.name);
        LoadError::new("allowed_host_invalid", what)
    })
}

/// The ways out of programs. One whose rules are as before stays, with its connections and what it has counted.
///
/// # Errors
/// A rule that names no destination, a credential that is not there.
pub fn workloads(
    policies: &[EgressPolicy],
    dir: &EngineDir,
    before: Option<&Workloads>,
) -> Result<Workloads, LoadError> {
    let mut rules: HashMap<&str, Vec<EgressRule>> = HashMap::new();
    for policy in policies {
        for workload in &policy.workloads {
            let own = rules.entry(workload).or_default();
            for declared in &policy.rules {
                own.push(rule_of(declared, dir, None)?);
            }
        }
    }
    let made = rules.into_iter().map(|(name, rules)| {
        let rules = EgressRules::compile(rules).map_err(|error| {
            LoadError::new("egress_invalid", format!("the workload {name}: {error}"))
        })?;
        let known = before.and_then(|before| before.get(name));
        let ways = Ways {
            always: rules,
            on_routes: HashMap::new(),
        };
        let egress = match known.filter(|known| known.ways == ways) {
            Some(same) => Arc::clone(same),
            None => Egress::new(Subject::Workload(name.into()), ways),
        };
        Ok((name.into(), egress))
    });
    made.collect()
}

/// A rule as it is for this function, or for somebody else.
///
/// # Errors
/// What is for functions alone, a credential that is not there.
pub fn rule_of(
    declared: &snapshot::EgressRule,
    dir: &EngineDir,
    function: Option<&Function>,
) -> Result<EgressRule, LoadError> {
    let method = |name: &String| {
        Method::from_bytes(name.as_bytes()).map_err(|_| {
            let what = format!("egress rule {}: the method {name}", declared.to);
            LoadError::new("egress_invalid", what)
        })
    };
    Ok(EgressRule {
        to: declared.to.clone(),
        methods: declared
            .methods
            .iter()
            .map(method)
            .collect::<Result<_, _>>()?,
        rate: declared.rate.as_ref().map(|rate| EgressRate {
            calls: rate.requests,
            period: Duration::from_millis(rate.period_millis),
            burst: rate.burst.unwrap_or(rate.requests),
        }),
        breaker: declared.breaker.as_ref().map(services::breaker),
        credential: declared
            .credential
            .as_ref()
            .map(|it| credential(it, dir, function))
            .transpose()?,
        spiffe: spiffe(declared, dir, function)?,
    })
}

/// The identity that a rule has a function show.
fn spiffe(
    declared: &snapshot::EgressRule,
    dir: &EngineDir,
    function: Option<&Function>,
) -> Result<Option<SpiffeConfig>, LoadError> {
    if declared.peers.is_empty() {
        return Ok(None);
    }
    let function = function.ok_or_else(|| {
        let what = format!("egress rule {}: peers are for functions", declared.to);
        LoadError::new("egress_invalid", what)
    })?;
    let name = format!("fn/{}", function.name);
    Ok(Some(SpiffeConfig {
        peers: declared.peers.clone(),
        identity: dir.svids().identity(&name, Some(&function.component)),
    }))
}

/// The field that a rule adds: of a credential that the node keeps, or of the function's own JWT-SVID.
fn credential(
    declared: &snapshot::EgressCredential,
    dir: &EngineDir,
    function: Option<&Function>,
) -> Result<Credential, LoadError> {
    let invalid = |what: &str| {
        let name = declared.credential.as_deref().unwrap_or("jwtSvid");
        LoadError::new(
            "credential_invalid",
            format!("the credential {name}: {what}"),
        )
    };
    let value = match (&declared.credential, &declared.jwt_svid) {
        (Some(name), None) => {
            let kept = dir.credential(name)?;
            let mut value = HeaderValue::try_from(format!("{}{kept}", declared.prefix))
                .map_err(|_| invalid("it is no value of a header field"))?;
            value.set_sensitive(true);
            CredentialValue::Kept(value)
        }
        (None, Some(asked)) => {
            let function = function.ok_or_else(|| invalid("it is for functions"))?;
            let name = format!("fn/{}", function.name);
            CredentialValue::Minted {
                prefix: declared.prefix.clone(),
                source: dir
                    .svids()
                    .token(&name, &function.component, &asked.audience),
            }
        }
        _ => return Err(invalid("it is a credential or a JWT-SVID")),
    };
    let header = HeaderName::try_from(&declared.header).map_err(|_| invalid("its header field"))?;
    Ok(Credential { header, value })
}

#[cfg(test)]
#[path = "policies_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
