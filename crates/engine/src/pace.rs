//! How slowly the other side of a connection may go. Only the time that it keeps us waiting counts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// What is asked of a client, with bodies either way.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Waiting that is forgiven before pace is asked for.
    pub grace: Duration,
    /// 0: any pace.
    pub bytes_per_second: u64,
}

/// The pace of one body.
pub struct Pace {
    patience: Patience,
    waited: Duration,
    waits_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Nothing has moved, and nobody has waited.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            waited: Duration::ZERO,
            waits_since: None,
            alarm: None,
        }
    }

    /// The other side did its part.
    pub fn moved(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.waited += since.elapsed();
            self.alarm = None;
        }
    }

    /// Ready when we have waited longer than `bytes` are worth.
    pub fn poll_lost(&mut self, bytes: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(worth) = bytes
            .saturating_mul(1_000)
            .checked_div(self.patience.bytes_per_second)
        else {
            return Poll::Pending;
        };
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let worth = Duration::from_millis(worth);
        let left = (self.patience.grace + worth).saturating_sub(self.waited);
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until((since + left).into())));
        alarm.as_mut().poll(cx)
    }
}

/// How a client takes what is written to it, from one moment in which nothing waits to the next.
pub struct Taking {
    patience: Patience,
    pace: Pace,
    bytes: u64,
}

impl Taking {
    /// Nothing is written yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            pace: Pace::new(patience),
            bytes: 0,
        }
    }

    /// What became of a write; an error of kind `TimedOut` when the client is too slow.
    pub fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.bytes += *count as u64;
        }
        self.waited_for(polled, cx)
    }

    /// What became of a flush; as [`Taking::written`].
    pub fn flushed(
        &mut self,
        polled: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if polled.is_ready() && self.bytes > 0 {
            *self = Self::new(self.patience);
        }
        self.waited_for(polled, cx)
    }

    fn waited_for<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.pace.moved();
            return polled;
        }
        ready!(self.pace.poll_lost(self.bytes, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}
