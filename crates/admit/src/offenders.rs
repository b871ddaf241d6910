//! Addresses that keep offending: a score that decays, a block that doubles.
//!
//! Owns a table of fixed size and who in it is blocked until when. Must not: say what an offence
//! is, or read a clock.
//!
//! A source has its set of ways by a keyed hash, so that nobody can aim at a set. A newcomer to a
//! full set takes the lightest way if its own offence weighs as much; else it wears the lightest
//! down by as much (Misra and Gries, for sets). So a source is never blamed for another's offences:
//! a flood of sources makes scores too low, never too high. A blocked source keeps its way.

mod image;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;
use vedette_limit::{OF_A_SITE, random_key, site_part, source_part};

const WAYS: usize = 8;
const SHARD_SETS: usize = 64;
const SHARD_BYTES: usize = size_of::<Shard>() + SHARD_SETS * size_of::<Set>();
const MOST_SHARDS: usize = 1 << 16;

/// When a source is blocked, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Points that get a source blocked.
    pub threshold: f64,
    /// The time in which a score halves.
    pub half_life: Duration,
    /// How long the first block is. Each one after it is twice as long.
    pub first_block: Duration,
    /// No block is longer.
    pub longest_block: Duration,
    /// After so long without a block the next one is a first one again.
    pub forget_after: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            threshold: 100.0,
            half_life: Duration::from_secs(60),
            first_block: Duration::from_secs(60),
            longest_block: Duration::from_secs(24 * 3600),
            forget_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// What a client did that no honest one does often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// The firewall blocked its request.
    WafBlock,
    /// Its token or certificate did not verify.
    BadCredentials,
    /// It sent something that is no HTTP, or a flood of frames.
    Malformed,
    /// It got an answer of 4xx.
    ClientError,
}

impl Offence {
    /// What it weighs, where a block begins at 100: ten attacks, or a hundred misses, within a
    /// minute or so.
    pub fn points(self) -> f64 {
        match self {
            Self::WafBlock => 12.0,
            Self::BadCredentials | Self::Malformed => 8.0,
            Self::ClientError => 1.0,
        }
    }
}

/// A block of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// When it ends, on the caller's clock.
    pub until: Duration,
    /// Which of the source's blocks in a row it is, from 1.
    pub strike: u8,
}

/// A blocked source, for a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Which one.
    pub source: Source,
    /// Its block.
    pub block: Block,
}

/// An IPv4 address, an IPv6 /64, or a /48 that they make up together, as `source_part` and `site_part` number
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(u64);

/// How full the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sources in it.
    pub sources: usize,
    /// Those that are blocked.
    pub blocked: usize,
    /// Most it has room for.
    pub capacity: usize,
    /// Sources that gave way to another.
    pub dropped: u64,
    /// Offences for which there was no room.
    pub unseen: u64,
}

/// The table, shared by all workers.
pub struct Offenders {
    shards: Box<[Shard]>,
    secret: [u8; 16],
    terms: Terms,
    /// Nobody has offended yet: nothing needs to be looked up.
    is_empty: AtomicBool,
}

/// On a cache line of its own: neighbours are locked by other threads.
#[repr(align(64))]
struct Shard(Mutex<Sets>);

struct Sets {
    sets: Box<[Set]>,
    dropped: u64,
    unseen: u64,
}

#[derive(Clone, Copy, Default)]
struct Set([Way; WAYS]);

/// One source. Times are milliseconds of the caller's clock.
#[derive(Clone, Copy, Default)]
struct Way {
    /// As a [`Source`] has it: exact, so that it can be shown. 0 for none, which is no client's.
    source: u64,
    /// The score as it was at `at`.
    score: f32,
    strike: u8,
    at: u64,
    until: u64,
}

impl Offenders {
    /// A table of at most `bytes`, but of one shard at least.
    pub fn within(bytes: usize, terms: Terms) -> Self {
        let shards = (bytes / SHARD_BYTES).clamp(1, MOST_SHARDS);
        Self {
            shards: (0..shards).map(|_| Shard::new()).collect(),
            secret: random_key(),
            terms,
            is_empty: AtomicBool::new(true),
        }
    }

    /// Adds the points of an offence of `source` at `now`. Returns the block that this began. A /48 is blocked at
    /// [`OF_A_SITE`] times the threshold of a source, and never for one source alone: those of one that was
    /// blocked lately do not count for it.
    pub fn offend(&self, source: IpAddr, points: f64, now: Duration) -> Option<Blocked> {
        self.is_empty.store(false, Ordering::Relaxed);
        let now = millis(now);
        let (part, share) = (source_part(source), points / f64::from(OF_A_SITE));
        let site = site_part(source).filter(|_| !self.has_strikes(part, now));
        let own = self.add(part, points, now);
        let site = site.and_then(|site| self.add(site, share, now));
        // Where both began, the wider block is what matters.
        site.or(own)
    }

    fn add(&self, source: u64, points: f64, now: u64) -> Option<Blocked> {
        let (mut shard, index) = self.place(source);
        let block = shard.offend(index, source, points, now, &self.terms)?;
        let source = Source(source);
        Some(Blocked { source, block })
    }

    fn has_strikes(&self, source: u64, now: u64) -> bool {
        let (shard, index) = self.place(source);
        let set = shard.sets.get(index);
        let own = set.and_then(|set| set.0.iter().find(|way| way.source == source));
        own.is_some_and(|way| way.is_remembered(now, &self.terms))
    }

    /// The block that `source` is under at `now`, by itself or with its /48: the one that goes on longer.
    pub fn block(&self, source: IpAddr, now: Duration) -> Option<Block> {
        if self.is_empty.load(Ordering::Relaxed) {
            return None;
        }
        let parts = [Some(source_part(source)), site_part(source)];
        let blocks = parts.into_iter().flatten();
        let blocks = blocks.filter_map(|part| self.block_of(part, millis(now)));
        blocks.max_by_key(|block| block.until)
    }

    fn block_of(&self, source: u64, now: u64) -> Option<Block> {
        let (shard, index) = self.place(source);
        let way = shard
            .sets
            .get(index)?
            .0
            .iter()
            .find(|way| way.source == source)?;
        way.block(now)
    }

    /// Forgets all that `source` did, and its /48; says whether there was anything.
    pub fn pardon(&self, source: IpAddr) -> bool {
        let parts = [Some(source_part(source)), site_part(source)];
        let forgotten = parts
            .into_iter()
            .flatten()
            .filter(|part| self.forget(*part));
        forgotten.count() > 0
    }

    fn forget(&self, source: u64) -> bool {
        let (mut shard, index) = self.place(source);
        let ways = shard.sets.get_mut(index).map(|set| set.0.iter_mut());
        let own = ways.and_then(|mut ways| ways.find(|way| way.source == source));
        own.is_some_and(|way| {
            *way = Way::default();
            true
        })
    }

    /// At most `most` of the sources that are blocked at `now`. Locks one shard at a time; not for
    /// the request path.
    pub fn blocked(&self, now: Duration, most: usize) -> Vec<Blocked> {
        let now = millis(now);
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let ways = shard.sets.iter().flat_map(|set| &set.0);
            let blocked = ways.filter_map(|way| {
                let block = way.block(now)?;
                let source = Source(way.source);
                Some(Blocked { source, block })
            });
            found.extend(blocked.take(most - found.len()));
        }
        found
    }

    /// How full the table is at `now`. Locks one shard at a time; not for the request path.
    pub fn stats(&self, now: Duration) -> Stats {
        let now = millis(now);
        let mut stats = Stats::default();
        for shard in &self.shards {
            let shard = lock(shard);
            stats.dropped += shard.dropped;
            stats.unseen += shard.unseen;
            stats.capacity += shard.sets.len() * WAYS;
            for way in shard.sets.iter().flat_map(|set| &set.0) {
                stats.sources += usize::from(way.source != 0);
                stats.blocked += usize::from(way.block(now).is_some());
            }
        }
        stats
    }

    /// Bytes it takes, always.
    pub fn memory_usage(&self) -> usize {
        self.shards.len() * SHARD_BYTES
    }

    /// The shard of a source, locked, and the number of its set.
    fn place(&self, source: u64) -> (MutexGuard<'_, Sets>, usize) {
        let hash = SipHasher13::new_with_key(&self.secret).hash(&source.to_le_bytes());
        let high = usize::try_from(hash >> 32).unwrap_or(0);
        let low = usize::try_from(hash & 0xffff_ffff).unwrap_or(0);
        // There is at least one shard, and the product is below their number.
        #[allow(clippy::indexing_slicing)]
        let shard = &self.shards[(high * self.shards.len()) >> 32];
        (lock(shard), low % SHARD_SETS)
    }
}

impl Shard {
    fn new() -> Self {
        Self(Mutex::new(Sets {
            sets: vec![Set::default(); SHARD_SETS].into_boxed_slice(),
            dropped: 0,
            unseen: 0,
        }))
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Sets> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sets {
    fn offend(
        &mut self,
        index: usize,
        source: u64,
        points: f64,
        now: u64,
        terms: &Terms,
    ) -> Option<Block> {
        let set = self.sets.get_mut(index)?;
        if let Some(way) = set.0.iter_mut().find(|way| way.source == source) {
            return way.add(points, now, terms);
        }
        let weighed = set.0.iter_mut().map(|way| (way.weight(now, terms), way));
        let (weight, way) = weighed.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        if weight > points {
            self.unseen += 1;
            if way.block(now).is_none() {
                way.wear(points, now, terms);
            }
            return None;
        }
        self.dropped += u64::from(way.source != 0 && weight > 0.0);
        *way = Way {
            source,
            at: now,
            ..Way::default()
        };
        way.add(points, now, terms)
    }
}

impl Way {
    fn block(&self, now: u64) -> Option<Block> {
        (now < self.until).then(|| Block {
            until: Duration::from_millis(self.until),
            strike: self.strike,
        })
    }

    fn score(&self, now: u64, terms: &Terms) -> f64 {
        let past = Duration::from_millis(now.saturating_sub(self.at));
        let halvings = past.as_secs_f64() / terms.half_life.as_secs_f64().max(0.001);
        f64::from(self.score) * (-halvings).exp2()
    }

    /// How much is lost with it: everything while it is blocked, and its strikes while they count.
    fn weight(&self, now: u64, terms: &Terms) -> f64 {
        if self.source == 0 {
            return 0.0;
        }
        if self.block(now).is_some() {
            return f64::INFINITY;
        }
        let remembered = if self.is_remembered(now, terms) {
            terms.threshold
        } else {
            0.0
        };
        // A thousandth of a point is nothing: the way is as good as empty.
        let weight = self.score(now, terms) + remembered;
        if weight < 0.001 { 0.0 } else { weight }
    }

    fn is_remembered(&self, now: u64, terms: &Terms) -> bool {
        self.strike > 0 && now.saturating_sub(self.until) < millis(terms.forget_after)
    }

    fn set_score(&mut self, score: f64, now: u64) {
        // Precision is no matter, and scores stay below a few thresholds.
        #[allow(clippy::cast_possible_truncation)]
        let score = score as f32;
        self.score = score;
        self.at = now;
    }

    /// A newcomer that found no way takes its points off this one: off the strikes once the score
    /// is gone.
    fn wear(&mut self, points: f64, now: u64, terms: &Terms) {
        let left = self.score(now, terms) - points;
        if left < 0.0 {
            self.strike /= 2;
        }
        self.set_score(left.max(0.0), now);
    }

    fn add(&mut self, points: f64, now: u64, terms: &Terms) -> Option<Block> {
        if self.block(now).is_some() {
            // What it does meanwhile is not heard, and does not lengthen the block.
            return None;
        }
        let score = self.score(now, terms) + points;
        if score < terms.threshold {
            self.set_score(score, now);
            return None;
        }
        let before = if self.is_remembered(now, terms) {
            self.strike
        } else {
            0
        };
        self.strike = before.saturating_add(1);
        let doubled = 1u32
            .checked_shl(before.into())
            .and_then(|times| terms.first_block.checked_mul(times));
        let length = doubled.unwrap_or(terms.longest_block);
        self.until = now.saturating_add(millis(length.min(terms.longest_block)));
        self.set_score(0.0, now);
        self.block(now)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `192.0.2.1`, `2001:db8::/64` or `2001:db8::/48`.
impl std::fmt::Display for Source {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = |shift| Ipv6Addr::from(u128::from(self.0) << shift);
        match u32::try_from(self.0) {
            Ok(v4) => Ipv4Addr::from(v4).fmt(to),
            Err(_) if self.0 >> 48 == 0 => write!(to, "{}/48", prefix(80)),
            Err(_) => write!(to, "{}/64", prefix(64)),
        }
    }
}

impl std::fmt::Debug for Offenders {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Offenders({} bytes)", self.memory_usage())
    }
}

#[cfg(test)]
#[path = "offenders_tests.rs"]
mod tests;
