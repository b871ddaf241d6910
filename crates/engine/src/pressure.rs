//! Pressure: whether the node has more to do than it can, once a second.
//!
//! Owns what is measured, the level that `vedette_admit` makes of it, and what is told of each move. Must
//! not: refuse anything; the stage limit does.
//!
//! A processor that is fully used is no trouble as long as what waits is soon dealt with: it counts only
//! while the workers come late to everything.

use std::num::NonZero;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use vedette_admit::pressure::{self, Level, Moved, Sample, Terms};

use crate::clock;
use crate::node::Node;
use crate::plan::Plan;
use crate::{sys, worker};

/// How often each worker looks how late it is, and of how many looks a sample is made.
const BEAT: Duration = Duration::from_millis(250);
const BEATS: u32 = 4;
/// A worker that is never less late than this for a second has more to do than it can.
const LATE: Duration = Duration::from_millis(25);
/// Full handshakes of which a worker can do no more in a second: half a millisecond each.
const HANDSHAKES: f64 = 2_000.0;

/// What a node has to do.
pub struct Pressure {
    level: AtomicU8,
    handshakes: AtomicU64,
    /// The latest of the workers in this second, in microseconds.
    late: AtomicU64,
    state: Mutex<State>,
}

struct State {
    machine: pressure::Pressure,
    since: Duration,
    moved: Option<Moved>,
}

/// What `status` says of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PressureRow {
    level: &'static str,
    /// When it was entered.
    since: String,
    /// Why, unless it is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    kind: &'static str,
    time: String,
    from: &'static str,
    to: &'static str,
    gauge: String,
    /// In percent of what there is.
    percent: u64,
    seconds: u32,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            level: AtomicU8::new(Level::Calm as u8),
            handshakes: AtomicU64::new(0),
            late: AtomicU64::new(0),
            state: Mutex::new(State {
                machine: pressure::Pressure::new(Terms::default()),
                since: clock::since_epoch(),
                moved: None,
            }),
        }
    }
}

impl Pressure {
    /// How much is shed now under `plan`.
    pub fn level(&self, plan: &Plan) -> Level {
        let level = self.level.load(Ordering::Relaxed);
        if level == Level::Calm as u8 || plan.admit.limits.sheds == Some(false) {
            return Level::Calm;
        }
        let known = [
            Level::Challenge,
            Level::UnknownExpensive,
            Level::Unknown,
            Level::KnownExpensive,
        ];
        let found = known.into_iter().find(|it| *it as u8 == level);
        found.unwrap_or_default()
    }

    /// A handshake begins.
    pub fn shake_hands(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// What `status` says.
    pub fn row(&self) -> PressureRow {
        let state = self.state();
        PressureRow {
            level: state.machine.level().name(),
            since: clock::rfc3339(state.since),
            reason: state.moved.map(|moved| moved.to_string()),
        }
    }

    /// The number of the level, from 0, for metrics.
    pub fn number(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    fn take(&self, sample: &Sample) -> Option<Moved> {
        let mut state = self.state();
        let moved = state.machine.sample(sample)?;
        state.since = clock::since_epoch();
        state.moved = Some(moved);
        self.level.store(moved.to as u8, Ordering::Relaxed);
        Some(moved)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs on each worker for as long as it does. The first takes the samples.
pub async fn watch(node: Arc<Node>, workers: usize, is_first: bool) {
    let mut meter = Meter::new(workers);
    loop {
        let mut least = Duration::MAX;
        for _ in 0..BEATS {
            let begun = Instant::now();
            tokio::time::sleep(BEAT).await;
            least = least.min(begun.elapsed().saturating_sub(BEAT));
        }
        let micros = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
        node.pressure.late.fetch_max(micros, Ordering::Relaxed);
        if is_first {
            let sample = meter.sample(&node);
            if let Some(moved) = node.pressure.take(&sample) {
                tell(&moved);
            }
        }
    }
}

/// What is measured from one second to the next.
struct Meter {
    /// As many processors as the workers can keep busy.
    processors: f64,
    workers: f64,
    at: Instant,
    used: Duration,
}

impl Meter {
    fn new(workers: usize) -> Self {
        let there = std::thread::available_parallelism().map_or(1, NonZero::get);
        // A few hundred at most: exact.
        #[allow(clippy::cast_precision_loss)]
        let (processors, workers) = (workers.min(there).max(1) as f64, workers.max(1) as f64);
        Self {
            processors,
            workers,
            at: Instant::now(),
            used: sys::processor_time(),
        }
    }

    fn sample(&mut self, node: &Node) -> Sample {
        let (at, used) = (Instant::now(), sys::processor_time());
        let measured = Measured {
            seconds: at.duration_since(self.at).as_secs_f64().max(0.001),
            used: used.saturating_sub(self.used).as_secs_f64(),
            late: Duration::from_micros(node.pressure.late.swap(0, Ordering::Relaxed)),
            handshakes: node.pressure.handshakes.swap(0, Ordering::Relaxed),
            in_flight: node.in_flight.count(),
            most: node
                .plan()
                .map_or(u64::MAX, |it| it.admit.limits.max_requests),
        };
        (self.at, self.used) = (at, used);
        measured.sample(self.processors, self.workers)
    }
}

/// One second, as it was measured.
struct Measured {
    seconds: f64,
    /// Seconds of processor time.
    used: f64,
    late: Duration,
    handshakes: u64,
    in_flight: usize,
    most: u64,
}

impl Measured {
    /// The same as shares of what there is.
    fn sample(&self, processors: f64, workers: f64) -> Sample {
        // What is lost far behind the point is no matter.
        #[allow(clippy::cast_precision_loss)]
        let (in_flight, handshakes) = (
            self.in_flight as f64 / self.most.max(1) as f64,
            self.handshakes as f64 / self.seconds / workers / HANDSHAKES,
        );
        let counts = if self.late >= LATE { 1.0 } else { 0.0 };
        Sample {
            cpu: self.used / self.seconds / processors * counts,
            in_flight,
            handshakes: handshakes * counts,
        }
    }
}

fn tell(moved: &Moved) {
    // A share is some units at most.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let percent = (moved.share * 100.0).round() as u64;
    let event = Event {
        kind: "pressure",
        time: clock::rfc3339(clock::since_epoch()),
        from: moved.from.name(),
        to: moved.to.name(),
        gauge: moved.gauge.to_string(),
        percent,
        seconds: moved.seconds,
    };
    worker::with(|worker| {
        worker.keep(|line| {
            // Writing to memory and plain types: it cannot fail.
            let _ = serde_json::to_writer(&mut *line, &event);
            line.push(b'\n');
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Measured = Measured {
        seconds: 1.0,
        used: 2.0,
        late: LATE,
        handshakes: 2_000,
        in_flight: 10,
        most: 100,
    };

    fn sample(late: Duration) -> Sample {
        let measured = Measured { late, ..BUSY };
        measured.sample(2.0, 2.0)
    }

    #[test]
    fn a_processor_that_is_fully_used_counts_only_while_the_workers_are_late() {
        let (prompt, late) = (sample(Duration::from_millis(24)), sample(LATE));
        assert!(prompt.cpu.abs() < 1e-9 && prompt.handshakes.abs() < 1e-9);
        assert!((late.cpu - 1.0).abs() < 1e-9 && (late.handshakes - 0.5).abs() < 1e-9);
    }

    #[test]
    fn requests_under_way_count_always() {
        for late in [Duration::ZERO, LATE] {
            assert!((sample(late).in_flight - 0.1).abs() < 1e-9);
        }
    }
}
