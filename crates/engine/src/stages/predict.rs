//! Predict: the process of a model answers, by the Open Inference Protocol.
//!
//! It gets the body and what says how to read it, and nothing of who is calling: a model decides nothing by that. Of its
//! answer goes on what tells how to read it; how long it took goes into the record and `server-timing`.

use std::time::Duration;

use http::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use vedette_upstream::{SendError, SendOptions};
use vedette_wasm::RequestBody;

use crate::body::Content;
use crate::models::Served;
use crate::plan::Target;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;

/// Binary tensor data extension: how many bytes of the body are JSON; tensors follow.
pub const INFERENCE_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Milliseconds after which nobody waits for the answer any more.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-vedette-deadline-ms");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-vedette-queue-us");
const RUN_TIME: HeaderName = HeaderName::from_static("x-vedette-run-us");
/// W3C Server Timing §3.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a process is told of a request.
const ASKED: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, INFERENCE_HEADER, ACCEPT];
/// What of its answer goes on.
const ANSWERED: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    INFERENCE_HEADER,
    RETRY_AFTER,
    ALLOW,
];
/// The latest deadline that is one.
const LONGEST_MILLIS: u64 = 3_600_000;
/// After which asking again may help, while there is no process: it is started anew within that.
const RETRY_SECONDS: u64 = 1;

/// Says of tensors what they are, where their sender did not (RFC 9110 §8.3): published clients do not, and the Core Rule
/// Set refuses a body without a type (920340).
pub fn name_tensors(headers: &mut HeaderMap) {
    if headers.contains_key(INFERENCE_HEADER) && !headers.contains_key(CONTENT_TYPE) {
        let opaque = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, opaque);
    }
}

/// Has a model answer, within `timeout` where the route has one.
pub async fn predict(
    record: &mut Record,
    target: &Target,
    (model, timeout): (&Served, Option<Duration>),
    admitted: Admitted,
    body: RequestBody,
) -> Result<Response<Content>, Refusal> {
    let left = time_left(record, &admitted, timeout)?;
    let options = SendOptions {
        timeout: left,
        ..model.options.clone()
    };
    let request = request_of(record, target, model, &admitted, left, body)?;
    let sent = model.upstream.send(request, &options).await;
    let response = sent.map_err(|error| refusal_of(record, &error))?;
    let (mut parts, body) = response.into_parts();
    let said = std::mem::take(&mut parts.headers);
    for name in ANSWERED {
        if let Some(value) = said.get(&name) {
            parts.headers.insert(name, value.clone());
        }
    }
    (record.queue_micros, record.run_micros) =
        (micros(&said, &QUEUE_TIME), micros(&said, &RUN_TIME));
    if let Some(timing) = server_timing(record) {
        parts.headers.insert(SERVER_TIMING, timing);
    }
    Ok(Response::from_parts(parts, Content::Upstream(body)))
}

/// How long the caller and the route still wait; none: as long as it takes.
///
/// # Errors
/// The caller's deadline is none, or has passed.
pub fn time_left(
    record: &Record,
    admitted: &Admitted,
    timeout: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
    let Some(asked) = admitted.deadline() else {
        return Ok(timeout);
    };
    let millis = asked.to_str().ok().filter(|text| is_number(text));
    let millis = millis.and_then(|text| text.parse().ok());
    let millis = millis
        .filter(|millis| (1..=LONGEST_MILLIS).contains(millis))
        .ok_or(Cause::DeadlineMalformed)?;
    let left = Duration::from_millis(millis).checked_sub(record.elapsed());
    let left = left.ok_or_else(|| Refusal::with(Cause::UpstreamTimeout, "before it was asked"))?;
    Ok(Some(timeout.map_or(left, |timeout| timeout.min(left))))
}

/// Digits alone: `parse` would take a sign as well.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The path that the model's process is asked for.
pub fn path_of(target: &Target, model: &Served, admitted: &Admitted) -> String {
    let rewritten = target.changes.as_ref().is_some_and(|it| it.path.is_some());
    let matched = if rewritten { "/" } else { &target.path };
    model.path(matched, admitted.wire_path())
}

/// The request as the process of the model sees it.
fn request_of(
    record: &Record,
    target: &Target,
    model: &Served,
    admitted: &Admitted,
    left: Option<Duration>,
    body: RequestBody,
) -> Result<Request<RequestBody>, Refusal> {
    let path = PathAndQuery::try_from(path_of(target, model, admitted))
        .map_err(|_| Refusal::with(Cause::MalformedPath, "the normal form is no target"))?;
    let mut request = Request::new(body);
    *request.uri_mut() = Uri::from(path);
    *request.method_mut() = admitted.parts().method.clone();
    let headers = request.headers_mut();
    for name in ASKED {
        if let Some(value) = admitted.parts().headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
    if let Some(left) = left {
        // Not rounded down to nothing, which is no deadline.
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        headers.insert(DEADLINE, millis.into());
    }
    Ok(request)
}

fn micros(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The same for the caller, in milliseconds.
fn server_timing(record: &Record) -> Option<HeaderValue> {
    let (queue, run) = (record.queue_micros?, record.run_micros?);
    let millis = |micros: u64| format!("{}.{:03}", micros / 1000, micros % 1000);
    let text = format!("queue;dur={}, run;dur={}", millis(queue), millis(run));
    HeaderValue::from_str(&text).ok()
}

/// The refusal that a failure to be answered amounts to.
pub fn refusal_of(record: &Record, error: &SendError) -> Refusal {
    // Why the body broke off, where it did, counts before what that has made of the request.
    if let Some(cut_off) = record.bytes_in.as_ref().and_then(|meter| meter.cut_off()) {
        return cut_off.into();
    }
    let cause = match error {
        SendError::TimeoutResponse | SendError::TimeoutWhole => Cause::UpstreamTimeout,
        SendError::MalformedResponse(_) | SendError::HeadersTooLarge => Cause::UpstreamInvalid,
        SendError::RequestBody(_) => Cause::RequestBroken,
        _ => Cause::ModelUnavailable,
    };
    let refusal = Refusal::with(cause, error.to_string());
    match cause {
        Cause::ModelUnavailable => refusal.after(RETRY_SECONDS),
        _ => refusal,
    }
}
