//! A guest's stdout and stderr, cut into lines and handed to the engine's log.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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
    log: GuestLog,
    partial: Mutex<Vec<u8>>,
}

impl GuestStream {
    pub(crate) fn new(stream: Stream, log: GuestLog) -> Self {
        Self(Arc::new(Lines {
            stream,
            log,
            partial: Mutex::new(Vec::new()),
        }))
    }
}

impl Lines {
    fn hand_over(&self, line: &[u8]) {
        self.log.sink.line(&self.log.request_id, self.stream, line);
    }

    fn push(&self, bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for chunk in piece.chunks(MAX_LINE) {
                if partial.len() + chunk.len() > MAX_LINE {
                    self.hand_over(&mem::take(&mut *partial));
                }
                partial.extend_from_slice(chunk);
            }
            if partial.last() == Some(&b'\n') {
                partial.pop();
                self.hand_over(&partial);
                partial.clear();
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let partial = mem::take(
            self.partial
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if !partial.is_empty() {
            self.hand_over(&partial);
        }
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
        self.0.push(&bytes);
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
        self.0.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
