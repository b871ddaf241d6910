//! ADWIN: whether the mean of a stream has changed, without saying beforehand how fast.
//!
//! Follows Bifet, Gavaldà: "Learning from Time-Changing Data with Adaptive Windowing" (SIAM SDM 2007), with the exponential
//! histogram of section 3 and the bound of section 2.2 in the form that MOA and `river` use, so that changes are told at
//! the same events as theirs. A window of the past is kept as buckets of 1, 2, 4, … values; when two parts of it have means
//! that differ by more than chance allows, the older one is forgotten.
//!
//! Must not: grow with the stream: for each doubling of the window [`MOST`] buckets of 16 bytes.

/// Buckets of one size.
const MOST: usize = 5;
/// Values between two looks.
const CLOCK: u64 = 32;
/// Windows that are not longer are not looked at.
const GRACE: f64 = 10.0;
/// Parts that are shorter are not compared.
const LEAST: f64 = 5.0;
/// Sizes of buckets: more values than a stream has in a lifetime.
const SIZES: usize = 48;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Bucket {
    total: f64,
    /// Sum of squared distances from its mean.
    variance: f64,
}

/// Buckets of one size, the oldest first.
#[derive(Debug, Clone, Default)]
struct Row {
    buckets: [Bucket; MOST + 1],
    count: usize,
}

impl Row {
    fn push(&mut self, bucket: Bucket) {
        if let Some(free) = self.buckets.get_mut(self.count) {
            *free = bucket;
            self.count += 1;
        }
    }

    /// Takes the oldest `count` away.
    fn shift(&mut self, count: usize) {
        self.buckets.rotate_left(count);
        self.count = self.count.saturating_sub(count);
    }

    fn all(&self) -> &[Bucket] {
        self.buckets.get(..self.count).unwrap_or_default()
    }
}

/// A window of the past.
#[derive(Debug, Clone)]
pub struct Adwin {
    /// By size: buckets of row n have 2^n values.
    rows: Vec<Row>,
    delta: f64,
    width: f64,
    sum: Bucket,
    ticks: u64,
}

/// Two parts of the window, and what is in them.
struct Cut {
    older: (f64, f64),
    newer: (f64, f64),
}

impl Adwin {
    /// Nothing seen. `delta`: how likely a change may be told that is none.
    pub fn new(delta: f64) -> Self {
        Self {
            rows: vec![Row::default()],
            delta,
            width: 0.0,
            sum: Bucket::default(),
            ticks: 0,
        }
    }

    /// Bytes that one takes at most.
    pub fn bytes() -> u64 {
        (SIZES * size_of::<Row>() + size_of::<Self>()) as u64
    }

    /// Takes a value, from 0 to 1; whether the mean has changed.
    pub fn update(&mut self, value: f64) -> bool {
        self.insert(value);
        self.ticks += 1;
        if !self.ticks.is_multiple_of(CLOCK) || self.width <= GRACE {
            return false;
        }
        let mut has_changed = false;
        while self.has_cut() {
            self.forget_oldest();
            has_changed = true;
        }
        has_changed
    }

    fn insert(&mut self, value: f64) {
        if self.width > 0.0 {
            let distance = value - self.sum.total / self.width;
            self.sum.variance += self.width * distance * distance / (self.width + 1.0);
        }
        self.width += 1.0;
        self.sum.total += value;
        let mut bucket = Some(Bucket {
            total: value,
            variance: 0.0,
        });
        let mut size = 1.0;
        for place in 0..SIZES {
            let Some(added) = bucket.take() else {
                return;
            };
            if self.rows.len() == place {
                self.rows.push(Row::default());
            }
            let Some(row) = self.rows.get_mut(place) else {
                return;
            };
            row.push(added);
            if row.count > MOST {
                let [first, second, ..] = row.buckets;
                bucket = Some(merge(size, first, second));
                row.shift(2);
            }
            size *= 2.0;
        }
    }

    /// Whether two parts of the window differ by more than chance.
    fn has_cut(&self) -> bool {
        let mut cut = Cut {
            older: (0.0, 0.0),
            newer: (self.width, self.sum.total),
        };
        for (place, row) in self.rows.iter().enumerate().rev() {
            let size = size_of_row(place);
            for bucket in row.all() {
                cut.move_over(size, bucket.total);
                if self.differs(&cut) {
                    return true;
                }
            }
        }
        false
    }

    fn differs(&self, cut: &Cut) -> bool {
        let ((n0, sum0), (n1, sum1)) = (cut.older, cut.newer);
        if n0 < LEAST || n1 < LEAST {
            return false;
        }
        let distance = (sum0 / n0 - sum1 / n1).abs();
        let chance = (2.0 * self.width.ln() / self.delta).ln();
        let size = 1.0 / (n0 - LEAST + 1.0) + 1.0 / (n1 - LEAST + 1.0);
        let variance = self.sum.variance / self.width;
        distance > (2.0 * size * variance * chance).sqrt() + 2.0 / 3.0 * chance * size
    }

    fn forget_oldest(&mut self) {
        let Some(place) = self.rows.len().checked_sub(1) else {
            return;
        };
        let Some(row) = self.rows.get_mut(place) else {
            return;
        };
        let (size, [oldest, ..]) = (size_of_row(place), row.buckets);
        row.shift(1);
        if row.count == 0 && place > 0 {
            self.rows.pop();
        }
        self.width -= size;
        self.sum.total -= oldest.total;
        let distance = oldest.total / size - self.sum.total / self.width;
        let between = size * self.width * distance * distance / (size + self.width);
        self.sum.variance -= oldest.variance + between;
    }
}

impl Cut {
    fn move_over(&mut self, size: f64, total: f64) {
        self.older.0 += size;
        self.older.1 += total;
        self.newer.0 -= size;
        self.newer.1 -= total;
    }
}

fn size_of_row(place: usize) -> f64 {
    2_f64.powi(i32::try_from(place).unwrap_or(i32::MAX))
}

fn merge(size: f64, some: Bucket, other: Bucket) -> Bucket {
    let distance = (some.total - other.total) / size;
    Bucket {
        total: some.total + other.total,
        variance: some.variance + other.variance + size * distance * distance / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[test]
    fn a_change_of_the_mean_is_told_soon_after_it_and_none_before() {
        let mut adwin = Adwin::new(0.002);
        let mut rng = Rng::with_seed(4);
        let mut told = vec![];
        for n in 0..4_000 {
            let mean = if n < 2_000 { 0.3 } else { 0.6 };
            if adwin.update(mean + (rng.f64() - 0.5) * 0.2) {
                told.push(n);
            }
        }
        assert!(
            told.first().is_some_and(|it| (2_000..2_100).contains(it)),
            "{told:?}"
        );
    }

    #[test]
    fn what_is_kept_of_a_long_stream_grows_with_its_logarithm() {
        let mut adwin = Adwin::new(0.002);
        let mut rng = Rng::with_seed(5);
        for _ in 0..100_000 {
            adwin.update(rng.f64());
        }
        assert!(adwin.rows.len() <= 17, "{}", adwin.rows.len());
        let values: f64 = adwin
            .rows
            .iter()
            .enumerate()
            .map(|(place, row)| {
                size_of_row(place) * f64::from(u32::try_from(row.count).unwrap_or(0))
            })
            .sum();
        assert!(
            (values - adwin.width).abs() < 0.5,
            "no value is lost or counted twice"
        );
    }

    #[test]
    fn the_mean_of_what_is_left_is_the_mean_after_the_change() {
        let mut adwin = Adwin::new(0.002);
        for n in 0..3_000 {
            adwin.update(if n < 2_000 { 0.1 } else { 0.9 });
        }
        let mean = adwin.sum.total / adwin.width;
        assert!(mean > 0.85, "{mean}");
        assert!(adwin.sum.variance >= -1e-9, "{}", adwin.sum.variance);
    }
}
