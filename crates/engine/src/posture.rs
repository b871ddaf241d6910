//! Facts about principals that control was told and that are true until a moment (ADR 0040).
//!
//! Owns: the table of facts, read from `posture.json` as control signed it. Must not: find out a fact, or let one count
//! after its moment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::watch;

use crate::caller::Caller;
use crate::clock;
use crate::envelope::POSTURE_TYPE;
use crate::load::{EngineDir, LoadError};

/// The most facts of a node.
const MOST: usize = 4_096;

/// The facts of one principal that are true now, and until when that is so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// The same as one text, which no other facts have.
    pub key: String,
    /// When the first of them ends, in seconds since the epoch.
    pub until: Option<u64>,
}

impl Facts {
    /// Facts with these names; `until` is the end of the first that ends.
    pub fn new(mut names: Vec<String>, until: Option<u64>) -> Self {
        names.sort();
        names.dedup();
        Self {
            key: names.join(","),
            names,
            until,
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What control signed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    facts: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    subject: String,
    fact: String,
    expires_at: u64,
}

/// Every fact, with its end, by principal.
#[derive(Default)]
struct Table {
    number: u64,
    version: u64,
    by_principal: HashMap<String, Vec<(String, u64)>>,
}

impl Table {
    fn read(document: Document) -> Result<Self, LoadError> {
        if document.facts.len() > MOST {
            let message = format!("posture.json has more than {MOST} facts");
            return Err(LoadError::new("posture_invalid", message));
        }
        let mut by_principal: HashMap<_, Vec<_>> = HashMap::new();
        for row in document.facts {
            let facts = by_principal.entry(row.subject).or_default();
            facts.push((row.fact, row.expires_at));
        }
        Ok(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            version: document.version,
            by_principal,
        })
    }

    fn of(&self, principals: [Option<&str>; 2], now: u64) -> Facts {
        let mut names = Vec::new();
        let mut until = None;
        for principal in principals.into_iter().flatten() {
            let facts = self.by_principal.get(principal).into_iter().flatten();
            for (name, ends) in facts.filter(|(_, ends)| *ends > now) {
                names.push(name.clone());
                until = until.into_iter().chain([*ends]).min();
            }
        }
        Facts::new(names, until)
    }
}

/// The facts of a node.
pub struct Posture {
    table: ArcSwap<Table>,
    /// Told of each table, by its number.
    told: watch::Sender<u64>,
}

impl Default for Posture {
    fn default() -> Self {
        Self {
            table: ArcSwap::default(),
            told: watch::Sender::new(0),
        }
    }
}

impl Posture {
    /// What is known of a caller, and of the certificate that came with them.
    pub fn of(&self, caller: Option<&Caller>, certificate: Option<&str>) -> Facts {
        let table = self.table.load();
        let principal = caller.map(|caller| caller.principal.as_ref());
        let beside = certificate.filter(|it| principal != Some(*it));
        table.of([principal, beside], clock::onward_seconds())
    }

    /// Different for each table.
    pub fn number(&self) -> u64 {
        self.table.load().number
    }

    /// Which of control's tables it is; 0: none.
    pub fn version(&self) -> u64 {
        self.table.load().version
    }

    /// Says when there is another table.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Takes what `posture.json` says; in force when it returns. Nothing is known where there is no such file.
    ///
    /// # Errors
    /// When control did not sign it, or it is malformed; what was known is known still.
    pub fn load(&self, dir: &EngineDir) -> Result<(), LoadError> {
        let table = match dir.signed(FILE, POSTURE_TYPE)? {
            None => Table::default(),
            Some(payload) => {
                let document = serde_json::from_slice(&payload)
                    .map_err(|error| LoadError::new("posture_invalid", error.to_string()))?;
                Table::read(document)?
            }
        };
        let number = table.number;
        self.table.store(Arc::new(table));
        self.told.send_replace(number);
        Ok(())
    }
}

const FILE: &str = "posture.json";

/// When the file was written, for those whom control does not tell.
pub fn written(root: &Path) -> Option<SystemTime> {
    std::fs::metadata(root.join(FILE)).ok()?.modified().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, u64)]) -> Table {
        let row = |(subject, fact, expires_at): &(&str, &str, u64)| Row {
            subject: (*subject).to_owned(),
            fact: (*fact).to_owned(),
            expires_at: *expires_at,
        };
        let facts = rows.iter().map(row).collect();
        Table::read(Document { version: 7, facts }).unwrap()
    }

    #[test]
    fn a_fact_counts_for_its_principal_until_its_moment() {
        let table = table(&[
            ("a", "encrypted", 100),
            ("a", "patched", 50),
            ("b", "vpn", 90),
        ]);
        let of = |principal, now| table.of([Some(principal), None], now);
        let facts = of("a", 40);
        assert_eq!(
            (facts.names, facts.until),
            (vec!["encrypted".into(), "patched".into()], Some(50))
        );
        let facts = of("a", 50);
        assert_eq!(
            (facts.names, facts.until),
            (vec!["encrypted".into()], Some(100))
        );
        assert_eq!(of("a", 100), Facts::default());
        assert_eq!(of("c", 0), Facts::default());
    }

    #[test]
    fn facts_of_the_certificate_count_beside_those_of_the_token() {
        let table = table(&[
            ("a", "encrypted", 100),
            ("device", "encrypted", 80),
            ("device", "vpn", 90),
        ]);
        let facts = table.of([Some("a"), Some("device")], 0);
        assert_eq!(facts.names, ["encrypted", "vpn"]);
        assert_eq!(
            (facts.key.as_str(), facts.until),
            ("encrypted,vpn", Some(80))
        );
    }

    #[test]
    fn there_is_room_for_so_many() {
        let row = |number: usize| Row {
            subject: number.to_string(),
            fact: "x".to_owned(),
            expires_at: 1,
        };
        let of = |count| {
            Table::read(Document {
                version: 1,
                facts: (0..count).map(row).collect(),
            })
        };
        assert!(of(MOST).is_ok());
        assert_eq!(of(MOST + 1).err().unwrap().code, "posture_invalid");
    }
}
