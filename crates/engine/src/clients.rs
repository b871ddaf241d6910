//! Which TLS clients are let in, by what they look like.
//!
//! Owns the rule of a plan. Must not: compute a fingerprint, or close anything.

use std::collections::HashSet;

use vedette_admit::hello::Ja4;

use crate::load::LoadError;
use crate::snapshot::{self, TlsClientsAction};

/// Which fingerprints are let in.
pub struct ClientRule {
    action: TlsClientsAction,
    named: HashSet<Ja4>,
}

impl ClientRule {
    /// The rule of a plan.
    pub fn compile(declared: &snapshot::TlsClients) -> Result<Self, LoadError> {
        let named = declared.ja4.iter();
        Ok(Self {
            action: declared.action,
            named: named
                .map(|text| fingerprint("tlsClients", text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether a client with this fingerprint may come in. Over plain HTTP there is none, and nothing to
    /// judge.
    pub fn permits(&self, ja4: Option<&Ja4>) -> bool {
        let is_named = |ja4| self.named.contains(ja4);
        ja4.is_none_or(|ja4| match self.action {
            TlsClientsAction::Allow => is_named(ja4),
            TlsClientsAction::Block => !is_named(ja4),
        })
    }
}

/// A fingerprint as a snapshot writes it, in what `whose` says.
pub fn fingerprint(whose: &str, text: &str) -> Result<Ja4, LoadError> {
    Ja4::parse(text)
        .ok_or_else(|| LoadError::new("admit_invalid", format!("{whose}: {text:?} is no JA4")))
}
