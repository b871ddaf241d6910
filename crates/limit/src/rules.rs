//! What one limit says of one key: pure arithmetic on a [`Cell`].
//!
//! Rates are GCRA (ITU-T I.371): a key is one instant, when its bucket is full again.

use std::time::Duration;

use crate::calendar::Window;
use crate::decision::{Kind, seconds_up};
use crate::{Limit, Period};

/// A bucket never takes longer to fill: 146 years, so that sums stay within `u64`.
const LONGEST: u64 = 1 << 62;
/// What a client is told to wait for a place; nobody knows when one is free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// The time of a check.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, in nanoseconds since any one instant of the process.
    pub nanos: u64,
    /// Wall time, in seconds since the Unix epoch.
    pub unix_seconds: u64,
}

/// What is known of one key. All zero: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    /// When the bucket is full, in monotonic nanoseconds.
    pub(crate) full_at: u64,
    /// Requests counted in `window`.
    pub(crate) count: u64,
    pub(crate) window: Window,
    /// Requests under way.
    pub(crate) places: u32,
}

/// A limit, ready to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    rate: Option<Gcra>,
    pub(crate) concurrency: Option<u32>,
    quota: Option<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Gcra {
    /// Nanoseconds from one request to the next.
    interval: u64,
    /// Nanoseconds that an empty bucket takes to fill.
    filling: u64,
    /// What makes a share of `u64::MAX` of nanoseconds that are missing.
    scale: u64,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    requests: u64,
    period: Period,
    scale: u64,
}

/// What is left after a request was let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) most: u64,
    pub(crate) window_seconds: Option<u64>,
    pub(crate) remaining: u64,
    pub(crate) reset_seconds: u64,
}

/// Why a request was not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denied {
    pub(crate) kind: Kind,
    pub(crate) wait: Duration,
}

impl Rules {
    /// The limit's, so many times over.
    pub(crate) fn of(limit: &Limit, times: u32) -> Self {
        let more = |number: u64| number.saturating_mul(times.into());
        let rate = limit.rate.map(|rate| {
            let interval = (rate.period_millis.saturating_mul(1_000_000))
                .div_ceil(more(rate.requests).max(1))
                .clamp(1, LONGEST);
            let burst = more(rate.burst.unwrap_or(rate.requests)).max(1);
            let filling = interval.saturating_mul(burst).min(LONGEST);
            Gcra {
                interval,
                filling,
                scale: u64::MAX / filling,
            }
        });
        let quota = limit.quota.map(|quota| Counted {
            requests: more(quota.requests),
            period: quota.period,
            scale: u64::MAX / more(quota.requests).max(1),
        });
        Self {
            rate,
            concurrency: limit.concurrency.map(|it| it.saturating_mul(times)),
            quota,
        }
    }

    /// Counts one request in `cell`, or says why not and leaves it as it was.
    pub(crate) fn take(&self, cell: &mut Cell, now: Now) -> Result<Option<Room>, Denied> {
        let mut after = *cell;
        let mut room = None;
        if let Some(quota) = &self.quota {
            room = Some(quota.take(&mut after, now.unix_seconds)?);
        }
        if let Some(rate) = &self.rate {
            let left = rate.take(&mut after, now.nanos)?;
            room = room
                .filter(|room| room.remaining < left.remaining)
                .or(Some(left));
        }
        if let Some(most) = self.concurrency {
            if after.places >= most {
                let (kind, wait) = (Kind::Concurrency, PLACE_WAIT);
                return Err(Denied { kind, wait });
            }
            after.places += 1;
        }
        *cell = after;
        Ok(room)
    }

    /// Takes back a request that another limit refused; its place is given back by its holder.
    pub(crate) fn refund(&self, cell: &mut Cell, now: Now) {
        if let Some(rate) = &self.rate {
            cell.full_at = cell.full_at.saturating_sub(rate.interval);
        }
        if let Some(window) = self.window(now)
            && window.or_next(cell.window) == cell.window
        {
            cell.count = cell.count.saturating_sub(1);
        }
    }

    /// The window in which requests are counted now.
    pub(crate) fn window(&self, now: Now) -> Option<Window> {
        let quota = self.quota.as_ref()?;
        Some(Window::at(quota.period, now.unix_seconds))
    }

    /// How much it would matter to forget `cell`: nothing at 0, all of a limit at `u64::MAX`.
    /// `None` while a request holds a place.
    pub(crate) fn weight(&self, cell: &Cell, now: Now) -> Option<u64> {
        if cell.places > 0 {
            return None;
        }
        let missing = cell.full_at.saturating_sub(now.nanos);
        let rate = self
            .rate
            .as_ref()
            .map_or(0, |it| missing.saturating_mul(it.scale));
        let quota = self.quota.as_ref().map_or(0, |it| {
            let window = Window::at(it.period, now.unix_seconds);
            let counts = window.or_next(cell.window) == cell.window;
            u64::from(counts) * cell.count.saturating_mul(it.scale)
        });
        Some(rate.max(quota))
    }

    /// Makes `rest` owe at least what `gone` owed, so that a key that was dropped comes back with
    /// no more than it had.
    pub(crate) fn absorb(&self, rest: &mut Cell, gone: &Cell, now: Now) {
        rest.full_at = rest.full_at.max(gone.full_at);
        let Some(window) = self.window(now) else {
            return;
        };
        if gone.window == rest.window {
            rest.count = rest.count.max(gone.count);
        } else if window.or_next(rest.window) != rest.window
            || gone.window == window.or_next(gone.window) && gone.window.bits() > rest.window.bits()
        {
            (rest.window, rest.count) = (gone.window, gone.count);
        }
    }
}

impl Gcra {
    fn take(&self, cell: &mut Cell, now: u64) -> Result<Room, Denied> {
        let full_at = cell.full_at.max(now).saturating_add(self.interval);
        let latest = now.saturating_add(self.filling);
        if full_at > latest {
            return Err(Denied {
                kind: Kind::Rate,
                wait: Duration::from_nanos(full_at - latest),
            });
        }
        cell.full_at = full_at;
        Ok(Room {
            most: self.filling / self.interval,
            window_seconds: Some(seconds_up(Duration::from_nanos(self.filling))),
            remaining: (latest - full_at) / self.interval,
            reset_seconds: seconds_up(Duration::from_nanos(full_at - now)),
        })
    }
}

impl Counted {
    fn take(&self, cell: &mut Cell, now: u64) -> Result<Room, Denied> {
        let window = Window::at(self.period, now).or_next(cell.window);
        let before = if window == cell.window { cell.count } else { 0 };
        let reset_seconds = window.end().saturating_sub(now);
        if before >= self.requests {
            return Err(Denied {
                kind: Kind::Quota,
                wait: Duration::from_secs(reset_seconds),
            });
        }
        (cell.window, cell.count) = (window, before + 1);
        Ok(Room {
            most: self.requests,
            window_seconds: None,
            remaining: self.requests - before - 1,
            reset_seconds,
        })
    }
}
