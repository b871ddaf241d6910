//! A guest's stdout and stderr, cut into lines and handed to the engine's log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The longest line kept whole; a longer one is cut into pieces of this many bytes.
const MAX_LINE: usize = 8 * 1024;

/// Which of the guest's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the lines a guest writes. Must not block.
pub trait LogSink: Send + Sync {
    /// Takes one line of the call `request_id`, without its line end; at most 8 KiB, not
    /// necessarily UTF-8.
    fn line(&self, request_id: &HeaderValue, stream: Stream, line: &[u8]);
}

/// The log as one call has it.
#[derive(Clone)]
pub(crate) struct GuestLog {
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) request_id: HeaderValue,
}

/// One stream of one instance. What is left without a line end is handed over at the end.
#[derive(Clone)]
pub(crate) struct GuestStream(Arc<Lines>);

struct Lines {
    stream: Stream,
    written: Mutex<Written>,
}

/// What was written of the current line, and to whose log it goes.
struct Written {
    log: GuestLog,
    partial: Vec<u8>,
}

impl GuestStream {
    pub(crate) fn new(stream: Stream, log: GuestLog) -> Self {
        let partial = Vec::new();
        Self(Arc::new(Lines {
            stream,
            written: Mutex::new(Written { log, partial }),
        }))
    }

    /// What is written from now on belongs to `log`.
    pub(crate) fn hand_to(&self, log: GuestLog) {
        let mut written = self.0.lock();
        written.finish(self.0.stream);
        written.log = log;
    }

    /// Hands over a line that has no end yet.
    pub(crate) fn finish_line(&self) {
        self.0.lock().finish(self.0.stream);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for chunk in piece.chunks(MAX_LINE) {
                if self.partial.len() + chunk.len() > MAX_LINE {
                    self.hand_over(stream);
                }
                self.partial.extend_from_slice(chunk);
            }
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                self.hand_over(stream);
            }
        }
    }

    fn finish(&mut self, stream: Stream) {
        if !self.partial.is_empty() {
            self.hand_over(stream);
        }
    }

    fn hand_over(&mut self, stream: Stream) {
        let log = &self.log;
        log.sink.line(&log.request_id, stream, &self.partial);
        self.partial.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let stream = self.stream;
        self.lock().finish(stream);
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.lock().push(self.0.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.lock().push(self.0.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
