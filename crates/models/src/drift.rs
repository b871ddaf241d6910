//! Whether values still come as they once did: histograms of fixed size, and two measures between them.
//!
//! Owns: what a distribution was (a [`Reference`], learnt from a sample or given), what it is now (a [`Watch`], which
//! forgets), and how far they are apart: the population stability index, and the distance of Kolmogorov and Smirnov on
//! the bins. Memory does not grow with what is seen. Must not: know tensors or tell anybody; [`crate::seen`] does.

use serde::{Deserialize, Serialize};

/// Bins of a histogram.
pub const BINS: usize = 32;
/// Values of a sample to learn from.
pub const SAMPLE: usize = 4096;
/// A share in a logarithm: an empty bin is one that could not be told from one in ten thousand.
const LEAST: f64 = 1e-4;

/// How often each bin was met.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    bins: [u32; BINS],
    seen: u32,
}

impl Counts {
    const NONE: Self = Self {
        bins: [0; BINS],
        seen: 0,
    };

    /// Those of so many bins; `None`: they are others, or too many.
    fn of(counts: &[u32], bins: usize) -> Option<Self> {
        let mut found = Self::NONE;
        if counts.len() != bins {
            return None;
        }
        found.bins.get_mut(..bins)?.copy_from_slice(counts);
        let seen = counts
            .iter()
            .try_fold(0_u32, |sum, it| sum.checked_add(*it));
        found.seen = seen?;
        Some(found)
    }

    fn add(&mut self, bin: usize) {
        if let Some(count) = self.bins.get_mut(bin) {
            *count = count.saturating_add(1);
            self.seen = self.seen.saturating_add(1);
        }
    }
}

/// Values of a stream, each as likely as any other to be among them (algorithm R of Vitter, 1985).
#[derive(Debug)]
pub struct Learner {
    sample: Vec<f32>,
    seen: u64,
    state: u64,
}

impl Learner {
    /// Has seen nothing; `seed`: one number for each, so that nobody can say which values will be kept.
    pub fn new(seed: u64) -> Self {
        Self {
            sample: Vec::with_capacity(SAMPLE),
            seen: 0,
            state: seed,
        }
    }

    /// Sees one more; what is no number is none.
    pub fn add(&mut self, value: f32) {
        if value.is_nan() {
            return;
        }
        self.seen += 1;
        if self.sample.len() < SAMPLE {
            self.sample.push(value);
            return;
        }
        let place = usize::try_from(self.random() % self.seen).unwrap_or(usize::MAX);
        if let Some(kept) = self.sample.get_mut(place) {
            *kept = value;
        }
    }

    /// `splitmix64` of Steele, Lea and Flood.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// What it has seen, as far as bins can say it; `None`: nothing.
    pub fn reference(mut self) -> Option<Reference> {
        Reference::of(&mut self.sample)
    }
}

/// How values were: bins that had as many each, where values allow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Where a bin ends, itself within it; ascending. The last bin has no end.
    edges: Vec<f32>,
    counts: Counts,
}

impl Reference {
    /// That of a sample, which is sorted by it; `None` of an empty one.
    pub fn of(sample: &mut [f32]) -> Option<Self> {
        sample.sort_unstable_by(f32::total_cmp);
        let last = sample.len().checked_sub(1)?;
        let mut edges: Vec<f32> = vec![];
        for bin in 1..BINS {
            let edge = *sample.get(bin * last / BINS)?;
            if edges.last().is_none_or(|it| *it < edge) {
                edges.push(edge);
            }
        }
        let mut reference = Self {
            edges,
            counts: Counts::NONE,
        };
        for value in sample {
            let bin = reference.bin(*value);
            reference.counts.add(bin);
        }
        Some(reference)
    }

    /// Values that are no number come last, as infinity does.
    fn bin(&self, value: f32) -> usize {
        match value.is_nan() {
            true => self.edges.len(),
            false => self.edges.partition_point(|edge| *edge < value),
        }
    }
}

/// What is left of a [`Watch`] when its process ends, for the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    edges: Vec<f32>,
    counts: Vec<u32>,
    now: Vec<u32>,
    before: Vec<u32>,
}

/// How far apart two distributions are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// Population stability index: from 0; above 0.25 is commonly called a shift.
    pub psi: f64,
    /// The largest difference of the shares below an edge, from 0 to 1: no more than the distance of Kolmogorov and
    /// Smirnov between the values themselves.
    pub ks: f64,
    /// What that would exceed once in a hundred times if nothing had changed (asymptotic).
    pub ks_by_chance: f64,
}

/// What comes now, beside what came.
#[derive(Debug, PartialEq)]
pub struct Watch {
    reference: Reference,
    now: Counts,
    before: Counts,
}

impl Watch {
    /// Compares what is to come with a reference.
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            now: Counts::NONE,
            before: Counts::NONE,
        }
    }

    /// One that was kept; `None`: it was not one.
    pub fn of(kept: &Kept) -> Option<Self> {
        let is_ascending = kept.edges.is_sorted_by(|one, other| one < other);
        if !is_ascending || kept.edges.iter().any(|it| !it.is_finite()) {
            return None;
        }
        let bins = kept.edges.len() + 1;
        let reference = Reference {
            edges: kept.edges.clone(),
            counts: Counts::of(&kept.counts, bins)?,
        };
        Some(Self {
            now: Counts::of(&kept.now, bins)?,
            before: Counts::of(&kept.before, bins)?,
            reference,
        })
        .filter(|it| it.reference.counts.seen > 0)
    }

    /// What is to be kept of it.
    pub fn keep(&self) -> Kept {
        let bins = self.reference.edges.len() + 1;
        let counts = |it: &Counts| it.bins.iter().take(bins).copied().collect();
        Kept {
            edges: self.reference.edges.clone(),
            counts: counts(&self.reference.counts),
            now: counts(&self.now),
            before: counts(&self.before),
        }
    }

    /// Sees one more.
    pub fn add(&mut self, value: f32) {
        self.now.add(self.reference.bin(value));
    }

    /// Begins a window: what is compared is the one before and what has come of this one; older ones are forgotten.
    pub fn turn(&mut self) {
        self.before = std::mem::replace(&mut self.now, Counts::NONE);
    }

    /// How far what came last is from the reference; `None`: not a window has come yet.
    pub fn distance(&self) -> Option<Distance> {
        if self.before.seen == 0 {
            return None;
        }
        let (mut psi, mut ks) = (0.0, 0.0_f64);
        let (was, is) = (
            f64::from(self.reference.counts.seen),
            f64::from(self.now.seen) + f64::from(self.before.seen),
        );
        let (mut below_was, mut below_is) = (0.0, 0.0);
        let now = self.now.bins.iter().zip(&self.before.bins);
        let bins = self.reference.counts.bins.iter().zip(now);
        for (old, (new, newer)) in bins.take(self.reference.edges.len() + 1) {
            let old = f64::from(*old) / was;
            let new = (f64::from(*new) + f64::from(*newer)) / is;
            below_was += old;
            below_is += new;
            ks = ks.max((below_was - below_is).abs());
            let (old, new) = (old.max(LEAST), new.max(LEAST));
            psi += (new - old) * (new / old).ln();
        }
        // sqrt(-ln(alpha / 2) / 2) for alpha = 0.01.
        let chance = (-(0.005_f64.ln()) / 2.0).sqrt();
        Some(Distance {
            psi,
            ks,
            ks_by_chance: chance * ((was + is) / (was * is)).sqrt(),
        })
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
