//! The TX variables: those that a rule names by their slot, the rest by name.

use super::strings::TextId;
use crate::rule::Slot;

/// What a variable holds. Scores are counted as numbers and only told as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Number(i64),
    Text(TextId),
}

/// Rules that make up names as they go may make so many.
const MOST_NAMES: usize = 4096;

/// The variables of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Tx {
    slots: Vec<Option<Content>>,
    named: Vec<(TextId, Option<Content>)>,
}

impl Tx {
    pub(crate) fn reset(&mut self, slots: usize) {
        self.slots.clear();
        self.slots.resize(slots, None);
        self.named.clear();
    }

    /// Holds what the other holds.
    pub(crate) fn rewind(&mut self, other: &Self) {
        self.slots.clear();
        self.slots.extend_from_slice(&other.slots);
        self.named.clear();
        self.named.extend_from_slice(&other.named);
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> Option<Content> {
        self.slots.get(usize::from(slot)).copied().flatten()
    }

    pub(crate) fn set(&mut self, slot: Slot, content: Option<Content>) {
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = content;
        }
    }

    /// The variables without a slot, and their names in lower case.
    pub(crate) fn named(&self) -> impl Iterator<Item = (TextId, Content)> + '_ {
        self.named
            .iter()
            .filter_map(|&(name, content)| content.map(|content| (name, content)))
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, Content)> + '_ {
        (0..)
            .zip(&self.slots)
            .filter_map(|(slot, content)| content.map(|content| (slot, content)))
    }

    /// Sets a variable without a slot. `at` is its place, where it has one.
    pub(crate) fn set_named(&mut self, at: Option<usize>, name: TextId, content: Option<Content>) {
        let full = self.named.len() >= MOST_NAMES;
        match at.and_then(|at| self.named.get_mut(at)) {
            Some((_, place)) => *place = content,
            None if full => {}
            None => self.named.push((name, content)),
        }
    }

    /// The place of a variable without a slot.
    pub(crate) fn place(&self, is_name: impl Fn(TextId) -> bool) -> Option<usize> {
        self.named.iter().position(|&(name, _)| is_name(name))
    }

    pub(crate) fn at(&self, place: usize) -> Option<Content> {
        self.named.get(place).and_then(|(_, content)| *content)
    }
}
