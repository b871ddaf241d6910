//! Bodies: what is sent to a service, and what comes back, tied to its connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::active::Active;
use crate::error::{BodyError, BoxError, within_body};
use crate::exchange::Lease;

/// How far a request's body has gone. Shared with the one who waits for the answer, so that a long
/// upload is not taken for a service that does not answer.
#[derive(Default)]
pub(crate) struct Progress {
    frames: AtomicU64,
    is_done: AtomicBool,
    ended: OnceLock<Instant>,
}

impl Progress {
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }

    /// When its last byte was taken, of one that is timed.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }
}

/// The body of a request.
pub(crate) enum OutBody {
    Empty,
    Whole(Option<Bytes>),
    Stream(OutStream),
}

/// A body that is made as it is sent: never more than a frame of it is held here.
pub(crate) struct OutStream {
    body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    progress: Arc<Progress>,
    is_timed: bool,
}

/// Gives a body's errors one type.
struct Erased<B>(B);

impl<B> Body for Erased<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl OutBody {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(OutStream {
            body: Box::pin(Erased(body)),
            progress: Arc::default(),
            is_timed: false,
        })
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        Self::Whole(Some(bytes))
    }

    /// Has it note when it ends. `None`: there is nothing to wait for.
    pub(crate) fn time(&mut self) -> Option<Arc<Progress>> {
        match self {
            Self::Stream(stream) => {
                stream.is_timed = true;
                Some(Arc::clone(&stream.progress))
            }
            Self::Empty | Self::Whole(_) => None,
        }
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Stream(stream) => Some(Arc::clone(&stream.progress)),
            Self::Empty | Self::Whole(_) => None,
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => {
                let polled = stream.body.as_mut().poll_frame(cx);
                let progress = &stream.progress;
                match &polled {
                    Poll::Ready(Some(_)) => drop(progress.frames.fetch_add(1, Ordering::Relaxed)),
                    Poll::Ready(None) => progress.is_done.store(true, Ordering::Relaxed),
                    Poll::Pending => {}
                }
                // One of a length that was told is not asked for more after its last byte.
                let is_over = |polled: &Poll<_>| match polled {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(_)) => stream.body.is_end_stream(),
                    Poll::Pending => false,
                };
                if stream.is_timed && is_over(&polled) {
                    progress.ended.get_or_init(Instant::now);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(stream) => stream.body.size_hint(),
        }
    }
}

/// The body of an answer. Its connection goes back to the pool after the last byte; dropped before,
/// the connection (HTTP/1.1) or the stream (HTTP/2) is cut, so that the service hears of it.
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    active: Option<Active>,
    clock: Option<Box<Clock>>,
}

struct Clock {
    whole: Option<Pin<Box<Sleep>>>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl UpstreamBody {
    pub(crate) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
            active: None,
            clock: None,
        };
        body.end_if_over();
        body
    }

    /// The empty body of a 101, whose connection is another's now.
    pub(crate) fn of_upgrade(incoming: Incoming) -> Self {
        Self {
            incoming,
            lease: None,
            active: None,
            clock: None,
        }
    }

    /// Ties it to the count of its endpoint and to its time limits.
    pub(crate) fn attend(
        &mut self,
        active: Option<Active>,
        deadline: Option<Instant>,
        idle: Option<Duration>,
    ) {
        if self.lease.is_none() {
            return;
        }
        self.active = active;
        if deadline.is_some() || idle.is_some() {
            self.clock = Some(Box::new(Clock {
                whole: deadline.map(|it| Box::pin(tokio::time::sleep_until(it))),
                idle: idle.map(|it| (it, Box::pin(tokio::time::sleep(it)))),
            }));
        }
    }

    fn end_if_over(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
        self.active = None;
        self.clock = None;
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(active) = &self.active {
            active.failed_late(&error.to_string());
        }
        self.lease = None;
        self.active = None;
        self.clock = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Clock {
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        if let Some(whole) = &mut self.whole
            && whole.as_mut().poll(cx).is_ready()
        {
            return Some(BodyError::TimeoutWhole);
        }
        if let Some((_, idle)) = &mut self.idle
            && idle.as_mut().poll(cx).is_ready()
        {
            return Some(BodyError::TimeoutIdle);
        }
        None
    }

    fn reset(&mut self) {
        if let Some((time, idle)) = &mut self.idle {
            idle.as_mut().reset(Instant::now() + *time);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(clock) = &mut self.clock {
                    clock.reset();
                }
                self.end_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(within_body(&error)),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => match self.clock.as_mut().and_then(|clock| clock.poll(cx)) {
                Some(error) => self.fail(error),
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
