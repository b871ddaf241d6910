//! Half-Space Trees: how unusual an event is, from a window of events before it.
//!
//! Follows Tan, Ting, Liu: "Fast Anomaly Detection for Streaming Data" (IJCAI 2011). A tree halves the space of
//! events at random; each of its nodes counts the events of a window that fall into it (its mass). An event that falls
//! where few did is unusual. The score is the one of `river.anomaly.HalfSpaceTrees`: masses weighted by the size of
//! their node, added along the way down to the first that is small, and turned so that 1 is unheard of, 0 wholly usual.
//!
//! Owns: memory that is fixed when a stream begins, and time that is the same for each event. Where the paper copies all
//! masses at the end of a window, each node here knows the window that it counts, and follows when an event comes by: no
//! event pays for the others.

use fastrand::Rng;

/// Where a node halves: events with `feature` below `at` go left.
#[derive(Clone, Copy, Default)]
struct Split {
    at: f32,
    feature: u16,
}

/// Where trees halve; the same for all streams of a detector.
pub struct Trees {
    depth: u32,
    /// Nodes above the leaves, by tree, as a heap has them: below node n are 2n + 1 and 2n + 2.
    splits: Vec<Split>,
    count: usize,
}

/// Events in one node, by window.
#[derive(Clone, Copy, Default)]
struct Mass {
    /// The window that `filling` counts.
    window: u32,
    filling: u16,
    /// Of the window before it.
    reference: u16,
}

/// What one stream has seen.
pub struct Forest {
    masses: Vec<Mass>,
    /// Events of a window.
    size: u32,
    window: u32,
    /// Events of this window that were counted.
    seen: u32,
    has_reference: bool,
}

/// A split is at most so near to the end of its node, as part of that node (`river` has the same).
const PADDING: f32 = 0.15;
/// A node with less of a window than this tells nothing of those below it.
const SMALL: f64 = 0.1;

impl Trees {
    /// Draws `count` trees over `features` numbers from 0 to 1 each.
    pub fn draw(count: u32, depth: u32, features: usize, seed: u64) -> Self {
        let mut drawing = Drawing {
            rng: Rng::with_seed(seed),
            room: vec![(0.0, 1.0); features],
            splits: vec![],
        };
        let inner = (1_usize << depth) - 1;
        let mut splits = Vec::with_capacity(inner * count as usize);
        for _ in 0..count {
            drawing.splits.resize(inner, Split::default());
            drawing.halve(0);
            splits.append(&mut drawing.splits);
        }
        Self {
            depth,
            splits,
            count: count as usize,
        }
    }

    fn inner(&self) -> usize {
        (1 << self.depth) - 1
    }

    fn nodes(&self) -> usize {
        (1 << (self.depth + 1)) - 1
    }

    /// Bytes of a [`Forest`] of them.
    pub fn stream_bytes(&self) -> u64 {
        (self.nodes() * self.count * size_of::<Mass>()) as u64
    }
}

/// One tree on its way.
struct Drawing {
    rng: Rng,
    /// From where to where each number goes in the node that is drawn.
    room: Vec<(f32, f32)>,
    splits: Vec<Split>,
}

impl Drawing {
    /// Halves a node and all below it; no deeper than trees are.
    fn halve(&mut self, node: usize) {
        if node >= self.splits.len() {
            return;
        }
        let feature = self.longest_by_chance();
        let Some((low, high)) = self.room.get(feature).copied() else {
            return;
        };
        let at = low + (high - low) * (PADDING + self.rng.f32() * (1.0 - 2.0 * PADDING));
        if let Some(split) = self.splits.get_mut(node) {
            let feature = u16::try_from(feature).unwrap_or(0);
            *split = Split { at, feature };
        }
        for (below, room) in [(2 * node + 1, (low, at)), (2 * node + 2, (at, high))] {
            self.within(feature, room);
            self.halve(below);
        }
        self.within(feature, (low, high));
    }

    fn within(&mut self, feature: usize, room: (f32, f32)) {
        if let Some(place) = self.room.get_mut(feature) {
            *place = room;
        }
    }

    /// A feature, the likelier the more room the node has in it.
    fn longest_by_chance(&mut self) -> usize {
        let whole: f32 = self.room.iter().map(|(low, high)| high - low).sum();
        let mut left = self.rng.f32() * whole;
        let found = self.room.iter().position(|(low, high)| {
            left -= high - low;
            left < 0.0
        });
        found.unwrap_or(self.room.len().saturating_sub(1))
    }
}

impl Mass {
    /// Counts for `window`, if it did not yet.
    fn turn(&mut self, window: u32) {
        if self.window != window {
            let is_next = window.wrapping_sub(self.window) == 1;
            self.reference = if is_next { self.filling } else { 0 };
            (self.filling, self.window) = (0, window);
        }
    }
}

impl Forest {
    /// Nothing seen; `size` events make a window.
    pub fn new(trees: &Trees, size: u32) -> Self {
        Self {
            masses: vec![Mass::default(); trees.nodes() * trees.count],
            size,
            window: 0,
            seen: 0,
            has_reference: false,
        }
    }

    /// How unusual an event is, 0 to 1, by the window before this one; the event is then of this one. `event` has
    /// numbers from 0 to 1, others are taken for the nearer end. Without a window before: `None`.
    pub fn score(&mut self, trees: &Trees, event: &[f32]) -> Option<f64> {
        let small = SMALL * f64::from(self.size);
        let mut sum = 0_u64;
        let splits = trees.splits.chunks_exact(trees.inner());
        let masses = self.masses.chunks_exact_mut(trees.nodes());
        for (splits, masses) in splits.zip(masses) {
            let (mut node, mut is_adding) = (0, true);
            for level in 0..=trees.depth {
                let Some(mass) = masses.get_mut(node) else {
                    break;
                };
                mass.turn(self.window);
                if is_adding {
                    sum += u64::from(mass.reference) << level;
                    is_adding = f64::from(mass.reference) >= small;
                }
                mass.filling = mass.filling.saturating_add(1);
                let Some(split) = splits.get(node) else {
                    break;
                };
                let value = event.get(usize::from(split.feature)).copied();
                node = 2 * node + 1 + usize::from(value.unwrap_or(0.0) >= split.at);
            }
        }
        let score = self.has_reference.then(|| self.normal(trees, sum));
        self.seen += 1;
        if self.seen == self.size {
            self.window = self.window.wrapping_add(1);
            (self.seen, self.has_reference) = (0, true);
        }
        score
    }

    /// 1 for nothing, 0 for the whole window in one leaf of each tree.
    #[allow(clippy::cast_precision_loss)]
    fn normal(&self, trees: &Trees, sum: u64) -> f64 {
        let most = u64::from(self.size) * (trees.nodes() * trees.count) as u64;
        1.0 - sum as f64 / most as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(rng: &mut Rng, at: f32) -> f32 {
        at + (rng.f32() + rng.f32() + rng.f32() - 1.5) * 0.1
    }

    #[test]
    fn an_event_where_none_was_scores_higher_than_all_that_are_usual() {
        let trees = Trees::draw(25, 8, 2, 7);
        let mut forest = Forest::new(&trees, 250);
        let mut rng = Rng::with_seed(1);
        let mut usual = 0.0_f64;
        for n in 0..2_000 {
            let score = forest.score(&trees, &[near(&mut rng, 0.3), near(&mut rng, 0.7)]);
            assert_eq!(score.is_some(), n >= 250, "event {n}");
            usual = usual.max(score.unwrap_or(0.0));
        }
        let unusual = forest.score(&trees, &[0.95, 0.05]);
        assert!(unusual.is_some_and(|it| it > usual), "{unusual:?} {usual}");
    }

    #[test]
    fn a_score_is_the_masses_of_the_window_before_and_no_others() {
        // One tree of one halving: its two leaves are told apart by hand.
        let trees = Trees::draw(1, 1, 1, 3);
        let mut forest = Forest::new(&trees, 16);
        for n in 0..16 {
            assert_eq!(forest.score(&trees, &[f32::from(u8::from(n < 4))]), None);
        }
        // 16 in the root, 12 on the left, 4 on the right; the most is 16 * 3.
        for _ in 0..8 {
            assert_eq!(
                forest.score(&trees, &[0.0]),
                Some(1.0 - (16.0 + 24.0) / 48.0)
            );
            assert_eq!(
                forest.score(&trees, &[1.0]),
                Some(1.0 - (16.0 + 8.0) / 48.0)
            );
        }
        assert_eq!(
            forest.score(&trees, &[1.0]),
            Some(1.0 - (16.0 + 16.0) / 48.0)
        );
        for _ in 0..15 {
            forest.score(&trees, &[0.0]);
        }
        for _ in 0..16 {
            forest.score(&trees, &[0.0]);
        }
        // No event of the window before fell to the right, nor did its node hear of that window.
        assert_eq!(forest.score(&trees, &[1.0]), Some(1.0 - 16.0 / 48.0));
    }

    #[test]
    fn the_same_seed_draws_the_same_trees_and_another_others() {
        let drawn = |seed| {
            let trees = Trees::draw(3, 4, 2, seed);
            trees
                .splits
                .iter()
                .map(|it| (it.at.to_bits(), it.feature))
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(drawn(1).len(), 45);
    }
}
