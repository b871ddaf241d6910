//! Collections that outlive a request: `IP`, `GLOBAL`, `SESSION`, `USER`, `RESOURCE`.
//!
//! Rules are written for such counts to be lost now and then, so a store may forget, but never grow
//! beyond its bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// One variable of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The name in lower case.
    pub name: Box<[u8]>,
    /// The value.
    pub value: Box<[u8]>,
    /// Seconds of the Unix epoch after which it is gone.
    pub expires: u64,
}

/// Records by collection and key. Called between phases, never while a rule runs.
pub trait Store: Send + Sync {
    /// What is held under the key and not expired at `now`.
    fn load(&self, collection: &str, key: &[u8], now: u64) -> Vec<Stored>;
    /// Replaces what is held under the key.
    fn save(&self, collection: &str, key: &[u8], record: Vec<Stored>, now: u64);
}

const SHARDS: usize = 16;
/// Variables of one record.
const MOST_VARIABLES: usize = 64;
/// Bytes of a key or value that are kept.
const MOST_BYTES: usize = 1024;

type Shard = HashMap<Box<[u8]>, (u64, Vec<Stored>)>;

/// A store in memory with room for so many records; beyond that the oldest of a shard go.
#[derive(Debug)]
pub struct MemoryStore {
    shards: [Mutex<Shard>; SHARDS],
    most: usize,
}

impl MemoryStore {
    /// A store of at most `records`, and at least one a shard.
    pub fn new(records: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            most: records.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        let sum = key.iter().fold(5381usize, |sum, &byte| {
            sum.wrapping_mul(33) ^ usize::from(byte)
        });
        let [first, ..] = &self.shards;
        self.shards.get(sum % SHARDS).unwrap_or(first)
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn full_key(collection: &str, key: &[u8]) -> Box<[u8]> {
    let key = key.get(..MOST_BYTES).unwrap_or(key);
    [collection.as_bytes(), b"\0", key]
        .concat()
        .into_boxed_slice()
}

impl Store for MemoryStore {
    fn load(&self, collection: &str, key: &[u8], now: u64) -> Vec<Stored> {
        let key = full_key(collection, key);
        let shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let record = shard
            .get(&key)
            .map(|(_, record)| record.as_slice())
            .unwrap_or_default();
        record
            .iter()
            .filter(|stored| stored.expires > now)
            .cloned()
            .collect()
    }

    fn save(&self, collection: &str, key: &[u8], mut record: Vec<Stored>, now: u64) {
        let key = full_key(collection, key);
        record.retain(|stored| stored.expires > now && stored.value.len() <= MOST_BYTES);
        record.truncate(MOST_VARIABLES);
        let mut shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if record.is_empty() {
            shard.remove(&key);
            return;
        }
        if shard.len() >= self.most && !shard.contains_key(&key) {
            shard.retain(|_, (_, record)| record.iter().any(|stored| stored.expires > now));
            let oldest = shard
                .iter()
                .min_by_key(|(_, (saved, _))| *saved)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| shard.len() >= self.most) {
                shard.remove(&oldest);
            }
        }
        shard.insert(key, (now, record));
    }
}
