//! Answers in HTTP: of a prediction, of what is known, of a refusal.
//!
//! Must not: know what was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::fields::JSON_LENGTH;
use crate::oip::Refusal;
use crate::oip::answer::Answer;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The pieces of an answer.
#[derive(Default)]
pub struct Pieces(VecDeque<Bytes>);

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self([bytes].into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|it| Ok(Frame::data(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|it| it.len() as u64).sum())
    }
}

/// What is known.
pub fn json(status: StatusCode, body: Bytes) -> Response<Pieces> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A prediction.
pub fn answered(answer: Answer) -> Response<Pieces> {
    let mut response = Response::new(Pieces(answer.parts.into()));
    let headers = response.headers_mut();
    match answer.json_length {
        None => drop(headers.insert(CONTENT_TYPE, JSON)),
        Some(length) => {
            headers.insert(CONTENT_TYPE, BINARY);
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
    }
    response
}

/// The same as a message of gRPC.
pub fn message(pieces: Vec<Bytes>) -> Response<Pieces> {
    let mut response = Response::new(Pieces(pieces.into()));
    response.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
    response
}

/// 405.
pub fn not_allowed(wanted: &Method) -> Response<Pieces> {
    let refusal = Refusal::new(405, format_args!("{wanted} is the method here"));
    let mut response = error(&refusal);
    if let Ok(value) = HeaderValue::from_str(wanted.as_str()) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// A refusal.
pub fn error(refusal: &Refusal) -> Response<Pieces> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({"error": refusal.message}).to_string();
    let mut response = json(status, body.into());
    if let Some(seconds) = refusal.retry_after {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
