//! Who runs next, and who is refused at once.
//!
//! Owns: the queue of one model, bounded; the threads, each with one session; what a request waits and runs. A request
//! is refused when the queue is full, or when waiting and running together are predicted to take longer than its caller
//! gives it: told at once, it can go elsewhere. What could not be kept after all, or whom nobody waits for any more, is
//! dropped when its turn comes.
//!
//! Must not: look into tensors. Batching of what is queued belongs into [`Pool::next`], which takes one job now.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;
use tokio::sync::oneshot;

use crate::estimate::{Estimates, Key};
use crate::oip::Refusal;
use crate::runtime::{Data, RunError, Session, Stop};

/// What came of a request.
pub struct Ran {
    /// What was asked for, in that order.
    pub outputs: Vec<Data>,
    /// How long it waited for a session.
    pub waited: Duration,
    /// How long it ran.
    pub ran: Duration,
}

/// What a request waits for.
pub type Outcome = Result<Ran, Refusal>;

/// A request that waits.
struct Job {
    ask: Ask,
    deadline: Option<Instant>,
    predicted: Duration,
    outcome: oneshot::Sender<Outcome>,
}

/// What is to be run.
struct Ask {
    inputs: Vec<Data>,
    outputs: Vec<usize>,
    key: Key,
    came: Instant,
}

/// A session that runs something.
pub(crate) struct Running {
    pub(crate) since: Instant,
    /// When it has run for too long.
    pub(crate) until: Instant,
    predicted: Duration,
    /// Taken by whoever answers first.
    pub(crate) outcome: Option<oneshot::Sender<Outcome>>,
}

#[derive(Default)]
pub(crate) struct State {
    waiting: VecDeque<Job>,
    pub(crate) running: Vec<Option<Running>>,
    estimates: Estimates,
    is_leaving: bool,
    /// Whether the watchdog looks; it does not while nothing runs.
    pub(crate) is_watched: bool,
}

/// The sessions of a model and what waits for them.
pub struct Pool {
    state: Mutex<State>,
    /// Something waits.
    jobs: Condvar,
    /// Something runs, and the watchdog does not look.
    pub(crate) watch: Condvar,
    pub(crate) stops: Vec<Arc<dyn Stop>>,
    queue: usize,
    pub(crate) run_time: Duration,
}

impl Pool {
    /// Starts a thread for each session.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        sessions: Vec<Box<dyn Session>>,
        queue: usize,
        run_time: Duration,
    ) -> std::io::Result<Arc<Self>> {
        let state = State {
            running: sessions.iter().map(|_| None).collect(),
            ..State::default()
        };
        let pool = Arc::new(Self {
            state: Mutex::new(state),
            jobs: Condvar::new(),
            watch: Condvar::new(),
            stops: sessions.iter().map(|it| it.stop()).collect(),
            queue,
            run_time,
        });
        for (place, session) in sessions.into_iter().enumerate() {
            let pool = Arc::clone(&pool);
            std::thread::Builder::new()
                .name(format!("session-{place}"))
                .spawn(move || pool.work(place, session))?;
        }
        Ok(pool)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked left the state whole: nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more would be refused, whatever it asks.
    ///
    /// # Errors
    /// 503.
    pub fn require_room(&self) -> Result<(), Refusal> {
        self.require_room_in(&mut self.lock())
    }

    fn require_room_in(&self, state: &mut State) -> Result<(), Refusal> {
        if state.is_leaving {
            return Err(busy(
                "this version of the model is being replaced",
                Duration::ZERO,
            ));
        }
        let most = self.queue + state.idle();
        if state.waiting.len() >= most {
            // Those whose callers have gone wait for nothing.
            state.waiting.retain(|it| !it.outcome.is_closed());
        }
        if state.waiting.len() >= most {
            let wait = state.wait();
            return Err(busy("as many requests wait for the model as may", wait));
        }
        Ok(())
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// 503: the queue is full, or it would not be answered by `deadline`.
    pub fn submit(
        &self,
        inputs: Vec<Data>,
        outputs: Vec<usize>,
        deadline: Option<Instant>,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let (outcome, answer) = oneshot::channel();
        let key = key(&inputs);
        let came = Instant::now();
        let mut state = self.lock();
        self.require_room_in(&mut state)?;
        let predicted = state.estimates.of(key);
        let takes = state.wait() + predicted;
        if let Some(deadline) = deadline
            && came + takes > deadline
        {
            if came + predicted > deadline {
                state.estimates.doubt(key);
            }
            return Err(late(takes));
        }
        let ask = Ask {
            inputs,
            outputs,
            key,
            came,
        };
        state.waiting.push_back(Job {
            ask,
            deadline,
            predicted,
            outcome,
        });
        drop(state);
        self.jobs.notify_one();
        Ok(answer)
    }

    /// Takes no request any more; what waits is still run.
    pub fn leave(&self) {
        self.lock().is_leaving = true;
        self.jobs.notify_all();
    }

    /// The next job for a session, and since when it runs; `None`: there will be none.
    fn next(&self, place: usize) -> Option<(Ask, Instant)> {
        let mut state = self.lock();
        loop {
            let Some(job) = state.waiting.pop_front() else {
                if state.is_leaving {
                    return None;
                }
                state = self
                    .jobs
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            let takes = state.estimates.of(job.ask.key);
            if job.outcome.is_closed() {
                continue;
            }
            if job.deadline.is_some_and(|deadline| now + takes > deadline) {
                let _ = job.outcome.send(Err(late(takes)));
                continue;
            }
            let running = Running {
                since: now,
                until: now + self.run_time,
                predicted: takes,
                outcome: Some(job.outcome),
            };
            if let (Some(slot), Some(stop)) = (state.running.get_mut(place), self.stops.get(place))
            {
                *slot = Some(running);
                stop.clear();
            }
            if !state.is_watched {
                state.is_watched = true;
                self.watch.notify_one();
            }
            return Some((job.ask, now));
        }
    }

    fn work(&self, place: usize, mut session: Box<dyn Session>) {
        while let Some((ask, since)) = self.next(place) {
            let done = session.run(&ask.inputs, &ask.outputs);
            let ran = since.elapsed();
            let outcome = {
                let mut state = self.lock();
                if done.is_ok() || done == Err(RunError::Stopped) {
                    state.estimates.learn(ask.key, ran);
                }
                let running = state.running.get_mut(place).and_then(Option::take);
                running.and_then(|it| it.outcome)
            };
            let waited = since - ask.came;
            let done = done.map(|outputs| Ran {
                outputs,
                waited,
                ran,
            });
            if let Some(outcome) = outcome {
                let _ = outcome.send(done.map_err(failed));
            }
        }
    }
}

impl State {
    fn idle(&self) -> usize {
        self.running.iter().filter(|it| it.is_none()).count()
    }

    /// How long one more would wait: what runs and what waits, shared by the sessions.
    fn wait(&self) -> Duration {
        if self.waiting.len() < self.idle() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let running = self.running.iter().flatten();
        let left = running.map(|it| (it.since + it.predicted).saturating_duration_since(now));
        let waiting = self.waiting.iter().map(|it| it.predicted);
        let total: Duration = left.chain(waiting).sum();
        total / u32::try_from(self.running.len().max(1)).unwrap_or(1)
    }
}

fn key(inputs: &[Data]) -> Key {
    let mut hasher = SipHasher13::new();
    for input in inputs {
        input.shape.hash(&mut hasher);
    }
    hasher.finish()
}

fn busy(message: &str, wait: Duration) -> Refusal {
    Refusal {
        status: 503,
        message: message.into(),
        retry_after: Some(wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64),
    }
}

fn late(takes: Duration) -> Refusal {
    let message = format!(
        "waiting and running would take about {} ms, which is longer than the deadline",
        takes.as_millis().max(1)
    );
    busy(&message, takes)
}

fn failed(error: RunError) -> Refusal {
    match error {
        RunError::Stopped => Refusal::new(504, "the model ran for too long, and was stopped"),
        RunError::OutOfMemory => busy(
            "the model needs more memory for this than it may have (limits.memoryBytes)",
            Duration::ZERO,
        ),
        RunError::Unfit(message) => Refusal::bad(message),
        RunError::Failed(message) => Refusal::new(500, format_args!("the run failed: {message}")),
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
