//! What counts no more: tokens, certificates, SPIFFE IDs, whole trust domains.
//!
//! Owns: the table that requests and leases are looked up in, and what is revoked ahead of the snapshot that will
//! hold it ([`Ahead`], ADR 0038). Must not: decide what is revoked, or forget anything that no plan holds.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::caller::{Caller, Proof};
use crate::certificate::{Workload, spiffe_id};
use crate::jwt::Verified;
use crate::load::LoadError;
use crate::refusal::Cause;

/// The most that may be revoked ahead of a snapshot: as many as control puts into one.
const MOST: usize = 10_000;
const SCHEME: &str = "spiffe://";

/// One thing that counts no more, as control names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Revocation {
    /// A token: `iss` and `jti`.
    Token {
        /// `iss`.
        issuer: String,
        /// `jti`.
        id: String,
    },
    /// A certificate of an authority, or of one that vouches for it.
    Certificate {
        /// The authority's name in the snapshot.
        authority: String,
        /// Lower-case hex without leading zeros.
        serial: String,
    },
    /// Who has this SPIFFE ID, by certificate or by token.
    SpiffeId {
        /// The whole ID.
        id: String,
    },
    /// Who is of this trust domain, and tokens that it issues.
    TrustDomain {
        /// Its name, without scheme.
        name: String,
    },
}

/// Revocations, to be looked up.
#[derive(Debug, Default, Clone)]
pub struct Revoked {
    /// By issuer.
    tokens: HashMap<String, HashSet<String>>,
    /// By authority.
    certificates: HashMap<String, HashSet<String>>,
    ids: HashSet<String>,
    domains: HashSet<String>,
}

impl FromIterator<Revocation> for Revoked {
    fn from_iter<I: IntoIterator<Item = Revocation>>(all: I) -> Self {
        let mut revoked = Self::default();
        for one in all {
            match one {
                Revocation::Token { issuer, id } => {
                    revoked.tokens.entry(issuer).or_default().insert(id)
                }
                Revocation::Certificate { authority, serial } => revoked
                    .certificates
                    .entry(authority)
                    .or_default()
                    .insert(serial),
                Revocation::SpiffeId { id } => revoked.ids.insert(id),
                Revocation::TrustDomain { name } => revoked.domains.insert(name),
            };
        }
        revoked
    }
}

impl Revoked {
    /// Those of a snapshot that are about identities; its tokens and certificates are with their issuers.
    pub fn identities(ids: Option<Vec<String>>, domains: Option<Vec<String>>) -> Self {
        Self {
            ids: ids.into_iter().flatten().collect(),
            domains: domains.into_iter().flatten().collect(),
            ..Self::default()
        }
    }

    /// Whether this very thing is revoked here.
    pub fn has(&self, one: &Revocation) -> bool {
        match one {
            Revocation::Token { issuer, id } => has(&self.tokens, issuer, id),
            Revocation::Certificate { authority, serial } => {
                has(&self.certificates, authority, serial)
            }
            Revocation::SpiffeId { id } => self.ids.contains(id),
            Revocation::TrustDomain { name } => self.domains.contains(name),
        }
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty()
            && self.certificates.is_empty()
            && self.ids.is_empty()
            && self.domains.is_empty()
    }

    /// Why a caller counts no more, or the certificate that came with them.
    pub fn cause(&self, caller: Option<&Caller>, certificate: Option<&Caller>) -> Option<Cause> {
        let of = |caller: &Caller| match &caller.proof {
            Proof::Token(token) => self.of_token(token),
            Proof::Certificate(workload) => self.of_certificate(workload),
            Proof::Function(_) => {
                let is_revoked = self.has_identity(&caller.principal);
                is_revoked.then_some(Cause::IdentityRevoked)
            }
        };
        certificate.and_then(of).or_else(|| caller.and_then(of))
    }

    /// Why a token counts no more: itself, whom it names, or who issued it.
    pub fn of_token(&self, token: &Verified) -> Option<Cause> {
        let is_revoked = |id: &String| has(&self.tokens, &token.issuer, id);
        if token.id.as_ref().is_some_and(is_revoked) {
            return Some(Cause::TokenRevoked);
        }
        let by = token.issuer.strip_prefix(SCHEME);
        let is_of_revoked = by.is_some_and(|domain| self.domains.contains(domain));
        (is_of_revoked || self.has_identity(&token.subject)).then_some(Cause::IdentityRevoked)
    }

    /// Why a certificate counts no more: its chain, or whom it names.
    pub fn of_certificate(&self, workload: &Workload) -> Option<Cause> {
        if let Some(serials) = self.certificates.get(&workload.authority)
            && (serials.contains(&workload.serial)
                || workload.issuers.iter().any(|it| serials.contains(it)))
        {
            return Some(Cause::CertificateRevoked);
        }
        let id = workload.spiffe_id.as_ref();
        id.is_some_and(|id| self.has_identity(id))
            .then_some(Cause::IdentityRevoked)
    }

    fn has_identity(&self, id: &str) -> bool {
        if self.ids.is_empty() && self.domains.is_empty() {
            return false;
        }
        self.ids.contains(id) || spiffe_id(id).is_ok_and(|domain| self.domains.contains(domain))
    }
}

fn has(named: &HashMap<String, HashSet<String>>, name: &str, one: &str) -> bool {
    named.get(name).is_some_and(|all| all.contains(one))
}

/// What is revoked before the snapshot that holds it is served: new requests are refused at once, leases end at once.
pub struct Ahead {
    table: ArcSwap<Table>,
    /// The same, to change it; one at a time.
    listed: Mutex<Vec<Revocation>>,
    /// Told of each table, by its number.
    told: watch::Sender<u64>,
}

/// One state of it.
#[derive(Default)]
struct Table {
    number: u64,
    revoked: Arc<Revoked>,
}

/// What was revoked ahead when a request came.
#[derive(Clone)]
pub struct Known {
    /// Different for each state of [`Ahead`].
    pub number: u64,
    /// None: nothing.
    pub revoked: Option<Arc<Revoked>>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            table: ArcSwap::default(),
            listed: Mutex::default(),
            told: watch::Sender::new(0),
        }
    }
}

impl Ahead {
    /// What is revoked ahead now. To be asked before the plan is: what has left this table is in the plan of whoever
    /// asks for the plan afterwards.
    pub fn known(&self) -> Known {
        let table = self.table.load();
        Known {
            number: table.number,
            revoked: (!table.revoked.is_empty()).then(|| Arc::clone(&table.revoked)),
        }
    }

    /// Says when something is revoked ahead.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// What control has to put into a snapshot yet.
    pub fn list(&self) -> Vec<Revocation> {
        self.lock().clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Revokes `more`, in force when it returns: requests that begin from now on are refused.
    ///
    /// # Errors
    /// `revocations_full` when there would be more than 10,000; nothing has changed then.
    pub fn revoke(&self, more: Vec<Revocation>) -> Result<(), LoadError> {
        let mut listed = self.lock();
        let known: HashSet<_> = listed.iter().cloned().collect();
        let fresh: HashSet<_> = more.into_iter().filter(|it| !known.contains(it)).collect();
        if listed.len() + fresh.len() > MOST {
            let message = format!("{MOST} revocations wait for a snapshot");
            return Err(LoadError::new("revocations_full", message));
        }
        listed.extend(fresh);
        self.publish(&listed);
        Ok(())
    }

    /// Forgets what `holds` says is in the plan that is served by now, and nothing else.
    pub fn settle(&self, holds: impl Fn(&Revocation) -> bool) {
        let mut listed = self.lock();
        let before = listed.len();
        listed.retain(|one| !holds(one));
        if listed.len() != before {
            self.publish(&listed);
        }
    }

    fn publish(&self, listed: &[Revocation]) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let revoked = Arc::new(listed.iter().cloned().collect());
        self.table.store(Arc::new(Table { number, revoked }));
        self.told.send_replace(number);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Revocation>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "revoked_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
