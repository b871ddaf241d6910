//! What is held against who answers: failures in a row, and shares of what came within a time.
//!
//! Owns: counting, in memory of a fixed size that all workers share, and saying when it is too much. Must not: decide
//! what follows; [`crate::balance`] leaves an endpoint out, [`crate::breaker`] a whole service.
//!
//! A window has four parts; the oldest goes as a new one begins, so it looks back over three to four quarters of its
//! interval. A part is one word: nobody sees a total of one moment with failures of another.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::balance::{millis, now};
use crate::config::Shares;
use crate::error::SendError;

/// What came of a try, as far as it says something of who was asked.
#[derive(Debug)]
pub(crate) enum Outcome {
    Good,
    /// No answer, or 502, 503 and 504, which callers cannot bring about at will.
    Bad(String),
}

impl Outcome {
    /// `None`: it says nothing of who was asked.
    pub(crate) fn of(answered: Result<StatusCode, &SendError>) -> Option<Self> {
        match answered {
            Ok(status) if is_failure(status) => {
                Some(Self::Bad(format!("it answered {}", status.as_u16())))
            }
            Ok(_) => Some(Self::Good),
            Err(error) if error.is_the_endpoints() => Some(Self::Bad(error.to_string())),
            Err(_) => None,
        }
    }
}

/// Whether a gateway's status says that who was asked has failed (RFC 9110 §15.6.3 to §15.6.5).
pub(crate) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// Counts what is held against one endpoint, or one service.
pub(crate) struct Tally {
    /// Failures in a row that are too many; 0: any number is not.
    most_in_a_row: u32,
    in_a_row: AtomicU32,
    window: Option<Box<Window>>,
}

impl Tally {
    pub(crate) fn new(most_in_a_row: u32, shares: Option<&Shares>) -> Self {
        Self {
            most_in_a_row,
            in_a_row: AtomicU32::new(0),
            window: shares.map(|it| Box::new(Window::new(it.clone()))),
        }
    }

    /// Ends the row of failures.
    pub(crate) fn end_row(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// One more failure; says so when there are too many in a row.
    pub(crate) fn add_to_row(&self) -> Option<String> {
        let in_a_row = self
            .in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        (self.most_in_a_row != 0 && in_a_row >= self.most_in_a_row)
            .then(|| format!("{in_a_row} failures in a row"))
    }

    /// One more answer, or failure to give one; says so when a share is too large.
    pub(crate) fn add_to_window(&self, is_bad: bool, took: Option<Duration>) -> Option<String> {
        let window = self.window.as_deref()?;
        window.add(is_bad, window.is_slow(took), now());
        window.is_too_much(now())
    }

    /// A failure of a request that was counted as answered.
    pub(crate) fn add_late_failure(&self) -> Option<String> {
        let window = self.window.as_deref()?;
        window.add_late_failure(now());
        window.is_too_much(now())
    }

    /// Whether an answer that took so long is a slow one.
    pub(crate) fn is_slow(&self, took: Option<Duration>) -> bool {
        let window = self.window.as_deref();
        window.is_some_and(|window| window.is_slow(took))
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        if let Some(window) = &self.window {
            for part in &window.parts {
                part.store(0, Ordering::Relaxed);
            }
        }
    }
}

const PARTS: usize = 4;
/// A part has a number of 22 bits and three counts of 14.
const NUMBER: u64 = (1 << 22) - 1;
const COUNT: u64 = (1 << 14) - 1;

struct Window {
    shares: Shares,
    part_millis: u64,
    parts: [AtomicU64; PARTS],
}

#[derive(Clone, Copy, Default)]
struct Part {
    number: u64,
    all: u64,
    bad: u64,
    slow: u64,
}

impl Part {
    fn unpack(word: u64) -> Self {
        Self {
            number: word >> 42,
            all: word >> 28 & COUNT,
            bad: word >> 14 & COUNT,
            slow: word & COUNT,
        }
    }

    fn pack(self) -> u64 {
        self.number << 42 | self.all << 28 | self.bad << 14 | self.slow
    }

    /// The same shares in smaller numbers, where there is no room for larger ones.
    fn with_room(self) -> Self {
        if self.all < COUNT {
            return self;
        }
        Self {
            number: self.number,
            all: self.all / 2,
            bad: self.bad / 2,
            slow: self.slow / 2,
        }
    }
}

impl Window {
    fn new(shares: Shares) -> Self {
        Self {
            part_millis: (millis(shares.interval) / PARTS as u64).max(1),
            shares,
            parts: [const { AtomicU64::new(0) }; PARTS],
        }
    }

    fn is_slow(&self, took: Option<Duration>) -> bool {
        let slow = self.shares.slow.as_ref();
        slow.zip(took)
            .is_some_and(|(slow, took)| took >= slow.after)
    }

    fn number(&self, now: u64) -> u64 {
        (now / self.part_millis) & NUMBER
    }

    fn change(&self, now: u64, change: impl Fn(&mut Part)) {
        let number = self.number(now);
        let place = usize::try_from(number).unwrap_or(0) % PARTS;
        let Some(word) = self.parts.get(place) else {
            return;
        };
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let mut part = Part::unpack(word);
            if part.number != number {
                part = Part {
                    number,
                    ..Part::default()
                };
            }
            part = part.with_room();
            change(&mut part);
            Some(part.pack())
        });
    }

    fn add(&self, is_bad: bool, is_slow: bool, now: u64) {
        self.change(now, |part| {
            part.all += 1;
            part.bad += u64::from(is_bad);
            part.slow += u64::from(is_slow);
        });
    }

    fn add_late_failure(&self, now: u64) {
        self.change(now, |part| {
            // Its request may have been counted in a part that has gone.
            part.all = part.all.max(part.bad + 1);
            part.bad += 1;
        });
    }

    fn sum(&self, now: u64) -> Part {
        let number = self.number(now);
        let parts = self.parts.iter();
        let parts = parts.map(|word| Part::unpack(word.load(Ordering::Relaxed)));
        parts
            .filter(|part| (number.wrapping_sub(part.number) & NUMBER) < PARTS as u64)
            .fold(Part::default(), |sum, part| Part {
                number,
                all: sum.all + part.all,
                bad: sum.bad + part.bad,
                slow: sum.slow + part.slow,
            })
    }

    fn is_too_much(&self, now: u64) -> Option<String> {
        let Part { all, bad, slow, .. } = self.sum(now);
        if all == 0 || all < u64::from(self.shares.volume) {
            return None;
        }
        let reaches = |count: u64, percent: u32| count * 100 >= all * u64::from(percent);
        if self
            .shares
            .failure_percent
            .is_some_and(|it| reaches(bad, it))
        {
            return Some(format!("{bad} of {all} requests failed"));
        }
        let is_slow = |it: &&crate::config::SlowShare| reaches(slow, it.percent);
        let limit = self.shares.slow.as_ref().filter(is_slow)?;
        Some(format!(
            "{slow} of {all} answers took {:?} or longer",
            limit.after
        ))
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
