//! Respond: the header fields every answer carries, and the answer that a refusal is.

use std::num::NonZeroU32;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use vedette_admit::challenge::content_security_policy;

use crate::body::{Content, ResponseBody};
use crate::clock;
use crate::grpc::{self, Code};
use crate::lease::Lease;
use crate::node::Held;
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal, Stage};
use crate::trace::Ids;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LOCATION: HeaderName = HeaderName::from_static("x-edge-location");
const PROCESSING_TIME: HeaderName = HeaderName::from_static("x-edge-processing-time-us");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Sends an answer on its way.
pub fn answer(
    mut record: Box<Record>,
    mut held: Held,
    response: Response<Content>,
) -> Response<ResponseBody> {
    let (mut parts, mut content) = response.into_parts();
    record.status = parts.status.as_u16();
    if matches!(
        parts.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        // RFC 9110 §6.4.1: such an answer has no content, whatever was made.
        content = Content::Fixed(None);
    } else if record.method == Method::HEAD {
        // Nothing of the body is sent: say how long it would be, and stop whoever makes it.
        if let (Some(length), None) = (content.exact_len(), parts.headers.get(CONTENT_LENGTH)) {
            parts.headers.insert(CONTENT_LENGTH, length.into());
        }
        content = Content::Fixed(None);
    }
    record.passed(Stage::Respond);
    record.connection.answering.within_limits();
    set_common(&mut parts.headers, &record, &mut held);
    Response::from_parts(parts, ResponseBody::new(content, record, held))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusalBody<'a> {
    error: &'a str,
    request_id: &'a str,
    /// When, where the answer is also evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

/// Turns a refusal into its answer. The caller learns the sentence and the id, the record the rest.
pub fn refuse(
    mut record: Box<Record>,
    mut held: Held,
    mut refusal: Refusal,
) -> Response<ResponseBody> {
    // Nobody needs a right to be refused.
    held.lease = Lease::default();
    let (cause, retry_after) = (refusal.cause, refusal.retry_after);
    let page = refusal.page.take();
    let said = refusal.said.take();
    let (stage, _, _, error) = cause.outcome();
    let status = refusal.status();
    record.status = status.as_u16();
    record.outcome = match stage {
        Stage::Execute | Stage::Respond if !is_a_no(cause) => Outcome::Failed,
        _ => Outcome::Refused,
    };
    record.refusal = Some(refusal);
    record.passed(stage);
    let sentence = said.as_ref().map_or(error, |it| &it.sentence);
    let body = RefusalBody {
        error: sentence,
        request_id: record.ids.request(),
        timestamp: (stage == Stage::Inspect).then(|| clock::rfc3339(clock::since_epoch())),
    };
    let is_page = page.is_some();
    let content = match page {
        _ if record.method == Method::HEAD || record.is_grpc => Vec::new(),
        Some(page) => page.0.into_bytes(),
        None => serde_json::to_vec(&body).unwrap_or_default(),
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    let is_grpc = record.is_grpc;
    if is_grpc {
        *response.status_mut() = StatusCode::OK;
        record.grpc_status = Some(Code::of(cause, status).0);
    }
    let headers = response.headers_mut();
    if is_grpc {
        grpc::set_status(headers, Code::of(cause, status), sentence);
    } else if is_page {
        set_for_page(headers);
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let answering = &record.connection.answering;
    let is_unwelcome = match cause {
        Cause::RateLimited => answering.beyond_limit(),
        _ => cause.ends_connection(),
    };
    if is_unwelcome {
        answering.say_goodbye();
    }
    // What is malformed may have been meant otherwise, and so may the bytes behind it.
    let is_last = is_unwelcome || (stage == Stage::Admit && status == StatusCode::BAD_REQUEST);
    if is_last && record.protocol != "HTTP/2.0" {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let soon = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
    set_for_cause(headers, cause, retry_after.map(NonZeroU32::get).or(soon));
    if let Some(allow) = said.and_then(|it| it.allow) {
        headers.insert(ALLOW, allow);
    }
    set_common(headers, &record, &mut held);
    let content = Content::Fixed(Some(Bytes::from(content)).filter(|it| !it.is_empty()));
    response.map(|()| ResponseBody::new(content, record, held))
}

/// A page for one client at one moment, which nothing may frame, load from or keep.
fn set_for_page(headers: &mut HeaderMap) {
    let fields = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, content_security_policy()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// The whole answer, head and body, to bytes that were no HTTP/1.1; the connection closes after it.
pub fn refuse_unreadable(cause: Cause, ids: &Ids, location: &HeaderValue) -> Vec<u8> {
    let body = RefusalBody {
        error: cause.outcome().3,
        request_id: ids.request(),
        timestamp: None,
    };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut answer = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nx-request-id: {}\r\ntraceparent: {}\r\nx-edge-location: {}\r\n\
         x-edge-processing-time-us: 0\r\n\r\n",
        cause.status(),
        body.len(),
        ids.request(),
        ids.traceparent(),
        location.to_str().unwrap_or_default(),
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Has the client of an HTTP/1.1 connection send its next request on another one.
pub fn close_after(response: &mut Response<ResponseBody>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

/// Whether a stage that can also break has said no on purpose.
fn is_a_no(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::ConcurrencyExceeded
            | Cause::RequestTooLarge
            | Cause::BodyTooSlow
            | Cause::FilesReadOnly
            | Cause::FileNotFound
            | Cause::CircuitOpen
            | Cause::FaultInjected
            | Cause::DeadlineMalformed
            | Cause::CallSurplus
            | Cause::ModelRequestInvalid
            | Cause::ModelPathUnknown
            | Cause::ModelMethod
            | Cause::ModelMedium
            | Cause::ModelBusy
    )
}

fn set_for_cause(headers: &mut HeaderMap, cause: Cause, retry_after: Option<u32>) {
    if cause.outcome().0 == Stage::Authenticate {
        let challenge = match cause {
            Cause::CredentialsRequired
            | Cause::CertificateInvalid
            | Cause::CertificateExpired
            | Cause::CertificateNotYetValid
            | Cause::CertificateRevoked => "Bearer realm=\"vedette\"",
            _ => "Bearer realm=\"vedette\", error=\"invalid_token\"",
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if cause == Cause::CallCompressed {
        headers.insert(grpc::ACCEPT_ENCODING, grpc::IDENTITY);
    }
    if cause == Cause::FilesReadOnly {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if cause == Cause::MethodNotAllowed {
        let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        headers.insert(ALLOW, HeaderValue::from_static(allowed));
    }
}

fn set_common(headers: &mut HeaderMap, record: &Record, held: &mut Held) {
    headers.reserve(4);
    headers.insert(REQUEST_ID, record.ids.request.clone());
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
    headers.insert(LOCATION, record.connection.location.clone());
    let micros = u64::try_from(record.elapsed().as_micros()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_TIME, micros.into());
    if let Some((rest, policy)) = held.standing.take() {
        headers.insert(RATE_LIMIT, rest);
        headers.insert(RATE_LIMIT_POLICY, policy);
    }
}
