//! Collections that outlive a request: `IP`, `GLOBAL`, `SESSION`, `USER`, `RESOURCE`.
//!
//! Rules are written for such counts to be lost now and then, so a store may forget, but never grow
//! beyond its bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Records that a full shard looks at, at most, for one to give up: those that were asked for since it
/// last looked stay, so that a flood of new keys costs the same each and drives few of these out.
const MOST_LOOKS: usize = 8;

#[derive(Debug, Default)]
struct Shard {
    records: HashMap<Arc<[u8]>, Held>,
    /// The keys, in a ring that is looked through for one to give up.
    ring: Vec<Arc<[u8]>>,
    hand: usize,
    /// Places of the ring whose record is gone.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Held {
    place: usize,
    is_used: bool,
    record: Vec<Stored>,
}

impl Shard {
    /// A place of the ring, of which there are at most so many.
    fn place(&mut self, key: &Arc<[u8]>, most: usize) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            if self.ring.len() < most {
                self.ring.push(Arc::clone(key));
                self.ring.len() - 1
            } else {
                self.give_up()
            }
        });
        if let Some(known) = self.ring.get_mut(place) {
            *known = Arc::clone(key);
        }
        place
    }

    /// Gives up a record. Its place.
    fn give_up(&mut self) -> usize {
        for look in 1.. {
            let place = self.hand;
            self.hand = (place + 1) % self.ring.len().max(1);
            let Some(key) = self.ring.get(place) else {
                break;
            };
            match self.records.get_mut(key) {
                Some(held) if held.is_used && look < MOST_LOOKS => held.is_used = false,
                _ => {
                    self.records.remove(key);
                    return place;
                }
            }
        }
        0
    }

    fn save(&mut self, key: Box<[u8]>, record: Vec<Stored>, most: usize) {
        if let Some(held) = self.records.get_mut(&*key) {
            held.is_used = true;
            held.record = record;
            return;
        }
        let key: Arc<[u8]> = key.into();
        let place = self.place(&key, most);
        let held = Held {
            place,
            is_used: false,
            record,
        };
        self.records.insert(key, held);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(held) = self.records.remove(key) {
            self.free.push(held.place);
        }
    }
}

/// A store in memory with room for so many records; beyond that those go that nobody asked for lately.
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
            .map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.records.len()
            })
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
        let mut shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(held) = shard.records.get_mut(&*key) else {
            return Vec::new();
        };
        held.is_used = true;
        let live = held.record.iter().filter(|stored| stored.expires > now);
        live.cloned().collect()
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
        } else {
            shard.save(key, record, self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryStore, SHARDS, Store, Stored};

    fn record(value: &str) -> Vec<Stored> {
        vec![Stored {
            name: b"count".as_slice().into(),
            value: value.as_bytes().into(),
            expires: 100,
        }]
    }

    fn key(number: usize) -> Vec<u8> {
        number.to_string().into_bytes()
    }

    #[test]
    fn a_flood_of_new_keys_neither_grows_a_store_nor_drives_out_what_is_asked_for() {
        let store = MemoryStore::new(SHARDS * 4);
        for number in 0..10_000 {
            store.save("ip", b"regular", record("1"), 1);
            store.save("ip", &key(number), record("1"), 1);
            assert!(store.len() <= SHARDS * 4);
            assert_eq!(store.load("ip", b"regular", 1), record("1"), "{number}");
        }
        assert_eq!(store.len(), SHARDS * 4);
    }

    #[test]
    fn a_full_store_in_which_all_is_asked_for_takes_a_new_key_nevertheless() {
        let store = MemoryStore::new(1);
        for number in 0..1000 {
            store.save("ip", &key(number), record("1"), 1);
            assert_eq!(store.load("ip", &key(number), 1), record("1"));
        }
    }

    #[test]
    fn a_record_that_is_emptied_leaves_room_for_another() {
        let store = MemoryStore::new(SHARDS * 4);
        for number in 0..1000 {
            store.save("ip", &key(number), record("1"), 1);
            store.save("ip", &key(number), Vec::new(), 1);
            assert!(store.is_empty(), "{number}");
        }
        store.save("ip", b"a", record("2"), 1);
        assert_eq!(store.load("ip", b"a", 1), record("2"));
        assert!(store.load("ip", b"a", 100).is_empty());
    }
}
