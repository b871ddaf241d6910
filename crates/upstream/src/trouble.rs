//! Since when an endpoint does not do well, and what was last wrong with it: what people are told.
//!
//! Must not: decide anything; [`crate::balance`] does. A request that goes well costs one load here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Characters that are kept of an error: a sentence, not a page.
const LONGEST: usize = 240;

/// What was last wrong with an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// What.
    pub message: String,
}

/// One endpoint's failures since it last did well.
#[derive(Default)]
pub(crate) struct Trouble {
    /// Milliseconds since 1970 of the first failed request since one went well; 0: none failed.
    requests: AtomicU64,
    /// The same for questions of active health.
    probes: AtomicU64,
    /// Whether it was left out since a request went well.
    was_ejected: AtomicBool,
    last: Mutex<Option<LastError>>,
}

impl Trouble {
    /// Whether a request has failed since one went well.
    pub(crate) fn fails_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn was_ejected(&self) -> bool {
        self.was_ejected.load(Ordering::Relaxed)
    }

    /// When the first failure came that nothing good has followed, in milliseconds since 1970.
    pub(crate) fn since(&self) -> Option<u64> {
        let times = [&self.requests, &self.probes].map(|it| it.load(Ordering::Relaxed));
        times.into_iter().filter(|it| *it != 0).min()
    }

    pub(crate) fn last(&self) -> Option<LastError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    pub(crate) fn request_failed(&self, why: &str) {
        self.note(&self.requests, why);
    }

    pub(crate) fn probe_failed(&self, why: &str) {
        self.note(&self.probes, why);
    }

    pub(crate) fn ejected(&self) {
        self.was_ejected.store(true, Ordering::Relaxed);
    }

    pub(crate) fn requests_go_well(&self) {
        self.requests.store(0, Ordering::Relaxed);
        self.was_ejected.store(false, Ordering::Relaxed);
    }

    /// An answer to a question is as good as a request for one that is used again and gets none.
    pub(crate) fn probe_went_well(&self, is_ejected: bool) {
        self.probes.store(0, Ordering::Relaxed);
        if !is_ejected {
            self.was_ejected.store(false, Ordering::Relaxed);
        }
    }

    fn note(&self, since: &AtomicU64, why: &str) {
        let now = unix_millis();
        let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(LastError {
            unix_millis: now,
            message: why.chars().take(LONGEST).collect(),
        });
    }
}

/// The time, for people: it may go back, so nothing is measured with it.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
