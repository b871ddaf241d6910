//! The socket under a connection, and what hyper does not tell: whether anything was heard.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use vedette_quiet::Quiet;

use crate::target::Opened;

/// Most bytes before the head of an answer is whole: interim answers (1xx) have no end of their own.
const HEADS_BYTES: u64 = 512 << 10;

/// What was heard since the last request of an HTTP/1.1 connection.
#[derive(Default)]
pub(crate) struct Wire {
    heard: AtomicU64,
    awaits_head: AtomicBool,
}

impl Wire {
    /// A request is about to be written.
    pub(crate) fn begin(&self) {
        self.heard.store(0, Ordering::Relaxed);
        self.awaits_head.store(true, Ordering::Relaxed);
    }

    /// The head of the answer is there.
    pub(crate) fn has_head(&self) {
        self.awaits_head.store(false, Ordering::Relaxed);
    }

    /// Whether no byte came since the request.
    pub(crate) fn is_silent(&self) -> bool {
        self.heard.load(Ordering::Relaxed) == 0
    }

    fn hear(&self, bytes: usize) {
        if self.awaits_head.load(Ordering::Relaxed) {
            self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn is_flooded(&self) -> bool {
        self.awaits_head.load(Ordering::Relaxed) && self.heard.load(Ordering::Relaxed) > HEADS_BYTES
    }
}

/// A connection's bytes. It counts as open until it is dropped, wherever it has moved to.
pub(crate) struct Socket {
    stream: Stream,
    wire: Arc<Wire>,
    _opened: Opened,
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(Quiet),
}

impl Socket {
    pub(crate) fn new(stream: Stream, wire: Arc<Wire>, opened: Opened) -> Self {
        Self {
            stream,
            wire,
            _opened: opened,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wire.is_flooded() {
            let flood = io::Error::new(io::ErrorKind::InvalidData, "interim answers without end");
            return Poll::Ready(Err(flood));
        }
        let before = buffer.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        self.wire.hear(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
