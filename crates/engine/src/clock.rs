//! Wall time, as seconds and as RFC 3339 text.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch; zero when the clock stands before it.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Seconds since the Unix epoch by which proofs and grants end: a wall clock that is set back while this process runs
/// does not make them last longer.
pub fn onward_seconds() -> u64 {
    static BEGAN: LazyLock<(u64, Instant)> = LazyLock::new(|| (unix_seconds(), Instant::now()));
    let (wall, instant) = &*BEGAN;
    onward(unix_seconds(), *wall, instant.elapsed())
}

fn onward(wall: u64, began: u64, elapsed: Duration) -> u64 {
    wall.max(began.saturating_add(elapsed.as_secs()))
}

/// Microseconds since the Unix epoch.
pub fn unix_micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// Nanoseconds since some instant of this process, never going back.
pub fn monotonic_nanos() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// `2026-11-21T09:30:00.123456Z`, in UTC, to the microsecond (RFC 3339 §5.6).
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let rest = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60,
        since_epoch.subsec_micros()
    )
}

/// Days since 1970-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-compatible
/// low-level date algorithms"), for days on or after the epoch.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_does_not_lengthen_what_ends() {
        let after = |wall| onward(wall, 1_000, Duration::from_secs(60));
        assert_eq!(after(1_060), 1_060);
        assert_eq!(after(400), 1_060, "set back");
        assert_eq!(after(9_000), 9_000, "set forward, or the machine slept");
        assert!(onward_seconds() >= unix_seconds());
    }

    #[test]
    fn known_instants_are_written_as_rfc3339() {
        let text = |seconds, micros: u32| rfc3339(Duration::new(seconds, micros * 1_000));
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(text(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(text(4_102_444_799, 0), "2099-12-31T23:59:59.000000Z");
    }
}
