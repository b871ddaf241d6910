//! How long runs take, learned as they end.
//!
//! Owns: for each set of input shapes a histogram of run times, which forgets: when it is full, all counts are halved.
//! What it predicts is the 95th percentile, told as the upper end of its bucket, so it is never less and at most 19 %
//! more. Shapes that are new are predicted by what all others took.
//!
//! Must not: grow with what callers send: [`MAX_SHAPES`] sets, 256 bytes each; further ones share the last.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// Sets of shapes that are told apart.
const MAX_SHAPES: usize = 512;
/// Four buckets for each doubling, from a microsecond to an hour and more.
const BUCKETS: usize = 128;
const BUCKETS_OF_A_DOUBLING: f64 = 4.0;
/// Runs after which a histogram forgets half.
const FULL: u32 = 512;

/// Names a set of input shapes.
pub type Key = u64;

struct Histogram {
    counts: [u16; BUCKETS],
    total: u32,
    /// What it predicts now.
    predicted: Duration,
}

impl Histogram {
    fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            predicted: Duration::ZERO,
        }
    }

    fn add(&mut self, ran: Duration) {
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|it| *it /= 2);
            self.total = self.counts.iter().map(|it| u32::from(*it)).sum();
        }
        if let Some(count) = self.counts.get_mut(bucket(ran)) {
            *count += 1;
            self.total += 1;
        }
        self.predicted = self.quantile();
    }

    /// Forgets one of the longest runs.
    fn forget_longest(&mut self) {
        if let Some(count) = self.counts.iter_mut().rev().find(|it| **it > 0) {
            *count -= 1;
            self.total -= 1;
        }
        self.predicted = self.quantile();
    }

    /// The 95th percentile.
    fn quantile(&self) -> Duration {
        let above = self.total / 20; // runs that may take longer
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate().rev() {
            seen += u32::from(*count);
            if seen > above {
                return end_of(place);
            }
        }
        Duration::ZERO
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn bucket(ran: Duration) -> usize {
    let micros = ran.as_secs_f64() * 1e6;
    let place = (micros.max(1.0).log2() * BUCKETS_OF_A_DOUBLING) as usize;
    place.min(BUCKETS - 1)
}

#[allow(clippy::cast_precision_loss)]
fn end_of(bucket: usize) -> Duration {
    let micros = ((bucket + 1) as f64 / BUCKETS_OF_A_DOUBLING).exp2();
    Duration::from_secs_f64(micros / 1e6)
}

/// What is known of a model's run times.
pub struct Estimates {
    of_shapes: HashMap<Key, Histogram, BuildHasherDefault<SipHasher13>>,
    of_all: Histogram,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            of_shapes: HashMap::default(),
            of_all: Histogram::new(),
        }
    }
}

impl Estimates {
    /// How long a run with these shapes will take; zero while nothing has run.
    pub fn of(&self, key: Key) -> Duration {
        let known = self.of_shapes.get(&key);
        known.unwrap_or(&self.of_all).predicted
    }

    /// The same, of runs with these shapes alone; none while there were none.
    pub fn known(&self, key: Key) -> Option<Duration> {
        self.of_shapes.get(&key).map(|it| it.predicted)
    }

    /// Somebody was refused for what is predicted, so nothing is learnt: a little of it is forgotten. Else one long run
    /// would shut out for ever all who say how long they wait.
    pub fn doubt(&mut self, key: Key) {
        match self.of_shapes.get_mut(&key) {
            Some(known) => known.forget_longest(),
            None => self.of_all.forget_longest(),
        }
    }

    /// Learns from a run.
    pub fn learn(&mut self, key: Key, ran: Duration) {
        self.of_all.add(ran);
        if self.of_shapes.len() < MAX_SHAPES || self.of_shapes.contains_key(&key) {
            self.of_shapes
                .entry(key)
                .or_insert_with(Histogram::new)
                .add(ran);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_prediction_is_never_less_than_most_runs_and_at_most_a_bucket_more() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.of(1), Duration::ZERO);
        for millis in 1..=100 {
            estimates.learn(1, MILLI * millis);
        }
        let predicted = estimates.of(1);
        assert!(predicted >= MILLI * 95, "{predicted:?}");
        assert!(predicted <= MILLI * 95 * 119 / 100, "{predicted:?}");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut estimates = Estimates::default();
        for _ in 0..1000 {
            estimates.learn(1, MILLI * 500);
        }
        for _ in 0..5000 {
            estimates.learn(1, MILLI);
        }
        assert!(estimates.of(1) < MILLI * 2, "{:?}", estimates.of(1));
    }

    #[test]
    fn shapes_without_a_run_are_predicted_by_all_others() {
        let mut estimates = Estimates::default();
        estimates.learn(1, MILLI * 8);
        assert!(estimates.of(2) >= MILLI * 8);
        estimates.learn(2, MILLI);
        assert!(estimates.of(2) < MILLI * 2);
    }

    #[test]
    fn who_is_refused_for_one_long_run_is_not_refused_for_ever() {
        let mut estimates = Estimates::default();
        for _ in 0..10 {
            estimates.learn(1, MILLI);
        }
        estimates.learn(1, MILLI * 10_000);
        assert!(estimates.of(1) >= MILLI * 10_000);
        estimates.doubt(1);
        assert!(estimates.of(1) < MILLI * 2, "{:?}", estimates.of(1));
        for _ in 0..20 {
            estimates.doubt(1);
            estimates.doubt(2);
        }
        assert_eq!(estimates.of(1), Duration::ZERO);
        assert_eq!(estimates.of(2), Duration::ZERO);
    }

    #[test]
    fn more_shapes_than_there_is_room_for_change_nothing_but_what_all_predict() {
        let mut estimates = Estimates::default();
        for key in 0..100_000 {
            estimates.learn(key, MILLI);
        }
        assert_eq!(estimates.of_shapes.len(), MAX_SHAPES);
        assert!(estimates.of(99_999) >= MILLI);
    }
}
