//! A detector: what all its streams share, what each has of its own, and what becomes of an event.
//!
//! Owns: how numbers become numbers from 0 to 1. A feature without a range learns it: the first window is only looked at,
//! and its ends are widened by half of what lies between them, so that what is unusual has a place of its own.

use super::adwin::Adwin;
use super::forest::{Forest, Trees};
use super::spec::Spec;

/// What all streams share.
pub struct Detector {
    /// As it was written.
    pub spec: Spec,
    trees: Trees,
}

/// What one stream has seen.
pub struct State {
    /// Events so far.
    n: u64,
    ranges: Vec<Range>,
    /// Events until ranges are learnt.
    learning: u32,
    forest: Forest,
    drift: Vec<Adwin>,
    /// The event, from 0 to 1.
    scaled: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
    is_given: bool,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Which event of its stream it is, from 1.
    pub n: u64,
    /// How unusual, 0 to 1; 0 while the stream has no window to tell by.
    pub score: f64,
    /// Whether that is as much as the detector's threshold.
    pub alarm: bool,
    /// Whether what is usual has changed.
    pub drift: bool,
}

impl Detector {
    /// Draws its trees.
    pub fn new(spec: Spec) -> Self {
        let trees = Trees::draw(spec.trees, spec.depth, spec.features.len(), spec.seed);
        Self { spec, trees }
    }

    /// Bytes that a stream takes.
    pub fn stream_bytes(&self) -> u64 {
        let each = match &self.spec.drift {
            None => 0,
            Some(_) => Adwin::bytes(),
        };
        let features = self.spec.features.len() as u64;
        self.trees.stream_bytes()
            + features * (each + size_of::<Range>() as u64 + 4)
            + size_of::<State>() as u64
    }

    /// A stream that begins.
    pub fn begin(&self) -> State {
        let range = |min: Option<f64>, max: Option<f64>| Range {
            low: min.unwrap_or(f64::INFINITY),
            high: max.unwrap_or(f64::NEG_INFINITY),
            is_given: min.is_some(),
        };
        let ranges: Vec<_> = self
            .spec
            .features
            .iter()
            .map(|it| range(it.min, it.max))
            .collect();
        let is_given = ranges.iter().all(|it| it.is_given);
        let adwin = self
            .spec
            .drift
            .as_ref()
            .map(|it| Adwin::new(it.adwin.delta));
        State {
            n: 0,
            learning: if is_given { 0 } else { self.spec.window },
            forest: Forest::new(&self.trees, self.spec.window),
            drift: adwin
                .into_iter()
                .cycle()
                .take(if self.spec.drift.is_some() {
                    ranges.len()
                } else {
                    0
                })
                .collect(),
            scaled: Vec::with_capacity(ranges.len()),
            ranges,
        }
    }

    /// Takes an event: a finite number for each feature.
    pub fn observe(&self, state: &mut State, event: &[f64]) -> Outcome {
        state.n += 1;
        let mut outcome = Outcome {
            n: state.n,
            score: 0.0,
            alarm: false,
            drift: false,
        };
        if state.learning > 0 {
            state.learn(event);
            return outcome;
        }
        state.scaled.clear();
        for (place, (value, range)) in event.iter().zip(&state.ranges).enumerate() {
            let scaled = range.scale(*value);
            if let Some(adwin) = state.drift.get_mut(place) {
                outcome.drift |= adwin.update(scaled);
            }
            #[allow(clippy::cast_possible_truncation)]
            state.scaled.push(scaled as f32);
        }
        if let Some(score) = state.forest.score(&self.trees, &state.scaled) {
            outcome.score = score;
            outcome.alarm = score >= self.spec.threshold;
        }
        outcome
    }
}

impl State {
    /// The next event is no event: it counts, so that what follows is told apart.
    pub fn pass_over(&mut self) -> u64 {
        self.n += 1;
        self.n
    }

    fn learn(&mut self, event: &[f64]) {
        for (value, range) in event.iter().zip(&mut self.ranges) {
            if !range.is_given {
                range.low = range.low.min(*value);
                range.high = range.high.max(*value);
            }
        }
        self.learning -= 1;
        if self.learning == 0 {
            self.ranges.iter_mut().for_each(Range::widen);
        }
    }
}

impl Range {
    fn widen(&mut self) {
        if self.is_given {
            return;
        }
        let between = self.high - self.low;
        let margin = match between > 0.0 {
            true => between / 2.0,
            false => (self.low.abs() / 10.0).max(0.5),
        };
        (self.low, self.high) = (self.low - margin, self.high + margin);
    }

    fn scale(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use fastrand::Rng;

    fn detector(more: &str) -> Detector {
        let file = format!(
            r#"{{"detector":"half-space-trees","window":100,"threshold":0.9,"features":[{more}],"drift":{{"adwin":{{}}}}}}"#
        );
        Detector::new(Spec::read(file.as_bytes()).unwrap())
    }

    #[test]
    fn ranges_that_were_not_given_are_learnt_and_then_what_is_unusual_scores_highest() {
        let detector = detector(r#"{"name":"a"},{"name":"b","min":0,"max":10}"#);
        let (mut state, mut rng) = (detector.begin(), Rng::with_seed(2));
        let (mut usual, mut unusual) = (0.0_f64, 0.0);
        for n in 1..=1_000 {
            let event = match n {
                900 => [200.0, 9.5],
                _ => [70.0 + rng.f64(), 4.0 + rng.f64()],
            };
            let outcome = detector.observe(&mut state, &event);
            assert_eq!(outcome.n, n);
            assert!((0.0..=1.0).contains(&outcome.score));
            assert!(n > 200 || outcome.score == 0.0, "event {n}: {outcome:?}");
            assert_eq!(outcome.alarm, outcome.score >= 0.9, "event {n}");
            match n {
                900 => unusual = outcome.score,
                _ => usual = usual.max(outcome.score),
            }
        }
        assert!(unusual > usual, "{unusual} {usual}");
    }

    #[test]
    fn numbers_at_the_ends_of_what_there_may_be_make_scores_that_are_numbers() {
        let detector = detector(r#"{"name":"a"}"#);
        for ends in [[-1e300, 1e300], [0.0, 0.0], [1e300, 1e300], [5e-324, 0.0]] {
            let mut state = detector.begin();
            for n in 0..500 {
                let outcome = detector.observe(&mut state, &[ends[n % 2]]);
                assert!(outcome.score.is_finite(), "{ends:?}");
            }
        }
    }

    #[test]
    fn a_stream_takes_no_more_than_is_said() {
        let detector = detector(r#"{"name":"a"}"#);
        let (mut state, mut rng) = (detector.begin(), Rng::with_seed(3));
        let room = state.scaled.capacity();
        for _ in 0..10_000 {
            detector.observe(&mut state, &[rng.f64()]);
        }
        assert_eq!(state.scaled.capacity(), room);
        assert!(
            detector.stream_bytes() < 256 * 1024,
            "{}",
            detector.stream_bytes()
        );
    }
}
