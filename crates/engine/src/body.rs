//! Bodies: what a function reads, counted and limited; what a caller gets, tied to its record.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::AbortHandle;
use vedette_upstream::UpstreamBody;
use vedette_wasm::{BodyError, Failure, GuestBody};

use crate::grpc::Reply;
use crate::node::{Connection, Held, Room};
use crate::pace::{Pace, Patience};
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal};
use crate::tunnel::{self, Ends};

/// How much of a request's body was read, and whether it was too much.
#[derive(Default)]
pub struct BodyMeter {
    read: AtomicU64,
    exceeded: AtomicBool,
    too_slow: AtomicBool,
    has_surplus: AtomicBool,
}

impl BodyMeter {
    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Why the body was cut off, if it was.
    pub fn cut_off(&self) -> Option<Cause> {
        if self.exceeded.load(Ordering::Relaxed) {
            return Some(Cause::RequestTooLarge);
        }
        if self.has_surplus.load(Ordering::Relaxed) {
            return Some(Cause::CallSurplus);
        }
        let too_slow = self.too_slow.load(Ordering::Relaxed);
        too_slow.then_some(Cause::BodyTooSlow)
    }

    /// Notes that there is more than the one message of a call.
    pub fn has_surplus(&self) {
        self.has_surplus.store(true, Ordering::Relaxed);
    }

    /// Counts bytes that were read, and says how many that makes.
    pub fn count(&self, bytes: u64) -> u64 {
        self.read.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// How much of a body that nobody wants is read all the same, and for how long.
const LINGER_BYTES: u64 = 64 << 10;
pub const LINGER_TIME: Duration = Duration::from_secs(1);
/// For how long an answer waits for it.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// A request's body as it came.
///
/// Dropped before its end over HTTP/2, it is read on for a moment: resetting the stream at once is
/// legal (RFC 9113 §8.1), but clients such as curl 7.88 then throw the answer away. Over HTTP/1.1 the answer waits for
/// it ([`Unread::settle`]); where that is on its way already, a guest that answered before it ended, the next request
/// does.
#[derive(Default)]
pub struct Unread {
    body: Option<Incoming>,
    connection: Option<Arc<Connection>>,
    kept: Option<Box<Kept>>,
}

/// What was read to be inspected and is to be read again, and the room that it takes.
struct Kept {
    frames: VecDeque<Frame<Bytes>>,
    _room: Room,
}

impl Unread {
    /// The body of a request on this connection.
    pub fn new(body: Incoming, version: http::Version, connection: &Arc<Connection>) -> Self {
        let is_whole_connection = version < http::Version::HTTP_2 && !body.is_end_stream();
        if is_whole_connection {
            connection.answering.await_leftover();
        }
        Self {
            body: Some(body),
            connection: is_whole_connection.then(|| Arc::clone(connection)),
            kept: None,
        }
    }

    /// Whether the connection can go on behind an answer that is there now, over HTTP/1.1: the rest of a short body
    /// that nobody read is read away before the answer goes out, as Go's server does. Where that does not end in a
    /// moment the answer has to say `connection: close`: the client would send its next request into nothing (RFC 9112
    /// §9.3). One that waits for `100 Continue` sends no body that could be read.
    pub async fn settle(connection: &Connection, is_expecting: bool) -> bool {
        if let Some(body) = connection.answering.take_leftover() {
            let time = if is_expecting {
                Duration::ZERO
            } else {
                SETTLE_TIME
            };
            read_away(connection, body, time).await;
        }
        !connection.answering.leaves_unread()
    }

    /// Has what was read of it read again; `room` is what that takes of the node's memory.
    pub fn put_back(&mut self, frames: VecDeque<Frame<Bytes>>, room: Room) {
        self.kept = Some(Box::new(Kept {
            frames,
            _room: room,
        }));
    }

    /// What was put back.
    pub fn kept(&self) -> impl Iterator<Item = &[u8]> {
        let frames = self.kept.iter().flat_map(|kept| &kept.frames);
        frames.filter_map(|frame| frame.data_ref().map(Bytes::as_ref))
    }

    fn kept_len(&self) -> u64 {
        self.kept().map(|chunk| chunk.len() as u64).sum()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else {
            return;
        };
        if body.is_end_stream() {
            return;
        }
        let Some(connection) = self.connection.take() else {
            return in_background(async {
                let _ = discard(body, LINGER_TIME).await;
            });
        };
        let Some(body) = connection.answering.leave(body) else {
            return;
        };
        connection.answering.settles(true);
        in_background(async move {
            read_away(&connection, body, LINGER_TIME).await;
            connection.answering.settles(false);
        });
    }
}

/// Reads the rest of a short body, so that the connection can go on. Where that does not end in time it closes.
async fn read_away(connection: &Connection, mut body: Incoming, time: Duration) {
    let is_short = body.size_hint().lower() <= LINGER_BYTES;
    if time.is_zero() || !is_short || !discard(&mut body, time).await {
        // Before the body is dropped, which is when the connection is closed.
        connection.answering.leave_unread();
    }
}

fn in_background(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

/// Reads on, for a moment, a body that nobody wants: whoever sends it hears the answer then, and not
/// that the body could not be sent. Whether that was all of it.
pub async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, time: Duration) -> bool {
    let reading = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return false;
            };
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > LINGER_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(time, reading).await.unwrap_or(false)
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.kept.as_mut().and_then(|kept| kept.frames.pop_front()) {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.kept = None;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let (Poll::Ready(Some(Err(_))), Some(connection)) = (&polled, &self.connection) {
            // What follows cannot be told apart from the next request; the client may still be sending it.
            connection.answering.leave_unread();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.kept.as_ref().is_none_or(|kept| kept.frames.is_empty());
        is_read && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.as_ref().map(Body::size_hint).unwrap_or_default();
        if self.kept.is_none() {
            return rest;
        }
        plus(&rest, self.kept_len())
    }
}

/// A request's body, of which at most so many bytes can be read.
pub struct LimitedBody {
    inner: Unread,
    limit: u64,
    pace: Pace,
    meter: Arc<BodyMeter>,
}

/// Waiting for a body that is forgiven before pace is asked for.
const GRACE: Duration = Duration::from_secs(10);

impl LimitedBody {
    /// Limits `inner` to `limit` bytes, counted in `meter`, that come at `bytes_per_second` at least.
    pub fn new(inner: Unread, limit: u64, bytes_per_second: u64, meter: Arc<BodyMeter>) -> Self {
        Self {
            inner,
            limit,
            pace: Pace::new(Patience {
                grace: GRACE,
                bytes_per_second,
            }),
            meter,
        }
    }

    /// The rest of it, neither limited nor counted.
    pub fn into_inner(self) -> Unread {
        self.inner
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
            Poll::Pending => {
                let read = self.meter.read();
                ready!(self.pace.poll_lost(read, cx));
                self.meter.too_slow.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::ConnectionReadTimeout)));
            }
        };
        self.pace.moved();
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        let read = self.meter.count(size);
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
    /// What a service sends.
    Upstream(UpstreamBody),
    /// The answer to a call of gRPC.
    Reply(Box<Reply>),
    /// What was kept back to be inspected, and what follows it.
    Kept(VecDeque<Frame<Bytes>>, Box<Content>),
    /// Nothing; the connection becomes a tunnel between the two.
    Tunnel(Box<Ends>),
}

impl Content {
    /// How many bytes it has, when that is known.
    pub fn exact_len(&self) -> Option<u64> {
        match self {
            Self::Fixed(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Guest(body) => body.size_hint().exact(),
            Self::Upstream(_) | Self::Reply(_) | Self::Tunnel(_) | Self::Kept(..) => None,
        }
    }

    /// Reads `most` bytes of it, to be sent all the same; returns it and what was read.
    pub async fn keep_back(mut self, most: usize) -> Result<(Self, Vec<u8>), Refusal> {
        let (mut frames, mut seen) = (VecDeque::new(), Vec::new());
        let wall_end = self.wall_end();
        let reading = async {
            while seen.len() < most {
                match poll_fn(|cx| self.poll_frame(cx)).await {
                    None => break,
                    Some(Ok(frame)) => {
                        seen.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
                        frames.push_back(frame);
                    }
                    Some(Err(failure)) => return Err(failure),
                }
            }
            Ok(())
        };
        let read = match wall_end {
            Some(end) => tokio::time::timeout_at(end.into(), reading)
                .await
                .unwrap_or(Err(Failure::WallTime)),
            None => reading.await,
        };
        read.map_err(|failure| self.refusal_of(&failure))?;
        seen.truncate(most);
        Ok((Self::Kept(frames, Box::new(self)), seen))
    }

    /// The next part of it.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Reply(reply) => reply.poll_frame(cx),
            Self::Fixed(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Guest(body) => Pin::new(body).poll_frame(cx),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                frame
                    .map(|frame| frame.map_err(|error| Failure::ResponseInvalid(error.to_string())))
            }),
            Self::Kept(frames, rest) => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.poll_frame(cx),
            },
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    /// The refusal that a failure while it is read amounts to.
    fn refusal_of(&self, failure: &Failure) -> Refusal {
        match (self, failure) {
            (Self::Upstream(_), Failure::ResponseInvalid(error)) => {
                Refusal::with(Cause::UpstreamReset, error.clone())
            }
            (Self::Kept(_, rest), failure) => rest.refusal_of(failure),
            (Self::Reply(reply), failure) => match reply.message() {
                Some(message) => message.refusal_of(failure),
                None => refusal_of(failure),
            },
            _ => refusal_of(failure),
        }
    }

    /// When a guest that makes it is stopped.
    fn wall_end(&self) -> Option<Instant> {
        match self {
            Self::Guest(body) => body.wall_end(),
            Self::Kept(_, rest) => rest.wall_end(),
            Self::Fixed(_) | Self::Upstream(_) | Self::Reply(_) | Self::Tunnel(_) => None,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(_) => SizeHint::with_exact(self.exact_len().unwrap_or(0)),
            Self::Guest(body) => body.size_hint(),
            Self::Upstream(body) => body.size_hint(),
            Self::Kept(frames, rest) => {
                let kept = frames.iter().filter_map(Frame::data_ref);
                plus(&rest.size_hint(), kept.map(|it| it.len() as u64).sum())
            }
            Self::Reply(_) => SizeHint::default(),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Fixed(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Guest(body) => body.is_end_stream(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Kept(frames, rest) => frames.is_empty() && rest.is_end(),
            Self::Reply(reply) => reply.is_end(),
            Self::Tunnel(_) => true,
        }
    }
}

/// A response's body. The record closes when this is dropped, after the last byte or before.
pub struct ResponseBody(Inner);

// Most answers are `Own`: boxing them would cost each an allocation.
#[allow(clippy::large_enum_variant)]
enum Inner {
    Own(Answer),
    /// Of a guest that is still at work: the alarm ends it even while the client does not read,
    /// when nobody polls this.
    Watched(Arc<Mutex<Option<Answer>>>, AbortHandle),
    /// There is nothing to send; the record is somebody else's.
    Over,
}

/// What is sent, and what ends with it.
struct Answer {
    content: Content,
    record: Box<Record>,
    held: Held,
}

impl ResponseBody {
    /// Ties `content` to the record of its request.
    pub fn new(content: Content, record: Box<Record>, held: Held) -> Self {
        let content = match content {
            Content::Tunnel(ends) => {
                tunnel::open(*ends, record, held);
                return Self(Inner::Over);
            }
            content => content,
        };
        let wall_end = content.wall_end();
        let answer = Answer {
            content,
            record,
            held,
        };
        let Some(wall_end) = wall_end else {
            return Self(Inner::Own(answer));
        };
        let answer = Arc::new(Mutex::new(Some(answer)));
        let held = Arc::downgrade(&answer);
        let alarm = tokio::spawn(async move {
            tokio::time::sleep_until(wall_end.into()).await;
            let expired = held.upgrade().and_then(|answer| lock(&answer).take());
            if let Some(mut answer) = expired {
                answer.fail(&Failure::WallTime);
            }
        });
        Self(Inner::Watched(answer, alarm.abort_handle()))
    }
}

fn lock(answer: &Mutex<Option<Answer>>) -> MutexGuard<'_, Option<Answer>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answer {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(handing) = &self.held.handing {
            handing.asked();
        }
        if let Some(cause) = self.held.lease.ended() {
            return self.end(cause);
        }
        let polled = self.content.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.held.lease.count_frame();
                let size = frame.data_ref().map_or(0, Bytes::len);
                self.record.bytes_out += size as u64;
                if let Some(handing) = &self.held.handing {
                    handing.handed(size);
                }
            }
            Poll::Ready(Some(Err(failure))) => self.fail(failure),
            // Of a body whose length nobody said, only this tells that it was whole.
            Poll::Ready(None) => self.content = Content::Fixed(None),
            Poll::Pending => {
                let cause = ready!(self.held.lease.poll_ended(cx));
                return self.end(cause);
            }
        }
        polled
    }

    /// Whoever makes the answer is stopped, and the client gets no more of it.
    fn end(&mut self, cause: Cause) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.record.refusal = Some(cause.into());
        self.content = Content::Fixed(None);
        let failure = Failure::ResponseInvalid("the exchange may not go on".to_owned());
        Poll::Ready(Some(Err(failure)))
    }

    /// A body that breaks off breaks the answer off: it must not look whole.
    fn fail(&mut self, failure: &Failure) {
        self.record.outcome = Outcome::Failed;
        self.record.refusal = Some(self.content.refusal_of(failure));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.record.connection.answering.end();
        if self.record.outcome != Outcome::Aborted || self.record.refusal.is_some() {
            return;
        }
        let handing = self.held.handing.as_ref();
        let gave_up = self.record.connection.answering.gave_up();
        if handing.is_some_and(|it| it.is_lost()) || gave_up == Some(Cause::AnswerNotTaken) {
            self.record.refusal = Some(Cause::AnswerNotTaken.into());
        } else if self.content.is_end() {
            self.record.outcome = Outcome::Served;
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Inner::Watched(_, alarm) = &self.0 {
            alarm.abort();
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
        match &mut self.0 {
            Inner::Own(answer) => answer.poll_frame(cx),
            Inner::Over => Poll::Ready(None),
            Inner::Watched(answer, _) => match lock(answer).as_mut() {
                Some(answer) => answer.poll_frame(cx),
                None => Poll::Ready(Some(Err(Failure::WallTime))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Own(answer) => answer.content.is_end(),
            Inner::Over => true,
            Inner::Watched(answer, _) => {
                lock(answer).as_ref().is_some_and(|it| it.content.is_end())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Own(answer) => answer.content.size_hint(),
            Inner::Over => SizeHint::with_exact(0),
            Inner::Watched(answer, _) => lock(answer)
                .as_ref()
                .map(|answer| answer.content.size_hint())
                .unwrap_or_default(),
        }
    }
}

fn plus(rest: &SizeHint, kept: u64) -> SizeHint {
    let mut whole = SizeHint::new();
    whole.set_lower(rest.lower().saturating_add(kept));
    if let Some(upper) = rest.upper() {
        whole.set_upper(upper.saturating_add(kept));
    }
    whole
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
