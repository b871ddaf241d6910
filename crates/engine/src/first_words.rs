//! What a TLS client says first, kept as it passes, so that its fingerprint can be told.
//!
//! The handshake waits for nothing on our account: rustls reads, and what it has read of its first message
//! is copied here until somebody asks. Must not: judge the handshake, or keep more than one hello.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vedette_admit::hello::{self, First, Ja4};

/// The longest message with the heads of the records that it may be in.
const MOST: usize = hello::LONGEST + 128;

/// A stream whose first bytes are kept.
pub struct FirstWords<I> {
    io: I,
    /// None once they were asked for.
    said: Option<Vec<u8>>,
}

impl<I> FirstWords<I> {
    /// From the first byte of `io` on.
    pub fn new(io: I) -> Self {
        let said = Some(Vec::new());
        Self { io, said }
    }

    /// The fingerprint of the hello that has been read; from here on nothing is kept.
    pub fn ja4(&mut self) -> Option<Ja4> {
        match hello::read(&self.said.take()?) {
            Ok(First::Hello(hello)) => Some(hello.ja4()),
            Ok(First::Incomplete) | Err(_) => None,
        }
    }

    /// The stream itself.
    pub fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FirstWords<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Some(said) = &mut self.said {
            let room = MOST.saturating_sub(said.len());
            let new = buffer.filled().get(before..).unwrap_or_default();
            said.extend_from_slice(new.get(..room).unwrap_or(new));
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FirstWords<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "first_words_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
