//! What is wrong with a rule file, and where.

use std::fmt;
use std::sync::Arc;

/// A place in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
}

impl Place {
    pub(crate) fn error(&self, message: impl Into<String>) -> LoadError {
        LoadError {
            file: self.file.to_string(),
            line: self.line,
            message: message.into(),
        }
    }
}

/// Why a rule set was refused. Nothing of it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file as it was named.
    pub file: String,
    /// The line on which the statement begins; 0 for the file as a whole.
    pub line: u32,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for LoadError {}

/// `"; did you mean X?"` for the known name that is nearest to what was written.
pub(crate) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    let lower = written.to_ascii_lowercase();
    known
        .map(|name| {
            (
                strsim::osa_distance(&lower, &name.to_ascii_lowercase()),
                name,
            )
        })
        .min()
        .map(|(_, name)| format!("; the nearest known name is `{name}`"))
        .unwrap_or_default()
}
