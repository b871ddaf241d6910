//! The record of one outbound call: opened before it is decided on, closed after its last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use serde::Serialize;
use vedette_upstream::UpstreamBody;
use vedette_wasm::{BodyError, OutboundBody, OutboundCall};

use super::broken;
use crate::{clock, worker};

/// The most bytes of a host that are kept; a guest may spell it as long as it likes.
const MAX_HOST: usize = 255;

/// What is known of a call so far. Dropping it writes it.
pub struct CallRecord {
    function: Arc<str>,
    request_id: HeaderValue,
    method: http::Method,
    to: Destination,
    status: Option<u16>,
    /// Why there is no answer, or why it broke off.
    cause: Option<&'static str>,
    sent: Arc<AtomicU64>,
    received: u64,
    opened: Instant,
}

/// Where a call was to go, as far as it says: no path, no query, nothing before an `@`.
struct Destination {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

impl Destination {
    fn of(uri: &Uri) -> Self {
        let (scheme, usual) = match uri.scheme_str() {
            Some("http") => ("http", Some(80)),
            Some("https") => ("https", Some(443)),
            _ => ("other", None),
        };
        let mut host = uri.host().unwrap_or_default().to_ascii_lowercase();
        // Hosts are ASCII, but cutting a string must not depend on it.
        let cut = (0..=MAX_HOST).rev().find(|at| host.is_char_boundary(*at));
        host.truncate(cut.unwrap_or(0));
        let port = uri.port_u16().or(usual);
        Self { scheme, host, port }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    time: String,
    function: &'a str,
    request_id: &'a str,
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    bytes_out: u64,
    bytes_in: u64,
    total_us: u64,
}

impl CallRecord {
    /// Opens the record of a call that `function` wants to make.
    pub fn open(function: Arc<str>, call: &OutboundCall) -> Self {
        Self {
            function,
            request_id: call.request_id.clone(),
            method: call.request.method().clone(),
            to: Destination::of(call.request.uri()),
            status: None,
            cause: Some("abandoned"),
            sent: Arc::default(),
            received: 0,
            opened: Instant::now(),
        }
    }

    /// The body of the request, counted as it is sent.
    pub fn count_sent(&self, body: OutboundBody) -> OutboundBody {
        let sent = Arc::clone(&self.sent);
        let counted = body.map_frame(move |frame| {
            let size = frame.data_ref().map_or(0, Bytes::len);
            sent.fetch_add(size as u64, Ordering::Relaxed);
            frame
        });
        counted.boxed_unsync()
    }

    /// Says why there is no answer.
    pub fn fail(&mut self, cause: &'static str) {
        self.cause = Some(cause);
    }

    /// Says that the head of the answer is there.
    pub fn answered(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// Whether it was not let out.
    pub fn is_refused(&self) -> bool {
        matches!(
            self.cause,
            Some(
                "address_not_allowed"
                    | "destination_not_allowed"
                    | "method_not_allowed"
                    | "too_many_calls"
            )
        )
    }

    /// The refusal in words, for the one who wrote the function.
    pub fn refusal_line(&self) -> String {
        let Destination { scheme, host, port } = &self.to;
        let port = port.map(|it| format!(":{it}")).unwrap_or_default();
        let cause = self.cause.unwrap_or_default();
        let (function, method) = (&self.function, &self.method);
        format!("vedette: {function} may not call {method} {scheme}://{host}{port}: {cause}")
    }

    fn outcome(&self) -> &'static str {
        match self.cause {
            None => "served",
            Some("abandoned") => "aborted",
            Some(_) if self.is_refused() => "refused",
            Some(_) => "failed",
        }
    }

    fn write(&self, into: &mut Vec<u8>) {
        let total = self.opened.elapsed();
        let line = Line {
            kind: "egress",
            time: clock::rfc3339(clock::since_epoch().saturating_sub(total)),
            function: &self.function,
            request_id: self.request_id.to_str().unwrap_or_default(),
            method: self.method.as_str(),
            scheme: self.to.scheme,
            host: &self.to.host,
            port: self.to.port,
            outcome: self.outcome(),
            status: self.status,
            cause: self.cause,
            bytes_out: self.sent.load(Ordering::Relaxed),
            bytes_in: self.received,
            total_us: u64::try_from(total.as_micros()).unwrap_or(u64::MAX),
        };
        // Writing to memory and plain types: it cannot fail.
        let _ = serde_json::to_writer(&mut *into, &line);
        into.push(b'\n');
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        worker::with(|worker| worker.keep(|line| self.write(line)));
    }
}

/// The body of an answer, tied to the record of its call.
pub struct Recorded {
    body: UpstreamBody,
    record: CallRecord,
}

impl Recorded {
    /// Ties `body` to `record`.
    pub fn wrap(body: UpstreamBody, mut record: CallRecord) -> OutboundBody {
        if body.is_end_stream() {
            record.cause = None;
        }
        Self { body, record }.boxed_unsync()
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.received += frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.body.is_end_stream() {
                    self.record.cause = None;
                }
            }
            Poll::Ready(Some(Err(error))) => self.record.cause = Some(error.word()),
            Poll::Ready(None) => self.record.cause = None,
            Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| broken(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
