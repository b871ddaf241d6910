//! What calls are given that whoever makes them never sees.
//!
//! Owns: the field, and where its value comes from. Must not: show a value.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// A header field that proves to the destination who calls. Its value is never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub header: HeaderName,
    /// Its value.
    pub value: CredentialValue,
}

/// Where the value of the field comes from.
#[derive(Clone)]
pub enum CredentialValue {
    /// Always the same, marked as sensitive.
    Kept(HeaderValue),
    /// A token that another takes the place of while the rule stays.
    Minted {
        /// What stands before it.
        prefix: String,
        /// Who has it.
        source: Arc<dyn TokenSource>,
    },
}

/// Who has a token that lives for minutes.
pub trait TokenSource: Send + Sync {
    /// The token of now; `None` while there is none.
    fn token(&self) -> Option<Arc<str>>;
}

impl Credential {
    /// The field as it is sent now, marked as sensitive; `None` while there is none.
    pub(crate) fn field(&self) -> Option<(HeaderName, HeaderValue)> {
        let value = match &self.value {
            CredentialValue::Kept(value) => value.clone(),
            CredentialValue::Minted { prefix, source } => {
                let token = source.token()?;
                let mut value = HeaderValue::try_from(format!("{prefix}{token}")).ok()?;
                value.set_sensitive(true);
                value
            }
        };
        Some((self.header.clone(), value))
    }
}

impl fmt::Debug for CredentialValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept(_) => "Kept(..)",
            Self::Minted { .. } => "Minted(..)",
        })
    }
}

impl PartialEq for CredentialValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kept(one), Self::Kept(other)) => one == other,
            (
                Self::Minted { prefix, source },
                Self::Minted {
                    prefix: other_prefix,
                    source: other_source,
                },
            ) => prefix == other_prefix && Arc::ptr_eq(source, other_source),
            _ => false,
        }
    }
}

impl Eq for CredentialValue {}
