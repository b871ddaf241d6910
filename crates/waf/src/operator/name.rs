//! Patterns that choose names.

use regex_automata::meta::{self, Regex};

use super::pattern::{PatternError, parse_pattern};
use super::plain::Plain;

/// A compiled pattern for names: there are few of them, they are small, and who asks has no cache.
#[derive(Debug)]
pub(crate) enum NamePattern {
    Plain(Plain),
    /// With the bytes of the shortest name that matches.
    Search(Regex, usize),
}

impl NamePattern {
    /// Without regard to case, as names are.
    pub(crate) fn new(text: &str, most_bytes: usize) -> Result<Self, PatternError> {
        let hir = parse_pattern(&format!("(?i:{text})"))?;
        if let Some(plain) = Plain::of(&hir) {
            return Ok(Self::Plain(plain));
        }
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(most_bytes));
        let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
        regex
            .map(|regex| Self::Search(regex, hir.properties().minimum_len().unwrap_or(0)))
            .map_err(|error| PatternError(format!("the pattern cannot be used: {error}")))
    }

    pub(crate) fn is_match(&self, name: &[u8]) -> bool {
        match self {
            Self::Plain(plain) => plain.find(name).is_some(),
            Self::Search(regex, shortest) => name.len() >= *shortest && regex.is_match(name),
        }
    }
}
