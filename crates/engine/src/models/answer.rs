//! What the process of a model answers in place of a prediction: a refusal of the path, in its own words.
//!
//! Owns: which cause each status is. Must not: keep more of such an answer than its sentence.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::timeout;
use vedette_upstream::UpstreamBody;

use crate::refusal::{Cause, Refusal, Said};

/// What the keeper says (`vedette.models.keeper_worker`) while the process of a model is not ready yet.
pub const LOADING: &str = "the model is being loaded";
/// What is read of such an answer; it is a sentence in JSON.
const MOST_READ: usize = 64 << 10;
/// How long it may take once its head is there.
const LONGEST: Duration = Duration::from_secs(5);
/// Characters of the sentence that the caller gets, and that the record keeps.
const MOST_TOLD: usize = 2000;
const MOST_KEPT: usize = 500;

/// The body of such an answer, by the Open Inference Protocol (`$inference_error_response`).
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

/// The refusal that an answer other than 200 amounts to.
pub async fn refusal_of(response: Response<UpstreamBody>) -> Refusal {
    let (parts, body) = response.into_parts();
    let Some(cause) = cause_of(parts.status) else {
        let detail = format!("the model's process answered {}", parts.status.as_u16());
        return Refusal::with(Cause::UpstreamInvalid, detail);
    };
    let reading = Limited::new(body, MOST_READ).collect();
    let read = timeout(LONGEST, reading).await;
    let read = read.ok().and_then(Result::ok);
    let sentence = read.and_then(|it| sentence_of(&it.to_bytes()));
    let Some(sentence) = sentence else {
        let detail = format!("status {} without a sentence", parts.status.as_u16());
        return waiting(Refusal::with(cause, detail), &parts.headers);
    };
    let mut refusal = Refusal::with(cause, cut(&sentence, MOST_KEPT).to_owned());
    refusal.said = Some(Box::new(Said {
        sentence: cut(&sentence, MOST_TOLD).to_owned(),
        allow: parts.headers.get(ALLOW).cloned(),
    }));
    waiting(refusal, &parts.headers)
}

fn cause_of(status: StatusCode) -> Option<Cause> {
    Some(match status.as_u16() {
        400 => Cause::ModelRequestInvalid,
        404 => Cause::ModelPathUnknown,
        405 => Cause::ModelMethod,
        408 => Cause::BodyTooSlow,
        413 => Cause::RequestTooLarge,
        415 => Cause::ModelMedium,
        500 => Cause::ModelFailed,
        503 => Cause::ModelBusy,
        504 => Cause::ModelTimeout,
        _ => return None,
    })
}

fn sentence_of(body: &Bytes) -> Option<String> {
    let said: ErrorBody = serde_json::from_slice(body).ok()?;
    Some(said.error).filter(|it| !it.is_empty())
}

fn waiting(refusal: Refusal, headers: &HeaderMap) -> Refusal {
    match number(headers, &RETRY_AFTER) {
        Some(seconds) => refusal.after(seconds),
        None => refusal,
    }
}

fn cut(text: &str, most: usize) -> &str {
    let end = text.char_indices().nth(most).map(|(at, _)| at);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// What a worker says of drift (`vedette_models::seen`); nothing else goes into a record.
pub fn drift(headers: &HeaderMap, name: &HeaderName) -> Option<&'static str> {
    let said = headers.get(name)?;
    let known = ["learning", "steady", "drifted"];
    known.into_iter().find(|it| said == it)
}

/// A field of its answer that is a whole number.
pub fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
