//! Which streams there are, and who has which.
//!
//! Owns: states between connections. A stream that has a name keeps what it has seen, for its caller alone, until room is
//! needed; one without ends with its connection. One connection at a time has a stream, so its events have one order.
//!
//! Must not: hold more than it was made for. Of the caller who has most, the stream that was idle longest makes room: who
//! opens many loses his own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oip::Refusal;

/// Longest name of a stream, and longest caller.
pub const MAX_NAME: usize = 128;

/// A stream by its caller and its name.
pub type Key = (String, String);

/// All streams of a model; `T` is what one has seen.
pub struct Table<T> {
    kept: Mutex<Kept<T>>,
    most: usize,
}

struct Kept<T> {
    /// None: a connection has it.
    streams: HashMap<Key, Option<(u64, T)>>,
    /// Those that no connection has, by when they were left.
    idle: BTreeMap<u64, Key>,
    /// How many each caller has, of those with a name.
    callers: BTreeMap<String, usize>,
    /// Streams without a name.
    unnamed: usize,
    clock: u64,
}

/// A stream that a connection has; given back when it is dropped.
pub struct Claimed<T> {
    table: Arc<Table<T>>,
    key: Option<Key>,
    state: Option<T>,
}

impl<T> Table<T> {
    /// For `most` streams.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(Kept {
                streams: HashMap::new(),
                idle: BTreeMap::new(),
                callers: BTreeMap::new(),
                unnamed: 0,
                clock: 0,
            }),
            most,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        // Nothing under the lock can panic half-way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream; what it has seen, or `begin` for one that is new.
    ///
    /// # Errors
    /// 409: a connection has it. 503: connections have as many as there may be.
    pub fn claim(
        self: &Arc<Self>,
        key: Option<Key>,
        begin: impl FnOnce() -> T,
    ) -> Result<Claimed<T>, Refusal> {
        let mut kept = self.lock();
        let mut known = None;
        if let Some(slot) = key.as_ref().and_then(|key| kept.streams.get_mut(key)) {
            let Some((at, state)) = slot.take() else {
                return Err(Refusal::new(409, "another connection has this stream"));
            };
            kept.idle.remove(&at);
            known = Some(state);
        } else {
            kept.make_room(self.most)?;
            match &key {
                Some(key) => kept.insert(key),
                None => kept.unnamed += 1,
            }
        }
        drop(kept);
        Ok(Claimed {
            table: Arc::clone(self),
            key,
            state: Some(known.unwrap_or_else(begin)),
        })
    }
}

impl<T> Kept<T> {
    fn make_room(&mut self, most: usize) -> Result<(), Refusal> {
        if self.streams.len() + self.unnamed < most {
            return Ok(());
        }
        let oldest = self
            .oldest_of_busiest()
            .and_then(|at| self.idle.remove(&at));
        let Some(oldest) = oldest else {
            return Err(Refusal {
                retry_after: Some(1),
                ..Refusal::new(503, "there are as many streams as may be (limits.streams)")
            });
        };
        self.streams.remove(&oldest);
        if let Some(count) = self.callers.get_mut(&oldest.0) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&oldest.0);
            }
        }
        Ok(())
    }

    fn insert(&mut self, key: &Key) {
        self.streams.insert(key.clone(), None);
        *self.callers.entry(key.0.clone()).or_default() += 1;
    }

    /// When the stream was left that makes room.
    fn oldest_of_busiest(&self) -> Option<u64> {
        let busiest = self.callers.iter().max_by_key(|(_, count)| **count);
        let (busiest, _) = busiest?;
        let mut idle = self.idle.iter();
        let own = idle.find(|(_, (caller, _))| caller == busiest);
        own.or_else(|| self.idle.first_key_value())
            .map(|(at, _)| *at)
    }
}

impl<T> Claimed<T> {
    /// Its name; none: it has none.
    pub fn name(&self) -> Option<&str> {
        self.key.as_ref().map(|(_, name)| name.as_str())
    }

    /// What it has seen.
    pub fn state(&mut self) -> Option<&mut T> {
        self.state.as_mut()
    }
}

impl<T> Drop for Claimed<T> {
    fn drop(&mut self) {
        let mut kept = self.table.lock();
        let Some(key) = self.key.take() else {
            kept.unnamed = kept.unnamed.saturating_sub(1);
            return;
        };
        kept.clock += 1;
        let now = kept.clock;
        if let Some(state) = self.state.take()
            && let Some(slot) = kept.streams.get_mut(&key)
        {
            *slot = Some((now, state));
            kept.idle.insert(now, key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::unnecessary_wraps)] // a stream has a name or none
mod tests {
    use super::*;

    fn key(name: &str) -> Option<Key> {
        Some(("caller".into(), name.into()))
    }

    #[test]
    fn a_named_stream_keeps_what_it_has_seen_and_an_unnamed_one_does_not() {
        let table = Table::new(2);
        *table.claim(key("a"), || 0).unwrap().state().unwrap() = 7;
        assert_eq!(table.claim(key("a"), || 0).unwrap().state(), Some(&mut 7));
        *table.claim(None, || 0).unwrap().state().unwrap() = 8;
        assert_eq!(table.claim(None, || 0).unwrap().state(), Some(&mut 0));
    }

    #[test]
    fn a_stream_is_its_callers_alone() {
        let table = Table::new(4);
        *table.claim(key("a"), || 0).unwrap().state().unwrap() = 7;
        let other = Some(("other".into(), "a".into()));
        assert_eq!(table.claim(other, || 0).unwrap().state(), Some(&mut 0));
    }

    #[test]
    fn who_opens_many_loses_his_own_and_nobody_elses() {
        let table = Table::new(4);
        *table.claim(key("quiet"), || 0).unwrap().state().unwrap() = 7;
        for n in 0..100 {
            let name = Some(("busy".to_owned(), n.to_string()));
            drop(table.claim(name, || 0).unwrap());
        }
        assert_eq!(
            table.claim(key("quiet"), || 0).unwrap().state(),
            Some(&mut 7)
        );
        let kept = table.lock();
        assert_eq!(kept.streams.len(), 4);
        assert_eq!(kept.callers.values().sum::<usize>(), 4);
    }

    #[test]
    fn one_connection_at_a_time_has_a_stream() {
        let table = Table::new(4);
        let first = table.claim(key("a"), || 0).unwrap();
        assert_eq!(table.claim(key("a"), || 0).err().unwrap().status, 409);
        drop(first);
        assert!(table.claim(key("a"), || 0).is_ok());
    }

    #[test]
    fn the_one_that_was_idle_longest_makes_room_and_none_that_is_live() {
        let table = Table::new(3);
        for name in ["a", "b", "c", "a"] {
            let mut claimed = table.claim(key(name), || 0).unwrap();
            *claimed.state().unwrap() += 1;
        }
        let live = table.claim(key("d"), || 0).unwrap();
        assert_eq!(table.claim(key("a"), || 0).unwrap().state(), Some(&mut 2));
        assert_eq!(table.claim(key("c"), || 0).unwrap().state(), Some(&mut 1));
        // b has made room for d, and now makes a of the two that are idle.
        assert_eq!(table.claim(key("b"), || 0).unwrap().state(), Some(&mut 0));
        let (_a, _c) = (
            table.claim(None, || 0).unwrap(),
            table.claim(key("x"), || 0).unwrap(),
        );
        let refused = table.claim(None, || 0).err().unwrap();
        assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
        drop(live);
        assert!(table.claim(None, || 0).is_ok());
        let kept = table.lock();
        assert_eq!(
            kept.streams.values().filter(|it| it.is_some()).count(),
            kept.idle.len()
        );
    }
}
