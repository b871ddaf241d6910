//! The bytes of an HTTP/2 connection, where floods and half-sent heads are seen.
//!
//! h2 reads frames as fast as they come, and waits for the rest of one as long as it takes. Here the
//! heads of frames are read beside it. Frames that ask for work and carry nothing are paid for from a
//! credit that work done and time fill up; a head has its time. Whoever goes beyond gets GOAWAY, and
//! the connection closes. Must not: read what is in a frame, or keep a byte of it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::node::Connection;
use crate::pace::{Patience, Taking};
use crate::refusal::Cause;
use crate::wire::Lingering;

// RFC 9113 §3.4, §4.1, §6 and §7.
const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;

/// The credit that a connection begins with and time fills up again.
const CREDIT: u32 = 1_000;
const CREDIT_A_SECOND: u64 = 50;
/// What an answer's frame earns: a window opened twice, with room for clients that ask how fast we are.
const EARNED: u32 = 8;
/// The most that can be earned.
const CREDIT_EARNED: u32 = 10_000;
/// Bytes of a frame that cost as much as the frame itself: settings come many in a frame.
const BYTES_A_CREDIT: u32 = 64;

/// The first nine bytes of a frame.
#[derive(Clone, Copy)]
struct Head {
    size: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn new(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, w, x, y, z] = bytes;
        Self {
            size: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([w & 0x7f, x, y, z]),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds the heads in a stream of bytes.
#[derive(Default)]
struct Heads {
    head: [u8; HEAD],
    /// How much of `head` is there.
    have: usize,
    /// What is still to come of the frame whose head was last.
    left: usize,
}

impl Heads {
    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            for (slot, byte) in self.head.iter_mut().skip(self.have).zip(bytes) {
                *slot = *byte;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == HEAD {
                let head = Head::new(self.head);
                self.have = 0;
                self.left = head.size as usize;
                each(head);
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

/// What a client may still ask for without being paid for it.
struct Credit {
    left: u32,
    filled: Instant,
}

impl Credit {
    fn new() -> Self {
        Self {
            left: CREDIT,
            filled: Instant::now(),
        }
    }

    fn earn(&mut self) {
        self.left = self.left.saturating_add(EARNED).min(CREDIT_EARNED);
    }

    /// `false`: there is not enough.
    fn spend(&mut self, cost: u32) -> bool {
        if self.left < cost {
            let millis = u64::try_from(self.filled.elapsed().as_millis()).unwrap_or(u64::MAX);
            let due = millis.saturating_mul(CREDIT_A_SECOND) / 1_000;
            let due = u32::try_from(due).unwrap_or(CREDIT);
            self.left = self.left.saturating_add(due).min(CREDIT);
            self.filled = Instant::now();
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What is known of the frames that came and went.
struct Watch {
    coming: Heads,
    going: Heads,
    /// Whether the last head that came was of a frame with a body's bytes, whose pace others watch.
    is_data: bool,
    /// Whether fields are to go on in the next frame.
    in_fields: bool,
    last_stream: u32,
    credit: Credit,
    is_flooded: bool,
}

impl Watch {
    fn new() -> Self {
        Self {
            coming: Heads {
                left: PREFACE,
                ..Heads::default()
            },
            going: Heads::default(),
            is_data: false,
            in_fields: false,
            last_stream: 0,
            credit: Credit::new(),
            is_flooded: false,
        }
    }

    fn comes(&mut self, bytes: &[u8]) {
        let Self {
            is_data,
            in_fields,
            last_stream,
            credit,
            is_flooded,
            ..
        } = self;
        self.coming.read(bytes, |head| {
            *is_data = head.kind == DATA;
            let cost = match head.kind {
                HEADERS => {
                    *last_stream = head.stream.max(*last_stream);
                    *in_fields = !head.has(END_HEADERS);
                    0
                }
                CONTINUATION => {
                    *in_fields = !head.has(END_HEADERS);
                    1
                }
                DATA => u32::from(head.size == 0 && !head.has(END_STREAM)),
                _ => 1 + head.size / BYTES_A_CREDIT,
            };
            *is_flooded |= cost > 0 && !credit.spend(cost);
        });
    }

    fn goes(&mut self, bytes: &[u8]) {
        let Self {
            credit, is_flooded, ..
        } = self;
        self.going.read(bytes, |head| match head.kind {
            DATA | HEADERS => credit.earn(),
            // A stream that we refuse is work as well.
            RST_STREAM => *is_flooded |= !credit.spend(1),
            _ => {}
        });
    }

    /// Whether something has begun to come that must come to its end in time.
    fn waits_for_the_rest(&self) -> bool {
        self.in_fields || !(self.is_data || self.coming.is_between_frames())
    }
}

/// The last thing that is said, and what is listened to after it.
struct Goodbye {
    bytes: Vec<u8>,
    sent: usize,
    lingering: Lingering,
}

impl Goodbye {
    /// GOAWAY (RFC 9113 §6.8), unless it would stand in the middle of another frame.
    fn new(watch: &Watch, code: u8) -> Self {
        let mut bytes = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&watch.last_stream.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, code]);
        if !watch.going.is_between_frames() {
            bytes.clear();
        }
        Self {
            bytes,
            sent: 0,
            lingering: Lingering::new(),
        }
    }

    fn poll<I>(&mut self, io: &mut I, cx: &mut Context<'_>) -> Poll<io::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        // A client that does not read does not get it: the time to linger ends this.
        while let Some(rest) = self.bytes.get(self.sent..).filter(|it| !it.is_empty()) {
            match Pin::new(&mut *io).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) if count > 0 => self.sent += count,
                Poll::Ready(_) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Poll::Pending => break,
            }
        }
        let _ = Pin::new(&mut *io).poll_flush(cx);
        ready!(self.lingering.poll(io, cx));
        Poll::Ready(io::ErrorKind::ConnectionAborted.into())
    }
}

/// A stream to a client that speaks HTTP/2.
pub struct Frames<I> {
    io: I,
    connection: Arc<Connection>,
    /// From the first byte of a head to its last.
    header: Duration,
    watch: Watch,
    taking: Taking,
    alarm: Option<Pin<Box<Sleep>>>,
    goodbye: Option<Goodbye>,
}

impl<I> Frames<I> {
    /// The stream `io` of `connection`.
    pub fn new(io: I, connection: Arc<Connection>, header: Duration, patience: Patience) -> Self {
        Self {
            io,
            connection,
            header,
            watch: Watch::new(),
            taking: Taking::new(patience),
            alarm: None,
            goodbye: None,
        }
    }

    fn leave(&mut self, cause: Cause, code: u8) {
        self.connection.answering.give_up(cause);
        self.goodbye = Some(Goodbye::new(&self.watch, code));
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.goodbye.is_none() {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
            this.watch
                .comes(buffer.filled().get(before..).unwrap_or_default());
            if this.watch.is_flooded {
                buffer.set_filled(before);
                this.leave(Cause::Flooded, ENHANCE_YOUR_CALM);
            } else if this.watch.waits_for_the_rest() {
                let header = this.header;
                let alarm = this
                    .alarm
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(header)));
                if polled.is_ready() {
                    return polled;
                }
                ready!(alarm.as_mut().poll(cx));
                this.leave(Cause::HeadTooSlow, NO_ERROR);
            } else {
                this.alarm = None;
                return polled;
            }
        }
        match &mut this.goodbye {
            Some(goodbye) => goodbye.poll(&mut this.io, cx).map(Err),
            None => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.goodbye.is_some() {
            // Nothing is said after a goodbye.
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            this.watch.goes(bytes.get(..*count).unwrap_or_default());
        }
        let polled = this.taking.written(polled, cx);
        this.connection.answering.not_taken(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.goodbye.is_some() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(count)) = &polled {
            let mut left = *count;
            for slice in slices {
                let sent = left.min(slice.len());
                this.watch.goes(slice.get(..sent).unwrap_or_default());
                left -= sent;
            }
        }
        let polled = this.taking.written(polled, cx);
        this.connection.answering.not_taken(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.goodbye.is_some() {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        let polled = this.taking.flushed(polled, cx);
        this.connection.answering.not_taken(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        let polled = this.taking.flushed(polled, cx);
        this.connection.answering.not_taken(polled)
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
