//! What the snapshot says of egress, as rules of each who calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use vedette_upstream::{
    Credential, CredentialValue, EgressRate, EgressRule, EgressRules, OutlierConfig, SpiffeConfig,
};

use super::{Egress, Subject};
use crate::load::{EngineDir, LoadError};
use crate::snapshot::{self, EgressPolicy, Function};

/// The ways out of programs, by their name.
pub type Workloads = HashMap<Box<str>, Arc<Egress>>;

/// Where a function may call: as its policies say, in their order, and where `allowedHosts` says, in any way.
///
/// # Errors
/// A rule that names no destination, a credential that is not there.
pub fn rules_of_function(
    function: &Function,
    policies: &[EgressPolicy],
    dir: &EngineDir,
) -> Result<EgressRules, LoadError> {
    let named = policies
        .iter()
        .filter(|it| it.functions.contains(&function.name));
    let rules = named.flat_map(|policy| &policy.rules);
    let rules = rules.map(|declared| rule(declared, dir, Some(function)));
    let mut rules = rules.collect::<Result<Vec<_>, _>>()?;
    rules.extend(function.allowed_hosts.iter().map(|it| EgressRule::to(it)));
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
                own.push(rule(declared, dir, None)?);
            }
        }
    }
    let made = rules.into_iter().map(|(name, rules)| {
        let rules = EgressRules::compile(rules).map_err(|error| {
            LoadError::new("egress_invalid", format!("the workload {name}: {error}"))
        })?;
        let known = before.and_then(|before| before.get(name));
        let egress = match known.filter(|known| known.rules == rules) {
            Some(same) => Arc::clone(same),
            None => Egress::new(Subject::Workload(name.into()), rules),
        };
        Ok((name.into(), egress))
    });
    made.collect()
}

fn rule(
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
        breaker: declared.breaker.as_ref().map(|breaker| OutlierConfig {
            failures: u32::try_from(breaker.failures).unwrap_or(u32::MAX),
            eject: Duration::from_millis(breaker.pause_millis),
        }),
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
