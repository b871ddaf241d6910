//! Who runs next, and who is refused at once.
//!
//! Owns: who is let into the queue of one model, which is bounded; the threads, one for each session; what a request
//! waits and runs. A request is refused when the queue is full, or when waiting and running together are predicted to
//! take longer than its caller gives it: told at once, it can go elsewhere. What could not be kept after all, or whom
//! nobody waits for any more, is dropped when its turn comes; a run whose callers have all left is told to stop.
//!
//! What is more critical goes before what is less, for [`crate::queue::MOST_PASSED`] requests at most, and takes its place
//! where no more may wait. Otherwise first come, first served, also among those with deadlines: a request is let in because
//! those before it leave it its time, and whoever overtook it would break that word. What waits may run together with the
//! first ([`crate::batch`]).
//!
//! A short run is done by the thread that reads the requests, while nothing else runs: waking the session's thread for it,
//! and being woken by that one, takes longer than such a thread could do anything else meanwhile.
//!
//! Must not: look into tensors.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::config::{Served, Tensor};
use crate::estimate::Key;
use crate::failure::{busy, late, leaves_open};
use crate::oip::Refusal;
use crate::queue::{Ask, Criticality, Job, Order, Outcome, Running, State, Turn, full, key};
use crate::runtime::{Session, Stop};

/// Longest run, as predicted, by the thread that reads the requests: nothing is read meanwhile.
const HERE: Duration = Duration::from_millis(3);

/// How a model is run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Requests that may wait.
    pub queue: usize,
    /// Longest run.
    pub run_time: Duration,
    /// Requests that may run together; 1: each runs alone.
    pub batch: usize,
    /// Whether requests that fit may still be what the model does not take.
    pub leaves_open: bool,
    /// Longest run by the thread that reads the requests; zero: each session's thread has all.
    pub here: Duration,
    /// Whether there is but one processor, so that nothing is read while something runs, whoever runs it.
    pub is_one_core: bool,
}

impl Terms {
    /// Those of `model`. Requests run together only where the first dimension of all that goes in and comes out is free.
    pub fn of(model: &Served) -> Self {
        let is_free = |it: &Tensor| it.shape.first() == Some(&0);
        let mut tensors = model.inputs.iter().chain(&model.outputs);
        Self {
            queue: model.limits.queue,
            run_time: model.limits.run_time(),
            batch: match tensors.all(is_free) {
                true => model.limits.batch.max(1),
                false => 1,
            },
            leaves_open: leaves_open(&model.inputs),
            here: Duration::ZERO,
            is_one_core: false,
        }
    }

    /// The same, with short runs by the thread that reads the requests. For models of which a run is known by its shapes.
    pub fn with_short_runs_here(self, is_one_core: bool) -> Self {
        Self {
            here: HERE,
            is_one_core,
            ..self
        }
    }
}

/// The sessions of a model and what waits for them.
pub struct Pool {
    state: Mutex<State>,
    /// Each is run by whoever has begun a run in its place.
    pub(crate) sessions: Vec<Mutex<Box<dyn Session>>>,
    /// Something waits.
    jobs: Condvar,
    /// Something runs, and the watchdog does not look.
    pub(crate) watch: Condvar,
    pub(crate) stops: Vec<Arc<dyn Stop>>,
    pub(crate) terms: Terms,
}

/// A request that was let in. Dropped, it is not run any more, or told to stop.
pub struct Waiting<'a> {
    pool: &'a Pool,
    answer: oneshot::Receiver<Outcome>,
    /// Whether it is for us to have it run.
    is_here: bool,
    is_over: bool,
}

impl Waiting<'_> {
    /// Its answer; `None`: the run ended without one.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        if std::mem::take(&mut self.is_here) {
            if self.pool.terms.batch > 1 {
                // What has come by now is read first, and may run with it.
                yield_now().await;
            }
            self.pool.run_here();
        }
        let outcome = (&mut self.answer).await;
        self.is_over = true;
        outcome.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.answer.close();
            self.pool.stop_forsaken();
        }
    }
}

impl Pool {
    /// Starts a thread for each session.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(sessions: Vec<Box<dyn Session>>, terms: Terms) -> std::io::Result<Arc<Self>> {
        let pool = Arc::new(Self::new(sessions, terms));
        for place in 0..pool.sessions.len() {
            let pool = Arc::clone(&pool);
            std::thread::Builder::new()
                .name(format!("session-{place}"))
                .spawn(move || pool.work(place))?;
        }
        Ok(pool)
    }

    /// The same without threads, for what is run by whoever asks.
    fn new(sessions: Vec<Box<dyn Session>>, terms: Terms) -> Self {
        let state = State {
            running: sessions.iter().map(|_| None).collect(),
            taken: vec![false; sessions.len()],
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            jobs: Condvar::new(),
            watch: Condvar::new(),
            stops: sessions.iter().map(|it| it.stop()).collect(),
            sessions: sessions.into_iter().map(Mutex::new).collect(),
            terms,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked left the state whole: nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more would be refused, whatever it asks.
    ///
    /// # Errors
    /// 503.
    pub fn require_room(&self, criticality: Criticality) -> Result<(), Refusal> {
        self.require_room_in(&mut self.lock(), criticality)
            .map(|_| ())
    }

    /// Whether whoever is last has to go for it.
    fn require_room_in(
        &self,
        state: &mut State,
        criticality: Criticality,
    ) -> Result<bool, Refusal> {
        if state.is_leaving {
            return Err(busy(
                "this version of the model is being replaced",
                Duration::ZERO,
            ));
        }
        let most = self.terms.queue + state.idle();
        if state.waiting.len() >= most {
            // Those whose callers have gone wait for nothing.
            state.waiting.retain(|it| !it.outcome.is_closed());
        }
        if state.waiting.len() < most {
            return Ok(false);
        }
        match state.waiting.back() {
            Some(last) if last.order.ask.criticality < criticality => Ok(true),
            _ => Err(full(state)),
        }
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// 503: the queue is full of what is as critical, or it would not be answered by its deadline.
    pub fn submit(&self, ask: Ask) -> Result<Waiting<'_>, Refusal> {
        let (outcome, answer) = oneshot::channel();
        let key = key(&ask.inputs, None);
        let came = Instant::now();
        let mut state = self.lock();
        let is_full = self.require_room_in(&mut state, ask.criticality)?;
        let predicted = state.estimates.of(key);
        let place = state.place(ask.criticality);
        let takes = state.wait(place) + predicted;
        if let Some(deadline) = ask.deadline
            && came + takes > deadline
        {
            if came + predicted > deadline {
                state.estimates.doubt(key);
            }
            return Err(late(takes));
        }
        if let Some(last) = state.waiting.pop_back_if(|_| is_full) {
            let _ = last.outcome.send(Err(full(&state)));
        }
        state.overtake(place);
        let is_here = self.is_for_here(&state, key);
        let job = Job {
            order: Order { ask, key, came },
            predicted,
            outcome,
            passed: 0,
            is_here,
        };
        state.waiting.insert(place, job);
        drop(state);
        if !is_here {
            self.jobs.notify_one();
        }
        Ok(Waiting {
            pool: self,
            answer,
            is_here,
            is_over: false,
        })
    }

    /// Whether one more is to be run by the thread that reads the requests: the only session is idle, and such runs are
    /// known to be short. Where another processor could run it while this one reads on, only while nothing else waits.
    fn is_for_here(&self, state: &State, key: Key) -> bool {
        let is_idle = state.taken == [false];
        let has_turn = self.terms.is_one_core || state.waiting.is_empty();
        let is_short = || {
            state
                .estimates
                .known(key)
                .is_some_and(|it| it <= self.terms.here)
        };
        is_idle && has_turn && is_short()
    }

    /// Runs what is next, alone or together, on this thread, where it is for it and nothing else runs.
    fn run_here(&self) {
        let turn = {
            let mut state = self.lock();
            let is_next = state.waiting.front().is_some_and(|it| it.is_here);
            let is_free = is_next && state.taken == [false];
            is_free.then(|| self.begin_next(&mut state, 0)).flatten()
        };
        if let Some(turn) = turn {
            self.run(0, turn);
        }
        // The session's thread may have been told of others, and found the session taken.
        if self.lock().waiting.iter().any(|it| !it.is_here) {
            self.jobs.notify_one();
        }
    }

    /// Takes no request any more; what waits is still run.
    pub fn leave(&self) {
        self.lock().is_leaving = true;
        self.jobs.notify_all();
    }

    /// Tells runs to stop whose callers have all left.
    fn stop_forsaken(&self) {
        let mut state = self.lock();
        for (running, stop) in state.running.iter_mut().zip(&self.stops) {
            let Some(running) = running.as_mut().filter(|it| !it.is_told) else {
                continue;
            };
            let mut waiting = running.outcomes.iter().flatten();
            if waiting.all(oneshot::Sender::is_closed) {
                running.is_told = true;
                stop.stop();
            }
        }
    }

    /// What a session runs next, from now on; `None`: there will be nothing.
    pub(crate) fn next(&self, place: usize) -> Option<Turn> {
        let mut state = self.lock();
        loop {
            let is_idle = state.taken.get(place) == Some(&false);
            if is_idle && let Some(turn) = self.begin_next(&mut state, place) {
                return Some(turn);
            }
            if is_idle && state.is_leaving {
                return None;
            }
            let woken = self.jobs.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what is next, and has it begun in that place; `None`: nobody waits.
    fn begin_next(&self, state: &mut State, place: usize) -> Option<Turn> {
        loop {
            let job = state.waiting.pop_front()?;
            let since = Instant::now();
            let takes = state.estimates.of(job.order.key);
            let Some(outcome) = still_wanted(&job.order.ask, job.outcome, since + takes, takes)
            else {
                continue;
            };
            let first = (job.order, outcome);
            let together = state.together(&self.terms, first, takes, since);
            self.begin(state, place, together.takes, since, together.outcomes);
            state.take(place, true);
            return Some(Turn {
                orders: together.orders,
                is_trial: together.is_trial,
                since,
            });
        }
    }

    /// Notes that a session runs something for those who wait for `outcomes`.
    pub(crate) fn begin(
        &self,
        state: &mut State,
        place: usize,
        predicted: Duration,
        since: Instant,
        outcomes: Vec<Option<oneshot::Sender<Outcome>>>,
    ) {
        let running = Running {
            since,
            until: since + self.terms.run_time,
            predicted,
            outcomes,
            is_told: false,
        };
        if let (Some(slot), Some(stop)) = (state.running.get_mut(place), self.stops.get(place)) {
            *slot = Some(running);
            stop.clear();
        }
        if !state.is_watched {
            state.is_watched = true;
            self.watch.notify_one();
        }
    }
}

/// Whoever waits for a request, if somebody does and it would be over in time; told so otherwise.
pub(crate) fn still_wanted(
    ask: &Ask,
    outcome: oneshot::Sender<Outcome>,
    over: Instant,
    takes: Duration,
) -> Option<oneshot::Sender<Outcome>> {
    if outcome.is_closed() {
        return None;
    }
    if ask.deadline.is_some_and(|deadline| over > deadline) {
        let _ = outcome.send(Err(late(takes)));
        return None;
    }
    Some(outcome)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
