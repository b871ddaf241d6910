//! The bytes of an HTTP/1.1 connection on their way out, where hyper's own refusals become ours.
//!
//! What is no HTTP never reaches the path: hyper answers it with a bare 400, 414 or 431. Such an
//! answer is the last thing on its connection and comes only while no answer of ours is under way,
//! so it can be told apart and replaced whole: with a request id, the node's place and the sentence
//! of the refusal table. Everything else passes untouched.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::time::Sleep;

use crate::node::Connection;
use crate::pace::{self, Taking};
use crate::refusal::Cause;
use crate::sources::Seat;
use crate::stages::respond;
use crate::trace::Ids;

const NONE: u8 = 0;
const UNDER_WAY: u8 = 1;
const LAST_BYTES: u8 = 2;
/// The connection speaks another protocol by now; nothing on it is HTTP.
const TUNNEL: u8 = 3;

/// Requests beyond a limit that a connection may make in a row.
const MOST_BEYOND: u32 = 20;

/// Whether an answer of the path is under way on a connection, and what was refused below it.
#[derive(Default)]
pub struct Answering {
    state: AtomicU8,
    unreadable: OnceLock<(Cause, Ids)>,
    gave_up: OnceLock<Cause>,
    requests: AtomicU64,
    rests: AtomicBool,
    leaves_unread: AtomicBool,
    leftover: Mutex<Leftover>,
    settles: AtomicBool,
    goodbye: Notify,
    /// Requests beyond a limit, one after the other, nothing else between them.
    beyond: AtomicU32,
    tunnel: Mutex<Option<oneshot::Sender<TunnelEnd>>>,
}

/// A request's body that nobody reads to its end.
#[derive(Default)]
enum Leftover {
    /// The answer is on its way, or there is no body.
    #[default]
    Past,
    /// The answer is being made: it waits for what is left.
    Awaited,
    Kept(Incoming),
}

/// A connection that has become a tunnel, and its place among the connections.
pub type TunnelEnd = (Box<dyn Stream>, Seat);

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Stream for I {}

impl Answering {
    /// A request has reached the path.
    pub fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.leaves_unread.store(false, Ordering::Relaxed);
        self.state.store(UNDER_WAY, Ordering::Relaxed);
    }

    /// Its answer has been handed over; its last bytes may still be on their way.
    pub fn end(&self) {
        if self.state.load(Ordering::Relaxed) != TUNNEL {
            self.state.store(LAST_BYTES, Ordering::Relaxed);
        }
    }

    /// The answer is a 101: from here on the bytes are a tunnel's, whoever waits for it here.
    pub fn becomes_tunnel(&self) -> oneshot::Receiver<TunnelEnd> {
        let (sender, receiver) = oneshot::channel();
        self.state.store(TUNNEL, Ordering::Relaxed);
        *self.tunnel() = Some(sender);
        receiver
    }

    /// Who waits for the tunnel that the connection has become, if it has.
    pub fn take_tunnel(&self) -> Option<oneshot::Sender<TunnelEnd>> {
        self.tunnel().take()
    }

    fn tunnel(&self) -> MutexGuard<'_, Option<oneshot::Sender<TunnelEnd>>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has a body: what is left of it when its answer is there, [`Self::take_leftover`] gives.
    pub fn await_leftover(&self) {
        *self.leftover() = Leftover::Awaited;
    }

    /// Nobody reads the rest of this body. Gives it back when the answer is on its way already.
    pub fn leave(&self, body: Incoming) -> Option<Incoming> {
        let mut leftover = self.leftover();
        if !matches!(*leftover, Leftover::Awaited) {
            return Some(body);
        }
        *leftover = Leftover::Kept(body);
        None
    }

    /// A body is read away behind the answer, or is not any more.
    pub fn settles(&self, whether: bool) {
        self.settles.store(whether, Ordering::Relaxed);
    }

    /// What nobody has read, now that the answer is there.
    pub fn take_leftover(&self) -> Option<Incoming> {
        match std::mem::take(&mut *self.leftover()) {
            Leftover::Kept(body) => Some(body),
            _ => None,
        }
    }

    fn leftover(&self) -> MutexGuard<'_, Leftover> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rest of a body is not read: the connection closes behind the answer.
    pub fn leave_unread(&self) {
        self.leaves_unread.store(true, Ordering::Relaxed);
    }

    /// Whether it is not.
    pub fn leaves_unread(&self) -> bool {
        self.leaves_unread.load(Ordering::Relaxed)
    }

    /// A request was beyond a limit. Whether the client has gone on asking for too long: to refuse each of a flood
    /// costs what an honest request costs, and a connection anew is counted before its handshake.
    pub fn beyond_limit(&self) -> bool {
        self.beyond.fetch_add(1, Ordering::Relaxed) >= MOST_BEYOND
    }

    /// A request was not refused.
    pub fn within_limits(&self) {
        self.beyond.store(0, Ordering::Relaxed);
    }

    /// The client is not let in any more: the answer under way is the last of its connection. Over HTTP/1.1 a
    /// field of it says so.
    pub fn say_goodbye(&self) {
        self.goodbye.notify_one();
    }

    /// Returns once the client is not let in any more.
    pub async fn goodbye(&self) {
        self.goodbye.notified().await;
    }

    /// Whether nothing has come for a moment, said once.
    pub fn may_rest(&self) -> bool {
        self.rests.load(Ordering::Relaxed) && self.rests.swap(false, Ordering::Relaxed)
    }

    /// How many requests have reached the path.
    #[cfg(any(test, fuzzing))]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What was answered to bytes that were no HTTP, and under which ids.
    pub fn unreadable(&self) -> Option<&(Cause, Ids)> {
        self.unreadable.get()
    }

    /// Why the connection was given up, if it was.
    pub fn gave_up(&self) -> Option<Cause> {
        self.gave_up.get().copied()
    }

    /// The connection is given up, because of this if there was nothing before.
    pub fn give_up(&self, cause: Cause) {
        self.gave_up.get_or_init(|| cause);
    }

    /// What became of a write, noting when it was given up.
    pub fn not_taken<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        if matches!(&polled, Poll::Ready(Err(error)) if is_late(error)) {
            self.give_up(Cause::AnswerNotTaken);
        }
        polled
    }

    fn flushed(&self) {
        if self.state.load(Ordering::Relaxed) == LAST_BYTES {
            self.state.store(NONE, Ordering::Relaxed);
        }
    }

    fn is_none(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NONE
    }
}

/// A stream to a client.
pub struct Wire<I> {
    io: I,
    connection: Arc<Connection>,
    /// Our refusal, and how much of it was sent.
    refusal: Option<(Vec<u8>, usize)>,
    patience: Patience,
    /// Whether a head has begun to come, and when it, or the wait for it, has taken too long.
    in_head: bool,
    /// How many requests had come when that was last looked at.
    requests: u64,
    /// Bytes that were read and are still to be.
    unread: Bytes,
    /// Whether it was said that the connection may rest, since the last request.
    is_resting: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
    taking: Taking,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For bodies.
    pub pace: pace::Patience,
}

/// What a client goes on sending after it was refused, or answered early. Closing at once would answer it with a reset,
/// which throws the refusal away.
pub struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

/// How long nothing comes before a connection rests.
const REST_AFTER: Duration = Duration::from_secs(1);

/// How long, and for how many bytes, a refused client is listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

impl<I> Wire<I> {
    /// The stream `io` of `connection`.
    pub fn new(io: I, connection: Arc<Connection>, patience: Patience) -> Self {
        Self {
            io,
            connection,
            refusal: None,
            patience,
            in_head: false,
            requests: 0,
            unread: Bytes::new(),
            is_resting: false,
            alarm: None,
            lingering: None,
            taking: Taking::new(patience.pace),
        }
    }

    /// Bytes that hyper had read and not used: they are read again.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Whether hyper is about to write a refusal of its own; then ours takes its place.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_some() {
            return true;
        }
        if !self.connection.answering.is_none() {
            return false;
        }
        let Some(cause) = refused_by_hyper(bytes) else {
            return false;
        };
        let (_, ids) = self
            .connection
            .answering
            .unreadable
            .get_or_init(|| (cause, Ids::new(&http::HeaderMap::new())));
        let answer = respond::refuse_unreadable(cause, ids, &self.connection.location);
        self.refusal = Some((answer, 0));
        true
    }
}

/// hyper tells only by the status which refusal it is.
fn refused_by_hyper(bytes: &[u8]) -> Option<Cause> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..4)?;
    match status {
        b"400 " => Some(Cause::MalformedRequest),
        b"414 " => Some(Cause::UriTooLong),
        b"431 " => Some(Cause::HeadersTooLarge),
        _ => None,
    }
}

impl<I: AsyncWrite + Unpin> Wire<I> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((bytes, sent)) = &mut self.refusal else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl Lingering {
    /// From now on.
    pub fn new() -> Self {
        Self {
            until: Box::pin(tokio::time::sleep(LINGER)),
            left: LINGER_BYTES,
        }
    }

    /// Ready when the client has gone, or was listened to for long enough.
    pub fn poll<I: AsyncRead + Unpin>(&mut self, io: &mut I, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    match self.left.checked_sub(buffer.filled().len()) {
                        Some(left) => self.left = left,
                        None => return Poll::Ready(()),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.until.as_mut().poll(cx),
            }
        }
    }
}

impl<I: AsyncRead + Unpin> Wire<I> {
    /// Returns when a client that rests has sent something; false when it has gone or was idle for
    /// too long.
    pub async fn rest(&mut self) -> bool {
        if !self.unread.is_empty() {
            return true;
        }
        poll_fn(|cx| {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.unread = Bytes::copy_from_slice(buffer.filled());
                    Poll::Ready(true)
                }
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending => self.poll_idle(cx).map(|()| false),
            }
        })
        .await
    }

    /// Ready when nothing has come for as long as a connection may idle. Says on the way when it may
    /// rest.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.patience.idle;
        let first = idle.min(REST_AFTER);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(first)));
        ready!(alarm.as_mut().poll(cx));
        if self.is_resting || first == idle {
            return Poll::Ready(());
        }
        self.is_resting = true;
        self.connection
            .answering
            .rests
            .store(true, Ordering::Relaxed);
        alarm
            .as_mut()
            .reset(tokio::time::Instant::now() + idle.saturating_sub(first));
        alarm.as_mut().poll(cx)
    }

    /// Bytes of a body that is read away: no head, and nobody is idle. Looks again when that must be over.
    fn poll_settling(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.poll_bytes(cx, buffer);
        if polled.is_ready() {
            return polled;
        }
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        ready!(alarm.as_mut().poll(cx));
        self.alarm = None;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let requests = self.connection.answering.requests.load(Ordering::Relaxed);
        if requests != self.requests || !self.connection.answering.is_none() {
            self.requests = requests;
            self.in_head = false;
            self.is_resting = false;
            self.alarm = None;
        }
        if !self.connection.answering.is_none() {
            return self.poll_bytes(cx, buffer);
        }
        if self.connection.answering.settles.load(Ordering::Relaxed) {
            return self.poll_settling(cx, buffer);
        }
        let before = buffer.filled().len();
        let polled = self.poll_bytes(cx, buffer);
        if polled.is_ready() {
            if buffer.filled().len() > before && !self.in_head {
                self.in_head = true;
                self.alarm = Some(Box::pin(tokio::time::sleep(self.patience.header)));
            }
            return polled;
        }
        if self.in_head {
            let header = self.patience.header;
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(header)));
            ready!(alarm.as_mut().poll(cx));
            self.connection.answering.give_up(Cause::HeadTooSlow);
        } else {
            ready!(self.poll_idle(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            // It is sent with the flush that follows; hyper writes nothing after it.
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        let polled = self.taking.written(polled, cx);
        self.connection.answering.not_taken(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        if first.is_some_and(|first| self.replaces(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        let polled = self.taking.written(polled, cx);
        self.connection.answering.not_taken(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        let polled = self.taking.flushed(polled, cx);
        ready!(self.connection.answering.not_taken(polled))?;
        self.connection.answering.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        if self.lingering.is_none() {
            let polled = Pin::new(&mut self.io).poll_shutdown(cx);
            let polled = self.taking.flushed(polled, cx);
            ready!(self.connection.answering.not_taken(polled))?;
        }
        if self.refusal.is_some() || self.connection.answering.leaves_unread() {
            let this = &mut *self;
            let lingering = this.lingering.get_or_insert_with(Lingering::new);
            ready!(lingering.poll(&mut this.io, cx));
        }
        Poll::Ready(Ok(()))
    }
}
