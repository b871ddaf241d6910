//! Which endpoint gets a request: the less busy of two drawn by weight, among those that are well.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{HealthConfig, OutlierConfig};
use crate::tally::{Outcome, Tally};
use crate::target::Target;
use crate::trouble::{self, LastError, Trouble};

/// An endpoint with what is known of it, shared by all workers.
pub(crate) struct Endpoint {
    pub(crate) target: Arc<Target>,
    pub(crate) host: Box<str>,
    weight: u32,
    outlier: OutlierConfig,
    active: AtomicUsize,
    tally: Tally,
    /// Milliseconds of [`now`] until which it is left out.
    ejected_until: AtomicU64,
    /// Times it was left out, less what it has made up for.
    strikes: AtomicU32,
    /// What active health says.
    is_well: AtomicBool,
    probes_in_a_row: AtomicU32,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) ejections: AtomicU64,
    trouble: Trouble,
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// Nothing speaks against it.
    Healthy,
    /// It fails requests, too few in a row to be left out.
    Failing,
    /// It is left out for failing requests (outlier detection).
    Ejected,
    /// It was left out, is used again, and nothing has gone well since.
    Recovering,
    /// Active health has found it unwell: it is left out.
    Unhealthy,
}

impl EndpointState {
    /// The word for status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Ejected => "ejected",
            Self::Recovering => "recovering",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether requests may be expected to go well.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Healthy | Self::Failing)
    }
}

/// What is known of an endpoint, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Host as configured.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it is sent requests.
    pub is_healthy: bool,
    /// Whether active health found it well; true without active health.
    pub answers_probes: bool,
    /// Whether it is left out for failing requests.
    pub is_ejected: bool,
    /// Requests under way.
    pub active_requests: usize,
    /// Connections open, of all workers.
    pub open_connections: usize,
    /// Requests sent to it.
    pub requests: u64,
    /// Requests that failed: no answer, 502, 503, 504, or a body cut off.
    pub failures: u64,
    /// Times it was left out.
    pub ejections: u64,
    /// Its share of the requests.
    pub weight: u32,
    /// How it does.
    pub state: EndpointState,
    /// Since when nothing has gone well, in milliseconds since 1970.
    pub failing_since: Option<u64>,
    /// Until when it is left out for failing requests, in milliseconds since 1970.
    pub ejected_until: Option<u64>,
    /// What was last wrong with it.
    pub last_error: Option<LastError>,
}

/// Milliseconds of a clock that never goes back.
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    millis(START.get_or_init(Instant::now).elapsed()).saturating_add(1)
}

/// Nanoseconds of the same clock.
pub(crate) fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Endpoint {
    pub(crate) fn new(
        target: Arc<Target>,
        host: &str,
        weight: u32,
        outlier: OutlierConfig,
    ) -> Self {
        Self {
            target,
            host: host.into(),
            weight,
            tally: Tally::new(outlier.failures, outlier.shares.as_ref()),
            outlier,
            active: AtomicUsize::new(0),
            ejected_until: AtomicU64::new(0),
            strikes: AtomicU32::new(0),
            is_well: AtomicBool::new(true),
            probes_in_a_row: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            trouble: Trouble::default(),
        }
    }

    fn is_healthy(&self, now: u64) -> bool {
        self.is_well.load(Ordering::Relaxed) && !self.is_ejected(now)
    }

    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }

    /// Passive health: what came of a request, and how long it took where somebody wants to know.
    pub(crate) fn note(&self, outcome: &Outcome, took: Option<Duration>) {
        let in_a_row = match outcome {
            Outcome::Good => {
                if self.trouble.fails_requests() {
                    self.tally.end_row();
                    self.trouble.requests_go_well();
                }
                None
            }
            Outcome::Bad(why) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                self.trouble.request_failed(why);
                self.tally.add_to_row()
            }
        };
        let is_bad = matches!(outcome, Outcome::Bad(_));
        let in_window = self.tally.add_to_window(is_bad, took);
        self.eject(in_window, in_a_row.is_some());
    }

    /// A request that was counted as answered, whose answer broke off.
    pub(crate) fn failed_late(&self, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.trouble.request_failed(why);
        let in_a_row = self.tally.add_to_row();
        self.eject(self.tally.add_late_failure(), in_a_row.is_some());
    }

    /// A request that nobody waits for any more counts where it has taken too long already.
    pub(crate) fn given_up(&self, took: Option<Duration>) {
        if self.tally.is_slow(took) {
            let in_window = self.tally.add_to_window(false, took);
            self.eject(in_window, false);
        }
    }

    /// Leaves it out for a while, longer each time (Envoy: base ejection time × times, capped); it makes up for a
    /// time by doing well for as long as the first.
    fn eject(&self, share: Option<String>, is_a_row: bool) {
        let now = now();
        let before = self.ejected_until.load(Ordering::Relaxed);
        if (share.is_none() && !is_a_row) || before > now {
            return;
        }
        let base = millis(self.outlier.eject).max(1);
        let made_up = match before {
            0 => u32::MAX,
            ended => u32::try_from((now - ended) / base).unwrap_or(u32::MAX),
        };
        let strikes = self.strikes.load(Ordering::Relaxed);
        let strikes = strikes.saturating_sub(made_up).saturating_add(1);
        let time = base.saturating_mul(u64::from(strikes));
        let time = time.min(millis(self.outlier.max_eject).max(base));
        let until = now.saturating_add(time);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let is_mine = self
            .ejected_until
            .compare_exchange(before, until, set, fetch);
        if is_mine.is_err() {
            return;
        }
        self.strikes.store(strikes, Ordering::Relaxed);
        self.tally.clear();
        self.ejections.fetch_add(1, Ordering::Relaxed);
        if let Some(share) = share {
            self.trouble.request_failed(&share);
        }
        self.trouble.ejected();
    }

    /// Counts one answer to a question of active health; an error says what was wrong with it.
    pub(crate) fn note_probe(&self, answer: &Result<(), String>, health: &HealthConfig) {
        match answer {
            Ok(()) => self.trouble.probe_went_well(self.is_ejected(now())),
            Err(why) => self.trouble.probe_failed(why),
        }
        let is_good = answer.is_ok();
        if is_good == self.is_well.load(Ordering::Relaxed) {
            self.probes_in_a_row.store(0, Ordering::Relaxed);
            return;
        }
        let in_a_row = self.probes_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let needed = if is_good {
            health.healthy_after
        } else {
            health.unhealthy_after
        };
        if in_a_row >= needed {
            self.is_well.store(is_good, Ordering::Relaxed);
            self.probes_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it gets requests that may be expected to go well.
    pub(crate) fn is_ready(&self, now: u64) -> bool {
        self.weight > 0 && self.state(now).is_ready()
    }

    fn state(&self, now: u64) -> EndpointState {
        if !self.is_well.load(Ordering::Relaxed) {
            EndpointState::Unhealthy
        } else if self.is_ejected(now) {
            EndpointState::Ejected
        } else if self.trouble.was_ejected() {
            EndpointState::Recovering
        } else if self.trouble.since().is_some() {
            EndpointState::Failing
        } else {
            EndpointState::Healthy
        }
    }

    /// Milliseconds that it is still left out.
    #[cfg(test)]
    pub(crate) fn ejected_for(&self) -> u64 {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until.saturating_sub(now())
    }

    /// Ends its time out as if it had passed.
    #[cfg(test)]
    pub(crate) fn end_ejection(&self) {
        self.ejected_until.store(now(), Ordering::Relaxed);
    }

    /// One more request is under way, or one less.
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> EndpointHealth {
        let now = now();
        let ejected_for = self.ejected_until.load(Ordering::Relaxed).checked_sub(now);
        EndpointHealth {
            host: self.host.to_string(),
            port: self.target.port,
            is_healthy: self.is_healthy(now),
            answers_probes: self.is_well.load(Ordering::Relaxed),
            is_ejected: self.is_ejected(now),
            active_requests: self.active.load(Ordering::Relaxed),
            open_connections: self.target.connections(),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            ejections: self.ejections.load(Ordering::Relaxed),
            weight: self.weight,
            state: self.state(now),
            failing_since: self.trouble.since(),
            ejected_until: ejected_for
                .filter(|left| *left > 0)
                .map(|left| trouble::unix_millis().saturating_add(left)),
            last_error: self.trouble.last(),
        }
    }
}

/// Draws an endpoint; `not` only when there is no other.
pub(crate) fn choose(endpoints: &[Arc<Endpoint>], not: Option<usize>) -> Option<usize> {
    let other = choose_beside(endpoints, not.as_slice());
    match not {
        Some(_) => other.or_else(|| choose_beside(endpoints, &[])),
        None => other,
    }
}

/// Draws an endpoint that is none of `not`. Of two drawn by weight the one with fewer
/// requests under way per weight. When more than half are unwell, all are used: better some
/// failures than all load on the few that are left (Envoy's panic threshold).
pub(crate) fn choose_beside(endpoints: &[Arc<Endpoint>], not: &[usize]) -> Option<usize> {
    let now = now();
    let used = endpoints.iter().filter(|it| it.weight > 0);
    let (all, out) = used.fold((0_usize, 0_usize), |(all, out), it| {
        (all + 1, out + usize::from(!it.is_healthy(now)))
    });
    let panics = out * 2 > all;
    let fits = |index: usize, it: &Endpoint| {
        it.weight > 0 && !not.contains(&index) && (panics || it.is_healthy(now))
    };
    let fitting = || {
        let all = endpoints.iter().enumerate();
        all.filter(|(index, it)| fits(*index, it))
    };
    let total: u64 = fitting().map(|(_, it)| u64::from(it.weight)).sum();
    if total == 0 {
        return None;
    }
    let draw = || {
        let mut left = fastrand::u64(..total);
        fitting().find(|(_, it)| {
            let is_it = left < u64::from(it.weight);
            left = left.saturating_sub(u64::from(it.weight));
            is_it
        })
    };
    let (first, one) = draw()?;
    if one.active.load(Ordering::Relaxed) == 0 {
        return Some(first);
    }
    let (second, other) = draw()?;
    let load = |it: &Endpoint, by: &Endpoint| {
        it.active.load(Ordering::Relaxed) as u64 * u64::from(by.weight)
    };
    Some(if load(other, one) < load(one, other) {
        second
    } else {
        first
    })
}
