//! What the firewall says of requests that somebody describes: the same plan, the same routes, the
//! same rules as on the path.
//!
//! Control calls this in its own process. Must not: be called on the path, or keep anything.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vedette_waf::{RuleSet, Transaction, Workbench};

use crate::clock;
use crate::load::{EngineDir, LoadError};
use crate::plan::{Before, Plan, Rule, Target};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::{Waf, WafOverride};
use crate::stages::admit::Admitted;
use crate::stages::inspect::kind_for;
use crate::waf::{self, Policy, Ruling};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// The snapshot whose routes count.
    digest: String,
    /// In place of what the snapshot says of the firewall.
    #[serde(default)]
    waf: Option<Waf>,
    /// The same for single routes, by name; `null` takes away what a route has of its own.
    #[serde(default)]
    routes: BTreeMap<String, Option<WafOverride>>,
    requests: Vec<Asked>,
}

/// One request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    method: String,
    /// Path and query as the client sends them.
    target: String,
    host: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Base64.
    #[serde(default)]
    body: String,
    address: IpAddr,
    /// Asked about instead of where host and path lead to.
    #[serde(default)]
    route: Option<String>,
}

/// What is said of one request.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Judged {
    route: Option<String>,
    /// `passed`, `noted`, `detected`, `blocked`; `refused` by a stage before the firewall;
    /// `uninspected` where there is none.
    action: &'static str,
    /// What the caller would get; absent when the request goes on.
    status: Option<u16>,
    cause: Option<&'static str>,
    detail: Option<String>,
    score: i64,
    threshold: i64,
    violations: Vec<Value>,
}

/// Judges requests given as JSON under the snapshot in `engine_dir`; returns JSON.
///
/// # Errors
/// When `query` is not of that shape, or the snapshot or the rules cannot be used.
pub fn judge(query: &[u8], engine_dir: &Path, engine_key: &str) -> Result<Vec<u8>, LoadError> {
    let malformed =
        |error: serde_json::Error| LoadError::new("request_malformed", error.to_string());
    let query: Query = serde_json::from_slice(query).map_err(malformed)?;
    let plan = plan(&query, &EngineDir::new(engine_dir, engine_key))?;
    let mut judge = Judge {
        plan: &plan,
        benches: HashMap::new(),
    };
    let answers = query
        .requests
        .iter()
        .map(|asked| judge.answer(asked))
        .collect::<Result<Vec<_>, _>>()?;
    serde_json::to_vec(&answers).map_err(malformed)
}

/// The plan of the snapshot, with the firewall that the query says.
fn plan(query: &Query, dir: &EngineDir) -> Result<Plan, LoadError> {
    let mut snapshot = dir.snapshot(&query.digest)?;
    if let Some(waf) = &query.waf {
        snapshot.waf = Some(waf.clone());
    }
    for (name, own) in &query.routes {
        let route = snapshot.routes.iter_mut().find(|it| it.name == *name);
        let Some(route) = route else {
            return Err(unknown_route(name));
        };
        route.waf.clone_from(own);
    }
    Plan::compile(snapshot, query.digest.clone(), dir, Before::Nothing)
}

struct Judge<'p> {
    plan: &'p Plan,
    /// By rule set.
    benches: HashMap<*const RuleSet, Workbench>,
}

impl<'p> Judge<'p> {
    fn answer(&mut self, asked: &Asked) -> Result<Judged, LoadError> {
        let admitted = match parts_of(asked).and_then(|parts| Admitted::described(self.plan, parts))
        {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(refused(&refusal, None)),
        };
        let target = match &asked.route {
            Some(name) => Some(self.plan.route(name).ok_or_else(|| unknown_route(name))?),
            None => self
                .plan
                .find(admitted.host(), admitted.path(), admitted.parts())
                .and_then(Rule::first),
        };
        let Some(target) = target else {
            return Ok(refused(&Cause::NotFound.into(), None));
        };
        let body = STANDARD
            .decode(&asked.body)
            .map_err(|error| LoadError::new("request_malformed", error.to_string()))?;
        Ok(match &target.waf {
            Some(policy) => self.inspect(target, policy, &admitted, &body, asked.address),
            None => Judged {
                route: Some(target.route.clone()),
                action: "uninspected",
                ..Judged::default()
            },
        })
    }

    fn inspect(
        &mut self,
        target: &Target,
        policy: &'p Policy,
        admitted: &Admitted,
        body: &[u8],
        address: IpAddr,
    ) -> Judged {
        let kind = kind_for(target, &admitted.parts().headers);
        let most = policy.body.of(kind);
        let seen = body.get(..most).unwrap_or(body);
        let is_beyond = most > 0 && seen.len() < body.len();
        let rejects = policy.body.rejects;
        let set = policy.rules.set();
        let bench = self.benches.entry(Arc::as_ptr(set));
        let bench = bench.or_insert_with(|| Workbench::new(set));
        let now = clock::unix_micros();
        let mut it = Transaction::begin_tailored(&policy.rules, bench, now, "described");
        it.connection(&waf::ends((address, 0)));
        waf::tell(&mut it, "HTTP/1.1", admitted);
        let mut ruling = waf::ruling(it.end_of_request_headers(bench));
        if ruling == Ruling::GoOn && rejects && is_beyond {
            ruling = Ruling::Refuse(Cause::BodyBeyondInspection);
        }
        if ruling == Ruling::GoOn {
            it.body(seen);
            if is_beyond {
                it.body_is_cut_off();
            }
            ruling = waf::ruling(it.end_of_request_body(bench));
        }
        let scores = waf::scores(&it);
        let verdict = it.end(bench);
        let told = waf::violations(&verdict, true).map(|it| serde_json::to_value(it).ok());
        let mut judged = match ruling {
            Ruling::Refuse(cause) => refused(&cause.into(), Some(target)),
            Ruling::GoOn => Judged {
                route: Some(target.route.clone()),
                action: "passed",
                ..Judged::default()
            },
        };
        if let Some(action) = waf::action(policy, &verdict, scores) {
            judged.action = action;
        }
        judged.score = scores.0;
        judged.threshold = policy.inbound_threshold;
        judged.violations = told.flatten().collect();
        judged
    }
}

/// The head of a request as hyper would have read it.
fn parts_of(asked: &Asked) -> Result<Parts, Refusal> {
    let malformed = |what: &'static str| Refusal::with(Cause::MalformedRequest, what);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| Refusal::from(Cause::MethodNotAllowed))?;
    parts.uri = asked
        .target
        .parse::<Uri>()
        .map_err(|_| Refusal::with(Cause::MalformedPath, "the path is no request target"))?;
    let host = HeaderValue::from_str(&asked.host)
        .map_err(|_| Refusal::with(Cause::MalformedHost, "the host is no host"))?;
    parts.headers = HeaderMap::new();
    parts.headers.insert(HOST, host);
    for (name, value) in &asked.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| malformed("a header field has no proper name"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| malformed("a header field has no proper value"))?;
        parts.headers.append(name, value);
    }
    Ok(parts)
}

fn refused(refusal: &Refusal, target: Option<&Target>) -> Judged {
    let (_, cause, status, _) = refusal.cause.outcome();
    Judged {
        route: target.map(|target| target.route.clone()),
        action: "refused",
        status: Some(status),
        cause: Some(cause),
        detail: refusal.detail.as_ref().map(ToString::to_string),
        ..Judged::default()
    }
}

fn unknown_route(name: &str) -> LoadError {
    LoadError::new("route_unknown", format!("there is no route {name:?}"))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
