//! Whether the process of a model still answers anybody.
//!
//! A process that works answers somebody within one of its longest runs for as long as there is somebody to answer: a run
//! beyond `limits.runMillis` is answered 504. One that is stopped (SIGSTOP), or turns in a circle, answers nobody, and
//! keeps its connections open. Waiting for all who may be in its queue before would hold callers for as long as that is;
//! here they wait until nothing was heard for two of its longest runs and [`MARGIN`]: one that nobody waits for any more
//! may be under way, and then their own.
//!
//! Must not: count the time in which a caller sends its body; what is asked of callers is the body's own pace.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;
use vedette_wasm::{BodyError, RequestBody};

use crate::clock::monotonic_nanos;

/// What a process may take beyond its runs: to read a request and write its answer, to be started again, to be scheduled.
pub const MARGIN: Duration = Duration::from_secs(5);

/// When a process was last heard, and how long it may be silent while somebody waits.
pub struct Hearing {
    at: AtomicU64,
    most: Duration,
}

/// The body of a request, which tells whose turn it is.
struct Told {
    body: RequestBody,
    turn: Arc<Turn>,
}

/// Whose turn it is in sending a body, and since when.
struct Turn {
    is_callers: AtomicBool,
    since: AtomicU64,
}

impl Hearing {
    /// Of a process whose runs take this long at most.
    pub fn new(run: Duration) -> Self {
        Self {
            at: AtomicU64::new(0),
            most: run.saturating_mul(2).saturating_add(MARGIN),
        }
    }

    /// How long it may be silent.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// What `send` gives, as long as the process answers somebody; `None`: it answers nobody.
    pub async fn attend<F: Future>(
        &self,
        body: RequestBody,
        send: impl FnOnce(RequestBody) -> F,
    ) -> Option<F::Output> {
        let turn = Arc::new(Turn {
            is_callers: AtomicBool::new(false),
            since: AtomicU64::new(monotonic_nanos()),
        });
        let body = match body.is_end_stream() {
            true => body,
            false => told(body, &turn),
        };
        let mut answered = pin!(send(body));
        loop {
            let left = self.left(&turn);
            if left.is_zero() {
                return None;
            }
            if let Ok(answered) = timeout(left, answered.as_mut()).await {
                return Some(answered);
            }
        }
    }

    /// It has answered somebody.
    pub fn heard(&self) {
        self.at.fetch_max(monotonic_nanos(), Ordering::Relaxed);
    }

    /// How long to wait on.
    fn left(&self, turn: &Turn) -> Duration {
        if turn.is_callers.load(Ordering::Relaxed) {
            return self.most;
        }
        let heard = self.at.load(Ordering::Relaxed);
        let since = turn.since.load(Ordering::Relaxed).max(heard);
        let silent = Duration::from_nanos(monotonic_nanos().saturating_sub(since));
        self.most.saturating_sub(silent)
    }
}

fn told(body: RequestBody, turn: &Arc<Turn>) -> RequestBody {
    let turn = Arc::clone(turn);
    Told { body, turn }.boxed_unsync()
}

impl Body for Told {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_callers = polled.is_pending();
        if !is_callers {
            self.turn.since.store(monotonic_nanos(), Ordering::Relaxed);
        }
        self.turn.is_callers.store(is_callers, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "silence_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
