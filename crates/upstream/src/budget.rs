//! The retry budget: retries are a share of the requests, so that they cannot double an overload.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one retry costs; a request earns its percentage of it.
const RETRY: u64 = 100;
/// Most retries saved up.
const SAVED: u64 = 100 * RETRY;
/// Ten a second aside, for services that are hardly asked.
const ASIDE_MILLIS: u64 = 100;
const ASIDE_SAVED_MILLIS: u64 = 900;

/// A bucket of retries.
pub(crate) struct Budget {
    percent: u64,
    earned: AtomicU64,
    /// When the retries aside are all back, in milliseconds (GCRA).
    aside: AtomicU64,
}

impl Budget {
    pub(crate) fn new(percent: u32) -> Self {
        Self {
            percent: u64::from(percent.min(100)),
            earned: AtomicU64::new(0),
            aside: AtomicU64::new(0),
        }
    }

    /// A request was sent.
    pub(crate) fn earn(&self) {
        if self.percent != 0 && self.earned.load(Ordering::Relaxed) < SAVED {
            self.earned.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Takes one retry, when there is one.
    pub(crate) fn take(&self, now_millis: u64) -> bool {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let paid = |earned: u64| earned.checked_sub(RETRY);
        let borrowed = |back: u64| {
            let back = back.max(now_millis);
            (back - now_millis <= ASIDE_SAVED_MILLIS).then_some(back + ASIDE_MILLIS)
        };
        self.earned.fetch_update(set, fetch, paid).is_ok()
            || self.aside.fetch_update(set, fetch, borrowed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn a_tenth_of_the_requests_may_be_retried_and_ten_a_second_aside() {
        let budget = Budget::new(10);
        for _ in 0..50 {
            budget.earn();
        }
        let taken = (0..100).filter(|_| budget.take(1_000)).count();
        assert_eq!(taken, 5 + 10);
        assert_eq!((0..100).filter(|_| budget.take(1_300)).count(), 3);
    }

    #[test]
    fn no_more_than_a_hundred_retries_are_saved() {
        let budget = Budget::new(100);
        for _ in 0..10_000 {
            budget.earn();
        }
        assert_eq!((0..1_000).filter(|_| budget.take(1_000)).count(), 110);
    }
}
