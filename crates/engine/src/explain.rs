//! Why a request is allowed or denied: the same plan, the same routes, the same Cedar as on the
//! path, asked about requests that somebody describes.
//!
//! Control calls this in its own process. Must not: be called on the path.

use std::path::Path;

use cedar_policy::{
    ActionConstraint, Authorizer, Effect, EntityTypeName, EntityUid, Policy, PolicySet,
    PrincipalConstraint, ResourceConstraint,
};
use http::Method;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::caller::{Caller, Proof};
use crate::certificate::{Leaf, Vouched, Workload};
use crate::jwt::Verified;
use crate::load::{EngineDir, LoadError};
use crate::models::Version;
use crate::path::normalize;
use crate::plan::{Before, Plan, Rule};
use crate::policy::{
    Attributes, File, Policies, Question, ResourceKind, Slice, place_of, statements,
};
use crate::posture::Facts;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::{host_of, require_method};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// The snapshot whose routes count.
    digest: String,
    schema: File,
    policies: Vec<File>,
    requests: Vec<Asked>,
}

/// One request, as far as policies can see it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    principal: Who,
    #[serde(default)]
    certificate: Option<Shown>,
    method: String,
    host: String,
    path: String,
    scheme: String,
    source_ip: String,
    listener: String,
    /// What is known of the caller.
    #[serde(default)]
    posture: Vec<String>,
    /// Asked about instead of what host and path lead to.
    #[serde(default)]
    function: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    route: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum Who {
    Anonymous {},
    Token {
        issuer: String,
        subject: String,
        #[serde(default)]
        audiences: Vec<String>,
        #[serde(default)]
        scopes: Vec<String>,
    },
    Certificate(Shown),
    Function {
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shown {
    authority: String,
    #[serde(default)]
    spiffe_id: Option<String>,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    fingerprint: String,
}

/// What is decided, and why.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    allowed: bool,
    /// What the caller would get; absent when the request is let through.
    status: Option<u16>,
    stage: Option<&'static str>,
    cause: Option<&'static str>,
    detail: Option<String>,
    route: Option<String>,
    principal: Value,
    resource: Value,
    context: Value,
    /// The policies that decided, as records name them.
    decided_by: Vec<String>,
    policies: Vec<Judged>,
}

/// One policy, and why it did not apply when it did not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged {
    id: String,
    file: String,
    line: usize,
    effect: &'static str,
    applies: bool,
    decided: bool,
    /// A prohibition that holds for the lower-cased path only.
    lower_cased: bool,
    failed: Option<Failed>,
}

/// The first part of a policy that does not hold.
#[derive(Serialize)]
struct Failed {
    /// `principal`, `action`, `resource`, `when` or `unless`.
    part: &'static str,
    text: String,
    /// What the attributes in it were.
    values: Map<String, Value>,
    error: Option<String>,
}

/// Explains requests given as JSON under the snapshot in `engine_dir`; returns JSON.
///
/// # Errors
/// When `query` is not of that shape, or the snapshot or the policies cannot be used.
pub fn explain(query: &[u8], engine_dir: &Path, engine_key: &str) -> Result<Vec<u8>, LoadError> {
    let malformed =
        |error: serde_json::Error| LoadError::new("request_malformed", error.to_string());
    let query: Query = serde_json::from_slice(query).map_err(malformed)?;
    let plan = EngineDir::new(engine_dir, engine_key).load(&query.digest, Before::Nothing)?;
    let pairs = query
        .policies
        .iter()
        .map(|it| (it.name.clone(), it.text.clone()));
    let policies = Policies::compile(&query.schema.text, &pairs.collect::<Vec<_>>())?;
    let answers = query
        .requests
        .iter()
        .map(|asked| answer(&plan, &policies, &query.policies, asked))
        .collect::<Result<Vec<_>, _>>()?;
    serde_json::to_vec(&answers).map_err(malformed)
}

fn answer(
    plan: &Plan,
    policies: &Policies,
    files: &[File],
    asked: &Asked,
) -> Result<Explanation, LoadError> {
    let caller = match caller_of(&asked.principal) {
        Ok(caller) => caller,
        Err(refusal) => return Ok(refused(&refusal, Explanation::default())),
    };
    let mut found = Explanation {
        principal: told_of(caller.as_ref()),
        ..Explanation::default()
    };
    let (host, path, slice, (route, version)) = match lead(plan, policies, asked)? {
        Ok(led) => led,
        Err(refusal) => return Ok(refused(&refusal, found)),
    };
    let own = caller.as_ref().and_then(Caller::workload);
    let beside = asked.certificate.as_ref().map(Shown::workload);
    let known = Facts::new(asked.posture.clone(), None);
    let attributes = Attributes {
        method: &asked.method,
        path: &path,
        host: &host,
        scheme: &asked.scheme,
        source_ip: &asked.source_ip,
        listener: &asked.listener,
        certificate: own.or(beside.as_ref()),
        version: version.as_ref(),
        posture: Some(&known),
    };
    let decision = slice.decide(caller.as_ref(), &attributes);
    found.route = route;
    found.allowed = decision.is_allowed;
    found.decided_by = decision.policies.to_vec();
    let (kind, name) = slice.resource();
    found.resource = json!({"type": kind.type_name(), "id": name, "attributes": {"name": name}});
    found.context = told_of_context(&attributes);
    let mut judge = Judge::new(&slice, caller.as_ref(), &attributes, &found)?;
    found.policies = judge.all(files)?;
    for policy in &mut found.policies {
        let is_forbid = policy.effect == "forbid";
        policy.decided = policy.applies && is_forbid != found.allowed;
    }
    if found.allowed {
        return Ok(found);
    }
    let cause = match (decision.has_errors, &caller) {
        (true, _) => Cause::PolicyError,
        (false, None) => Cause::CredentialsRequired,
        (false, Some(_)) => Cause::PolicyDenied,
    };
    Ok(refused(&cause.into(), found))
}

/// Host, path, policies, and the route with the version of the model behind it.
type Led = (Box<str>, String, Slice, (Option<String>, Option<Version>));

/// Where the request leads: what `admit` and `route` would find, or refuse.
fn lead(
    plan: &Plan,
    policies: &Policies,
    asked: &Asked,
) -> Result<Result<Led, Refusal>, LoadError> {
    let is_function = matches!(asked.principal, Who::Function { .. });
    let found = match is_function {
        true => inside(asked),
        false => admitted(plan, asked),
    };
    let (host, path) = match found {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if is_function && asked.model.is_none() {
        let what = "a function is a caller of models alone: say which one is asked";
        return Err(LoadError::new("request_malformed", what));
    }
    if let Some(name) = &asked.function {
        if !plan.functions().any(|it| it.name.as_ref() == name) {
            let unknown = format!("no function {name:?} is deployed");
            return Err(LoadError::new("function_unknown", unknown));
        }
        let slice = policies.slice(ResourceKind::Function, name)?;
        return Ok(Ok((host, path, slice, (None, None))));
    }
    if let Some(name) = &asked.model {
        let Some(model) = plan.model(name) else {
            let unknown = format!("there is no model {name:?}");
            return Err(LoadError::new("model_unknown", unknown));
        };
        let slice = policies.slice(ResourceKind::Model, name)?;
        return Ok(Ok((host, path, slice, (None, Some(model.version.clone())))));
    }
    let parts = parts_of(asked);
    let target = match &asked.route {
        Some(name) => plan.route(name),
        None => plan.find(&host, &path, &parts).and_then(Rule::first),
    };
    let Some(target) = target else {
        return match &asked.route {
            None => Ok(Err(Cause::NotFound.into())),
            Some(name) => Err(LoadError::new(
                "route_unknown",
                format!("there is no route {name:?}"),
            )),
        };
    };
    let (kind, name) = target.slice.resource();
    let slice = policies.slice(kind, name)?;
    let led = (Some(target.route.clone()), target.version().cloned());
    Ok(Ok((host, path, slice, led)))
}

/// The request as conditions of routes see it: it has no header fields, so no condition on one holds.
fn parts_of(asked: &Asked) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(asked.method.as_bytes()).unwrap_or_default();
    parts.uri = asked.path.parse().unwrap_or_default();
    parts
}

fn admitted(plan: &Plan, asked: &Asked) -> Result<(Box<str>, String), Refusal> {
    let authority = Authority::try_from(asked.host.as_str())
        .map_err(|_| Refusal::with(Cause::MalformedHost, "the host is no host"))?;
    let host = host_of(&authority)?;
    let method = Method::from_bytes(asked.method.as_bytes());
    require_method(&method.map_err(|_| Cause::MethodNotAllowed)?)?;
    if !plan.admit.allows(&host) {
        return Err(Cause::HostNotAllowed.into());
    }
    let malformed = |what: &'static str| Refusal::with(Cause::MalformedPath, what);
    let target = PathAndQuery::try_from(asked.path.as_str())
        .map_err(|_| malformed("the path is no request target"))?;
    let normal = normalize(target.path()).map_err(|error| malformed(error.as_str()))?;
    Ok((host, normal.decoded.into_owned()))
}

/// The same of a call that comes from inside the node: no listener lets it in.
fn inside(asked: &Asked) -> Result<(Box<str>, String), Refusal> {
    let malformed = |what: &'static str| Refusal::with(Cause::MalformedPath, what);
    let normal = normalize(&asked.path).map_err(|error| malformed(error.as_str()))?;
    Ok((asked.host.as_str().into(), normal.decoded.into_owned()))
}

fn refused(refusal: &Refusal, mut found: Explanation) -> Explanation {
    let (stage, cause, status, _) = refusal.cause.outcome();
    found.allowed = false;
    found.stage = Some(stage.as_str());
    found.cause = Some(cause);
    found.status = Some(status);
    found.detail = refusal.detail.as_ref().map(ToString::to_string);
    found
}

fn caller_of(who: &Who) -> Result<Option<Caller>, Refusal> {
    match who {
        Who::Anonymous {} => Ok(None),
        Who::Token {
            issuer,
            subject,
            audiences,
            scopes,
        } => Caller::new(Verified {
            issuer: issuer.clone(),
            subject: subject.clone(),
            audiences: audiences.clone(),
            scopes: scopes.clone(),
            expires_at: u64::MAX,
            bound_to: None,
            id: None,
            key: "".into(),
        })
        .map(Some),
        Who::Certificate(shown) => Caller::of_certificate(Vouched {
            workload: shown.workload(),
            expires_at: u64::MAX,
        })
        .map(Some),
        // Its SPIFFE ID finds what is known of it, which the question says itself.
        Who::Function { name } => Ok(Some(Caller::of_function(name, String::new()))),
    }
}

impl Shown {
    fn workload(&self) -> Workload {
        let leaf = Leaf {
            subject: self.subject.clone(),
            serial: self.serial.clone(),
            ..Leaf::default()
        };
        let mut workload = Workload::new(&self.authority, self.spiffe_id.clone(), &leaf);
        workload.fingerprint.clone_from(&self.fingerprint);
        workload
    }
}

fn told_of(caller: Option<&Caller>) -> Value {
    match caller.map(|caller| (caller, &caller.proof)) {
        None => json!({"type": "Anonymous", "id": "anonymous", "attributes": {}}),
        Some((caller, Proof::Token(token))) => json!({
            "type": "Subject",
            "id": caller.principal.as_ref(),
            "attributes": {
                "issuer": token.issuer,
                "subject": token.subject,
                "audiences": token.audiences,
                "scopes": token.scopes,
            },
        }),
        Some((caller, Proof::Certificate(workload))) => json!({
            "type": "Workload",
            "id": caller.principal.as_ref(),
            "attributes": workload,
        }),
        Some((_, Proof::Function(name))) => json!({
            "type": "Function",
            "id": name,
            "attributes": {"name": name},
        }),
    }
}

fn told_of_context(attributes: &Attributes<'_>) -> Value {
    let mut told = json!({
        "method": attributes.method,
        "path": attributes.path,
        "host": attributes.host,
        "scheme": attributes.scheme,
        "sourceIp": attributes.source_ip,
        "listener": attributes.listener,
        "posture": attributes.posture.map(|facts| &facts.names),
    });
    let Some(members) = told.as_object_mut() else {
        return told;
    };
    if let Some(workload) = attributes.certificate {
        members.insert("certificate".to_owned(), json!(workload));
    }
    if let Some(version) = attributes.version {
        members.insert("version".to_owned(), json!(version.number));
    }
    told
}

/// Judges the policies of all files one by one.
struct Judge<'a> {
    question: Question,
    /// The same about the lower-cased path, when that is another.
    folded: Option<Question>,
    facts: &'a Explanation,
}

impl<'a> Judge<'a> {
    fn new(
        slice: &Slice,
        caller: Option<&Caller>,
        attributes: &Attributes<'_>,
        facts: &'a Explanation,
    ) -> Result<Self, LoadError> {
        let invalid = |error: String| LoadError::new("request_malformed", error);
        let lower = attributes.path.to_lowercase();
        let folded = Attributes {
            path: &lower,
            ..*attributes
        };
        let folded = (lower != attributes.path).then(|| slice.question(caller, &folded));
        Ok(Self {
            question: slice.question(caller, attributes).map_err(invalid)?,
            folded: folded.transpose().map_err(invalid)?,
            facts,
        })
    }

    fn all(&mut self, files: &[File]) -> Result<Vec<Judged>, LoadError> {
        let invalid = |error: String| LoadError::new("policy_invalid", error);
        let mut judged = Vec::new();
        for file in files {
            let set: PolicySet = file
                .text
                .parse()
                .map_err(|error: cedar_policy::ParseErrors| invalid(error.to_string()))?;
            let places = statements(&file.text);
            let mut policies: Vec<_> = set.policies().collect();
            policies.sort_by_key(|policy| place_of(policy.id(), &places));
            for policy in policies {
                let (line, _) = place_of(policy.id(), &places);
                judged.push(self.judge(&file.name, line, policy).map_err(invalid)?);
            }
        }
        Ok(judged)
    }

    fn judge(&self, file: &str, line: usize, policy: &Policy) -> Result<Judged, String> {
        let failed = self.first_failed(policy, &self.question)?;
        let is_forbid = policy.effect() == Effect::Forbid;
        let lower_cased = match (&failed, &self.folded) {
            (Some(_), Some(folded)) if is_forbid => self.first_failed(policy, folded)?.is_none(),
            _ => false,
        };
        Ok(Judged {
            id: policy
                .annotation("id")
                .map_or_else(|| format!("{file}/{}", policy.id()), str::to_owned),
            file: file.to_owned(),
            line,
            effect: if is_forbid { "forbid" } else { "permit" },
            applies: failed.is_none() || lower_cased,
            decided: false,
            lower_cased,
            failed: failed.filter(|_| !lower_cased),
        })
    }

    fn first_failed(&self, policy: &Policy, asked: &Question) -> Result<Option<Failed>, String> {
        if let Some((part, text)) = failed_scope(policy, asked) {
            return Ok(Some(Failed {
                part,
                text,
                values: Map::new(),
                error: None,
            }));
        }
        let json = policy.to_json().map_err(|error| error.to_string())?;
        let conditions = json.get("conditions").and_then(Value::as_array);
        for condition in conditions.into_iter().flatten() {
            let body = condition.get("body").cloned().unwrap_or_default();
            let is_when = condition.get("kind").and_then(Value::as_str) == Some("when");
            let mut parts = Vec::new();
            if is_when {
                conjuncts(&body, &mut parts);
            } else {
                parts.push(&body);
            }
            for part in parts {
                let (holds, text) = evaluate(part, asked)?;
                if holds.as_ref() != Ok(&is_when) {
                    return Ok(Some(Failed {
                        part: if is_when { "when" } else { "unless" },
                        text,
                        values: self.values_in(part),
                        error: holds.err(),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The values of the attributes that an expression reads.
    fn values_in(&self, expression: &Value) -> Map<String, Value> {
        let mut values = Map::new();
        self.collect(expression, &mut values);
        values
    }

    fn collect(&self, expression: &Value, values: &mut Map<String, Value>) {
        let read = expression.get(".").and_then(|read| {
            let variable = read.get("left")?.get("Var")?.as_str()?;
            Some((variable, read.get("attr")?.as_str()?))
        });
        if let Some((variable, attribute)) = read {
            let value = match variable {
                "principal" => self
                    .facts
                    .principal
                    .pointer(&format!("/attributes/{attribute}")),
                "resource" => self
                    .facts
                    .resource
                    .pointer(&format!("/attributes/{attribute}")),
                _ => self.facts.context.get(attribute),
            };
            values.insert(
                format!("{variable}.{attribute}"),
                value.cloned().unwrap_or_default(),
            );
        }
        match expression {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item, values)),
            Value::Object(members) => members.values().for_each(|it| self.collect(it, values)),
            _ => {}
        }
    }
}

/// The parts of a chain of `&&`.
fn conjuncts<'a>(expression: &'a Value, parts: &mut Vec<&'a Value>) {
    match expression
        .get("&&")
        .map(|and| (and.get("left"), and.get("right")))
    {
        Some((Some(left), Some(right))) => {
            conjuncts(left, parts);
            conjuncts(right, parts);
        }
        _ => parts.push(expression),
    }
}

/// Whether an expression holds, and how it is written: asked as the only condition of a policy.
fn evaluate(
    expression: &Value,
    asked: &Question,
) -> Result<(Result<bool, String>, String), String> {
    let policy = Policy::from_json(
        None,
        json!({
            "effect": "permit",
            "principal": {"op": "All"},
            "action": {"op": "All"},
            "resource": {"op": "All"},
            "conditions": [{"kind": "when", "body": expression}],
        }),
    )
    .map_err(|error| error.to_string())?;
    let text = policy.to_cedar().unwrap_or_default();
    let written = text
        .split_once("when {")
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or("", |(written, _)| written.trim());
    let set = PolicySet::from_policies([policy]).map_err(|error| error.to_string())?;
    let response = Authorizer::new().is_authorized(&asked.request, &set, &asked.entities);
    let error = response
        .diagnostics()
        .errors()
        .next()
        .map(ToString::to_string);
    let holds = match error {
        Some(error) => Err(error),
        None => Ok(response.decision() == cedar_policy::Decision::Allow),
    };
    Ok((holds, written.to_owned()))
}

/// The first part of the scope that does not fit. No entity here is in another, so `in` is `==`.
fn failed_scope(policy: &Policy, asked: &Question) -> Option<(&'static str, String)> {
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any => Scope::Any,
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) => Scope::One(uid),
        PrincipalConstraint::Is(kind) => Scope::Is(kind),
        PrincipalConstraint::IsIn(kind, uid) => Scope::IsIn(kind, uid),
    };
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Any => Scope::Any,
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) => Scope::One(uid),
        ResourceConstraint::Is(kind) => Scope::Is(kind),
        ResourceConstraint::IsIn(kind, uid) => Scope::IsIn(kind, uid),
    };
    let action = match policy.action_constraint() {
        ActionConstraint::Any => Scope::Any,
        ActionConstraint::Eq(uid) => Scope::One(uid),
        ActionConstraint::In(uids) => Scope::OneOf(uids),
    };
    let scopes = [
        ("principal", principal, asked.request.principal()),
        ("action", action, asked.request.action()),
        ("resource", resource, asked.request.resource()),
    ];
    scopes.into_iter().find_map(|(part, scope, uid)| {
        let fits = uid.is_some_and(|uid| scope.fits(uid));
        (!fits).then(|| (part, scope.text(part)))
    })
}

enum Scope {
    Any,
    One(EntityUid),
    OneOf(Vec<EntityUid>),
    Is(EntityTypeName),
    IsIn(EntityTypeName, EntityUid),
}

impl Scope {
    fn fits(&self, uid: &EntityUid) -> bool {
        match self {
            Self::Any => true,
            Self::One(wanted) => wanted == uid,
            Self::OneOf(wanted) => wanted.contains(uid),
            Self::Is(kind) => uid.type_name() == kind,
            Self::IsIn(kind, wanted) => uid.type_name() == kind && wanted == uid,
        }
    }

    fn text(&self, part: &str) -> String {
        match self {
            Self::Any => part.to_owned(),
            Self::One(uid) => format!("{part} == {uid}"),
            Self::OneOf(uids) => {
                let uids: Vec<_> = uids.iter().map(ToString::to_string).collect();
                format!("{part} in [{}]", uids.join(", "))
            }
            Self::Is(kind) => format!("{part} is {kind}"),
            Self::IsIn(kind, uid) => format!("{part} is {kind} in {uid}"),
        }
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
