//! Which tokens were answered, in a table of fixed size.
//!
//! A full set forgets its oldest token. Who answers so many that one of theirs is forgotten has
//! worked for each, and gains a second pass for one client.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

const WAYS: usize = 8;
const SHARDS: usize = 16;

pub(super) struct Spent {
    shards: [Mutex<Box<[Set]>>; SHARDS],
    /// Secret, so that nobody can make tokens push one out. Their numbers are the node's, too.
    hasher: RandomState,
}

/// Tokens by number and time of issue, the newest first. A time of 0 is none.
#[derive(Clone, Copy, Default)]
struct Set([(u64, u32); WAYS]);

impl Spent {
    pub(super) fn within(bytes: usize) -> Self {
        let sets = (bytes / size_of::<Set>() / SHARDS).max(1);
        let shard = || Mutex::new(vec![Set::default(); sets].into_boxed_slice());
        Self {
            shards: std::array::from_fn(|_| shard()),
            hasher: RandomState::new(),
        }
    }

    /// Marks the token as answered; `false` when it was.
    pub(super) fn spend(&self, number: u64, time: u32) -> bool {
        let hash = usize::try_from(self.hasher.hash_one(number)).unwrap_or(0);
        // Below the number of shards.
        #[allow(clippy::indexing_slicing)]
        let shard = &self.shards[hash % SHARDS];
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let index = (hash / SHARDS) % sets.len().max(1);
        let Some(Set(ways)) = sets.get_mut(index) else {
            return false;
        };
        if ways.contains(&(number, time)) {
            return false;
        }
        ways.rotate_right(1);
        if let Some(newest) = ways.first_mut() {
            *newest = (number, time);
        }
        true
    }
}
