//! The bytes of an HTTP/1.1 connection on their way out, where hyper's own refusals become ours.
//!
//! What is no HTTP never reaches the path: hyper answers it with a bare 400, 414 or 431. Such an
//! answer is the last thing on its connection and comes only while no answer of ours is under way,
//! so it can be told apart and replaced whole: with a request id, the node's place and the sentence
//! of the refusal table. Everything else passes untouched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::node::Connection;
use crate::refusal::Cause;
use crate::stages::respond;
use crate::trace::Ids;

const NONE: u8 = 0;
const UNDER_WAY: u8 = 1;
const LAST_BYTES: u8 = 2;
/// The connection speaks another protocol by now; nothing on it is HTTP.
const TUNNEL: u8 = 3;

/// Whether an answer of the path is under way on a connection, and what was refused below it.
#[derive(Default)]
pub struct Answering {
    state: AtomicU8,
    unreadable: OnceLock<(Cause, Ids)>,
    is_too_slow: AtomicBool,
    requests: AtomicU64,
}

impl Answering {
    /// A request has reached the path.
    pub fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.state.store(UNDER_WAY, Ordering::Relaxed);
    }

    /// Its answer has been handed over; its last bytes may still be on their way.
    pub fn end(&self) {
        if self.state.load(Ordering::Relaxed) != TUNNEL {
            self.state.store(LAST_BYTES, Ordering::Relaxed);
        }
    }

    /// The answer is a 101: from here on the bytes are a tunnel's.
    pub fn becomes_tunnel(&self) {
        self.state.store(TUNNEL, Ordering::Relaxed);
    }

    /// What was answered to bytes that were no HTTP, and under which ids.
    pub fn unreadable(&self) -> Option<&(Cause, Ids)> {
        self.unreadable.get()
    }

    /// Whether the connection was given up because a head did not come to its end.
    pub fn is_too_slow(&self) -> bool {
        self.is_too_slow.load(Ordering::Relaxed)
    }

    fn head_took_too_long(&self) {
        self.is_too_slow.store(true, Ordering::Relaxed);
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
    alarm: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
}

/// What a client goes on sending after it was refused. Closing at once would answer it with a reset,
/// which throws the refusal away.
struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

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
            alarm: None,
            lingering: None,
        }
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

impl<I: AsyncRead + Unpin> Wire<I> {
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(tokio::time::sleep(LINGER)),
            left: LINGER_BYTES,
        });
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    match lingering.left.checked_sub(buffer.filled().len()) {
                        Some(left) => lingering.left = left,
                        None => return Poll::Ready(()),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return lingering.until.as_mut().poll(cx),
            }
        }
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
            self.alarm = None;
        }
        if !self.connection.answering.is_none() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_ready() {
            if buffer.filled().len() > before && !self.in_head {
                self.in_head = true;
                self.alarm = Some(Box::pin(tokio::time::sleep(self.patience.header)));
            }
            return polled;
        }
        let idle = self.patience.idle;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(alarm.as_mut().poll(cx));
        if self.in_head {
            self.connection.answering.head_took_too_long();
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
        Pin::new(&mut self.io).poll_write(cx, bytes)
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
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.connection.answering.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.refusal.is_some() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
