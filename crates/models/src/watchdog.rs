//! Ends runs that take too long.
//!
//! Owns: the thread that looks. A run beyond its time is answered 504 and told to stop, which it does at its next
//! operator; one that has not a second later is within an operator for good, and the process ends (75, `EX_TEMPFAIL`):
//! whoever started it starts another. While nothing runs it sleeps, and what runs have freed is given back before.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::oip::Refusal;
use crate::pool::Pool;
use crate::queue::State;
use crate::sys;

/// How long a run that was told to stop may go on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Exit code when one does not.
pub const STUCK: i32 = 75;
/// How long it looks on after the last run: waking it costs each first run a system call.
const LINGERS: Duration = Duration::from_secs(2);

/// Starts looking after `pool`.
///
/// # Errors
/// When no thread can be started.
pub fn start(pool: &Arc<Pool>) -> std::io::Result<()> {
    let pool = Arc::clone(pool);
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || look(&pool))?;
    Ok(())
}

/// Calls `late` unless what is returned is dropped within `limit`.
///
/// # Errors
/// When no thread can be started.
pub fn within(
    limit: Duration,
    late: impl FnOnce() + Send + 'static,
) -> std::io::Result<Sender<()>> {
    let (done, is_done) = channel();
    std::thread::Builder::new()
        .name("loading".into())
        .spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                late();
            }
        })?;
    Ok(done)
}

fn look(pool: &Pool) {
    // A run that begins now is over time no sooner than in `run_time`; to look twice in that time misses none.
    let often = (pool.terms.run_time / 2).clamp(Duration::from_millis(1), Duration::from_secs(1));
    let mut state = pool.lock();
    let mut last = Instant::now();
    loop {
        let now = Instant::now();
        let mut next = now + often;
        for place in 0..state.running.len() {
            next = next.min(judge(pool, &mut state, place, now).unwrap_or(next));
        }
        if state.running.iter().any(Option::is_some) {
            last = now;
        }
        let condvar = &pool.watch;
        state = if now.saturating_duration_since(last) > LINGERS {
            state.is_watched = false;
            drop(state);
            sys::give_back_memory();
            let state = pool.lock();
            // Somebody may have begun meanwhile, and has told nobody who waits.
            let state = condvar
                .wait_while(state, |it| !it.is_watched)
                .unwrap_or_else(PoisonError::into_inner);
            last = Instant::now();
            state
        } else {
            let sleep = next
                .saturating_duration_since(now)
                .max(Duration::from_millis(1));
            let woken = condvar.wait_timeout(state, sleep);
            woken.unwrap_or_else(PoisonError::into_inner).0
        };
    }
}

/// Looks at one session; when to look at it again. One that was told to stop before, since nobody waited any more, has its
/// whole time all the same: it may be within a long operator.
fn judge(pool: &Pool, state: &mut State, place: usize, now: Instant) -> Option<Instant> {
    let running = state.running.get_mut(place)?.as_mut()?;
    if now < running.until {
        return Some(running.until);
    }
    if now >= running.until + PATIENCE {
        sys::end(STUCK);
    }
    if !running.is_told {
        running.is_told = true;
        if let Some(stop) = pool.stops.get(place) {
            stop.stop();
        }
        // Those that ran together are run again, each alone and with its own time.
        if let [outcome] = running.outcomes.as_mut_slice()
            && let Some(outcome) = outcome.take()
        {
            let millis = pool.terms.run_time.as_millis();
            let message = format_args!("the model ran longer than {millis} ms (limits.run)");
            let _ = outcome.send(Err(Refusal::new(504, message)));
        }
    }
    Some(running.until + PATIENCE)
}
