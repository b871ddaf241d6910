//! The parts of a moment, in UTC.

use crate::seclang::Variable;

const DAY: u64 = 86_400;

/// `HH:MM:SS`.
pub(super) fn clock(seconds: u64) -> String {
    let rest = seconds % DAY;
    format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The part that a variable names.
pub(super) fn part(variable: Variable, seconds: u64) -> Option<i64> {
    let days = seconds / DAY;
    let (year, month, day) = civil(days);
    let part = match variable {
        Variable::TimeEpoch => seconds,
        Variable::TimeHour => seconds % DAY / 3600,
        Variable::TimeMin => seconds / 60 % 60,
        Variable::TimeSec => seconds % 60,
        Variable::TimeDay => day,
        // As C's tm_mon has it: January is 0.
        Variable::TimeMon => month - 1,
        // 1970-01-01 was a Thursday; Sunday is 0.
        Variable::TimeWday => (days + 4) % 7,
        Variable::TimeYear => year,
        _ => return None,
    };
    i64::try_from(part).ok()
}

/// Year, month and day of a day since the epoch (the days of a 400-year era, March first).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}
