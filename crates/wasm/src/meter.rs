//! CPU time of a guest: the sum of the times its future was being polled.
//!
//! Epochs are wall clock, and a guest that waits for a host call is not running, so ticks alone
//! would bill it for waiting. A poll, in contrast, is on the processor from its start to its end.
//! One thread polls one guest at a time, so the running poll lives in a thread-local.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
struct Running {
    since: Instant,
    left: Duration,
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// Marks this thread as running a guest that has `left` CPU time, polls it, and returns what the
/// poll gave and the CPU time that is left afterwards.
pub(crate) fn metered<T>(left: Duration, poll: impl FnOnce() -> T) -> (T, Duration) {
    let since = Instant::now();
    let outer = RUNNING.replace(Some(Running { since, left }));
    let polled = poll();
    RUNNING.set(outer);
    (polled, left.saturating_sub(since.elapsed()))
}

/// Whether the guest running on this thread has used up its CPU time.
pub(crate) fn is_spent() -> bool {
    RUNNING
        .get()
        .is_some_and(|running| running.since.elapsed() >= running.left)
}
