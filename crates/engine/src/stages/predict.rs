//! Predict: the process of a model answers, by the Open Inference Protocol.
//!
//! It gets the body and what says how to read it, and of who is calling only a number that tells callers apart: a model
//! decides nothing by that. Of its answer goes on what tells how to read it; how long it took goes into the record and
//! `server-timing`. What it answers in place of a prediction is a refusal, in its own words.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use vedette_upstream::{SendError, SendOptions, UpstreamBody};
use vedette_wasm::RequestBody;

use crate::body::Content;
use crate::call::{Method, Rpc, messages};
use crate::caller::Caller;
use crate::grpc::{self, MEDIA_TYPE, reply};
use crate::inference;
use crate::models::{Process, Served, TENANT, answer, nothing, tenant_of};
use crate::plan::{ModelTerms, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::snapshot::ModelBackendCriticality;
use crate::stages::admit::Admitted;
use crate::stages::escalate::elsewhere;

/// Binary tensor data extension: how many bytes of the body are JSON; tensors follow.
pub const INFERENCE_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Milliseconds after which nobody waits for the answer any more.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-vedette-deadline-ms");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-vedette-queue-us");
const RUN_TIME: HeaderName = HeaderName::from_static("x-vedette-run-us");
/// How many requests ran together.
const BATCH: HeaderName = HeaderName::from_static("x-vedette-batch");
const CRITICALITY: HeaderName = HeaderName::from_static("x-vedette-criticality");
/// Whether what it is asked and answers is as it was.
pub const DRIFT: HeaderName = HeaderName::from_static("x-vedette-drift");
/// W3C Server Timing §3.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// Bytes of what a model says it is that are read.
const MOST_METADATA: usize = 1 << 20;

/// What a process is told of a request.
const ASKED: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, INFERENCE_HEADER, ACCEPT];
/// What of its answer goes on.
const ANSWERED: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_LENGTH, INFERENCE_HEADER];
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

/// A model, and who asks it.
pub struct Asking<'a> {
    /// The model.
    pub model: &'a Served,
    /// What its route says.
    pub terms: ModelTerms,
    /// Who asks.
    pub caller: Option<&'a Caller>,
}

/// Has a model answer.
pub async fn predict(
    record: &mut Record,
    target: &Target,
    asking: Asking<'_>,
    admitted: Admitted,
    body: RequestBody,
) -> Result<Response<Content>, Refusal> {
    let mut head = head_of(&path_of(target, asking.model, &admitted))?;
    *head.method_mut() = admitted.parts().method.clone();
    for name in ASKED {
        // What came twice goes twice: its process refuses what says two things.
        for value in admitted.parts().headers.get_all(&name) {
            head.headers_mut().append(name.clone(), value.clone());
        }
    }
    let response = ask(record, &asking, &admitted, head.map(|()| body)).await?;
    let (mut parts, body) = response.into_parts();
    let said = std::mem::take(&mut parts.headers);
    for name in ANSWERED {
        if let Some(value) = said.get(&name) {
            parts.headers.insert(name, value.clone());
        }
    }
    if let Some(timing) = server_timing(record) {
        parts.headers.insert(SERVER_TIMING, timing);
    }
    Ok(Response::from_parts(parts, Content::Upstream(body)))
}

/// Has a model answer a call of gRPC with this message.
pub async fn answer_call(
    record: &mut Record,
    (target, call): (&Target, &Rpc),
    asking: Asking<'_>,
    admitted: Admitted,
    message: RequestBody,
) -> Result<Response<Content>, Refusal> {
    let version = call.version.as_deref();
    if asking.model.process.is_none() {
        return elsewhere::answer_call(target, asking.model, call);
    }
    if call.method == Method::ModelInfer {
        let mut head = head_of(&asking.model.place(version, "/grpc"))?;
        *head.method_mut() = http::Method::POST;
        head.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        let response = ask(record, &asking, &admitted, head.map(|()| message)).await?;
        return infer_reply(record, response);
    }
    let what = match call.method {
        Method::ModelReady => "/ready",
        _ => "",
    };
    let head = head_of(&asking.model.place(version, what))?;
    let answered = ask(record, &asking, &admitted, head.map(|()| nothing())).await;
    if call.method == Method::ModelReady {
        return match answered {
            Ok(_) => inference::message_of(messages::whether(true)),
            Err(refusal) if is_unready(&refusal) => inference::message_of(messages::whether(false)),
            Err(refusal) => Err(refusal),
        };
    }
    let unread = |what: &'static str| Refusal::with(Cause::UpstreamInvalid, what);
    let body = Limited::new(answered?.into_body(), MOST_METADATA).collect();
    let body = body.await.map_err(|_| unread("its metadata"))?.to_bytes();
    inference::message_of(messages::model(&body).ok_or_else(|| unread("its metadata"))?)
}

/// Whether what came in place of "it is ready" says that it is not.
fn is_unready(refusal: &Refusal) -> bool {
    matches!(
        refusal.cause,
        Cause::ModelBusy | Cause::ModelUnavailable | Cause::ModelSilent
    )
}

fn infer_reply(
    record: &Record,
    response: Response<UpstreamBody>,
) -> Result<Response<Content>, Refusal> {
    let length = response.body().size_hint().exact();
    let length =
        length.ok_or_else(|| Refusal::with(Cause::UpstreamInvalid, "its length is not said"))?;
    let content = Content::Upstream(response.into_body());
    let mut response = Response::new(reply(content, length)?);
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    if let Some(timing) = server_timing(record) {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    Ok(response)
}

/// What the process of a model answers to a request, where it is 200.
async fn ask(
    record: &mut Record,
    asking: &Asking<'_>,
    admitted: &Admitted,
    mut request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, Refusal> {
    let model = asking.model;
    let process = model.process.as_ref().ok_or(Cause::ModelUnavailable)?;
    let left = time_left(record, admitted, asking.terms.timeout)?;
    let options = SendOptions {
        timeout: left,
        ..process.options.clone()
    };
    let headers = request.headers_mut();
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
    headers.insert(TENANT, tenant_of(asking.caller));
    if let Some(it) = asking.terms.criticality {
        headers.insert(CRITICALITY, criticality(it));
    }
    if let Some(left) = left {
        // Not rounded down to nothing, which is no deadline.
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        headers.insert(DEADLINE, millis.into());
    }
    let (head, body) = request.into_parts();
    let send = |body| {
        let request = Request::from_parts(head, body);
        // On the heap: it is moved twice before it is first polled.
        Box::pin(process.upstream.send(request, &options))
    };
    let sent = process.hearing.attend(body, send).await;
    let sent = sent.ok_or_else(|| silent(process))?;
    let response = sent.map_err(|error| refusal_of(record, &error))?;
    process.hearing.heard();
    let said = response.headers();
    record.queue_micros = answer::number(said, &QUEUE_TIME);
    record.run_micros = answer::number(said, &RUN_TIME);
    record.batch = answer::number(said, &BATCH);
    record.drift = answer::drift(said, &DRIFT);
    if response.status() != StatusCode::OK {
        return Err(answer::refusal_of(response).await);
    }
    Ok(response)
}

/// What its process is told.
fn criticality(it: ModelBackendCriticality) -> HeaderValue {
    match it {
        ModelBackendCriticality::Critical => HeaderValue::from_static("critical"),
        ModelBackendCriticality::Sheddable => HeaderValue::from_static("sheddable"),
    }
}

fn silent(process: &Process) -> Refusal {
    let most = process.hearing.most();
    Refusal::with(
        Cause::ModelSilent,
        format!("nothing came of its process for {} ms", most.as_millis()),
    )
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
    let said = [said_by(admitted)?, called_within(record, admitted)?];
    let Some(said) = said.into_iter().flatten().min() else {
        return Ok(timeout);
    };
    let left = said
        .checked_sub(record.elapsed())
        .filter(|it| !it.is_zero());
    let left = left.ok_or_else(|| Refusal::with(Cause::ModelTimeout, "before it was asked"))?;
    Ok(Some(timeout.map_or(left, |timeout| timeout.min(left))))
}

/// What the caller says in the field of ours.
fn said_by(admitted: &Admitted) -> Result<Option<Duration>, Refusal> {
    let Some(asked) = admitted.deadline() else {
        return Ok(None);
    };
    let millis = asked.to_str().ok().filter(|text| is_number(text));
    let millis = millis.and_then(|text| text.parse().ok());
    let millis = millis
        .filter(|millis| (1..=LONGEST_MILLIS).contains(millis))
        .ok_or(Cause::DeadlineMalformed)?;
    Ok(Some(Duration::from_millis(millis)))
}

/// What it says in that of gRPC; a longer one than there can be is none.
fn called_within(record: &Record, admitted: &Admitted) -> Result<Option<Duration>, Refusal> {
    if !record.is_grpc {
        return Ok(None);
    }
    let said = grpc::timeout(&admitted.parts().headers)?;
    Ok(said.filter(|it| *it <= Duration::from_millis(LONGEST_MILLIS)))
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

/// A request for this path of the process.
fn head_of(path: &str) -> Result<Request<()>, Refusal> {
    let path = PathAndQuery::try_from(path)
        .map_err(|_| Refusal::with(Cause::MalformedPath, "the normal form is no target"))?;
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from(path);
    Ok(request)
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
        SendError::TimeoutResponse | SendError::TimeoutWhole => Cause::ModelTimeout,
        SendError::MalformedResponse(_) | SendError::HeadersTooLarge => Cause::UpstreamInvalid,
        SendError::RequestBody(_) => Cause::RequestBroken,
        // More ask than may wait, so many that they are not even asked about.
        SendError::Overloaded => Cause::ModelBusy,
        _ => Cause::ModelUnavailable,
    };
    let refusal = Refusal::with(cause, error.to_string());
    match cause {
        Cause::ModelUnavailable | Cause::ModelBusy => refusal.after(RETRY_SECONDS),
        _ => refusal,
    }
}
