//! Unix stream sockets between two processes of this node that wake nobody without need.
//!
//! Owns: how such a socket waits. The kernel tells whoever waits for room in one each time the other side has read
//! (`unix_write_space`), and tokio waits for room and for bytes alike; so each request and each answer wakes its sender once
//! for nothing, which preempts who has just begun to work on it. Here only bytes are waited for, and room when there was
//! none.
//!
//! Must not: be used for TCP, whose kernel tells of room only when somebody has asked for more than there was.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[allow(unsafe_code)]
mod raw;

/// A connected Unix stream socket.
#[derive(Debug)]
pub struct Quiet {
    stream: AsyncFd<UnixStream>,
    /// The same socket once more, while there was no room in it.
    room: Option<AsyncFd<OwnedFd>>,
}

impl Quiet {
    /// Takes a socket over. Within a runtime.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = raw::await_bytes(stream)?;
        Ok(Self { stream, room: None })
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or has room for one more.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let stream = tokio::net::UnixStream::connect(path).await?;
        Self::new(stream.into_std()?)
    }

    /// Writes as `write` does, and waits for room where there is none.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        write: impl Fn(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            // Told before it is tried: what comes in between counts.
            let told = match &self.room {
                None => None,
                Some(room) => Some(ready!(room.poll_write_ready(cx))?),
            };
            match write(&mut self.stream.get_ref()) {
                Ok(written) => {
                    if written == wanted {
                        self.room = None;
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some(mut told) = told {
                        told.clear_ready();
                    } else {
                        let same = OwnedFd::from(self.stream.get_ref().try_clone()?);
                        self.room = Some(raw::await_room(same)?);
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Quiet {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut readable = ready!(self.stream.poll_read_ready(cx))?;
            let wanted = buffer.remaining();
            match raw::receive(self.stream.get_ref(), buffer) {
                Ok(read) => {
                    if 0 < read && read < wanted {
                        // There was no more; the next bytes are told (edge-triggered, as tokio's own sockets do).
                        readable.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => readable.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_room(cx, bytes.len(), |it| it.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = bytes.iter().map(|it| it.len()).sum();
        self.poll_room(cx, wanted, |it| it.write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
