//! The bodies of a call, both ways, tied to its record.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use vedette_upstream::UpstreamBody;
use vedette_wasm::{BodyError, OutboundBody};

use super::broken;
use super::record::CallRecord;

/// The body of a request, counted. What is known of its length stays known.
pub struct Sent {
    body: OutboundBody,
    sent: Arc<AtomicU64>,
    limit: u64,
}

impl Sent {
    /// Counts `body` in `sent`, and cuts it off beyond `limit` bytes.
    pub fn wrap(body: OutboundBody, sent: Arc<AtomicU64>, limit: u64) -> OutboundBody {
        Self { body, sent, limit }.boxed_unsync()
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let size = frame.data_ref().map_or(0, Bytes::len) as u64;
            let sent = self.sent.fetch_add(size, Ordering::Relaxed) + size;
            if sent > self.limit {
                let error = BodyError::HttpRequestBodySize(Some(sent));
                return Poll::Ready(Some(Err(error)));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
