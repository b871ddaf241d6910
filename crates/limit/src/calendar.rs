//! The windows of quotas: hours, days and months of the UTC calendar.

/// The last second that is told apart: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;
const NUMBER_BITS: u32 = 30;

/// What a quota is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first to the last day.
    Month,
}

/// One hour, day or month: its period in the top two bits, its number since 1970 below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window(u32);

impl Window {
    /// The window of `period` in which `unix_seconds` lies.
    pub(crate) fn at(period: Period, unix_seconds: u64) -> Self {
        let seconds = unix_seconds.min(LAST_SECOND);
        let (code, number) = match period {
            Period::Hour => (1, seconds / 3_600),
            Period::Day => (2, seconds / 86_400),
            Period::Month => (3, month_of(seconds / 86_400)),
        };
        let number = u32::try_from(number).unwrap_or(u32::MAX) & ((1 << NUMBER_BITS) - 1);
        Self(code << NUMBER_BITS | number)
    }

    /// The window that `number` spells, if one does.
    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        (bits >> NUMBER_BITS != 0).then_some(Self(bits))
    }

    /// As one number.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// When it is over, in seconds since the epoch.
    pub(crate) fn end(self) -> u64 {
        let next = u64::from(self.0 & ((1 << NUMBER_BITS) - 1)) + 1;
        match self.0 >> NUMBER_BITS {
            1 => next * 3_600,
            2 => next * 86_400,
            _ => first_day_of(next) * 86_400,
        }
    }

    /// The window that counts now for a key last counted in `last`. A clock that steps back over
    /// one border must not open the quota again; one that stood far ahead must not close it.
    pub(crate) fn or_next(self, last: Self) -> Self {
        if last.0 == self.0.wrapping_add(1) {
            last
        } else {
            self
        }
    }
}

/// Months since January 1970 of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level
/// date algorithms").
fn month_of(days: u64) -> u64 {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March, so that a leap day ends the year.
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march + 2 - 1_970 * 12
}

/// Days from 1970-01-01 to the first of the month `months` after January 1970.
fn first_day_of(months: u64) -> u64 {
    let from_march = months + 1_970 * 12 - 2;
    let (year, month) = (from_march / 12, from_march % 12);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAP_DAY_2024: u64 = 1_709_164_800;

    #[test]
    fn a_month_ends_with_its_last_day() {
        let end = |seconds| Window::at(Period::Month, seconds).end();
        assert_eq!(end(0), 31 * 86_400);
        assert_eq!(end(LEAP_DAY_2024 - 1), LEAP_DAY_2024 + 86_400);
        assert_eq!(end(LEAP_DAY_2024), LEAP_DAY_2024 + 86_400);
        // 2100 is no leap year: 2100-02-28T00:00:00Z ends the month.
        assert_eq!(end(4_107_456_000), 4_107_456_000 + 86_400);
        // 2000 is one: 2000-02-28.
        assert_eq!(end(951_696_000), 951_696_000 + 2 * 86_400);
        // 2026-12-31T23:59:59Z.
        assert_eq!(end(1_798_761_599), 1_798_761_600);
    }

    #[test]
    fn windows_follow_one_another_without_a_gap_for_four_hundred_years() {
        for period in [Period::Hour, Period::Day, Period::Month] {
            let mut at = 0;
            for _ in 0..4_800 {
                let window = Window::at(period, at);
                assert_eq!(Window::at(period, window.end() - 1), window);
                let next = Window::at(period, window.end());
                assert_eq!(next.bits(), window.bits() + 1);
                at = window.end();
            }
        }
    }

    #[test]
    fn only_a_step_back_over_one_border_keeps_the_later_window() {
        let window = |day: u64| Window::at(Period::Day, day * 86_400);
        assert_eq!(window(9).or_next(window(10)), window(10));
        assert_eq!(window(9).or_next(window(8)), window(9));
        assert_eq!(window(9).or_next(window(11)), window(9));
        assert_eq!(Window::at(Period::Day, u64::MAX).end(), LAST_SECOND + 1);
    }
}
