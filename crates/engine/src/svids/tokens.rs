//! JWT-SVIDs of functions, which the engine adds to their calls.
//!
//! Each is for one function, its component, and the audiences that a rule names. With another component, or once it
//! has ended, there is none: what cannot be proved is not sent.
//!
//! Must not: show a token.

use std::sync::Arc;

use serde::Deserialize;
use vedette_upstream::TokenSource;

use super::Svids;
use crate::clock;

/// Whose, of which component, for whom.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) component: String,
    /// Sorted, as the snapshot has it.
    pub(super) audience: Vec<String>,
}

/// A token and its end, in seconds since the epoch.
pub(super) struct Token {
    text: Arc<str>,
    ends: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    component: String,
    audience: Vec<String>,
    token: String,
    ends: u64,
}

pub(super) fn read(written: Written) -> (Asked, Token) {
    let asked = Asked {
        name: written.name,
        component: written.component,
        audience: written.audience,
    };
    let token = Token {
        text: written.token.into(),
        ends: written.ends,
    };
    (asked, token)
}

/// What rules have of one: that of the moment.
pub(super) struct Minted {
    svids: Arc<Svids>,
    asked: Asked,
}

impl Minted {
    pub(super) fn new(svids: Arc<Svids>, asked: Asked) -> Self {
        Self { svids, asked }
    }
}

impl TokenSource for Minted {
    fn token(&self) -> Option<Arc<str>> {
        let held = self.svids.held.load();
        let token = held.tokens.get(&self.asked)?;
        (clock::unix_seconds() < token.ends).then(|| Arc::clone(&token.text))
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
