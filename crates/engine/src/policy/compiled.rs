//! Policies as a tree that is walked over what a request is, without making Cedar's values of it.
//!
//! Cedar's evaluator copies the conditions, builds entities and parses addresses for every decision,
//! tens of microseconds for a handful of policies. Here constants are read once and attributes are
//! borrowed (ADR 0018). What is not understood at compile time stays with Cedar, and so does a
//! decision in which anything is other than expected (a type, an attribute that is absent): this must
//! never say yes or no where Cedar would say something else. Source: the Cedar language reference,
//! "JSON policy format" and "Operators".

use std::borrow::Cow;
use std::net::IpAddr;

use cedar_policy::{Effect, Policy};
use serde_json::Value as Json;

use super::{Attributes, ResourceKind};
use crate::caller::{Caller, Proof};
use crate::certificate::Workload;
use crate::jwt::Verified;

/// Conditions nested deeper than this stay with Cedar, which watches its stack.
const DEPTH: usize = 64;

/// One policy.
#[derive(Debug)]
pub struct Compiled {
    /// Whether it permits or forbids.
    pub effect: Effect,
    /// What people call it.
    pub name: String,
    /// When it ends, in seconds since the epoch, if it does.
    pub ends: Option<u64>,
    holds: Expr,
}

/// What cannot be told here: Cedar is to be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsure;

/// What is decided on.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Nobody for a request without credentials.
    pub caller: Option<&'a Caller>,
    /// Type and name.
    pub resource: (ResourceKind, &'a str),
    /// The request.
    pub attributes: &'a Attributes<'a>,
}

#[derive(Debug)]
enum Expr {
    Bool(bool),
    Long(i64),
    Text(String),
    Texts(Vec<String>),
    Net(Net),
    Entity(Named),
    Entities(Vec<Named>),
    Principal,
    Action,
    Resource,
    Context(Attribute),
    HasCertificate,
    HasVersion,
    Get(Box<Expr>, String),
    Has(Box<Expr>, String),
    Not(Box<Expr>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    If(Box<(Expr, Expr, Expr)>),
    Equal(Box<(Expr, Expr)>),
    In(Box<(Expr, Expr)>),
    Contains(Box<(Expr, Expr)>),
    ContainsAll(Box<(Expr, Expr)>),
    ContainsAny(Box<(Expr, Expr)>),
    IsEmpty(Box<Expr>),
    Compare(Order, Box<(Expr, Expr)>),
    Like(Box<Expr>, Vec<Part>),
    Is(Box<Expr>, String),
    InRange(Box<(Expr, Expr)>),
    AddressIs(Box<Expr>, Kind),
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy)]
enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

#[derive(Debug, Clone, Copy)]
enum Attribute {
    Method,
    Path,
    Host,
    Scheme,
    SourceIp,
    Listener,
    Certificate,
    Version,
    Posture,
}

/// An entity that a policy names.
#[derive(Debug)]
struct Named {
    kind: String,
    id: String,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    V4,
    V6,
    Loopback,
    Multicast,
}

/// Part of a pattern.
#[derive(Debug)]
enum Part {
    Any,
    Text(String),
}

/// An address, or a range of them.
#[derive(Debug, Clone, Copy)]
struct Net {
    address: IpAddr,
    prefix: u8,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Bool(bool),
    Long(i64),
    Text(&'a str),
    Texts(&'a [String]),
    Net(Net),
    Entity(Entity<'a>),
    Entities(&'a [Named]),
}

#[derive(Clone, Copy)]
enum Entity<'a> {
    Nobody,
    Subject(&'a str, &'a Verified),
    Workload(&'a Workload),
    Resource(ResourceKind, &'a str),
    Action(ResourceKind),
    Named(&'a Named),
}

impl Compiled {
    /// The policy called `name`; none when it uses what only Cedar understands.
    pub fn new(policy: &Policy, name: &str) -> Option<Self> {
        let json = policy.to_json().ok()?;
        let mut holds = Expr::Bool(true);
        for (variable, at) in [
            (Expr::Principal, "principal"),
            (Expr::Action, "action"),
            (Expr::Resource, "resource"),
        ] {
            holds = and(holds, scope(variable, json.get(at)?)?);
        }
        for condition in json.get("conditions")?.as_array()? {
            let body = compile(condition.get("body")?, DEPTH)?;
            let body = match condition.get("kind")?.as_str()? {
                "when" => body,
                "unless" => Expr::Not(Box::new(body)),
                _ => return None,
            };
            holds = and(holds, body);
        }
        Some(Self {
            effect: policy.effect(),
            name: name.to_owned(),
            ends: None,
            holds,
        })
    }

    /// Whether its scope and conditions hold.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Unsure> {
        self.holds.truth(facts)
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    match (left, right) {
        (Expr::Bool(true), other) | (other, Expr::Bool(true)) => other,
        both => Expr::And(Box::new(both)),
    }
}

fn scope(variable: Expr, json: &Json) -> Option<Expr> {
    let members = json.as_object()?;
    let named = |key: &str| entity(members.get(key)?).map(Expr::Entity);
    let is_plain = |keys: &[&str]| members.keys().all(|key| keys.contains(&key.as_str()));
    let (expr, keys) = match members.get("op")?.as_str()? {
        "All" => (Expr::Bool(true), &["op"][..]),
        "==" => (
            Expr::Equal(Box::new((variable, named("entity")?))),
            &["op", "entity"][..],
        ),
        "in" if members.contains_key("entities") => {
            let all = members.get("entities")?.as_array()?;
            let all = all.iter().map(entity).collect::<Option<_>>()?;
            (
                Expr::In(Box::new((variable, Expr::Entities(all)))),
                &["op", "entities"][..],
            )
        }
        "in" => (
            Expr::In(Box::new((variable, named("entity")?))),
            &["op", "entity"][..],
        ),
        "is" => {
            let kind = members.get("entity_type")?.as_str()?.to_owned();
            (
                Expr::Is(Box::new(variable), kind),
                &["op", "entity_type"][..],
            )
        }
        _ => return None,
    };
    is_plain(keys).then_some(expr)
}

fn compile(json: &Json, depth: usize) -> Option<Expr> {
    let depth = depth.checked_sub(1)?;
    let members = json.as_object().filter(|members| members.len() == 1)?;
    let (operator, operands) = members.iter().next()?;
    let part = |name: &str| compile(operands.get(name)?, depth);
    let boxed = |name: &str| part(name).map(Box::new);
    let two = || Some(Box::new((part("left")?, part("right")?)));
    let one = || {
        let items = operands.as_array().filter(|items| items.len() == 1)?;
        compile(items.first()?, depth).map(Box::new)
    };
    let name = |key: &str| Some(operands.get(key)?.as_str()?.to_owned());
    Some(match operator.as_str() {
        "Value" => literal(operands)?,
        "Var" => match operands.as_str()? {
            "principal" => Expr::Principal,
            "action" => Expr::Action,
            "resource" => Expr::Resource,
            _ => return None,
        },
        "Set" => set(operands.as_array()?)?,
        "!" => Expr::Not(boxed("arg")?),
        "&&" => Expr::And(two()?),
        "||" => Expr::Or(two()?),
        "==" => Expr::Equal(two()?),
        "!=" => Expr::Not(Box::new(Expr::Equal(two()?))),
        "<" => Expr::Compare(Order::Less, two()?),
        "<=" => Expr::Compare(Order::LessOrEqual, two()?),
        ">" => Expr::Compare(Order::More, two()?),
        ">=" => Expr::Compare(Order::MoreOrEqual, two()?),
        "in" => Expr::In(two()?),
        "contains" => Expr::Contains(two()?),
        "containsAll" => Expr::ContainsAll(two()?),
        "containsAny" => Expr::ContainsAny(two()?),
        "isEmpty" => Expr::IsEmpty(boxed("arg")?),
        "." if is_context(operands) => Expr::Context(attribute(&name("attr")?)?),
        "has" if is_context(operands) => match attribute(&name("attr")?)? {
            Attribute::Certificate => Expr::HasCertificate,
            Attribute::Version => Expr::HasVersion,
            _ => Expr::Bool(true),
        },
        "." => Expr::Get(boxed("left")?, name("attr")?),
        "has" => Expr::Has(boxed("left")?, name("attr")?),
        "like" => Expr::Like(boxed("left")?, pattern(operands.get("pattern")?)?),
        "is" if operands.get("in").is_none() => Expr::Is(boxed("left")?, name("entity_type")?),
        "if-then-else" => Expr::If(Box::new((part("if")?, part("then")?, part("else")?))),
        "ip" => net(operands.as_array()?)?,
        "isInRange" => match operands.as_array()?.as_slice() {
            [address, range] => {
                Expr::InRange(Box::new((compile(address, depth)?, compile(range, depth)?)))
            }
            _ => return None,
        },
        "isIpv4" => Expr::AddressIs(one()?, Kind::V4),
        "isIpv6" => Expr::AddressIs(one()?, Kind::V6),
        "isLoopback" => Expr::AddressIs(one()?, Kind::Loopback),
        "isMulticast" => Expr::AddressIs(one()?, Kind::Multicast),
        _ => return None,
    })
}

fn is_context(operands: &Json) -> bool {
    let variable = operands.get("left").and_then(|left| left.get("Var"));
    variable.and_then(Json::as_str) == Some("context")
}

fn attribute(name: &str) -> Option<Attribute> {
    Some(match name {
        "method" => Attribute::Method,
        "path" => Attribute::Path,
        "host" => Attribute::Host,
        "scheme" => Attribute::Scheme,
        "sourceIp" => Attribute::SourceIp,
        "listener" => Attribute::Listener,
        "certificate" => Attribute::Certificate,
        "version" => Attribute::Version,
        "posture" => Attribute::Posture,
        _ => return None,
    })
}

fn literal(json: &Json) -> Option<Expr> {
    Some(match json {
        Json::Bool(truth) => Expr::Bool(*truth),
        Json::String(text) => Expr::Text(text.clone()),
        Json::Number(number) => Expr::Long(number.as_i64()?),
        Json::Object(_) => Expr::Entity(entity(json)?),
        _ => return None,
    })
}

fn entity(json: &Json) -> Option<Named> {
    let members = json.get("__entity").unwrap_or(json).as_object()?;
    let text = |key: &str| Some(members.get(key)?.as_str()?.to_owned());
    (members.len() == 2).then_some(Named {
        kind: text("type")?,
        id: text("id")?,
    })
}

/// A set of texts, or of entities. Of an empty one nothing tells which it is.
fn set(items: &[Json]) -> Option<Expr> {
    let values = || items.iter().map(|item| item.get("Value"));
    if matches!(values().next()??, Json::String(_)) {
        let texts = values().map(|value| value?.as_str().map(str::to_owned));
        return texts.collect::<Option<_>>().map(Expr::Texts);
    }
    let entities = values().map(|value| entity(value?));
    entities.collect::<Option<_>>().map(Expr::Entities)
}

/// The parts of a pattern; texts that touch are one, so that [`is_like`] need not go back.
fn pattern(json: &Json) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    for part in json.as_array()? {
        if part.as_str() == Some("Wildcard") {
            parts.push(Part::Any);
            continue;
        }
        let text = part.as_object().filter(|it| it.len() == 1)?;
        let text = text.get("Literal")?.as_str()?;
        match parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ => parts.push(Part::Text(text.to_owned())),
        }
    }
    Some(parts)
}

fn net(operands: &[Json]) -> Option<Expr> {
    let [text] = operands else {
        return None;
    };
    let text = text.get("Value")?.as_str()?;
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        // Cedar takes digits only, and no leading zero.
        Some(digits) if digits.starts_with('0') && digits.len() > 1 => return None,
        Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return None,
        Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= most)?,
        None => most,
    };
    Some(Expr::Net(Net { address, prefix }))
}

impl Expr {
    fn truth(&self, facts: &Facts<'_>) -> Result<bool, Unsure> {
        match self.value(facts)? {
            Value::Bool(truth) => Ok(truth),
            _ => Err(Unsure),
        }
    }

    fn value<'a>(&'a self, facts: &Facts<'a>) -> Result<Value<'a>, Unsure> {
        Ok(match self {
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Long(number) => Value::Long(*number),
            Self::Text(text) => Value::Text(text),
            Self::Texts(texts) => Value::Texts(texts),
            Self::Net(net) => Value::Net(*net),
            Self::Entity(named) => Value::Entity(Entity::Named(named)),
            Self::Entities(named) => Value::Entities(named),
            Self::Principal => Value::Entity(principal(facts.caller)),
            Self::Action => Value::Entity(Entity::Action(facts.resource.0)),
            Self::Resource => {
                let (kind, name) = facts.resource;
                Value::Entity(Entity::Resource(kind, name))
            }
            Self::Context(attribute) => of_request(*attribute, facts.attributes)?,
            Self::Get(of, name) => of.entity(facts)?.get(name)?,
            _ => Value::Bool(self.judge(facts)?),
        })
    }

    /// The operators whose result is true or false.
    fn judge(&self, facts: &Facts<'_>) -> Result<bool, Unsure> {
        match self {
            Self::HasCertificate => Ok(facts.attributes.certificate.is_some()),
            Self::HasVersion => Ok(facts.attributes.version.is_some()),
            Self::Has(of, name) => of.entity(facts)?.has(name),
            Self::Not(operand) => Ok(!operand.truth(facts)?),
            Self::And(two) => Ok(two.0.truth(facts)? && two.1.truth(facts)?),
            Self::Or(two) => Ok(two.0.truth(facts)? || two.1.truth(facts)?),
            Self::If(three) => match three.0.truth(facts)? {
                true => three.1.truth(facts),
                false => three.2.truth(facts),
            },
            Self::Equal(two) => two.0.value(facts)?.equals(&two.1.value(facts)?),
            Self::In(two) => {
                let entity = two.0.entity(facts)?;
                // Nothing here has parents: to be in something is to be it.
                match two.1.value(facts)? {
                    Value::Entity(other) => Ok(entity.is(&other)),
                    Value::Entities(all) => {
                        Ok(all.iter().any(|other| entity.is(&Entity::Named(other))))
                    }
                    _ => Err(Unsure),
                }
            }
            Self::Contains(two) => match (two.0.value(facts)?, two.1.value(facts)?) {
                (Value::Texts(all), Value::Text(one)) => Ok(all.iter().any(|text| text == one)),
                (Value::Entities(all), Value::Entity(one)) => {
                    Ok(all.iter().any(|named| one.is(&Entity::Named(named))))
                }
                _ => Err(Unsure),
            },
            Self::ContainsAll(two) => {
                let (all, some) = (two.0.texts(facts)?, two.1.texts(facts)?);
                Ok(some.iter().all(|text| all.contains(text)))
            }
            Self::ContainsAny(two) => {
                let (all, some) = (two.0.texts(facts)?, two.1.texts(facts)?);
                Ok(some.iter().any(|text| all.contains(text)))
            }
            Self::IsEmpty(set) => Ok(set.texts(facts)?.is_empty()),
            Self::Compare(order, two) => {
                let (one, other) = (two.0.long(facts)?, two.1.long(facts)?);
                Ok(match order {
                    Order::Less => one < other,
                    Order::LessOrEqual => one <= other,
                    Order::More => one > other,
                    Order::MoreOrEqual => one >= other,
                })
            }
            Self::Like(operand, pattern) => match operand.value(facts)? {
                Value::Text(text) => Ok(is_like(text, pattern)),
                _ => Err(Unsure),
            },
            Self::Is(operand, kind) => Ok(operand.entity(facts)?.kind() == kind),
            Self::InRange(two) => Ok(two.0.net(facts)?.is_in(two.1.net(facts)?)),
            Self::AddressIs(operand, kind) => Ok(operand.net(facts)?.is(*kind)),
            _ => Err(Unsure),
        }
    }

    fn entity<'a>(&'a self, facts: &Facts<'a>) -> Result<Entity<'a>, Unsure> {
        match self.value(facts)? {
            Value::Entity(entity) => Ok(entity),
            _ => Err(Unsure),
        }
    }

    fn texts<'a>(&'a self, facts: &Facts<'a>) -> Result<&'a [String], Unsure> {
        match self.value(facts)? {
            Value::Texts(texts) => Ok(texts),
            _ => Err(Unsure),
        }
    }

    fn long(&self, facts: &Facts<'_>) -> Result<i64, Unsure> {
        match self.value(facts)? {
            Value::Long(number) => Ok(number),
            _ => Err(Unsure),
        }
    }

    fn net(&self, facts: &Facts<'_>) -> Result<Net, Unsure> {
        match self.value(facts)? {
            Value::Net(net) => Ok(net),
            _ => Err(Unsure),
        }
    }
}

fn principal(caller: Option<&Caller>) -> Entity<'_> {
    match caller.map(|caller| (caller, &caller.proof)) {
        None => Entity::Nobody,
        Some((caller, Proof::Token(token))) => Entity::Subject(&caller.principal, token),
        Some((_, Proof::Certificate(workload))) => Entity::Workload(workload),
        Some((_, Proof::Function(name))) => Entity::Resource(ResourceKind::Function, name),
    }
}

fn of_request<'a>(attribute: Attribute, attributes: &Attributes<'a>) -> Result<Value<'a>, Unsure> {
    Ok(match attribute {
        Attribute::Method => Value::Text(attributes.method),
        Attribute::Path => Value::Text(attributes.path),
        Attribute::Host => Value::Text(attributes.host),
        Attribute::Scheme => Value::Text(attributes.scheme),
        Attribute::Listener => Value::Text(attributes.listener),
        Attribute::SourceIp => {
            let address: IpAddr = attributes.source_ip.parse().map_err(|_| Unsure)?;
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            Value::Net(Net { address, prefix })
        }
        Attribute::Version => Value::Long(attributes.version.ok_or(Unsure)?.number),
        Attribute::Posture => Value::Texts(attributes.posture.map_or(&[], |facts| &facts.names)),
        Attribute::Certificate => {
            Value::Entity(Entity::Workload(attributes.certificate.ok_or(Unsure)?))
        }
    })
}

impl<'a> Value<'a> {
    fn equals(&self, other: &Value<'a>) -> Result<bool, Unsure> {
        match (self, other) {
            (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
            (Value::Long(one), Value::Long(other)) => Ok(one == other),
            (Value::Text(one), Value::Text(other)) => Ok(one == other),
            (Value::Entity(one), Value::Entity(other)) => Ok(one.is(other)),
            _ => Err(Unsure),
        }
    }
}

impl<'a> Entity<'a> {
    fn kind(&self) -> &'a str {
        match self {
            Self::Nobody => "Anonymous",
            Self::Subject(..) => "Subject",
            Self::Workload(_) => "Workload",
            Self::Resource(kind, _) => kind.type_name(),
            Self::Action(_) => "Action",
            Self::Named(named) => &named.kind,
        }
    }

    fn id(&self) -> Cow<'a, str> {
        match self {
            Self::Nobody => "anonymous".into(),
            Self::Subject(principal, _) => (*principal).into(),
            Self::Workload(workload) => workload.principal().into(),
            Self::Resource(_, name) => (*name).into(),
            Self::Action(kind) => kind.action().into(),
            Self::Named(named) => named.id.as_str().into(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.id() == other.id()
    }

    fn get(&self, name: &str) -> Result<Value<'a>, Unsure> {
        let text = match (self, name) {
            (Self::Subject(_, token), "issuer") => token.issuer.as_str(),
            (Self::Subject(_, token), "subject") => token.subject.as_str(),
            (Self::Subject(_, token), "audiences") => return Ok(Value::Texts(&token.audiences)),
            (Self::Subject(_, token), "scopes") => return Ok(Value::Texts(&token.scopes)),
            (Self::Workload(it), "authority") => &it.authority,
            (Self::Workload(it), "subject") => &it.subject,
            (Self::Workload(it), "serial") => &it.serial,
            (Self::Workload(it), "fingerprint") => &it.fingerprint,
            (Self::Workload(it), "spiffeId") => it.spiffe_id.as_deref().ok_or(Unsure)?,
            (Self::Resource(_, resource), "name") => resource,
            _ => return Err(Unsure),
        };
        Ok(Value::Text(text))
    }

    fn has(&self, name: &str) -> Result<bool, Unsure> {
        match self {
            // Whether Cedar knows anything of it depends on what else is in the question.
            Self::Named(_) | Self::Action(_) => Err(Unsure),
            _ => Ok(self.get(name).is_ok()),
        }
    }
}

impl Net {
    /// Cedar: the range of the one lies within that of the other.
    fn is_in(self, range: Self) -> bool {
        let within = |one: u128, other: u128, width: u32| {
            let left = width - u32::from(range.prefix);
            let same = one.checked_shr(left).unwrap_or(0) == other.checked_shr(left).unwrap_or(0);
            self.prefix >= range.prefix && same
        };
        match (self.address, range.address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                within(one.to_bits().into(), other.to_bits().into(), 32)
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => within(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }

    /// Of a range, all of it.
    fn is(self, kind: Kind) -> bool {
        let (loopback, multicast) = match self.address {
            IpAddr::V4(_) => (8, 4),
            IpAddr::V6(_) => (128, 8),
        };
        match kind {
            Kind::V4 => self.address.is_ipv4(),
            Kind::V6 => self.address.is_ipv6(),
            Kind::Loopback => self.address.is_loopback() && self.prefix >= loopback,
            Kind::Multicast => self.address.is_multicast() && self.prefix >= multicast,
        }
    }
}

/// Whether `text` is what the pattern describes, all of it. Each text is looked for once from where
/// the one before it ended: nothing is gained by matching later, so there is no going back.
fn is_like(text: &str, pattern: &[Part]) -> bool {
    let mut rest = text;
    let mut floats = false;
    for (at, part) in pattern.iter().enumerate() {
        let Part::Text(wanted) = part else {
            floats = true;
            continue;
        };
        let is_last = at + 1 == pattern.len();
        rest = match (floats, is_last) {
            (false, _) => match rest.strip_prefix(wanted.as_str()) {
                Some(rest) => rest,
                None => return false,
            },
            (true, true) => return rest.ends_with(wanted.as_str()),
            (true, false) => match rest.find(wanted.as_str()) {
                Some(found) => rest.get(found + wanted.len()..).unwrap_or_default(),
                None => return false,
            },
        };
        floats = false;
    }
    floats || rest.is_empty()
}

#[cfg(test)]
#[path = "compiled_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
