//! Connections of a source: how many it has open, and how fast it opens new ones.
//!
//! Owns the counts of the plan in force, which go on from plan to plan. A source is an IPv4 address or an
//! IPv6 /64; an IPv6 /48, which is what a site has (RFC 6177), may not be 65,536 of them. Must not: close
//! anything; who accepts connections does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use vedette_limit::{Kind, Limit, LimitSet, Memory, Per, Places, Rate, Refused, RequestKeys};

use crate::load::LoadError;
use crate::node::{Place, now};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::SourceConnections;

/// Bytes of each table: about 98,000 sources, and as many networks.
const TABLE_BYTES: usize = 4 << 20;
/// How much a /48 may have in terms of a source.
const OF_A_NETWORK: u64 = 4;
/// The bits of an address that name its /48.
const NETWORK: u128 = u128::MAX << 80;

/// Who has how many connections, while the plan says so.
#[derive(Default)]
pub struct Sources(ArcSwapOption<Counts>);

struct Counts {
    declared: SourceConnections,
    sources: LimitSet,
    networks: LimitSet,
}

/// What one connection holds while it lives: its place among all, and among those of its source.
pub struct Seat {
    _among_all: Place,
    _of_source: [Places; 2],
}

/// What `status` says of sources.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcesRow {
    most: u64,
    /// Sources and networks that have a count of their own.
    remembered: usize,
    dropped: u64,
}

impl Seat {
    /// That of a connection whose source is not counted.
    pub fn uncounted(place: Place) -> Self {
        Self::new(place, [Places::default(), Places::default()])
    }

    /// That of a connection whose source is.
    pub fn new(place: Place, of_source: [Places; 2]) -> Self {
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
        let before = before.as_deref();
        let counts = Counts {
            declared: declared.clone(),
            sources: set("source", declared, 1, before.map(|it| &it.sources))?,
            networks: set(
                "network",
                declared,
                OF_A_NETWORK,
                before.map(|it| &it.networks),
            )?,
        };
        self.0.store(Some(Arc::new(counts)));
        Ok(())
    }

    /// Counts a new connection of `address`, or says why not.
    pub fn enter(&self, address: IpAddr) -> Result<[Places; 2], Refusal> {
        let counts = self.0.load();
        let none = || Ok(Places::default());
        let Some(counts) = counts.as_ref().filter(|_| !is_own(address)) else {
            return Ok([Places::default(), Places::default()]);
        };
        let of_source = take(&counts.sources, address)?;
        let of_network = network(address).map_or_else(none, |it| take(&counts.networks, it))?;
        Ok([of_source, of_network])
    }

    /// What `status` says.
    pub fn row(&self) -> Option<SourcesRow> {
        let counts = self.0.load();
        let counts = counts.as_ref()?;
        let stats = [counts.sources.stats(), counts.networks.stats()].concat();
        Some(SourcesRow {
            most: counts.declared.most,
            remembered: stats.iter().map(|it| it.keys).sum(),
            dropped: stats.iter().map(|it| it.dropped).sum(),
        })
    }
}

fn set(
    name: &str,
    declared: &SourceConnections,
    times: u64,
    before: Option<&LimitSet>,
) -> Result<LimitSet, LoadError> {
    let rate = &declared.rate;
    let most = declared.most.saturating_mul(times);
    let limit = Limit {
        name: name.into(),
        per: Per {
            source: true,
            ..Per::default()
        },
        routes: Vec::new(),
        rate: Some(Rate {
            requests: rate.requests.saturating_mul(times),
            period_millis: rate.period_millis,
            burst: rate.burst.map(|burst| burst.saturating_mul(times)),
        }),
        concurrency: Some(u32::try_from(most).unwrap_or(u32::MAX)),
        quota: None,
    };
    let memory = Memory {
        table_bytes: TABLE_BYTES,
        total_bytes: TABLE_BYTES,
    };
    LimitSet::compile(vec![limit], memory, before)
        .map_err(|error| LoadError::new("admit_invalid", format!("sourceConnections: {error}")))
}

fn take(set: &LimitSet, source: IpAddr) -> Result<Places, Refusal> {
    let keys = RequestKeys {
        principal: None,
        route: "",
        source,
    };
    let allowed = set.check(&keys, now()).map_err(|no| refusal(&no))?;
    Ok(allowed.places)
}

fn refusal(refused: &Refused) -> Refusal {
    let cause = match refused.kind {
        Kind::Concurrency => Cause::TooManyConnections,
        Kind::Rate | Kind::Quota => Cause::ConnectingTooOften,
    };
    Refusal::with(cause, format!("of the {}", refused.limit))
}

/// Who speaks from this machine's own address needs no network to do harm, and is often a proxy that
/// speaks for everybody.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

fn network(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address) & NETWORK).into()),
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
