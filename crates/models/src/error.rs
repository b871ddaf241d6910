//! Why a model is not served.

use std::fmt;

use serde_json::json;

/// Why a model could not be loaded, or its process not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Error {
    /// An error with this code.
    pub fn new(code: &'static str, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    /// As `{"code": …, "message": …}`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({"code": self.code, "message": self.message})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<vedette_sandbox::Error> for Error {
    fn from(error: vedette_sandbox::Error) -> Self {
        Self::new(error.code, error.message)
    }
}
