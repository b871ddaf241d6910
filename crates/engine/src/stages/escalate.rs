//! Escalate: where a request of a model is answered, if not by the model here: from what is remembered, or by a tier.
//!
//! Owns: why a request goes on, in which order, within which time, and which answer counts in the end. Must not: read a
//! message; [`crate::tiers`] does. Who may ask was decided before, for what is remembered as well.

pub mod elsewhere;
mod kept;
mod sureness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, CONTENT_ENCODING, CONTENT_TYPE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use vedette_wasm::RequestBody;

use crate::body::Content;
use crate::models::{self, Served, answer::LOADING};
use crate::node::Node;
use crate::plan::Target;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::remembered::{Key, Remembered, Whole};
use crate::snapshot::TierOn;
use crate::stages::admit::Admitted;
use crate::stages::predict::{Asking, INFERENCE_HEADER, path_of, predict, time_left};
use crate::tiers::leaves::{self, INVALID, Message};
use crate::tiers::message::{Answer, Question};
use crate::tiers::{self, PSEUDONYM, Tier, Tiers, Tried, json_length};
use kept::{Kept, keep};
use sureness::{MOST_READ, Sureness, sureness, sureness_of};

/// Which tier gave the answer.
const TIER: HeaderName = HeaderName::from_static("x-vedette-tier");
/// Whether it was remembered.
const CACHE: HeaderName = HeaderName::from_static("x-vedette-cache");
/// How many tiers a request may have come through.
const MOST_HOPS: usize = 2;
/// Bytes that are no tensors, by their type.
const MEDIA: [&str; 4] = ["image/jpeg", "image/png", "audio/wav", "text/plain"];
/// Why a tier was not asked.
const UNREADABLE: &str = "request_unreadable";
const TOO_MANY_HOPS: &str = "too_many_hops";
const NO_TIME: &str = "no_time";

type Outcome = Result<Response<Content>, Refusal>;

/// A request of the model that can be asked again.
struct Asked<'a> {
    target: &'a Target,
    model: &'a Served,
    headers: HeaderMap,
    /// `/infer`, and the version before it where the caller named one.
    below: String,
    /// Until when it is waited for.
    ends: Option<Instant>,
    kept: Kept,
}

/// Has a model answer, or who else may.
pub async fn answer(
    node: &Node,
    record: &mut Record,
    target: &Target,
    asking: Asking<'_>,
    admitted: Admitted,
    body: RequestBody,
) -> Outcome {
    let model = asking.model;
    if model.process.is_none() {
        return elsewhere::answer(node, record, target, &asking, (admitted, body)).await;
    }
    let is_more = target.tiers.is_some() || target.remembered.is_some();
    let below = is_more.then(|| inference_of(target, model, &admitted));
    let Some(below) = below.flatten() else {
        return Box::pin(predict(record, target, asking, admitted, body)).await;
    };
    let left = time_left(record, &admitted, asking.terms.timeout)?;
    let ends = left.map(|left| Instant::now() + left);
    let kept = match keep(node, record, body).await? {
        Ok(kept) => kept,
        // Too large to be sent twice, and to be known again.
        Err(body) => return Box::pin(predict(record, target, asking, admitted, body)).await,
    };
    let asked = Asked {
        target,
        model,
        headers: admitted.parts().headers.clone(),
        below,
        ends,
        kept,
    };
    let memory = asked.memory(record);
    if let Some((remembered, key)) = &memory {
        let found = remembered.find(key, Instant::now());
        record.is_cached = Some(found.is_some());
        if let Some((whole, age)) = found {
            return Ok(again(whole, age));
        }
    }
    let body = asked.kept.body();
    let here = Box::pin(predict(record, target, asking, admitted, body)).await;
    let (here, reason) = asked.judge(here).await;
    let answered = match (&target.tiers, reason) {
        (Some(tiers), Some(reason)) => asked.climb(record, tiers, here, reason).await,
        _ => match (memory, here) {
            (Some((remembered, key)), Ok(response)) => remember(remembered, key, response).await,
            (_, here) => here,
        },
    };
    answered.map(|response| marked(record, response))
}

/// What follows the model's name, where this is an inference.
fn inference_of(target: &Target, model: &Served, admitted: &Admitted) -> Option<String> {
    let path = path_of(target, model, admitted);
    let below = path.strip_prefix("/v2/models/")?;
    let below = below.strip_prefix(model.declared.name.as_str())?;
    let version = below.strip_suffix("/infer")?;
    let is_version = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let is_inference = match version.strip_prefix("/versions/") {
        Some(version) => is_version(version),
        None => version.is_empty(),
    };
    let is_inference = is_inference && admitted.parts().method == Method::POST;
    is_inference.then(|| below.to_owned())
}

impl Asked<'_> {
    /// What the route remembers, and under which key this request is known.
    fn memory(&self, record: &Record) -> Option<(Arc<Remembered>, Key)> {
        let remembered = Arc::clone(self.target.remembered.as_ref()?);
        let principal = record.principal.as_deref();
        let key = remembered.key(principal, &self.below, &self.headers, &self.kept.bytes);
        Some((remembered, key))
    }

    /// The answer of the model here, and why it does not count, where that is so.
    async fn judge(&self, here: Outcome) -> (Outcome, Option<TierOn>) {
        let confidence = self
            .target
            .tiers
            .as_ref()
            .and_then(|it| it.confidence.as_ref());
        let response = match here {
            Err(refusal) => {
                let reason = reason_of(&refusal);
                return (Err(refusal), reason);
            }
            Ok(response) => response,
        };
        let Some(confidence) = confidence else {
            return (Ok(response), None);
        };
        let (parts, content) = response.into_parts();
        let (content, seen) = match content.keep_back(MOST_READ + 1).await {
            Ok(kept) => kept,
            Err(refusal) => {
                let reason = reason_of(&refusal);
                return (Err(refusal), reason);
            }
        };
        let length = json_length(&parts.headers).ok();
        let read = length.filter(|_| seen.len() <= MOST_READ);
        let answer = read.and_then(|length| Answer::read(&seen, length));
        let reason = answer
            .filter(|it| sureness(it, confidence) != Sureness::Sure)
            .map(|_| TierOn::LowConfidence);
        (Ok(Response::from_parts(parts, content)), reason)
    }

    /// Asks the tiers in their order; `here` counts when none of them answers.
    async fn climb(
        &self,
        record: &mut Record,
        tiers: &Tiers,
        here: Outcome,
        reason: TierOn,
    ) -> Outcome {
        let (mut best, mut reason) = (here, reason);
        record.tiers.push(Tried {
            tier: models::TIER.into(),
            cause: Some(word(reason)),
        });
        let via = via(&self.headers);
        let length = json_length(&self.headers).ok();
        let question = length.and_then(|length| self.question(length));
        for tier in &tiers.tiers {
            if !tier.is_for(reason) {
                continue;
            }
            let said = match (&via, &question) {
                (None, _) => Err(TOO_MANY_HOPS),
                (_, None) => Err(UNREADABLE),
                (Some(via), Some(question)) => self.ask(record, tier, question, via).await,
            };
            let message = match said {
                Ok(message) => message,
                Err(cause) => {
                    record.tiers.push(Tried {
                        tier: Arc::clone(&tier.name),
                        cause: Some(cause),
                    });
                    continue;
                }
            };
            let sureness = sureness_of(&message, tiers);
            record.tiers.push(Tried {
                tier: Arc::clone(&tier.name),
                cause: (sureness != Sureness::Sure).then_some(word(TierOn::LowConfidence)),
            });
            // Nothing is no better than what somebody else said, however unsure.
            if sureness != Sureness::Empty || best.is_err() {
                record.answered_by(&tier.name);
                best = Ok(response_of(message));
            }
            if sureness == Sureness::Sure {
                break;
            }
            reason = TierOn::LowConfidence;
        }
        best
    }

    /// The request in its parts; none: it cannot be read, or not by this node.
    fn question(&self, json_length: Option<usize>) -> Option<Question<'_>> {
        let is_plain = !self.headers.contains_key(CONTENT_ENCODING);
        let body = &self.kept.bytes;
        let question = is_plain.then(|| match medium_of(&self.headers) {
            None => Question::read(body, json_length),
            Some(_) => Question::of_medium(body, json_length),
        });
        question.flatten()
    }

    /// Asks one tier, with what may leave; what it says is believed.
    async fn ask(
        &self,
        record: &Record,
        tier: &Tier,
        question: &Question<'_>,
        via: &HeaderValue,
    ) -> Result<Message, &'static str> {
        let model = &self.model.declared;
        let longest = Duration::from_millis(tier.declared.timeout_millis);
        let left = self
            .ends
            .map(|it| it.saturating_duration_since(Instant::now()));
        let time = left.map_or(longest, |left| left.min(longest));
        if time.is_zero() {
            return Err(NO_TIME);
        }
        let message = leaves::request(&tier.declared, model, question)?;
        let asking = tiers::Asking {
            route: &self.target.route.as_str().into(),
            ids: &record.ids,
            below: &self.below,
            content_type: match medium_of(&self.headers) {
                None => content_type(&message),
                Some(medium) => HeaderValue::from_static(medium),
            },
            via: via.clone(),
            time,
        };
        let said = tier.ask(asking, message).await?;
        let answer = Answer::read(&said.body, said.json_length).ok_or(INVALID)?;
        leaves::answer(&tier.declared, model, question, &answer)
    }
}

/// Why a refusal makes a request go on; none: it is the caller's to mend.
fn reason_of(refusal: &Refusal) -> Option<TierOn> {
    match refusal.cause {
        Cause::ModelUnavailable => Some(TierOn::Failure),
        Cause::ModelBusy if is_loading(refusal) => Some(TierOn::Missing),
        _ => reason_of_status(refusal.status()),
    }
}

fn is_loading(refusal: &Refusal) -> bool {
    let said = refusal.said.as_ref();
    said.is_some_and(|it| it.sentence == LOADING)
}

fn reason_of_status(status: StatusCode) -> Option<TierOn> {
    match status.as_u16() {
        404 => Some(TierOn::Missing),
        503 => Some(TierOn::Overload),
        500 | 502 | 504 => Some(TierOn::Failure),
        _ => None,
    }
}

fn word(reason: TierOn) -> &'static str {
    match reason {
        TierOn::Overload => "overload",
        TierOn::Missing => "missing",
        TierOn::Failure => "failure",
        TierOn::LowConfidence => "low_confidence",
    }
}

/// What `via` says to a tier; none: the request has come through too many already.
fn via(headers: &HeaderMap) -> Option<HeaderValue> {
    let said = headers
        .get_all(VIA)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let hops = said
        .flat_map(|it| it.split(','))
        .filter(|hop| hop.trim().ends_with(PSEUDONYM));
    let hops = hops.count();
    if hops >= MOST_HOPS {
        return None;
    }
    let all = vec![format!("1.1 {PSEUDONYM}"); hops + 1].join(", ");
    HeaderValue::from_str(&all).ok()
}

/// What comes in place of tensors, where something does.
fn medium_of(headers: &HeaderMap) -> Option<&'static str> {
    let said = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = said.split(';').next()?.trim();
    let mut media = MEDIA.into_iter();
    media.find(|it| it.eq_ignore_ascii_case(essence))
}

fn content_type(message: &Message) -> HeaderValue {
    HeaderValue::from_static(match message.json_length {
        None => "application/json",
        Some(_) => "application/octet-stream",
    })
}

fn response_of(message: Message) -> Response<Content> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(&message));
    if let Some(length) = message.json_length {
        headers.insert(INFERENCE_HEADER, length.into());
    }
    response.map(|()| Content::Fixed(Some(message.body)))
}

/// Says which tier answered.
fn marked(record: &Record, mut response: Response<Content>) -> Response<Content> {
    let tier = record.tier.as_deref().unwrap_or(models::TIER);
    let headers = response.headers_mut();
    if let Ok(tier) = HeaderValue::from_str(tier) {
        headers.insert(TIER, tier);
    }
    if record.is_cached.is_some() {
        headers.insert(CACHE, HeaderValue::from_static("miss"));
    }
    response
}

/// Remembers an answer, if it is one of a size that is.
async fn remember(remembered: Arc<Remembered>, key: Key, response: Response<Content>) -> Outcome {
    if response.status() != StatusCode::OK || !remembered.takes(response.headers()) {
        return Ok(response);
    }
    let (parts, content) = response.into_parts();
    let most = remembered.largest();
    let (content, seen) = content.keep_back(most + 1).await?;
    if seen.len() <= most {
        let whole = Whole::new(&parts.headers, Bytes::from(seen));
        remembered.keep(key, whole, Instant::now());
    }
    Ok(Response::from_parts(parts, content))
}

/// What is remembered, as an answer.
fn again(whole: Whole, age: Duration) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Some(whole.body)));
    *response.headers_mut() = whole.headers;
    let headers = response.headers_mut();
    headers.insert(AGE, age.as_secs().into());
    headers.insert(CACHE, HeaderValue::from_static("hit"));
    headers.insert(TIER, HeaderValue::from_static(models::TIER));
    response
}

#[cfg(test)]
#[path = "escalate_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
