//! Alarms for people: one JSON line each on standard error, which the node keeps as `log/models.log`.
//!
//! Owns: how many there are. A storm of alarms is counted, not written: [`BURST`] at once, then one each [`EVERY`].

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

const BURST: u32 = 20;
const EVERY: Duration = Duration::from_secs(30);

/// The alarms of a model.
pub struct Alarms {
    model: String,
    version: u64,
    rate: Mutex<Rate>,
}

struct Rate {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Rate {
    /// Whether one may be written now, and how many were not since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.since).as_secs() / EVERY.as_secs();
        if let Ok(earned @ 1..) = u32::try_from(earned) {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.suppressed += 1;
            return None;
        };
        self.left = left;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Alarms {
    /// Of one version of a model.
    pub fn new(model: &str, version: u64) -> Self {
        Self {
            model: model.into(),
            version,
            rate: Mutex::new(Rate {
                left: BURST,
                since: Instant::now(),
                suppressed: 0,
            }),
        }
    }

    /// Tells of one; `stream` has a name or none.
    pub fn raise(&self, stream: Option<&str>, n: u64, score: f64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = rate.take(Instant::now()) else {
            return;
        };
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let line = json!({
            "kind": "alarm",
            "unixMillis": u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            "model": self.model,
            "version": self.version,
            "stream": stream,
            "n": n,
            "score": score,
            "suppressed": suppressed,
        });
        // One write, so that lines of several workers do not mix; a full disk costs the line.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_counted_and_the_next_line_says_how_many() {
        let start = Instant::now();
        let mut rate = Rate {
            left: BURST,
            since: start,
            suppressed: 0,
        };
        let written = (0..1_000).filter(|_| rate.take(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(rate.take(start + EVERY), Some(1_000 - u64::from(BURST)));
        assert_eq!(rate.take(start + EVERY), None);
        let written = (0..1_000)
            .filter(|_| rate.take(start + EVERY * 1_000).is_some())
            .count();
        assert_eq!(written, BURST as usize);
    }
}
