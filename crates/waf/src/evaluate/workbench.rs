//! What one worker keeps for itself, so that workers share nothing they write to.

use std::net::IpAddr;
use std::sync::Arc;

use super::cleared::Cleared;
use super::seen::Seen;
use super::state::{State, Value};
use super::store::Store;
use crate::operator::Caches;
use crate::prefilter::Wakers;
use crate::rule::{Bits, RuleSet};

/// States kept for reuse, and the bytes that a kept one may hold.
const KEPT_STATES: usize = 64;
const KEPT_BYTES: usize = 1 << 20;

/// Says in which country an address is.
pub trait Countries: Send + Sync {
    /// The two letters of ISO 3166.
    fn country(&self, address: IpAddr) -> Option<[u8; 2]>;
}

/// The caches and buffers of one worker, for one rule set.
#[derive(Default)]
pub struct Workbench {
    pub(super) caches: Caches,
    pub(crate) seen: Seen,
    /// By lookup of the set.
    pub(super) cleared: Vec<Cleared>,
    /// The rule set that the caches are for.
    generation: u64,
    pub(super) live: Bits,
    pub(super) unreached: Bits,
    pub(super) woken: Wakers,
    positions: Vec<u32>,
    pub(super) found: Vec<(Value, (usize, usize))>,
    pub(super) values: Vec<Value>,
    pub(super) operand: Vec<u8>,
    pub(super) expanded: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) store: Option<Arc<dyn Store>>,
    countries: Option<Arc<dyn Countries>>,
    #[allow(clippy::vec_box)] // A transaction takes one out and is moved about with it.
    states: Vec<Box<State>>,
}

impl Workbench {
    /// A workbench that is made for this rule set, and fits itself to another when it meets one.
    pub fn new(set: &RuleSet) -> Self {
        let mut bench = Self::default();
        bench.fit(set);
        bench
    }

    /// Makes the caches anew where they are for another rule set: to a pattern of this one they would
    /// say nonsense. Sets change when a configuration does.
    pub(super) fn fit(&mut self, set: &RuleSet) {
        if self.generation != set.generation {
            self.generation = set.generation;
            self.caches = Caches::with_room_for(set.patterns);
            self.seen = Seen::new(set.prefilter.words);
            self.cleared.clear();
            self.cleared
                .resize_with(set.prefilter.lookups(), Cleared::default);
        }
    }

    /// Keeps persistent collections in `store`. Without one they end with their request.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Answers `@geoLookup` from `countries`. Without, no address has a country.
    #[must_use]
    pub fn with_countries(mut self, countries: Arc<dyn Countries>) -> Self {
        self.countries = Some(countries);
        self
    }

    /// The buffer for values; given back when done.
    pub(crate) fn take_values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }

    pub(crate) fn give_values(&mut self, values: Vec<Value>) {
        self.values = values;
    }

    /// The buffer for positions; given back when done.
    pub(crate) fn take_positions(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.positions)
    }

    pub(crate) fn give_positions(&mut self, positions: Vec<u32>) {
        self.positions = positions;
    }

    pub(super) fn has_country(&self, address: IpAddr) -> bool {
        self.country(address).is_some()
    }

    pub(super) fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        self.countries.as_ref()?.country(address)
    }

    pub(super) fn state(&mut self) -> Box<State> {
        self.states.pop().unwrap_or_else(|| Box::new(State::new()))
    }

    pub(super) fn keep(&mut self, state: Box<State>) {
        if self.states.len() < KEPT_STATES && state.texts.room() <= KEPT_BYTES {
            self.states.push(state);
        }
    }
}
