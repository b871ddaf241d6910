//! Why a tailoring was refused, and how to mend it.

use std::fmt;

/// Why a tailoring was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailorError {
    /// No rule of the set reads or sets this TX variable.
    UnknownSetting(String),
    /// A rule sets this TX variable for each request, so that a setting would be lost.
    Overwritten(String, u64),
    /// The set holds no rules of this paranoia level: the level, and the highest that it holds.
    AboveCeiling(i64, u8),
    /// The exclusion cannot be read: which it is, and why.
    Unreadable(String, String),
    /// The exclusion would take away a rule that judges the score, or has the body read.
    Essential(String, u64),
    /// The exclusion would take away a rule that only gives a setting its default.
    OnlyDefaults(String, u64),
}

impl fmt::Display for TailorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSetting(name) => {
                write!(f, "no rule of the set knows the setting tx.{name}")
            }
            Self::Overwritten(name, rule) => write!(
                f,
                "rule {rule} sets tx.{name} for each request, so that the setting would be lost: \
                 give that rule `nolog,pass` in phase 1, or leave it out of the files"
            ),
            Self::AboveCeiling(level, ceiling) => write!(
                f,
                "paranoia level {level} is asked of a set that is compiled for {ceiling}"
            ),
            Self::Unreadable(which, why) => write!(f, "the exclusion of {which}: {why}"),
            Self::Essential(which, rule) => write!(
                f,
                "the exclusion of {which} takes away rule {rule}, without which nothing is blocked \
                 or no body is read: name fewer rules"
            ),
            Self::OnlyDefaults(which, rule) => write!(
                f,
                "the exclusion of {which} takes away rule {rule}, which only gives a setting its \
                 default: give the setting its value instead"
            ),
        }
    }
}

impl std::error::Error for TailorError {}
