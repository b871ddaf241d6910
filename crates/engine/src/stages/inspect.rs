//! Inspect: the firewall, over target, header fields and body. Who answers gets what was judged.
//!
//! A body of names and values is kept back until all of it was judged; what is opaque flows on. The
//! way back is inspected where the route's policy asks for it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use http_body_util::BodyExt;

use crate::body::{BodyMeter, Content, LimitedBody, Unread};
use crate::models::Served;
use crate::node::Node;
use crate::plan::{Backend, Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::authorize::Permitted;
use crate::stages::predict::INFERENCE_HEADER;
use crate::waf::{self, Acquaintance, BodyKind, Judgement, Ruling};

/// Bytes of bodies that the node keeps back at most, all requests together; beyond: 503.
pub const KEPT_BACK: usize = 256 << 20;

/// A request that the rules let pass, and its body.
pub struct Inspected {
    permitted: Permitted,
    body: Unread,
}

/// What of a judgement is left to do: the answer, where the route has it judged.
pub struct Inspection<'p>(Option<Box<Ongoing<'p>>>);

struct Ongoing<'p> {
    judgement: Judgement<'p>,
    user_agent: Option<HeaderValue>,
    query: Option<Box<str>>,
}

impl Inspected {
    /// The request, and its body.
    pub fn into_inner(self) -> (Permitted, Unread) {
        (self.permitted, self.body)
    }
}

/// Judges a request. What it was judged to be is concluded by [`answer`] or by [`Inspection::end`].
pub async fn inspect<'p>(
    node: &Node,
    plan: &Plan,
    target: &'p Target,
    record: &mut Record,
    permitted: Permitted,
    mut body: Unread,
) -> Result<(Inspected, Inspection<'p>), Refusal> {
    let Some(policy) = &target.waf else {
        return Ok((Inspected { permitted, body }, Inspection(None)));
    };
    let admitted = permitted.admitted();
    let headers = &admitted.parts().headers;
    // The messages of calls are tensors.
    if !body.is_end_stream() && permitted.call().is_none() {
        require_judged(target, headers)?;
    }
    let kind = match body.is_end_stream() {
        true => BodyKind::Opaque,
        false => kind_for(target, headers),
    };
    let most = policy.body.of(kind);
    let acquaintance = match most {
        0 => waf::acquaintance(plan.serial, policy, record, admitted),
        _ => Acquaintance::Never,
    };
    if let Acquaintance::Known = acquaintance {
        record.is_known = true;
        return Ok((Inspected { permitted, body }, Inspection(None)));
    }
    let (mut judgement, ruling) = Judgement::begin(policy, record, admitted)?;
    if let Acquaintance::New(plan, likeness) = acquaintance {
        judgement.known_by(plan, likeness);
    }
    let mut ongoing = Box::new(Ongoing {
        judgement,
        user_agent: headers.get(USER_AGENT).cloned(),
        query: admitted.parts().uri.query().map(Box::from),
    });
    if let Ruling::Refuse(cause) = ruling {
        return Err(ongoing.refuse(record, cause.into()));
    }
    if most > 0 {
        let rejects = policy.body.rejects;
        if rejects && declared_length(headers).is_some_and(|length| length > most as u64) {
            return Err(ongoing.refuse(record, Cause::BodyBeyondInspection.into()));
        }
        let pace = plan.admit.limits.timers.body_bytes_per_second;
        match Box::pin(keep_back(node, record, &mut body, most, pace)).await {
            Ok(false) if rejects => {
                return Err(ongoing.refuse(record, Cause::BodyBeyondInspection.into()));
            }
            Ok(true) => {}
            Ok(false) => ongoing.judgement.cut_off(),
            Err(refusal) => return Err(ongoing.refuse(record, refusal)),
        }
    }
    // What was kept back to find out where a call leads is not for the rules.
    let kept = (most > 0).then(|| body.kept()).into_iter().flatten();
    if let Ruling::Refuse(cause) = ongoing.judgement.body(kept)? {
        return Err(ongoing.refuse(record, cause.into()));
    }
    let inspected = Inspected { permitted, body };
    if policy.response.is_some() {
        return Ok((inspected, Inspection(Some(ongoing))));
    }
    // There is nothing left to judge, and an answer can take its time.
    ongoing.end(record);
    Ok((inspected, Inspection(None)))
}

/// Judges the answer where the route asks for it, and concludes.
pub async fn answer(
    record: &Record,
    inspection: Inspection<'_>,
    response: Response<Content>,
) -> Result<Response<Content>, Refusal> {
    let Some(mut ongoing) = inspection.0 else {
        return Ok(response);
    };
    let answers = ongoing.judgement.policy().response.as_ref();
    let Some(answers) = answers.filter(|it| it.includes(response.headers())) else {
        ongoing.end(record);
        return Ok(response);
    };
    let most = answers.most;
    if let Ruling::Refuse(cause) = ongoing.judgement.answer(&response)? {
        return Err(ongoing.refuse(record, cause.into()));
    }
    let (parts, content) = response.into_parts();
    let (content, seen) = Box::pin(content.keep_back(most)).await?;
    if let Ruling::Refuse(cause) = ongoing.judgement.answer_body(&seen)? {
        return Err(ongoing.refuse(record, cause.into()));
    }
    ongoing.end(record);
    Ok(Response::from_parts(parts, content))
}

impl Inspection<'_> {
    /// Concludes without a further look.
    pub fn end(self, record: &Record) {
        if let Some(ongoing) = self.0 {
            ongoing.end(record);
        }
    }
}

impl Ongoing<'_> {
    fn end(self, record: &Record) {
        let user_agent = self.user_agent.as_ref().map(HeaderValue::as_bytes);
        let query = self.query.as_deref();
        self.judgement.conclude(record, user_agent, query);
    }

    fn refuse(self, record: &Record, refusal: Refusal) -> Refusal {
        self.end(record);
        refusal
    }
}

/// The kind of body that whoever answers reads. A model that takes text reads it in JSON, or as the body
/// itself, whatever stands before it; what comes as tensors, to this one or another, holds nothing that a rule knows.
pub fn kind_for(target: &Target, headers: &HeaderMap) -> BodyKind {
    let is_read = match &target.backend {
        Backend::Function(_) | Backend::Upstream(_) => true,
        Backend::Model(model, _) => {
            let has_tensors = headers.contains_key(INFERENCE_HEADER);
            (model.takes_text() && !has_tensors) || (model.reads_text() && waf::is_text(headers))
        }
        Backend::Static(_)
        | Backend::Redirect(_)
        | Backend::Files(_)
        | Backend::Inference(_)
        | Backend::Calls => false,
    };
    if is_read {
        kind_of(headers)
    } else {
        BodyKind::Opaque
    }
}

/// A model that takes text reads JSON, whatever its sender calls it; the rules take apart what is called so.
fn require_judged(target: &Target, headers: &HeaderMap) -> Result<(), Refusal> {
    let takes_text = target.model().is_some_and(Served::takes_text);
    if !takes_text || headers.contains_key(INFERENCE_HEADER) || waf::is_json(headers) {
        return Ok(());
    }
    let what = "text for a model comes as JSON";
    Err(Refusal::with(Cause::BodyMalformed, what))
}

/// What is encoded cannot be looked into: the Core Rule Set refuses it (920450), and where a route
/// has excluded that rule, it flows on.
fn kind_of(headers: &HeaderMap) -> BodyKind {
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !identity(coding) => BodyKind::Opaque,
        _ => BodyKind::of(headers),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Keeps back `most` bytes of the body, and says whether that is all of it.
async fn keep_back(
    node: &Node,
    record: &mut Record,
    body: &mut Unread,
    most: usize,
    pace: u64,
) -> Result<bool, Refusal> {
    let meter = Arc::new(BodyMeter::default());
    record.bytes_in = Some(Arc::clone(&meter));
    let whole = std::mem::take(body);
    let mut reading = LimitedBody::new(whole, u64::MAX, pace, Arc::clone(&meter));
    let (mut kept, mut room, mut size) = (VecDeque::new(), node.kept_back.room(), 0);
    while size <= most {
        match reading.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let more = frame.data_ref().map_or(0, Bytes::len);
                if !room.grow(more, KEPT_BACK) {
                    return Err(Refusal::with(Cause::Overloaded, "too much is kept back"));
                }
                size += more;
                kept.push_back(frame);
            }
            Some(Err(error)) => {
                let cause = meter.cut_off().unwrap_or(Cause::RequestBroken);
                return Err(Refusal::with(cause, error.to_string()));
            }
        }
    }
    *body = reading.into_inner();
    body.put_back(kept, room);
    Ok(size <= most)
}
