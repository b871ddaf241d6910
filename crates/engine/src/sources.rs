//! Connections of a source: how many it has open, and how fast it opens new ones.
//!
//! Owns the counts of the plan in force, which go on from plan to plan. What a source is says `vedette_limit`.
//! Must not: close anything; who accepts connections does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use vedette_limit::{Kind, Limit, LimitSet, Memory, Per, Places, Rate, Refused, RequestKeys};

use crate::load::LoadError;
use crate::node::{Place, now};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::SourceConnections;

/// Bytes of the table: about 196,000 sources of IPv4, or 98,000 of IPv6 with their sites.
const TABLE_BYTES: usize = 8 << 20;

/// Who has how many connections, while the plan says so.
#[derive(Default)]
pub struct Sources(ArcSwapOption<Counts>);

struct Counts {
    declared: SourceConnections,
    limit: LimitSet,
}

/// What one connection holds while it lives: its place among all, and among those of its source.
pub struct Seat {
    _among_all: Place,
    _of_source: Places,
}

/// What `status` says of sources.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcesRow {
    most: u64,
    /// Sources and sites that have a count of their own.
    remembered: usize,
    dropped: u64,
}

impl Seat {
    /// That of a connection whose source is not counted.
    pub fn uncounted(place: Place) -> Self {
        Self::new(place, Places::default())
    }

    /// That of a connection whose source is.
    pub fn new(place: Place, of_source: Places) -> Self {
        Self {
            _among_all: place,
            _of_source: of_source,
        }
    }
}

impl Sources {
    /// Counts as a plan says from now on; what was counted stays.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn follow(&self, declared: Option<&SourceConnections>) -> Result<(), LoadError> {
        let Some(declared) = declared else {
            self.0.store(None);
            return Ok(());
        };
        let before = self.0.load_full();
        if before.as_ref().is_some_and(|it| it.declared == *declared) {
            return Ok(());
        }
        let counts = Counts {
            declared: declared.clone(),
            limit: compile(declared, before.as_deref().map(|it| &it.limit))?,
        };
        self.0.store(Some(Arc::new(counts)));
        Ok(())
    }

    /// Counts a new connection of `address`, or says why not.
    pub fn enter(&self, address: IpAddr) -> Result<Places, Refusal> {
        let counts = self.0.load();
        let Some(counts) = counts.as_ref().filter(|_| !is_own(address)) else {
            return Ok(Places::default());
        };
        let keys = RequestKeys {
            principal: None,
            route: "",
            source: address,
        };
        let allowed = counts.limit.check(&keys, now());
        Ok(allowed.map_err(|no| refusal(&no))?.places)
    }

    /// What `status` says.
    pub fn row(&self) -> Option<SourcesRow> {
        let counts = self.0.load();
        let counts = counts.as_ref()?;
        let stats = counts.limit.stats();
        Some(SourcesRow {
            most: counts.declared.most,
            remembered: stats.iter().map(|it| it.keys).sum(),
            dropped: stats.iter().map(|it| it.dropped).sum(),
        })
    }
}

fn compile(declared: &SourceConnections, before: Option<&LimitSet>) -> Result<LimitSet, LoadError> {
    let rate = &declared.rate;
    let limit = Limit {
        name: "source".into(),
        per: Per {
            source: true,
            ..Per::default()
        },
        routes: Vec::new(),
        rate: Some(Rate {
            requests: rate.requests,
            period_millis: rate.period_millis,
            burst: rate.burst,
        }),
        concurrency: Some(u32::try_from(declared.most).unwrap_or(u32::MAX)),
        quota: None,
    };
    let memory = Memory {
        table_bytes: TABLE_BYTES,
        total_bytes: TABLE_BYTES,
    };
    LimitSet::compile(vec![limit], memory, before)
        .map_err(|error| LoadError::new("admit_invalid", format!("sourceConnections: {error}")))
}

fn refusal(refused: &Refused) -> Refusal {
    let cause = match refused.kind {
        Kind::Concurrency => Cause::TooManyConnections,
        Kind::Rate | Kind::Quota => Cause::ConnectingTooOften,
    };
    let whose = if refused.is_of_site {
        "its /48"
    } else {
        "the source"
    };
    Refusal::with(cause, format!("of {whose}"))
}

/// Who speaks from this machine's own address needs no network to do harm, and is often a proxy that
/// speaks for everybody.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

#[cfg(test)]
#[path = "sources_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
