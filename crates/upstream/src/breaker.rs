//! The circuit breaker of a service, or of a destination outside: closed, open, half-open.
//!
//! Closed, it counts. Open, nothing is sent for a pause. Half-open, a few trials are: as many good ones as it wants
//! close it, the first bad one opens it again (the states of M. Nygard's Release It!, as Envoy's and Resilience4j's
//! users know them). One word says which it is; a lock is taken only to change it, and by trials.
//!
//! Must not: know what is asked. What was sent before it opened says nothing about it afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::balance::{millis, now};
use crate::config::BreakerConfig;
use crate::error::SendError;
use crate::tally::Tally;
use crate::trouble::unix_millis;

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests go through.
    Closed,
    /// A few requests go through, to see how it does.
    HalfOpen,
    /// None goes through.
    Open,
}

impl CircuitState {
    /// The word for status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// What is known of a breaker, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// How it stands.
    pub state: CircuitState,
    /// Until when it is open, in milliseconds since 1970.
    pub open_until: Option<u64>,
    /// Times it opened.
    pub opened: u64,
    /// Requests that were not sent since it was open.
    pub refused: u64,
    /// Why it opened last.
    pub why: Option<String>,
}

/// One breaker. Shared by all workers.
pub(crate) struct Breaker {
    config: BreakerConfig,
    tally: Tally,
    /// Milliseconds of [`now`] until which it is open; 0: closed. A time that has passed: half-open.
    until: AtomicU64,
    /// Times it opened. What was sent under another number says nothing about it.
    opened: AtomicU64,
    refused: AtomicU64,
    trials: Mutex<Trials>,
}

#[derive(Default)]
struct Trials {
    under_way: u32,
    good: u32,
    /// When the last one was let go.
    last: u64,
    why: Option<String>,
}

/// The right to send one try, under judgement until it is dropped.
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    opened: u64,
    /// Whether it holds a place among the trials.
    is_trial: bool,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Arc<Self> {
        Arc::new(Self {
            tally: Tally::new(config.failures, config.shares.as_ref()),
            config,
            until: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            trials: Mutex::default(),
        })
    }

    /// Whether one more may be sent.
    ///
    /// # Errors
    /// [`SendError::CircuitOpen`] with the time until it may be worth asking again.
    pub(crate) fn pass(self: &Arc<Self>) -> Result<Pass, SendError> {
        // The number first: what finds it closed was then let through under that number.
        let closed = self.pass_as(false);
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return Ok(closed);
        }
        let now = now();
        if until > now {
            return Err(self.refuse(until - now));
        }
        let mut trials = self.lock();
        match self.until.load(Ordering::Acquire) {
            0 => return Ok(self.pass_as(false)),
            until if until > now => return Err(self.refuse(until - now)),
            _ => {}
        }
        if trials.under_way + trials.good >= self.config.trials.max(1) {
            // A trial that takes its time does not keep the others out for good.
            let lapses = trials.last.saturating_add(millis(self.config.pause));
            if trials.under_way == 0 || lapses > now {
                return Err(self.refuse(0));
            }
            trials.under_way = 0;
        }
        trials.under_way += 1;
        trials.last = now;
        Ok(self.pass_as(true))
    }

    /// Whether it is open, and the time for a trial has not come.
    pub(crate) fn is_open(&self) -> bool {
        self.until.load(Ordering::Relaxed) > now()
    }

    /// Whether it is open or half-open.
    pub(crate) fn is_tripped(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn circuit(&self) -> Circuit {
        let why = self.lock().why.clone();
        let until = self.until.load(Ordering::Acquire);
        let left = until.checked_sub(now()).filter(|left| *left > 0);
        Circuit {
            state: match (until, left) {
                (0, _) => CircuitState::Closed,
                (_, Some(_)) => CircuitState::Open,
                (_, None) => CircuitState::HalfOpen,
            },
            open_until: left.map(|left| unix_millis().saturating_add(left)),
            opened: self.opened.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            why,
        }
    }

    fn pass_as(self: &Arc<Self>, is_trial: bool) -> Pass {
        Pass {
            opened: self.opened.load(Ordering::Acquire),
            breaker: Arc::clone(self),
            is_trial,
        }
    }

    fn refuse(&self, millis: u64) -> SendError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        SendError::CircuitOpen(Duration::from_millis(millis))
    }

    /// Opens it, once for all that was sent under one number.
    fn open(&self, trials: &mut Trials, why: String) {
        let until = now().saturating_add(millis(self.config.pause).max(1));
        self.until.store(until, Ordering::Release);
        self.opened.fetch_add(1, Ordering::Release);
        *trials = Trials {
            why: Some(why),
            ..Trials::default()
        };
    }

    fn lock(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// What came of it: whether it failed, and how long it took where that is known.
    pub(crate) fn judge(&mut self, is_bad: bool, took: Option<Duration>) {
        if std::mem::take(&mut self.is_trial) {
            return self.judge_trial(is_bad || self.breaker.tally.is_slow(took));
        }
        if !self.is_of_now() {
            return;
        }
        let tally = &self.breaker.tally;
        let in_a_row = if is_bad {
            tally.add_to_row()
        } else {
            tally.end_row();
            None
        };
        let why = tally.add_to_window(is_bad, took).or(in_a_row);
        self.trip(why);
    }

    /// It was counted as answered, and its answer broke off.
    pub(crate) fn failed_late(&self) {
        if !self.is_of_now() {
            return;
        }
        if self.breaker.is_tripped() {
            return self.judge_trial(true);
        }
        let in_a_row = self.breaker.tally.add_to_row();
        let why = self.breaker.tally.add_late_failure().or(in_a_row);
        self.trip(why);
    }

    /// Nobody waited for what comes of it, for so long.
    pub(crate) fn given_up(&mut self, took: Option<Duration>) {
        if self.breaker.tally.is_slow(took) {
            self.judge(false, took);
        }
    }

    fn trip(&self, why: Option<String>) {
        let Some(why) = why.filter(|_| self.is_of_now()) else {
            return;
        };
        let mut trials = self.breaker.lock();
        if self.is_of_now() && !self.breaker.is_tripped() {
            self.breaker.open(&mut trials, why);
        }
    }

    fn judge_trial(&self, is_bad: bool) {
        let mut trials = self.breaker.lock();
        if !self.is_of_now() || !self.breaker.is_tripped() {
            return;
        }
        if is_bad {
            return self
                .breaker
                .open(&mut trials, "a trial did not go well".into());
        }
        trials.under_way = trials.under_way.saturating_sub(1);
        trials.good += 1;
        if trials.good >= self.breaker.config.trials.max(1) {
            // Counted anew before anybody is let through.
            self.breaker.tally.clear();
            self.breaker.until.store(0, Ordering::Release);
        }
    }

    fn is_of_now(&self) -> bool {
        self.breaker.opened.load(Ordering::Acquire) == self.opened
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_trial {
            let mut trials = self.breaker.lock();
            if self.is_of_now() {
                trials.under_way = trials.under_way.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
