//! The counts of one limit: sets of ways in shards, within a number of bytes.
//!
//! A key has its shard and, in it, its set. A set that is full doubles its shard; a shard that may
//! not grow drops the way that matters least and keeps what it owed in the set's `rest`, where
//! every key without a way starts. So a key that was dropped never has more than it had, and a
//! flood of new keys gains nothing but each other's debts. When requests under way hold every
//! way, newcomers count together in `rest`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::Tag;
use crate::rules::{Cell, Denied, Now, Room, Rules};

const WAYS: usize = 15;
const SHARD_SETS: usize = 32;
const SET_BYTES: usize = size_of::<Set>();
const SHARD_BYTES: usize = size_of::<Shard>() + SHARD_SETS * SET_BYTES;
/// A table of fewer bytes would be nothing but `rest`.
pub(crate) const LEAST_BYTES: usize = 64 << 10;
const MOST_SHARDS: usize = 1 << 20;

/// The counts of all keys of one limit.
pub(crate) struct Table {
    shards: Box<[Shard]>,
    most_sets: usize,
}

/// On a cache line of its own: neighbours are locked by other threads.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    sets: Vec<Set>,
    dropped: u64,
    shared: u64,
}

#[derive(Clone, Default)]
#[repr(align(64))]
struct Set {
    /// The key of each way; 0 for none.
    tags: [u64; WAYS],
    cells: [Cell; WAYS],
    rest: Cell,
}

/// A request that was counted.
pub(crate) struct Taken {
    pub(crate) room: Option<Room>,
    /// Whether it is counted in `rest`.
    pub(crate) shared: bool,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filled {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
    pub(crate) dropped: u64,
    pub(crate) shared: u64,
}

impl Table {
    /// A table of at most `bytes`, but at least [`LEAST_BYTES`].
    pub(crate) fn within(bytes: usize) -> Self {
        let shards = (bytes.max(LEAST_BYTES) / SHARD_BYTES).min(MOST_SHARDS);
        Self::new(shards, SHARD_SETS)
    }

    /// A table for a single key.
    pub(crate) fn single() -> Self {
        Self::new(1, 1)
    }

    fn new(shards: usize, most_sets: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            most_sets,
        }
    }

    /// Most bytes it will ever take.
    pub(crate) fn capacity(&self) -> usize {
        self.shards.len() * (size_of::<Shard>() + self.most_sets * SET_BYTES)
    }

    /// Counts a request of `tag`, or says why not.
    pub(crate) fn take(&self, tag: Tag, rules: &Rules, now: Now) -> Result<Taken, Denied> {
        self.sets(tag).take(tag, rules, now, self.most_sets)
    }

    /// Takes back what [`Table::take`] has counted, but for the place.
    pub(crate) fn refund(&self, tag: Tag, shared: bool, rules: &Rules, now: Now) {
        if let Some(cell) = self.sets(tag).held(tag, shared) {
            rules.refund(cell, now);
        }
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, tag: Tag, shared: bool) {
        if let Some(cell) = self.sets(tag).held(tag, shared) {
            cell.places = cell.places.saturating_sub(1);
        }
    }

    /// Puts a count of before a restart back; as `rest` of the set of `tag` where `is_rest`.
    pub(crate) fn put(&self, tag: Tag, is_rest: bool, cell: &Cell, rules: &Rules, now: Now) {
        self.sets(tag)
            .put(tag, is_rest, cell, rules, now, self.most_sets);
    }

    /// Shows every cell that is in use with its tag, and each `rest` (`true`) with a tag of its
    /// set. Locks one shard at a time.
    pub(crate) fn each(&self, mut see: impl FnMut(u64, bool, &Cell)) {
        for shard in &self.shards {
            for set in &lock(shard).sets {
                for (tag, cell) in set.tags.iter().zip(&set.cells) {
                    if *tag != 0 {
                        see(*tag, false, cell);
                    }
                }
                if let Some(tag) = set.tags.iter().find(|tag| **tag != 0) {
                    see(*tag, true, &set.rest);
                }
            }
        }
    }

    pub(crate) fn filled(&self) -> Filled {
        let mut filled = Filled::default();
        for shard in &self.shards {
            let shard = lock(shard);
            let tags = shard.sets.iter().flat_map(|set| &set.tags);
            filled.keys += tags.filter(|tag| **tag != 0).count();
            filled.bytes += size_of::<Shard>() + shard.sets.capacity() * SET_BYTES;
            filled.dropped += shard.dropped;
            filled.shared += shard.shared;
        }
        filled
    }

    /// The shard of `tag`, by the upper half of it; the set is chosen by the lower half.
    fn sets(&self, tag: Tag) -> MutexGuard<'_, Sets> {
        let high = usize::try_from(tag.0 >> 32).unwrap_or(0);
        let index = (high * self.shards.len()) >> 32;
        // At least one shard, and the product is below their number: the tag does not choose it.
        #[allow(clippy::indexing_slicing)]
        lock(&self.shards[index])
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Sets> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sets {
    fn take(&mut self, tag: Tag, rules: &Rules, now: Now, most: usize) -> Result<Taken, Denied> {
        if let Some(cell) = self.own(tag) {
            let room = rules.take(cell, now)?;
            return Ok(Taken {
                room,
                shared: false,
            });
        }
        let mut cell = self.start(tag);
        // Before a way is made free: a refusal is no reason to drop anything.
        let room = rules.take(&mut cell, now)?;
        if let Some((place, way)) = self.vacate(tag, rules, now, most) {
            (*place, *way) = (tag.0, cell);
            return Ok(Taken {
                room,
                shared: false,
            });
        }
        self.shared += 1;
        let mut rest = Cell::default();
        let rest = self.set(tag).map_or(&mut rest, |set| &mut set.rest);
        let room = rules.take(rest, now)?;
        Ok(Taken { room, shared: true })
    }

    fn put(&mut self, tag: Tag, is_rest: bool, cell: &Cell, rules: &Rules, now: Now, most: usize) {
        if !is_rest
            && self.own(tag).is_none()
            && let Some((place, way)) = self.vacate(tag, rules, now, most)
        {
            (*place, *way) = (tag.0, *cell);
        } else if let Some(set) = self.set(tag) {
            rules.absorb(&mut set.rest, cell, now);
        }
    }

    fn set(&mut self, tag: Tag) -> Option<&mut Set> {
        let index = index_among(tag.0, self.sets.len());
        self.sets.get_mut(index)
    }

    fn own(&mut self, tag: Tag) -> Option<&mut Cell> {
        let set = self.set(tag)?;
        let way = set.tags.iter().position(|it| *it == tag.0)?;
        set.cells.get_mut(way)
    }

    fn held(&mut self, tag: Tag, shared: bool) -> Option<&mut Cell> {
        if shared {
            self.set(tag).map(|set| &mut set.rest)
        } else {
            self.own(tag)
        }
    }

    /// What a key without a way has: the debts of all that were dropped.
    fn start(&mut self, tag: Tag) -> Cell {
        let rest = self.set(tag).map(|set| set.rest).unwrap_or_default();
        Cell { places: 0, ..rest }
    }

    /// A way for `tag`: one that is empty or owes nothing, else one in a larger shard, else the one
    /// that matters least. `None` when requests hold all.
    fn vacate(
        &mut self,
        tag: Tag,
        rules: &Rules,
        now: Now,
        most: usize,
    ) -> Option<(&mut u64, &mut Cell)> {
        let (mut way, mut weight) = self.lightest(tag, rules, now);
        while weight != Some(0) && self.sets.len() < most {
            self.grow();
            (way, weight) = self.lightest(tag, rules, now);
        }
        self.dropped += u64::from(weight? > 0);
        let set = self.set(tag)?;
        let (place, cell) = (set.tags.get_mut(way)?, set.cells.get_mut(way)?);
        if *place != 0 {
            // What owes nothing now may still owe for a thread whose clock is a little behind.
            rules.absorb(&mut set.rest, cell, now);
        }
        Some((place, cell))
    }

    fn lightest(&mut self, tag: Tag, rules: &Rules, now: Now) -> (usize, Option<u64>) {
        let mut found = (0, None);
        let Some(set) = self.set(tag) else {
            return found;
        };
        for (way, (place, cell)) in set.tags.iter().zip(&set.cells).enumerate() {
            let weight = if *place == 0 {
                Some(0)
            } else {
                rules.weight(cell, now)
            };
            if weight.is_some_and(|weight| found.1.is_none_or(|least| weight < least)) {
                found = (way, weight);
            }
            if weight == Some(0) {
                break;
            }
        }
        found
    }

    /// Doubles the sets: one becomes two, told apart by one more bit, so that every way has its
    /// place. No request is counted in a `rest` yet: that is only so once nothing can grow.
    fn grow(&mut self) {
        let before = self.sets.len();
        if before == 0 {
            self.sets = vec![Set::default()];
            return;
        }
        let mut grown = Vec::with_capacity(before * 2);
        grown.extend(self.sets.iter().cloned());
        grown.extend(self.sets.iter().cloned());
        for (index, set) in grown.iter_mut().enumerate() {
            for (place, cell) in set.tags.iter_mut().zip(&mut set.cells) {
                if index_among(*place, before * 2) != index {
                    (*place, *cell) = (0, Cell::default());
                }
            }
        }
        self.sets = grown;
    }
}

/// The number of sets is a power of two.
fn index_among(tag: u64, sets: usize) -> usize {
    let low = usize::try_from(tag & 0xffff_ffff).unwrap_or(0);
    low & sets.wrapping_sub(1)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Table({} bytes)", self.capacity())
    }
}
