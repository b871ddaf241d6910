//! Addresses that keep offending: what of a request is an offence, and what is told of a block.
//!
//! Owns the table of the plan in force, which goes on from plan to plan while its terms stay. Must
//! not: turn anybody away; who accepts connections and who admits requests do.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use vedette_admit::country::Country;
use vedette_admit::hello::Ja4;
use vedette_admit::offenders::{Block, Blocked, Offence, Offenders, Terms};

use crate::clock;
use crate::record::Record;
use crate::refusal::{Cause, Stage};
use crate::snapshot;

/// Bytes of the table: 65,536 sources.
const TABLE_BYTES: usize = 2 << 20;
/// Blocked sources that `status` names.
const MOST_TOLD: usize = 20;

/// Who is watched, while the plan says so.
#[derive(Default)]
pub struct Watch {
    table: ArcSwapOption<Table>,
    /// The blocks that the engine before this one has left, until there is a plan.
    left: Mutex<Option<Vec<u8>>>,
}

struct Table {
    declared: snapshot::Offenders,
    offenders: Offenders,
}

/// What `status` says of offenders.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OffendersRow {
    sources: usize,
    capacity: usize,
    dropped: u64,
    unseen: u64,
    blocked: usize,
    first: Vec<BlockedRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockedRow {
    source: String,
    seconds: u64,
    strike: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    time: String,
    client: &'a str,
    /// What is blocked: the client's address or its network.
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ja4: Option<&'a str>,
    /// Of the request that was one too many.
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    status: u16,
    seconds: u64,
    strike: u8,
}

impl Watch {
    /// Watches as a plan says from now on. The same terms go on with the same table.
    pub fn follow(&self, declared: Option<&snapshot::Offenders>) {
        let left = self.left().take();
        let Some(declared) = declared else {
            return self.table.store(None);
        };
        let same = self.table.load();
        if same.as_ref().is_some_and(|it| it.declared == *declared) {
            return;
        }
        let table = Table {
            declared: declared.clone(),
            offenders: Offenders::within(TABLE_BYTES, terms(declared)),
        };
        if let Some(image) = left {
            table.offenders.restore(&image, now(), clock::since_epoch());
        }
        self.table.store(Some(Arc::new(table)));
    }

    /// Takes up the blocks that the engine before this one has left, if it has.
    pub fn take_over(&self, image: Option<Vec<u8>>) {
        match (&*self.table.load(), image) {
            (Some(table), Some(image)) => {
                table.offenders.restore(&image, now(), clock::since_epoch());
            }
            (None, Some(image)) => *self.left() = Some(image),
            (_, None) => {}
        }
    }

    /// The blocks, for the engine after this one; no bytes where nobody is watched.
    pub fn image(&self) -> Vec<u8> {
        let table = self.table.load();
        let image = |it: &Arc<Table>| it.offenders.export(now(), clock::since_epoch());
        table.as_ref().map(image).unwrap_or_default()
    }

    fn left(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block that an address is under, and how long it goes on.
    pub fn block(&self, address: IpAddr) -> Option<(Block, Duration)> {
        let table = self.table.load();
        let now = now();
        let block = table.as_ref()?.offenders.block(address, now)?;
        Some((block, block.until.saturating_sub(now)))
    }

    /// Takes note of a request that has ended; the event of the block that it began.
    pub fn note(&self, record: &Record) -> Option<impl FnOnce(&mut Vec<u8>)> {
        let table = self.table.load();
        let table = table.as_ref()?;
        let offence = offence_of(record)?;
        let (address, now) = (record.connection.client_address, now());
        let blocked = table.offenders.offend(address, offence.points(), now)?;
        Some(move |into: &mut Vec<u8>| write(record, blocked, now, into))
    }

    /// What `status` says.
    pub fn row(&self) -> Option<OffendersRow> {
        let table = self.table.load();
        let (offenders, now) = (&table.as_ref()?.offenders, now());
        let stats = offenders.stats(now);
        let told = offenders.blocked(now, MOST_TOLD).into_iter();
        Some(OffendersRow {
            sources: stats.sources,
            capacity: stats.capacity,
            dropped: stats.dropped,
            unseen: stats.unseen,
            blocked: stats.blocked,
            first: told
                .map(|it| BlockedRow {
                    source: it.source.to_string(),
                    seconds: whole_seconds(it.block.until.saturating_sub(now)),
                    strike: it.block.strike,
                })
                .collect(),
        })
    }
}

fn terms(declared: &snapshot::Offenders) -> Terms {
    // A threshold is at most a million: exact as a float.
    #[allow(clippy::cast_precision_loss)]
    let threshold = declared.threshold as f64;
    Terms {
        threshold,
        half_life: Duration::from_secs(declared.half_life_seconds),
        first_block: Duration::from_secs(declared.first_block_seconds),
        longest_block: Duration::from_secs(declared.longest_block_seconds),
        ..Terms::default()
    }
}

fn now() -> Duration {
    Duration::from_nanos(clock::monotonic_nanos())
}

/// What a request was, judged by how it ended. To ask without credentials where they are needed is
/// what every browser does first; credentials that ran out are a mistake and no attempt.
fn offence_of(record: &Record) -> Option<Offence> {
    let Some(refusal) = &record.refusal else {
        return (400..500)
            .contains(&record.status)
            .then_some(Offence::ClientError);
    };
    let (stage, _, status, _) = refusal.cause.outcome();
    match refusal.cause {
        // Of these some are recorded and others not.
        Cause::AddressBlocked
        | Cause::TooManyConnections
        | Cause::ConnectingTooOften
        | Cause::ClientNotAllowed
        // Nobody has done anything wrong.
        | Cause::ChallengeRequired => None,
        Cause::WafBlocked => Some(Offence::WafBlock),
        Cause::MalformedRequest
        | Cause::MalformedHost
        | Cause::MalformedPath
        | Cause::Flooded
        | Cause::HeadTooSlow => Some(Offence::Malformed),
        Cause::CredentialsRequired
        | Cause::TokenExpired
        | Cause::TokenNotYetValid
        | Cause::CertificateExpired
        | Cause::CertificateNotYetValid => Some(Offence::ClientError),
        _ if stage == Stage::Authenticate => Some(Offence::BadCredentials),
        _ => (400..500).contains(&status).then_some(Offence::ClientError),
    }
}

/// Seconds, the one that has begun with them: who comes back after so many is let in.
pub fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn write(record: &Record, blocked: Blocked, now: Duration, into: &mut Vec<u8>) {
    let Blocked { source, block } = blocked;
    let event = Event {
        kind: "block",
        time: clock::rfc3339(clock::since_epoch()),
        client: &record.connection.client_ip,
        source: source.to_string(),
        country: record.country.as_ref().map(Country::as_str),
        ja4: record.connection.ja4.as_ref().map(Ja4::as_str),
        request_id: record.ids.request(),
        cause: record.refusal.as_ref().map(|it| it.cause.outcome().1),
        status: record.status,
        seconds: whole_seconds(block.until.saturating_sub(now)),
        strike: block.strike,
    };
    // Writing to memory and plain types: it cannot fail.
    let _ = serde_json::to_writer(&mut *into, &event);
    into.push(b'\n');
}
