//! Authorisation: Cedar, default deny, sliced by resource when the plan is made.
//!
//! A decision depends on the caller, the resource and those attributes of the request that the
//! policies of the resource mention, and until a moment that it names on nothing else. So it can be
//! remembered under exactly these; [`Slice::mentions`] says which attributes count, and
//! [`Slice::is_for_all`] whether even the resource does not, so that the first request to a function
//! finds what was decided for another one.

mod compiled;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Effect, Entities, Entity, EntityId,
    EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Request, ResourceConstraint,
    RestrictedExpression, Schema, SchemaFragment, ValidationMode, Validator,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::{Caller, Proof};
use crate::certificate::Workload;
use crate::clock;
use crate::jwt::Verified;
use crate::load::LoadError;
use crate::models::Version;
use crate::outline::{Outline, outlines};
use crate::posture;
use compiled::{Compiled, Facts};

/// The attributes of a request that policies see, in the order of [`Attributes::values`].
pub const ATTRIBUTES: [&str; 9] = [
    "method",
    "path",
    "host",
    "scheme",
    "sourceIp",
    "listener",
    "certificate",
    VERSION,
    POSTURE,
];
const POSTURE: &str = "posture";
const VERSION: &str = "version";

/// What policies are told of a request.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The decoded normal form of the path.
    pub path: &'a str,
    /// The host, lower case, without port.
    pub host: &'a str,
    /// `https` or `http`.
    pub scheme: &'a str,
    /// The address of the client, without port.
    pub source_ip: &'a str,
    /// The name of the listener.
    pub listener: &'a str,
    /// Whose certificate the connection has.
    pub certificate: Option<&'a Workload>,
    /// The version of the model asked for; none where it is no model.
    pub version: Option<&'a Version>,
    /// What is known of the caller; none where no policy of the slice reads it.
    pub posture: Option<&'a posture::Facts>,
}

impl<'a> Attributes<'a> {
    /// The values, in the order of [`ATTRIBUTES`]; of a certificate and of posture what tells it from others.
    pub fn values(&self) -> [&'a str; ATTRIBUTES.len()] {
        [
            self.method,
            self.path,
            self.host,
            self.scheme,
            self.source_ip,
            self.listener,
            self.certificate.map_or("", |workload| &workload.key),
            self.version.map_or("", |version| &version.text),
            self.posture.map_or("", |facts| &facts.key),
        ]
    }
}

/// A decision, and the policies it rests on.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// Whether a policy could not be evaluated; then nothing is allowed.
    pub has_errors: bool,
    /// The ids of the policies that decided.
    pub policies: Arc<[String]>,
    /// When a policy that it rests on ends, in seconds since the epoch; then it is to be made anew.
    pub until: Option<u64>,
}

impl Decision {
    /// Whether a policy that it rests on has ended since.
    pub fn is_over(&self) -> bool {
        self.until
            .is_some_and(|until| until <= clock::onward_seconds())
    }
}

/// What Cedar is asked, and what it is told beside.
pub struct Question {
    /// Principal, action, resource and context.
    pub request: Request,
    /// The attributes of principal, resource and certificate.
    pub entities: Entities,
}

/// What is asked about: a function, a model, or a route of anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// `Function::"name"`.
    Function,
    /// `Route::"name"`.
    Route,
    /// `Model::"name"`.
    Model,
}

/// The policies of a plan, before they are sliced.
pub struct Policies {
    general: Vec<Policy>,
    by_resource: HashMap<EntityUid, Vec<Policy>>,
    /// The slice of every resource that no policy names, by its type.
    shared: HashMap<&'static str, Arc<Rules>>,
    endings: Endings,
}

/// When policies end that do, in seconds since the epoch.
type Endings = HashMap<PolicyId, u64>;

struct Rules {
    policies: PolicySet,
    compiled: Vec<Compiled>,
    /// Those that only Cedar understands.
    rest: PolicySet,
    names: HashMap<PolicyId, String>,
    /// Those of its policies that end.
    endings: Endings,
    mentions: [bool; ATTRIBUTES.len()],
    reads_resource: bool,
}

/// The policies that can matter for one resource.
#[derive(Clone)]
pub struct Slice {
    rules: Arc<Rules>,
    kind: ResourceKind,
    is_shared: bool,
    resource: EntityUid,
    entity: Entity,
}

impl Policies {
    /// Parses and validates `policies` (name and text each) against `schema`.
    pub fn compile(schema: &str, policies: &[(String, String)]) -> Result<Self, LoadError> {
        Self::with_endings(schema, policies, &HashMap::new())
    }

    /// The same; `endings` says, by file, when some of them end.
    pub fn with_endings(
        schema: &str,
        policies: &[(String, String)],
        endings: &HashMap<String, u64>,
    ) -> Result<Self, LoadError> {
        let (report, files) = check_files(schema, policies);
        if let Some(problem) = report.errors.first() {
            return Err(LoadError::new("policy_invalid", problem.to_string()));
        }
        let mut compiled = Self {
            general: Vec::new(),
            by_resource: HashMap::new(),
            shared: HashMap::new(),
            endings: Endings::new(),
        };
        for ((name, _), file) in policies.iter().zip(&files) {
            for policy in &file.policies {
                compiled.add(name, policy, endings.get(name));
            }
        }
        for kind in ResourceKind::ALL {
            let rules = Arc::new(Rules::new(&compiled.general, &[], &compiled.endings)?);
            compiled.shared.insert(kind.type_name(), rules);
        }
        Ok(compiled)
    }

    /// Policy ids are unique within a file only; the file's name makes them so within the plan.
    fn add(&mut self, file: &str, policy: &Policy, ends: Option<&u64>) {
        let policy = policy.new_id(PolicyId::new(format!("{file}/{}", policy.id())));
        if let Some(ends) = ends {
            self.endings.insert(policy.id().clone(), *ends);
        }
        match policy.resource_constraint() {
            ResourceConstraint::Eq(uid) => self.by_resource.entry(uid).or_default().push(policy),
            _ => self.general.push(policy),
        }
    }

    /// The policies that can matter for the resource `name`.
    pub fn slice(&self, kind: ResourceKind, name: &str) -> Result<Slice, LoadError> {
        let invalid = |error: String| LoadError::new("policy_invalid", error);
        let resource =
            EntityUid::from_type_name_and_id(type_name(kind.type_name()), EntityId::new(name));
        let (rules, is_shared) = match (
            self.by_resource.get(&resource),
            self.shared.get(kind.type_name()),
        ) {
            (None, Some(shared)) => (Arc::clone(shared), true),
            (own, _) => {
                let own = own.map_or(&[][..], Vec::as_slice);
                (
                    Arc::new(Rules::new(&self.general, own, &self.endings)?),
                    false,
                )
            }
        };
        let attributes = [("name".to_owned(), string(name))].into();
        let entity = Entity::new(resource.clone(), attributes, HashSet::new())
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Slice {
            rules,
            kind,
            is_shared,
            resource,
            entity,
        })
    }
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Function, Self::Route, Self::Model];

    /// The name of the action that policies are asked about.
    pub fn action(self) -> &'static str {
        match self {
            Self::Function | Self::Route => "invoke",
            Self::Model => "predict",
        }
    }

    /// The name of the type in policies.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Function => "Function",
            Self::Route => "Route",
            Self::Model => "Model",
        }
    }
}

impl Rules {
    fn new(general: &[Policy], own: &[Policy], endings: &Endings) -> Result<Self, LoadError> {
        let invalid = |error: String| LoadError::new("policy_invalid", error);
        let mut names = HashMap::new();
        let mut mentioned = Mentioned::default();
        let (mut compiled, mut rest) = (Vec::new(), Vec::new());
        for policy in general.iter().chain(own) {
            let name = policy
                .annotation("id")
                .map_or_else(|| policy.id().to_string(), str::to_owned);
            let ends = endings.get(policy.id()).copied();
            match Compiled::new(policy, &name) {
                Some(mut policy) => {
                    policy.ends = ends;
                    compiled.push(policy);
                }
                None if ends.is_some() => {
                    return Err(invalid(format!("{name} ends, and is not one that can")));
                }
                None => rest.push(policy.clone()),
            }
            names.insert(policy.id().clone(), name);
            let json = policy
                .to_json()
                .map_err(|error| invalid(error.to_string()))?;
            mentioned.search(&json);
        }
        let all = general.iter().chain(own).cloned();
        Ok(Self {
            policies: PolicySet::from_policies(all).map_err(|error| invalid(error.to_string()))?,
            compiled,
            rest: PolicySet::from_policies(rest).map_err(|error| invalid(error.to_string()))?,
            endings: names
                .keys()
                .filter_map(|id| Some((id.clone(), *endings.get(id)?)))
                .collect(),
            names,
            mentions: ATTRIBUTES.map(|name| mentioned.all || mentioned.names.contains(name)),
            reads_resource: mentioned.resource || general.iter().chain(own).any(names_resource),
        })
    }
}

impl Rules {
    /// The time that endings are compared with; not asked for where nothing ends.
    fn now(&self) -> u64 {
        match self.endings.is_empty() {
            true => 0,
            false => clock::onward_seconds(),
        }
    }

    /// All policies but those that have ended.
    fn alive(&self) -> Cow<'_, PolicySet> {
        let now = self.now();
        let mut policies = Cow::Borrowed(&self.policies);
        for (id, _) in self.endings.iter().filter(|(_, ends)| **ends <= now) {
            // One that is not there is gone already.
            let _ = policies.to_mut().remove_static(id.clone());
        }
        policies
    }
}

/// Whether the scope of a policy tells one resource of a type from another.
fn names_resource(policy: &Policy) -> bool {
    !matches!(
        policy.resource_constraint(),
        ResourceConstraint::Any | ResourceConstraint::Is(_)
    )
}

/// What a policy reads, from its JSON form (Cedar's EST).
#[derive(Default)]
struct Mentioned {
    /// Attributes of the context.
    names: BTreeSet<String>,
    /// The context is used as a whole somewhere.
    all: bool,
    /// A condition asks which resource it is.
    resource: bool,
}

impl Mentioned {
    fn search(&mut self, json: &Value) {
        match json {
            Value::Array(items) => items.iter().for_each(|item| self.search(item)),
            Value::Object(_) if is_variable(json, "context") => self.all = true,
            Value::Object(_) if is_variable(json, "resource") => self.resource = true,
            Value::Object(members) => {
                for (key, value) in members {
                    match attribute_of_context(key, value) {
                        Some(name) => drop(self.names.insert(name)),
                        None => self.search(value),
                    }
                }
            }
            _ => {}
        }
    }
}

fn is_variable(json: &Value, name: &str) -> bool {
    json.get("Var").and_then(Value::as_str) == Some(name)
}

fn attribute_of_context(operator: &str, operands: &Value) -> Option<String> {
    if !matches!(operator, "." | "has") || !is_variable(operands.get("left")?, "context") {
        return None;
    }
    Some(operands.get("attr")?.as_str()?.to_owned())
}

impl Slice {
    /// For each of [`ATTRIBUTES`], whether a policy of this slice reads it.
    pub fn mentions(&self) -> [bool; ATTRIBUTES.len()] {
        self.rules.mentions
    }

    /// Whether a policy of this slice reads what is known of the caller.
    pub fn reads_posture(&self) -> bool {
        let [.., posture] = self.rules.mentions;
        posture
    }

    /// The type of the resource when the decision is the same for all others of that type that say
    /// so too: no policy tells them apart.
    pub fn is_for_all(&self) -> Option<ResourceKind> {
        (self.is_shared && !self.rules.reads_resource).then_some(self.kind)
    }

    /// Decides. `caller` is nobody for a request without credentials.
    ///
    /// A forbid holds for the lower-cased path too: a permit is for one spelling, a prohibition is
    /// for the thing.
    pub fn decide(&self, caller: Option<&Caller>, attributes: &Attributes<'_>) -> Decision {
        let mut decision = self.decide_now(caller, attributes);
        if self.reads_posture() {
            let facts = attributes.posture.and_then(|facts| facts.until);
            decision.until = decision.until.into_iter().chain(facts).min();
        }
        decision
    }

    fn decide_now(&self, caller: Option<&Caller>, attributes: &Attributes<'_>) -> Decision {
        let decision = self.evaluate(caller, attributes);
        let folded = attributes.path.to_lowercase();
        if !decision.is_allowed || folded == attributes.path || !self.mentions()[1] {
            return decision;
        }
        let folded = Attributes {
            path: &folded,
            ..*attributes
        };
        let other = self.evaluate(caller, &folded);
        // Without a reason nothing permits the other spelling, which is no prohibition of this one.
        let is_forbidden = !other.is_allowed && (other.has_errors || !other.policies.is_empty());
        if is_forbidden { other } else { decision }
    }

    fn evaluate(&self, caller: Option<&Caller>, attributes: &Attributes<'_>) -> Decision {
        if let Some(decision) = self.walk(caller, attributes) {
            return decision;
        }
        match self.ask(&self.rules.alive(), caller, attributes) {
            Ok(decision) => decision,
            Err(error) => Decision {
                is_allowed: false,
                has_errors: true,
                policies: Arc::new([error]),
                until: None,
            },
        }
    }

    /// What is asked about, by type and name.
    pub fn resource(&self) -> (ResourceKind, &str) {
        (self.kind, self.resource.id().unescaped())
    }

    /// What Cedar is asked.
    pub fn question(
        &self,
        caller: Option<&Caller>,
        attributes: &Attributes<'_>,
    ) -> Result<Question, String> {
        let (principal, entity) = principal(caller)?;
        let mut entities = vec![entity, self.entity.clone()];
        if let Some(workload) = attributes.certificate {
            let (uid, entity) = workload_entity(workload)?;
            if uid != principal {
                entities.push(entity);
            }
        }
        let entities =
            Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let request = Request::new(
            principal,
            action(self.kind).clone(),
            self.resource.clone(),
            context(attributes, self.mentions())?,
            None,
        )
        .map_err(|error| error.to_string())?;
        Ok(Question { request, entities })
    }

    /// The decision of the compiled policies, and of Cedar on those that are not; none when Cedar is
    /// to decide alone.
    fn walk(&self, caller: Option<&Caller>, attributes: &Attributes<'_>) -> Option<Decision> {
        let facts = Facts {
            caller,
            resource: self.resource(),
            attributes,
        };
        let (mut permits, mut forbids) = (Vec::new(), Vec::new());
        let now = self.rules.now();
        let mut until = None;
        for policy in &self.rules.compiled {
            if policy.ends.is_some_and(|ends| ends <= now) {
                continue;
            }
            if policy.holds(&facts).ok()? {
                until = until.into_iter().chain(policy.ends).min();
                match policy.effect {
                    Effect::Permit => permits.push(policy.name.clone()),
                    Effect::Forbid => forbids.push(policy.name.clone()),
                }
            }
        }
        if !self.rules.rest.is_empty() {
            let rest = self.ask(&self.rules.rest, caller, attributes).ok()?;
            if rest.has_errors {
                return None;
            }
            let names = match rest.is_allowed {
                true => &mut permits,
                // Without a reason nobody said anything.
                false => &mut forbids,
            };
            names.extend(rest.policies.iter().cloned());
        }
        let is_allowed = forbids.is_empty() && !permits.is_empty();
        let mut names = if forbids.is_empty() { permits } else { forbids };
        names.sort();
        Some(Decision {
            is_allowed,
            has_errors: false,
            policies: names.into(),
            until,
        })
    }

    fn ask(
        &self,
        policies: &PolicySet,
        caller: Option<&Caller>,
        attributes: &Attributes<'_>,
    ) -> Result<Decision, String> {
        let Question { request, entities } = self.question(caller, attributes)?;
        let response = Authorizer::new().is_authorized(&request, policies, &entities);
        let diagnostics = response.diagnostics();
        let has_errors = diagnostics.errors().next().is_some();
        let is_allowed = response.decision() == CedarDecision::Allow && !has_errors;
        let names = diagnostics
            .reason()
            .filter_map(|id| self.rules.names.get(id));
        let mut names: Vec<_> = names.cloned().collect();
        names.sort();
        Ok(Decision {
            is_allowed,
            has_errors,
            policies: names.into(),
            until: self.rules.endings.values().copied().min_by_key(|ends| {
                // Of those that are over nothing depends on any more.
                (*ends <= self.rules.now(), *ends)
            }),
        })
    }
}

/// What Cedar calls the caller, and knows of them; put together once for each.
fn principal(caller: Option<&Caller>) -> Result<(EntityUid, Entity), String> {
    let Some(caller) = caller else {
        let nobody =
            EntityUid::from_type_name_and_id(ANONYMOUS.clone(), EntityId::new("anonymous"));
        let entity = Entity::new(nobody.clone(), HashMap::new(), HashSet::new());
        return Ok((nobody, entity.map_err(|error| error.to_string())?));
    };
    if let Some(known) = caller.entity.get() {
        return Ok(known.clone());
    }
    let made = match &caller.proof {
        Proof::Certificate(workload) => workload_entity(workload)?,
        Proof::Token(token) => subject_entity(&caller.principal, token)?,
        Proof::Function(name) => function_entity(name)?,
    };
    Ok(caller.entity.get_or_init(|| made).clone())
}

fn subject_entity(principal: &str, token: &Verified) -> Result<(EntityUid, Entity), String> {
    let subject = EntityUid::from_type_name_and_id(SUBJECT.clone(), EntityId::new(principal));
    let attributes = [
        ("issuer".to_owned(), string(&token.issuer)),
        ("subject".to_owned(), string(&token.subject)),
        ("audiences".to_owned(), set(&token.audiences)),
        ("scopes".to_owned(), set(&token.scopes)),
    ];
    let entity = Entity::new(subject.clone(), attributes.into(), HashSet::new());
    Ok((subject, entity.map_err(|error| error.to_string())?))
}

fn function_entity(name: &str) -> Result<(EntityUid, Entity), String> {
    let uid = EntityUid::from_type_name_and_id(FUNCTION.clone(), EntityId::new(name));
    let attributes = [("name".to_owned(), string(name))].into();
    let entity = Entity::new(uid.clone(), attributes, HashSet::new());
    Ok((uid, entity.map_err(|error| error.to_string())?))
}

fn workload_entity(workload: &Workload) -> Result<(EntityUid, Entity), String> {
    let uid = workload_uid(workload);
    let mut attributes = HashMap::from([
        ("authority".to_owned(), string(&workload.authority)),
        ("subject".to_owned(), string(&workload.subject)),
        ("serial".to_owned(), string(&workload.serial)),
        ("fingerprint".to_owned(), string(&workload.fingerprint)),
    ]);
    if let Some(id) = &workload.spiffe_id {
        attributes.insert("spiffeId".to_owned(), string(id));
    }
    let entity = Entity::new(uid.clone(), attributes, HashSet::new());
    Ok((uid, entity.map_err(|error| error.to_string())?))
}

fn workload_uid(workload: &Workload) -> EntityUid {
    EntityUid::from_type_name_and_id(WORKLOAD.clone(), EntityId::new(workload.principal()))
}

/// The attributes that policies read; the others would be put together for nothing.
fn context(
    attributes: &Attributes<'_>,
    mentions: [bool; ATTRIBUTES.len()],
) -> Result<Context, String> {
    let pairs = ATTRIBUTES
        .iter()
        .zip(attributes.values())
        .zip(mentions)
        .filter(|((name, _), is_read)| {
            *is_read
                && **name != "certificate"
                && (**name != VERSION || attributes.version.is_some())
        })
        .map(|((name, value), _)| {
            let value = match *name {
                "sourceIp" => RestrictedExpression::new_ip(value),
                VERSION => long(attributes.version),
                POSTURE => set(attributes.posture.map_or(&[], |facts| &facts.names)),
                _ => string(value),
            };
            ((*name).to_owned(), value)
        });
    let certificate = attributes.certificate.map(|workload| {
        let uid = RestrictedExpression::new_entity_uid(workload_uid(workload));
        ("certificate".to_owned(), uid)
    });
    Context::from_pairs(pairs.chain(certificate)).map_err(|error| error.to_string())
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn long(version: Option<&Version>) -> RestrictedExpression {
    RestrictedExpression::new_long(version.map_or(0, |it| it.number))
}

fn set(items: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(items.iter().map(|item| string(item)))
}

// A name is parsed by Cedar's whole grammar, which takes longer than most decisions.
static ANONYMOUS: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Anonymous"));
static SUBJECT: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Subject"));
static WORKLOAD: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Workload"));
static FUNCTION: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Function"));
static INVOKE: LazyLock<EntityUid> = LazyLock::new(|| action_uid(ResourceKind::Function));
static PREDICT: LazyLock<EntityUid> = LazyLock::new(|| action_uid(ResourceKind::Model));

fn action_uid(kind: ResourceKind) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name("Action"), EntityId::new(kind.action()))
}

fn action(kind: ResourceKind) -> &'static EntityUid {
    match kind {
        ResourceKind::Function | ResourceKind::Route => &INVOKE,
        ResourceKind::Model => &PREDICT,
    }
}

/// `name` is a type of the schema, written here: it parses.
#[allow(clippy::expect_used)]
fn type_name(name: &str) -> EntityTypeName {
    EntityTypeName::from_str(name).expect("a type of the schema")
}

/// One thing wrong with a policy file, where, and how to mend it.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in bytes.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it, when Cedar knows.
    pub help: Option<String>,
}

impl Problem {
    fn at((line, column): (usize, usize), message: String) -> Self {
        Self {
            file: String::new(),
            line,
            column,
            message,
            help: None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

/// Everything that is wrong, or doubtful, with a set of policies.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What makes the set unusable.
    pub errors: Vec<Problem>,
    /// What looks like a mistake.
    pub warnings: Vec<Problem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckRequest {
    schema: File,
    policies: Vec<File>,
}

/// A policy or schema file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its Cedar text.
    pub text: String,
}

/// Checks a schema and policies given as JSON; returns the [`Report`] as JSON, with the [`Outline`] of
/// every policy that could be read.
///
/// # Errors
/// When `request` is not of that shape.
pub fn check_policies(request: &[u8]) -> Result<Vec<u8>, LoadError> {
    let malformed =
        |error: serde_json::Error| LoadError::new("request_malformed", error.to_string());
    let request: CheckRequest = serde_json::from_slice(request).map_err(malformed)?;
    let files: Vec<_> = request
        .policies
        .into_iter()
        .map(|file| (file.name, file.text))
        .collect();
    let (mut report, checked) = check_files(&request.schema.text, &files);
    for problem in report
        .errors
        .iter_mut()
        .filter(|problem| problem.file.is_empty())
    {
        problem.file.clone_from(&request.schema.name);
    }
    let said = files.iter().zip(&checked);
    let outlines = said
        .flat_map(|((name, text), file)| outlines(name, text, file.policies.iter()))
        .collect();
    serde_json::to_vec(&CheckAnswer { report, outlines }).map_err(malformed)
}

/// What is wrong with policies, and what they say.
#[derive(Serialize)]
struct CheckAnswer {
    #[serde(flatten)]
    report: Report,
    outlines: Vec<Outline>,
}

/// What checking one file found, and its policies.
struct CheckedFile {
    policies: Vec<Policy>,
    report: Report,
}

/// The files of the last check: a node with a thousand functions has as many policies, and a change
/// changes one of them. Holds no more than one set of policies.
static CHECKED: Mutex<Option<Checked>> = Mutex::new(None);

struct Checked {
    schema: String,
    validator: Arc<Validator>,
    files: HashMap<String, Arc<CheckedFile>>,
}

fn check_files(schema: &str, policies: &[(String, String)]) -> (Report, Vec<Arc<CheckedFile>>) {
    let last = lock(&CHECKED).take().filter(|it| it.schema == schema);
    let (validator, mut known) = match last {
        Some(last) => (last.validator, last.files),
        None => match validator_of(schema) {
            Ok(validator) => (Arc::new(validator), HashMap::new()),
            Err(problem) => {
                let report = Report {
                    errors: vec![problem],
                    ..Report::default()
                };
                return (report, Vec::new());
            }
        },
    };
    let mut files = HashMap::with_capacity(policies.len());
    let mut report = Report::default();
    let mut checked = Vec::with_capacity(policies.len());
    for (name, text) in policies {
        let file = known
            .remove(text)
            .or_else(|| files.get(text).cloned())
            .unwrap_or_else(|| Arc::new(check_file(&validator, text)));
        report.add(name, &file.report);
        files.insert(text.clone(), Arc::clone(&file));
        checked.push(file);
    }
    *lock(&CHECKED) = Some(Checked {
        schema: schema.to_owned(),
        validator,
        files,
    });
    (report, checked)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn validator_of(schema: &str) -> Result<Validator, Problem> {
    if let Err(error) = SchemaFragment::from_cedarschema_str(schema) {
        return Err(problem(schema, &error));
    }
    let (schema, _) =
        Schema::from_cedarschema_str(schema).map_err(|error| problem(schema, &error))?;
    Ok(Validator::new(schema))
}

impl Report {
    /// Adds what was found in the file called `name`.
    fn add(&mut self, name: &str, found: &Report) {
        let named = |problem: &Problem| Problem {
            file: name.to_owned(),
            ..problem.clone()
        };
        self.errors.extend(found.errors.iter().map(named));
        self.warnings.extend(found.warnings.iter().map(named));
    }
}

/// Checks one file, whose name is not known here.
fn check_file(validator: &Validator, text: &str) -> CheckedFile {
    let mut report = Report::default();
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(error) => {
            report.errors.push(problem(text, &error));
            return CheckedFile {
                policies: Vec::new(),
                report,
            };
        }
    };
    if set.templates().next().is_some() {
        let message = "policy templates are not supported here: write the entity out".to_owned();
        let (line, column) = set
            .templates()
            .map(|template| place_of(template.id(), &statements(text)))
            .min()
            .unwrap_or((1, 1));
        report.errors.push(Problem::at((line, column), message));
    }
    let outcome = validator.validate(&set, ValidationMode::Strict);
    let errors = outcome.validation_errors();
    report
        .errors
        .extend(errors.map(|error| problem(text, error)));
    let warnings = outcome.validation_warnings();
    report
        .warnings
        .extend(warnings.map(|warning| problem(text, warning)));
    let places = statements(text);
    let mut upper: Vec<_> = set
        .policies()
        .filter(|policy| forbids_upper_case_path(policy))
        .map(|policy| (place_of(policy.id(), &places), policy))
        .collect();
    upper.sort_by_key(|(place, _)| *place);
    report
        .warnings
        .extend(upper.into_iter().map(|(place, policy)| {
            let id = policy.annotation("id").unwrap_or("a policy");
            let message = format!(
                "{id} forbids a path with capitals; prohibitions are also tried on the \
                 lower-cased path, so write it in lower case"
            );
            Problem::at(place, message)
        }));
    CheckedFile {
        policies: set.policies().cloned().collect(),
        report,
    }
}

fn forbids_upper_case_path(policy: &Policy) -> bool {
    policy.effect() == Effect::Forbid
        && policy
            .to_json()
            .is_ok_and(|json| compares_path_with_capitals(&json))
}

fn compares_path_with_capitals(json: &Value) -> bool {
    match json {
        Value::Array(items) => items.iter().any(compares_path_with_capitals),
        Value::Object(members) => {
            let left = members.get("left").and_then(|left| left.get("."));
            let is_path = left.and_then(|left| attribute_of_context(".", left));
            if is_path.as_deref() == Some("path") {
                return members
                    .iter()
                    .any(|(key, value)| key != "left" && has_capitals(value));
            }
            members.values().any(compares_path_with_capitals)
        }
        _ => false,
    }
}

/// Whether a literal below has a capital. Only values count; the keys are Cedar's own words.
fn has_capitals(json: &Value) -> bool {
    match json {
        Value::String(text) => text != "Wildcard" && text.bytes().any(|b| b.is_ascii_uppercase()),
        Value::Array(items) => items.iter().any(has_capitals),
        Value::Object(members) => members.values().any(has_capitals),
        _ => false,
    }
}

/// Line and column (from 1, in bytes) of each statement of a policy file. Cedar keeps them to
/// itself, but its grammar is kind: `;` ends a statement and occurs nowhere else outside of strings
/// and comments.
pub fn statements(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut is_inside, mut line, mut column) = (false, 1, 1);
    let mut bytes = text.bytes().peekable();
    let mut quoted = false;
    let mut in_comment = false;
    let mut escaped = false;
    while let Some(byte) = bytes.next() {
        let starts_comment = !quoted && byte == b'/' && bytes.peek() == Some(&b'/');
        in_comment = (in_comment || starts_comment) && byte != b'\n';
        if !in_comment {
            if !is_inside && !byte.is_ascii_whitespace() {
                found.push((line, column));
                is_inside = true;
            }
            let closes = quoted && byte == b'"' && !escaped;
            let opens = !quoted && byte == b'"';
            escaped = quoted && byte == b'\\' && !escaped;
            quoted = opens || (quoted && !closes);
            is_inside = is_inside && (quoted || byte != b';');
        }
        (line, column) = match byte {
            b'\n' => (line + 1, 1),
            _ => (line, column + 1),
        };
    }
    found
}

/// The place of a policy: Cedar names those of a file `policy0`, `policy1`, … in order.
pub fn place_of(id: &PolicyId, places: &[(usize, usize)]) -> (usize, usize) {
    let id: &str = id.as_ref();
    id.strip_prefix("policy")
        .and_then(|number| places.get(number.parse::<usize>().ok()?))
        .copied()
        .unwrap_or((1, 1))
}

fn problem<E: miette::Diagnostic>(text: &str, error: &E) -> Problem {
    let offset = offset_of(error).unwrap_or(0).min(text.len());
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    Problem {
        file: String::new(),
        line,
        column: offset - line_start + 1,
        message: error.to_string(),
        help: error.help().map(|help| help.to_string()),
    }
}

/// Where an error is: its own label, or that of the first error it is made of.
fn offset_of(error: &dyn miette::Diagnostic) -> Option<usize> {
    let own = error.labels().and_then(|mut labels| labels.next());
    if let Some(label) = own {
        return Some(label.offset());
    }
    let related = error.related().and_then(|mut related| related.next());
    related
        .and_then(offset_of)
        .or_else(|| error.diagnostic_source().and_then(offset_of))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
