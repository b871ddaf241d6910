//! Patterns that choose names.

use regex_automata::meta::{self, Regex};

use super::pattern::{PatternError, parse_pattern};

/// A compiled pattern for names: there are few of them, they are small, and who asks has no cache.
#[derive(Debug)]
pub(crate) struct NamePattern(Regex);

impl NamePattern {
    /// Without regard to case, as names are.
    pub(crate) fn new(text: &str, most_bytes: usize) -> Result<Self, PatternError> {
        let hir = parse_pattern(&format!("(?i:{text})"))?;
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(most_bytes));
        let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
        regex
            .map(Self)
            .map_err(|error| PatternError(format!("the pattern cannot be used: {error}")))
    }

    pub(crate) fn is_match(&self, name: &[u8]) -> bool {
        self.0.is_match(name)
    }
}
