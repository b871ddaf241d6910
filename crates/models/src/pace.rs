//! Whether it pays to run requests together, and whether it may be done.
//!
//! Owns: for each set of shapes without its first dimension, the least time that a row took in runs of 1, 2, 4, … rows.
//! As long as a row gets cheaper by doubling, rows are run together; sizes that are not known yet are tried. Every
//! [`FORGETS`] runs it begins anew: machines change. On one or two cores that often means: not at all.
//! Also owned: whether rows were seen to know nothing of each other.
//!
//! Must not: grow with what callers send: [`MAX_SHAPES`] sets; further ones run alone.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::estimate::Key;

/// Sets of shapes that are told apart.
const MAX_SHAPES: usize = 512;
/// Sizes: 1, 2, 4, … 1,024 rows.
const SIZES: usize = 11;
/// Runs of a size until it is known.
const ENOUGH: u8 = 4;
/// Runs after which all is found out again.
const FORGETS: u32 = 512;
/// What a row must take of what it took in half as many, for it to pay.
const PAYS: f64 = 0.95;
/// Runs that have to agree before rows are taken to know nothing of each other.
const PROOFS: u8 = 2;
/// Runs that may say nothing before it is left.
const TRIES: u8 = 8;

/// What a run of several requests said, beside each of them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same.
    Proved,
    /// Something else.
    Refuted,
    /// Nothing: one of them failed.
    Unclear,
}

impl Verdict {
    /// One of several had nothing to say.
    pub fn or_unclear(self) -> Self {
        match self {
            Self::Proved => Self::Unclear,
            other => other,
        }
    }
}

#[derive(Default)]
struct Pace {
    /// Least seconds of a row, and in how many runs, by size.
    of_row: [(f64, u8); SIZES],
    runs: u32,
    proofs: u8,
    tries: u8,
}

/// What is known of a model's rows.
#[derive(Default)]
pub struct Paces {
    of_shapes: HashMap<Key, Pace, BuildHasherDefault<SipHasher13>>,
    /// Once is enough, with whatever shapes.
    is_refuted: bool,
}

/// The least size with room for so many rows.
fn size(rows: usize) -> usize {
    let size = rows.max(1).next_power_of_two().trailing_zeros();
    usize::try_from(size).unwrap_or(SIZES).min(SIZES - 1)
}

impl Paces {
    /// Rows up to which it pays, beginning with a request of `rows`; no more than those: it runs alone.
    pub fn most_rows(&self, key: Key, rows: usize) -> usize {
        let Some(pace) = self.of_shapes.get(&key).filter(|_| !self.is_refuted) else {
            return rows;
        };
        if pace.proofs < PROOFS && pace.tries >= TRIES {
            return rows;
        }
        let mut found = size(rows);
        let known = |size: usize| pace.of_row.get(size).filter(|it| it.1 >= ENOUGH);
        if known(found).is_none() {
            return rows;
        }
        while let Some((one, _)) = known(found) {
            match known(found + 1) {
                Some((two, _)) if *two < one * PAYS => found += 1,
                None if found + 1 < SIZES => return 1 << (found + 1),
                _ => break,
            }
        }
        rows.max(1 << found)
    }

    /// Whether rows of such shapes were seen to know nothing of each other.
    pub fn is_proved(&self, key: Key) -> bool {
        self.of_shapes
            .get(&key)
            .is_some_and(|it| it.proofs >= PROOFS)
    }

    /// Notes what a trial said.
    pub fn judge(&mut self, key: Key, verdict: Verdict) {
        let Some(pace) = self.of_shapes.get_mut(&key) else {
            return;
        };
        pace.tries = pace.tries.saturating_add(1);
        match verdict {
            Verdict::Proved => pace.proofs = pace.proofs.saturating_add(1),
            Verdict::Refuted => self.is_refuted = true,
            Verdict::Unclear => {}
        }
    }

    /// Learns from a run of so many rows.
    pub fn learn(&mut self, key: Key, rows: usize, ran: Duration) {
        if self.of_shapes.len() >= MAX_SHAPES && !self.of_shapes.contains_key(&key) {
            return;
        }
        let pace = self.of_shapes.entry(key).or_default();
        pace.runs = pace.runs.wrapping_add(1);
        if pace.runs.is_multiple_of(FORGETS) {
            pace.of_row = <[(f64, u8); SIZES]>::default();
            pace.tries = 0;
        }
        #[allow(clippy::cast_precision_loss)]
        let took = ran.as_secs_f64() / rows.max(1) as f64;
        if let Some((least, runs)) = pace.of_row.get_mut(size(rows)) {
            *least = if *runs == 0 { took } else { least.min(took) };
            *runs = runs.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace of rows that take so many milliseconds in runs of 1, 2, 4, ….
    fn paces(millis_of_row: &[u64]) -> Paces {
        let mut paces = Paces::default();
        for (size, millis) in millis_of_row.iter().enumerate() {
            let rows = 1 << size;
            for _ in 0..ENOUGH {
                paces.learn(1, rows, Duration::from_millis(millis * rows as u64));
            }
        }
        paces
    }

    #[test]
    fn nothing_runs_together_before_one_alone_is_known() {
        assert_eq!(Paces::default().most_rows(1, 1), 1);
    }

    #[test]
    fn the_next_size_is_tried_and_growing_ends_where_it_does_not_pay() {
        assert_eq!(paces(&[100]).most_rows(1, 1), 2);
        assert_eq!(paces(&[100, 60]).most_rows(1, 1), 4);
        assert_eq!(paces(&[100, 60, 59]).most_rows(1, 1), 2);
        assert_eq!(paces(&[100, 99]).most_rows(1, 1), 1);
        assert_eq!(paces(&[100, 99, 10]).most_rows(1, 1), 1);
    }

    #[test]
    fn a_request_of_many_rows_is_never_cut() {
        assert_eq!(paces(&[100, 99]).most_rows(1, 7), 7);
        assert_eq!(paces(&[100]).most_rows(1, 5_000), 5_000);
    }

    #[test]
    fn what_did_not_pay_is_tried_again_some_time() {
        let mut paces = paces(&[100, 99]);
        for _ in 0..FORGETS {
            paces.learn(1, 1, Duration::from_millis(100));
        }
        assert_eq!(paces.most_rows(1, 1), 2);
    }

    #[test]
    fn rows_that_know_of_each_other_once_run_alone_for_ever_whatever_their_shapes() {
        let mut paces = paces(&[100, 60]);
        paces.learn(2, 1, Duration::from_millis(1));
        for _ in 0..PROOFS {
            assert!(!paces.is_proved(1));
            paces.judge(1, Verdict::Proved);
        }
        assert!(paces.is_proved(1));
        paces.judge(2, Verdict::Refuted);
        assert_eq!(paces.most_rows(1, 1), 1);
    }

    #[test]
    fn trials_that_say_nothing_come_to_an_end() {
        let mut paces = paces(&[100, 60]);
        for _ in 0..TRIES {
            assert_eq!(paces.most_rows(1, 1), 4);
            paces.judge(1, Verdict::Unclear);
        }
        assert_eq!(paces.most_rows(1, 1), 1);
    }

    #[test]
    fn more_shapes_than_there_is_room_for_run_alone() {
        let mut paces = Paces::default();
        for key in 0..10_000 {
            paces.learn(key, 1, Duration::from_millis(1));
        }
        assert_eq!(paces.of_shapes.len(), MAX_SHAPES);
        assert_eq!(paces.most_rows(9_999, 3), 3);
    }
}
