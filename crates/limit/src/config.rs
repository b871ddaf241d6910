//! What a limit is, as the plan gives it.

use std::fmt;
use std::sync::Arc;

use crate::Period;

/// Most limits in one set.
pub(crate) const MOST_LIMITS: usize = 1_024;

/// What a request may ask for. A request must pass every limit that is for its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Name of the limit, at most 255 bytes.
    pub name: Arc<str>,
    /// What it is counted by.
    pub per: Per,
    /// Routes it is for, sorted; empty: every route.
    pub routes: Vec<Box<str>>,
    /// Requests in a time.
    pub rate: Option<Rate>,
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Requests in a period.
    pub quota: Option<Quota>,
}

/// What a limit is counted by. None of them: all requests together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Per {
    /// Each principal for itself; anonymous callers are one principal.
    pub principal: bool,
    /// Each route for itself.
    pub route: bool,
    /// Each IPv4 address and each IPv6 /64 for itself.
    pub source: bool,
}

impl Per {
    pub(crate) fn bits(self) -> u8 {
        u8::from(self.principal) | u8::from(self.route) << 1 | u8::from(self.source) << 2
    }
}

/// How many requests in how much time. The time between two is rounded up to a nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per period.
    pub requests: u64,
    /// The period in milliseconds.
    pub period_millis: u64,
    /// Most at once; absent: one period's.
    pub burst: Option<u64>,
}

/// How many requests in a calendar period, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests per period.
    pub requests: u64,
    /// The period.
    pub period: Period,
}

/// How much memory the tables may take.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Most bytes of one table.
    pub table_bytes: usize,
    /// Most bytes of all together. Limits that come when it is used up still get a table of 64 KiB.
    pub total_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            table_bytes: 16 << 20,
            total_bytes: 256 << 20,
        }
    }
}

/// Why limits are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// More than 1,024 limits.
    TooMany,
    /// Two limits have this name.
    Twice(Arc<str>),
    /// A number of this limit is zero, its name is too long, or it limits nothing.
    Senseless(Arc<str>),
}

impl fmt::Display for CompileError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(to, "there are more than {MOST_LIMITS} limits"),
            Self::Twice(name) => write!(to, "two limits are named {name}"),
            Self::Senseless(name) => write!(to, "limit {name} has a zero, or limits nothing"),
        }
    }
}

impl std::error::Error for CompileError {}

/// Puts `limits` in the order in which they are asked.
pub(crate) fn in_order(mut limits: Vec<Limit>) -> Result<Vec<Limit>, CompileError> {
    if limits.len() > MOST_LIMITS {
        return Err(CompileError::TooMany);
    }
    limits.sort_by(|one, other| one.name.cmp(&other.name));
    for (one, next) in limits.iter().zip(limits.iter().skip(1)) {
        if one.name == next.name {
            return Err(CompileError::Twice(Arc::clone(&one.name)));
        }
    }
    if let Some(senseless) = limits.iter().find(|limit| !limit.makes_sense()) {
        return Err(CompileError::Senseless(Arc::clone(&senseless.name)));
    }
    Ok(limits)
}

impl Limit {
    fn makes_sense(&self) -> bool {
        let rate = self.rate.as_ref().is_none_or(|rate| {
            rate.requests > 0 && rate.period_millis > 0 && rate.burst != Some(0)
        });
        let quota = self.quota.as_ref().is_none_or(|quota| quota.requests > 0);
        let limits = self.rate.is_some() || self.concurrency.is_some() || self.quota.is_some();
        self.name.len() <= 255 && rate && quota && self.concurrency != Some(0) && limits
    }

    /// Whether what `other` counted means the same here: numbers may differ, keys may not.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        self.name == other.name && self.per == other.per && self.routes == other.routes
    }
}
