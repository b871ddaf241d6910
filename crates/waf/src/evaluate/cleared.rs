//! Names that a worker has looked up in a list and not found.
//!
//! Clients send the same names again and again. Owns a table of fixed size for each list, in which names that
//! share a place drive each other out. Must not: hold anything of another rule set, or of another list.

use super::run::Run;
use super::tx::Content;
use crate::prefilter::Lookup;

/// Places of a table; a power of two.
const PLACES: usize = 128;
/// Bytes of a name that is worth a place.
const MOST_BYTES: usize = 31;

/// The names that are not in one list.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    list: Vec<u8>,
    places: Vec<Option<Name>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    length: u8,
    bytes: [u8; MOST_BYTES],
}

impl Name {
    fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; MOST_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let length = u8::try_from(name.len()).ok()?;
        Some(Self { length, bytes })
    }
}

impl Cleared {
    /// Forgets the names where the list is another.
    fn fit(&mut self, list: &[u8]) {
        if self.list != list || self.places.is_empty() {
            self.places.clear();
            self.places.resize(PLACES, None);
            self.list = list.to_vec();
        }
    }

    fn has(&self, mix: usize, name: &[u8]) -> bool {
        let place = self.places.get(mix % PLACES).and_then(Option::as_ref);
        place.is_some_and(|known| {
            usize::from(known.length) == name.len() && known.bytes.get(..name.len()) == Some(name)
        })
    }

    fn add(&mut self, mix: usize, name: &[u8]) {
        if let (Some(place), Some(name)) = (self.places.get_mut(mix % PLACES), Name::new(name)) {
            *place = Some(name);
        }
    }
}

impl Run<'_> {
    /// Whether the rule, which only looks names up, finds none and leaves nothing that anybody would see.
    pub(super) fn finds_nothing(&mut self, lookup: &Lookup) -> bool {
        let Some(Content::Text(list)) = self.state.tx.get(lookup.list) else {
            return false;
        };
        if lookup.finds_others(self.state) {
            return false;
        }
        let Some(cleared) = self.bench.cleared.get_mut(lookup.number) else {
            return false;
        };
        let mut cleared = std::mem::take(cleared);
        cleared.fit(self.state.texts.get(list));
        let mut values = self.bench.take_values();
        values.clear();
        for target in &lookup.targets {
            self.state.collect(self.set, target, &mut values);
        }
        let finds_nothing = values.iter().all(|value| match value.content {
            Content::Text(id) => {
                let texts = &mut self.state.texts;
                let mix = texts.mix_of(id);
                cleared.has(mix, texts.get(id)) || {
                    let read = texts.transformed(&self.set.chains, id, lookup.stage);
                    let is_clear = lookup.is_clear(self.set, &cleared.list, texts.get(read));
                    if is_clear {
                        cleared.add(mix, texts.get(id));
                    }
                    is_clear
                }
            }
            Content::Number(_) => false,
        });
        self.bench.give_values(values);
        if let Some(place) = self.bench.cleared.get_mut(lookup.number) {
            *place = cleared;
        }
        finds_nothing
    }
}
