//! Whether anybody asks.
//!
//! Owns: since when nobody has. What counts is predictions: who only looks whether the model is ready keeps no process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long nobody has asked.
#[derive(Debug)]
pub struct Idle {
    /// After which nobody is expected any more.
    after: Option<Duration>,
    started: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
    under_way: AtomicUsize,
    /// The last one who asked has its answer.
    answered: Notify,
}

/// Somebody who asks, or has connected and is about to.
#[derive(Debug)]
pub struct Asking {
    idle: Arc<Idle>,
    /// Whether it was a prediction.
    pub counts: bool,
}

impl Idle {
    /// Nobody has asked since now.
    pub fn new(after_millis: Option<u64>) -> Self {
        Self {
            after: after_millis.map(Duration::from_millis),
            started: Instant::now(),
            last: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    /// Somebody asks.
    pub fn asking(self: &Arc<Self>) -> Asking {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Asking {
            idle: Arc::clone(self),
            counts: false,
        }
    }

    /// Returns when nobody has asked for that long.
    pub async fn over(&self) {
        loop {
            if self.under_way.load(Ordering::Relaxed) > 0 {
                self.answered.notified().await;
                continue;
            }
            match self.left(Instant::now()) {
                None => std::future::pending().await,
                Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// How long until nobody is expected any more, when none asks; zero: nobody is. `None`: for ever.
    fn left(&self, now: Instant) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let unasked = now.saturating_duration_since(self.started);
        Some(self.after?.saturating_sub(unasked.saturating_sub(last)))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.counts {
            let now = u64::try_from(self.idle.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.idle.last.fetch_max(now, Ordering::Relaxed);
        }
        if self.idle.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.answered.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn nobody_is_expected_when_none_has_asked_for_that_long() {
        let now = Instant::now();
        assert_eq!(Idle::new(None).left(now), None);
        assert!(Idle::new(Some(HOUR)).left(now) > Some(Duration::ZERO));
        let later = Instant::now() + Duration::from_millis(2 * HOUR);
        assert_eq!(Idle::new(Some(HOUR)).left(later), Some(Duration::ZERO));
    }

    #[test]
    fn who_asks_is_waited_for_and_only_predictions_count() {
        let idle = Arc::new(Idle::new(Some(0)));
        let is_over = || {
            let mut over = std::pin::pin!(idle.over());
            let mut context = Context::from_waker(Waker::noop());
            over.as_mut().poll(&mut context).is_ready()
        };
        assert!(is_over());
        let (one, other) = (idle.asking(), idle.asking());
        assert!(!is_over());
        drop(one);
        assert!(!is_over());
        drop(other);
        assert!(is_over());
        let later = Instant::now() + Duration::from_millis(2 * HOUR);
        let idle = Arc::new(Idle::new(Some(HOUR)));
        idle.last.store(HOUR + 1_000, Ordering::Relaxed);
        drop(idle.asking());
        assert!(idle.left(later) > Some(Duration::ZERO));
        assert!(idle.left(later) < Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_prediction_counts_from_its_end() {
        let idle = Arc::new(Idle::new(Some(HOUR)));
        let mut asking = idle.asking();
        asking.counts = true;
        while idle.started.elapsed() < Duration::from_millis(3) {
            std::thread::yield_now();
        }
        drop(asking);
        assert!(idle.last.load(Ordering::Relaxed) >= 3);
        drop(idle.asking());
    }
}
