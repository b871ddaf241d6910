//! What waits for a model, and what runs.
//!
//! Owns: the order of those who wait, and how long one more would wait. Must not: run anything.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use tokio::sync::oneshot;

use crate::estimate::{Estimates, Key};
use crate::failure::busy;
use crate::oip::Refusal;
use crate::pace::Paces;
use crate::runtime::Data;

/// What came of a request.
pub struct Ran {
    /// What was asked for, in that order.
    pub outputs: Vec<Data>,
    /// How long it waited for a session.
    pub waited: Duration,
    /// How long it ran.
    pub ran: Duration,
    /// How many ran together, with this one.
    pub together: usize,
}

/// What a request waits for.
pub type Outcome = Result<Ran, Refusal>;

/// Requests that may overtake one that waits: whoever is less critical than all that comes is served all the same.
pub const MOST_PASSED: u8 = 64;

/// Whose turn is first, as the route says by which a request came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Criticality {
    /// Goes first where there is no room for all.
    Sheddable,
    /// As most are.
    #[default]
    Standard,
    /// Before all others.
    Critical,
}

/// What is to be run.
pub struct Ask {
    /// In the model's order.
    pub inputs: Vec<Data>,
    /// Places of the outputs that are wanted, in the order of the request.
    pub outputs: Vec<usize>,
    /// When nobody waits for it any more.
    pub deadline: Option<Instant>,
    /// Who asks, as far as requests of one may run together; none: it runs alone.
    pub tenant: Option<Bytes>,
    /// Whose turn is first.
    pub criticality: Criticality,
}

/// A request that was let in.
pub(crate) struct Order {
    pub(crate) ask: Ask,
    /// Names its shapes.
    pub(crate) key: Key,
    pub(crate) came: Instant,
}

/// One that waits.
pub(crate) struct Job {
    pub(crate) order: Order,
    pub(crate) predicted: Duration,
    pub(crate) outcome: oneshot::Sender<Outcome>,
    /// How many have overtaken it.
    pub(crate) passed: u8,
    /// Whether whoever waits for it has it run; no thread was told of it.
    pub(crate) is_here: bool,
}

/// What a session runs next, since when.
pub(crate) struct Turn {
    /// Several run together.
    pub(crate) orders: Vec<Order>,
    /// Whether it is to be found out if they may.
    pub(crate) is_trial: bool,
    pub(crate) since: Instant,
}

/// A session that runs something.
pub(crate) struct Running {
    pub(crate) since: Instant,
    /// When it has run for too long.
    pub(crate) until: Instant,
    pub(crate) predicted: Duration,
    /// Of those that run together; each taken by whoever answers first.
    pub(crate) outcomes: Vec<Option<oneshot::Sender<Outcome>>>,
    /// Whether it was told to stop.
    pub(crate) is_told: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) waiting: VecDeque<Job>,
    pub(crate) running: Vec<Option<Running>>,
    /// Sessions that somebody has a turn with, also between the runs of one turn.
    pub(crate) taken: Vec<bool>,
    pub(crate) estimates: Estimates,
    pub(crate) paces: Paces,
    pub(crate) is_leaving: bool,
    /// Whether the watchdog looks; it does not while nothing runs.
    pub(crate) is_watched: bool,
}

/// 503: as many wait as may.
pub(crate) fn full(state: &State) -> Refusal {
    let wait = state.wait(state.waiting.len());
    busy("as many requests wait for the model as may", wait)
}

impl State {
    /// Somebody has a turn with a session, or has had it.
    pub(crate) fn take(&mut self, place: usize, is_taken: bool) {
        if let Some(it) = self.taken.get_mut(place) {
            *it = is_taken;
        }
    }

    /// Sessions that run nothing.
    pub(crate) fn idle(&self) -> usize {
        self.running.iter().filter(|it| it.is_none()).count()
    }

    /// Where one more would wait: behind all that is as critical, or was overtaken often enough.
    pub(crate) fn place(&self, criticality: Criticality) -> usize {
        let may_pass = |it: &Job| it.order.ask.criticality < criticality && it.passed < MOST_PASSED;
        let passes = self.waiting.iter().rev().take_while(|it| may_pass(it));
        self.waiting.len() - passes.count()
    }

    /// One more goes before those who wait from `place` on.
    pub(crate) fn overtake(&mut self, place: usize) {
        for job in self.waiting.iter_mut().skip(place) {
            job.passed = job.passed.saturating_add(1);
        }
    }

    /// How long one more would wait at that place: what runs and what waits before it, shared by the sessions. What
    /// running together would save is not counted on.
    pub(crate) fn wait(&self, place: usize) -> Duration {
        if place < self.idle() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let running = self.running.iter().flatten();
        let left = running.map(|it| (it.since + it.predicted).saturating_duration_since(now));
        let waiting = self.waiting.iter().take(place).map(|it| it.predicted);
        let total: Duration = left.chain(waiting).sum();
        total / u32::try_from(self.running.len().max(1)).unwrap_or(1)
    }
}

/// Names the shapes of inputs; `rows`: with this as the first dimension of each.
pub(crate) fn key(inputs: &[Data], rows: Option<i64>) -> Key {
    let mut hasher = SipHasher13::new();
    for input in inputs {
        input.shape.len().hash(&mut hasher);
        for (place, size) in input.shape.iter().enumerate() {
            let size = rows.filter(|_| place == 0).unwrap_or(*size);
            size.hash(&mut hasher);
        }
    }
    hasher.finish()
}
