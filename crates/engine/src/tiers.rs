//! Tiers: who answers in place of a model of this node, and what they are told.
//!
//! Owns: from their shape in the snapshot to one call of one tier, out through egress. What is said there counts as
//! somebody else's word: it is bounded, read and written anew. Must not: decide when a tier is asked, which
//! [`crate::stages::escalate`] does; connect by itself.

mod elements;
pub mod leaves;
pub mod message;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT, VIA};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use vedette_upstream::{Denied, EgressRule, EgressRules, SendOptions, SpiffeConfig, UpstreamBody};

use crate::egress::{CallRecord, Egress, Subject, Ways, cause_of, cause_of_failure, rule_of};
use crate::load::{EngineDir, LoadError};
use crate::snapshot::{self, EgressPolicy, TierOn};
use crate::stages::predict::{DEADLINE, INFERENCE_HEADER};
use crate::trace::Ids;
use leaves::{INVALID, Message};

/// What a request to a tier says in `via` (RFC 9110 §7.6.3), so that tiers that lead to one another find an end.
pub const PSEUDONYM: &str = "vedette-tier";
/// The largest answer of a tier that is taken.
const LARGEST: usize = 16 << 20;
/// Longest pause between two parts of an answer.
const BODY_IDLE: Duration = Duration::from_secs(10);
const TRACEPARENT: &str = "traceparent";
/// The name by which the node proves itself, as to its services.
const GATEWAY: &str = "gateway";

/// The tiers of a route.
pub struct Tiers {
    /// In the order in which they are asked.
    pub tiers: Vec<Tier>,
    /// How sure an answer has to be.
    pub confidence: Option<snapshot::Confidence>,
}

/// A remote endpoint of the Open Inference Protocol.
pub struct Tier {
    /// What it is and is told.
    pub declared: snapshot::Tier,
    /// Its name, as records have it.
    pub name: Arc<str>,
    egress: Arc<Egress>,
}

/// Somebody who was asked, and why it was not their answer that counted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tried {
    /// The tier.
    pub tier: Arc<str>,
    /// Why its answer did not count; none: it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
}

/// What one call needs to know of its request.
pub struct Asking<'a> {
    /// The route it is for.
    pub route: &'a Arc<str>,
    /// Its ids: the trace goes on, the request's id is for the record.
    pub ids: &'a Ids,
    /// `/infer`, and the version before it where the caller named one.
    pub below: &'a str,
    /// What its body is.
    pub content_type: HeaderValue,
    /// What `via` says: what it said when the request came, and us.
    pub via: HeaderValue,
    /// How long it is waited for.
    pub time: Duration,
}

/// What routes with tiers are compiled from.
#[derive(Clone, Copy)]
pub struct Leaving<'a> {
    /// What may leave.
    pub policies: &'a [EgressPolicy],
    /// Identities that are believed no more.
    pub is_revoked: &'a dyn Fn(&str) -> bool,
    /// What control wrote.
    pub dir: &'a EngineDir,
}

impl Tiers {
    /// The tiers of a route. One that is as it was in `previous` stays, with its connections and its breaker.
    ///
    /// # Errors
    /// Where no rule allows a tier; says which would.
    pub fn compile(
        route: &snapshot::Route,
        leaving: Leaving<'_>,
        previous: Option<&Self>,
    ) -> Result<Option<Arc<Self>>, LoadError> {
        let Some(declared) = &route.tiers else {
            return Ok(None);
        };
        let rules = rules_for(route, leaving)?;
        let tiers = declared.iter().map(|tier| {
            require_allowed(route, tier, &rules)?;
            let known = previous.iter().flat_map(|it| &it.tiers);
            Tier::new(tier, rules.clone(), known)
        });
        Ok(Some(Arc::new(Self {
            tiers: tiers.collect::<Result<_, LoadError>>()?,
            confidence: route.confidence.clone(),
        })))
    }
}

/// The rules of policies that are for this route. One that adds a function's own token is no rule for a tier.
fn rules_for(route: &snapshot::Route, leaving: Leaving<'_>) -> Result<Vec<EgressRule>, LoadError> {
    let is_for = |policy: &&EgressPolicy| {
        let mut routes = policy.routes.iter().flatten();
        routes.any(|it| *it == route.name)
    };
    let declared = leaving.policies.iter().filter(is_for);
    let declared = declared.flat_map(|policy| &policy.rules).filter(|rule| {
        let credential = rule.credential.as_ref();
        credential.is_none_or(|it| it.jwt_svid.is_none())
    });
    let rules = declared.map(|declared| {
        let plain = snapshot::EgressRule {
            peers: Vec::new(),
            ..declared.clone()
        };
        let mut rule = rule_of(&plain, leaving.dir, None)?;
        // Where the rule says nothing: a tier that is gone is not to cost each request its patience.
        rule.breaker.get_or_insert_default();
        if !declared.peers.is_empty() {
            let peers = declared.peers.iter();
            rule.spiffe = Some(SpiffeConfig {
                peers: peers
                    .filter(|it| !(leaving.is_revoked)(it))
                    .cloned()
                    .collect(),
                identity: leaving.dir.svids().identity(GATEWAY, None),
            });
        }
        Ok(rule)
    });
    rules.collect()
}

/// That a rule allows what the tier needs.
fn require_allowed(
    route: &snapshot::Route,
    tier: &snapshot::Tier,
    rules: &[EgressRule],
) -> Result<(), LoadError> {
    let refused = |why: &str| {
        let (route, name) = (&route.name, &tier.name);
        LoadError::new("route_invalid", format!("{route}: the tier {name}: {why}"))
    };
    if !is_segment(&tier.model) {
        return Err(refused("the name of its model is none"));
    }
    let uri: Uri = tier.url.parse().map_err(|_| refused("its URL is none"))?;
    // Not the rules that calls are counted by.
    let rules = EgressRules::compile(rules.to_vec()).map_err(|error| refused(&error.0))?;
    match rules.call(&uri, &Method::POST) {
        Ok(_) | Err(Denied::Rate(_) | Denied::Token) => Ok(()),
        Err(Denied::Destination(None)) => Err(refused("its URL is none")),
        Err(Denied::Destination(Some(rule)) | Denied::Method(rule)) => {
            let name = &route.name;
            let needed = format!("{{to: {rule:?}, methods: [POST]}}");
            let why = "no rule of an EgressPolicy for this route allows it";
            Err(refused(&format!(
                "{why}; `routes: [{name}], allow: [{needed}]` would"
            )))
        }
    }
}

impl Tier {
    fn new<'p>(
        declared: &snapshot::Tier,
        rules: Vec<EgressRule>,
        mut known: impl Iterator<Item = &'p Self>,
    ) -> Result<Self, LoadError> {
        let name: Arc<str> = declared.name.as_str().into();
        let rules = EgressRules::compile(rules);
        let ways = Ways {
            always: rules.map_err(|error| LoadError::new("egress_invalid", error.0))?,
            ..Ways::default()
        };
        let same = known.find(|it| it.name == name && it.egress.ways == ways);
        let egress = match same {
            Some(same) => Arc::clone(&same.egress),
            None => Egress::new(Subject::Tier(Arc::clone(&name)), ways),
        };
        Ok(Self {
            declared: declared.clone(),
            name,
            egress,
        })
    }

    /// Whether calls to it are left out for now, since those before went wrong.
    pub fn is_left_alone(&self) -> bool {
        self.egress.is_left_alone()
    }

    /// Whether it is asked for this reason.
    pub fn is_for(&self, reason: TierOn) -> bool {
        self.declared.on.contains(&reason)
    }

    /// Asks it, and records that. What it says is an answer of the protocol by its head alone.
    ///
    /// # Errors
    /// The word for the record.
    pub async fn ask(&self, asking: Asking<'_>, message: Message) -> Result<Message, &'static str> {
        let target = format!(
            "{}/v2/models/{}{}",
            self.declared.url,
            segment(&self.declared.model),
            asking.below
        );
        let uri: Uri = target.parse().map_err(|_| INVALID)?;
        let name = Arc::clone(&self.name);
        let mut record = CallRecord::of_tier(name, asking.route, &asking.ids.request, &uri);
        let size = message.body.len() as u64;
        let allowed = match self.egress.rules().call(&uri, &Method::POST) {
            Ok(allowed) => allowed,
            Err(denied) => {
                record.needs(&denied);
                record.fail(cause_of(&denied));
                return Err(cause_of(&denied));
            }
        };
        let options = SendOptions {
            timeout: Some(asking.time),
            body_idle: Some(BODY_IDLE),
            ..SendOptions::default()
        };
        let request = request_of(uri, &asking, message);
        let sent = self.egress.send(allowed, request, &options).await;
        let response = sent.map_err(|error| {
            record.fail(cause_of_failure(&error));
            cause_of_failure(&error)
        })?;
        record.count(size, 0);
        record.answered(response.status());
        let (parts, body) = response.into_parts();
        let read = match parts.status {
            StatusCode::OK => whole(&parts.headers, body).await,
            status if status.is_client_error() => Err("tier_refused"),
            _ => Err("tier_failed"),
        };
        match &read {
            Ok(body) => {
                record.count(size, body.len() as u64);
                record.done();
            }
            // That it said no is an answer, as far as the call goes.
            Err("tier_refused" | "tier_failed") => record.done(),
            Err(cause) => record.fail(cause),
        }
        let json_length = json_length(&parts.headers).map_err(|()| INVALID)?;
        Ok(Message {
            body: read?,
            json_length,
        })
    }
}

/// A name as a segment of a path (RFC 3986 §3.3): what a segment says as it is stays, anything else is escaped.
fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

/// Whether a name is one that a segment carries, and every server reads alike.
fn is_segment(name: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"/\\%?#".contains(&byte);
    !name.starts_with('.') && (1..=256).contains(&name.len()) && name.bytes().all(is_plain)
}

fn request_of(uri: Uri, asking: &Asking<'_>, message: Message) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message.body));
    *request.uri_mut() = uri;
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, asking.content_type.clone());
    // The node's own: the Core Rule Set scores requests that say neither (920300, 920320).
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static("vedette"));
    if let Some(length) = message.json_length {
        headers.insert(INFERENCE_HEADER, length.into());
    }
    let millis = u64::try_from(asking.time.as_millis()).unwrap_or(u64::MAX);
    headers.insert(DEADLINE, millis.max(1).into());
    headers.insert(TRACEPARENT, asking.ids.traceparent.clone());
    headers.insert(VIA, asking.via.clone());
    request
}

/// All of an answer.
async fn whole(headers: &HeaderMap, mut body: UpstreamBody) -> Result<Bytes, &'static str> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    let declared = declared.and_then(|it| it.parse::<usize>().ok());
    if declared.is_some_and(|it| it > LARGEST) {
        return Err("tier_too_large");
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.word())?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if read.len() + data.len() > LARGEST {
            return Err("tier_too_large");
        }
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
}

/// How much of a body is JSON, where tensors follow.
///
/// # Errors
/// It says something else.
pub fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ()> {
    let Some(value) = headers.get(INFERENCE_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| ())?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.map(Some).ok_or(())
}

#[cfg(test)]
#[path = "tiers/tiers_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
