//! Bodies: what a function reads, counted and limited; what a caller gets, tied to its record.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use vedette_wasm::{BodyError, Failure, GuestBody};

use crate::node::Place;
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal};

/// How much of a request's body was read, and whether it was too much.
#[derive(Default)]
pub struct BodyMeter {
    read: AtomicU64,
    exceeded: AtomicBool,
}

impl BodyMeter {
    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether the body turned out larger than allowed.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }
}

/// A request's body, of which at most so many bytes can be read.
pub struct LimitedBody {
    inner: Incoming,
    limit: u64,
    meter: Arc<BodyMeter>,
}

impl LimitedBody {
    /// Limits `inner` to `limit` bytes, counted in `meter`.
    pub fn new(inner: Incoming, limit: u64, meter: Arc<BodyMeter>) -> Self {
        Self {
            inner,
            limit,
            meter,
        }
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        let read = self.meter.read.fetch_add(size, Ordering::Relaxed) + size;
        if read > self.limit {
            self.meter.exceeded.store(true, Ordering::Relaxed);
            let error = BodyError::HttpRequestBodySize(Some(read));
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a response consists of, before it is tied to its record.
pub enum Content {
    /// Bytes that are there; `None` once sent.
    Fixed(Option<Bytes>),
    /// What a guest makes.
    Guest(GuestBody),
}

impl Content {
    /// How many bytes it has, when that is known.
    pub fn exact_len(&self) -> Option<u64> {
        match self {
            Self::Fixed(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Guest(body) => body.size_hint().exact(),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Fixed(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Guest(body) => body.is_end_stream(),
        }
    }
}

/// A response's body. The record closes when this is dropped, after the last byte or before.
pub struct ResponseBody {
    content: Content,
    record: Box<Record>,
    _in_flight: Option<Place>,
}

impl ResponseBody {
    /// Ties `content` to the record of its request.
    pub fn new(content: Content, record: Box<Record>, in_flight: Option<Place>) -> Self {
        Self {
            content,
            record,
            _in_flight: in_flight,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = match &mut self.content {
            Content::Fixed(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Content::Guest(body) => Pin::new(body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(failure))) => {
                self.record.outcome = Outcome::Failed;
                self.record.refusal = Some(refusal_of(failure));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Fixed(_) => SizeHint::with_exact(self.content.exact_len().unwrap_or(0)),
            Content::Guest(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.record.outcome == Outcome::Aborted && self.content.is_end() {
            self.record.outcome = Outcome::Served;
        }
    }
}

/// The refusal that a guest's failure amounts to.
pub fn refusal_of(failure: &Failure) -> Refusal {
    let cause = match failure {
        Failure::CpuTime => Cause::CpuTimeExceeded,
        Failure::WallTime => Cause::WallTimeExceeded,
        Failure::Memory => Cause::MemoryExceeded,
        Failure::Stack => Cause::StackExhausted,
        Failure::Trap(_) => Cause::FunctionTrap,
        Failure::NoResponse => Cause::NoResponse,
        Failure::PoolExhausted => Cause::PoolExhausted,
        Failure::ResponseInvalid(_) => Cause::ResponseInvalid,
        Failure::ResponseTooLarge => Cause::ResponseTooLarge,
        Failure::Unavailable(_) => Cause::FunctionUnavailable,
    };
    Refusal::with(cause, failure.to_string())
}
