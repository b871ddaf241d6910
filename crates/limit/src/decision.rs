//! What a check gives: places to hold while the request runs, or a refusal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::key::Tag;
use crate::table::Table;

/// A request that passed every limit.
#[derive(Debug)]
pub struct Allowed<'a> {
    /// Keep until the last byte of the response; dropping it gives the places back.
    pub places: Places,
    /// How the tightest rate or quota stands, if there is one.
    pub standing: Option<Standing<'a>>,
}

/// A request that a limit refused. It has taken nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// Whether it was asked for the /48 of the source and not for the source.
    pub is_of_site: bool,
    /// What of it refused.
    pub kind: Kind,
    /// How long to wait: exact for rate and quota, a second for concurrency.
    pub retry_after: Duration,
}

impl Refused {
    /// The value of `Retry-After` (RFC 9110 §10.2.3): whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> u64 {
        seconds_up(self.retry_after).max(1)
    }
}

/// What of a limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too many in a time: 429.
    Rate,
    /// Too many at once: 503.
    Concurrency,
    /// Too many in a period: 429.
    Quota,
}

impl Kind {
    /// As records name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Quota => "quota",
        }
    }
}

/// How a limit stands for one key (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The name of the limit. Borrowed: workers that count owners of one name wait for each other.
    pub limit: &'a str,
    /// Most requests in a window.
    pub most: u64,
    /// Seconds of the window, rounded up; none for a quota, whose months differ.
    pub window_seconds: Option<u64>,
    /// Requests that would pass now.
    pub remaining: u64,
    /// Seconds until all of `most` remain again, rounded up.
    pub reset_seconds: u64,
}

/// Writes the value of `RateLimit`: `"name";r=9;t=1`.
impl fmt::Display for Standing<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, left, reset) = (&self.limit, self.remaining, self.reset_seconds);
        write!(to, "\"{name}\";r={left};t={reset}")
    }
}

impl Standing<'_> {
    /// The value of `RateLimit-Policy`: `"name";q=10;w=1`.
    pub fn policy(&self) -> String {
        match self.window_seconds {
            Some(window) => format!("\"{}\";q={};w={window}", self.limit, self.most),
            None => format!("\"{}\";q={}", self.limit, self.most),
        }
    }
}

pub(crate) fn seconds_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Places of concurrency limits, given back when dropped.
#[derive(Default)]
pub struct Places(Vec<Place>);

struct Place {
    table: Arc<Table>,
    tag: Tag,
    shared: bool,
}

impl Places {
    pub(crate) fn hold(&mut self, table: &Arc<Table>, tag: Tag, shared: bool) {
        let table = Arc::clone(table);
        self.0.push(Place { table, tag, shared });
    }

    /// How many limits count this request.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.leave(self.tag, self.shared);
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Places({})", self.0.len())
    }
}
