//! Limits per principal, route and source: rate, concurrency and quota.
//!
//! Owns the tables in which the workers count together, within a fixed number of bytes, and the
//! image by which quotas outlive a restart. A key never gets more than its limit, whatever is
//! dropped to make room: see `docs/adr/0013-limits.md`.
//!
//! Must not: read a clock, a file or a socket, wait for anything but a shard, or know HTTP.

mod calendar;
mod config;
mod decision;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod key;
mod rules;
mod set;
mod table;

pub use calendar::Period;
pub use config::{CompileError, Limit, Memory, Per, Quota, Rate};
pub use decision::{Allowed, Kind, Places, Refused, Standing};
pub use image::{Image, ImageError, seal};
pub use key::{OF_A_SITE, RequestKeys, random_key, site_part, source_part};
pub use rules::Now;
pub use set::{LimitSet, TableStats};
