//! The texts of one request: each held once, with what is known of its bytes, and what each
//! transformation makes of it.
//!
//! A value that a transformation leaves as it is shares its parent's entry, so that a benign
//! request has few texts, and what is found out of one is found out once.

use std::ops::Range;

use super::seen::{Seen, Spot};
use crate::bytes::{ByteSet, spread};
use crate::prefilter::Prefilter;
use crate::rule::{Chain, ChainId};
use crate::transform::Transform;

/// A text of this request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TextId(u32);

/// Texts may take so many bytes: one body under every transformation, and no more.
const MOST_BYTES: usize = 256 << 20;
const NONE: u32 = u32::MAX;
/// Places for recent texts; a power of two.
const RECENT: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    length: u32,
    /// The bytes, once they were asked for.
    bytes: Option<ByteSet>,
    derived: u32,
    candidates: u32,
    /// The text that this one is but for the case of its letters.
    case_of: u32,
    /// The candidates are what the filter says, less nothing that was refuted.
    is_whole: bool,
    mix: u32,
    /// Where a worker remembers it, if that was asked and it does.
    spot: Option<Spot>,
    is_asked: bool,
}

/// Bytes at each end of a text that tell it from another.
const MIXED: usize = 64;

/// A cheap mix of a text, by which tables place it. What transformations make of a text often differs
/// from it in the middle alone, so that of few bytes all are looked at; tokens begin all alike. Texts that
/// share a place cost a comparison, never a wrong answer.
pub(super) fn mix(text: &[u8]) -> usize {
    let (begins, ends) = match (text.first_chunk::<MIXED>(), text.last_chunk::<MIXED>()) {
        (Some(begins), Some(ends)) if text.len() > 2 * MIXED => (&begins[..], &ends[..]),
        _ => (text, &[][..]),
    };
    let (words, rest) = begins.as_chunks::<8>();
    let rest = rest
        .iter()
        .fold(text.len() as u64, |mix, &byte| mix << 8 | u64::from(byte));
    let words = words.iter().chain(ends.as_chunks::<8>().0);
    let mixed = words.fold(rest, |mix, word| {
        (mix.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    spread(mixed)
}

/// The texts.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// For texts that were transformed, what each chain made of them, one block a text.
    derived: Vec<u32>,
    /// The candidates of texts that were filtered, one after the other.
    candidates: Vec<u64>,
    buffer: Vec<u8>,
    open: Vec<u64>,
    exhausted: bool,
    /// The last text of each place: equal texts are mostly found here, and then judged once.
    recent: Vec<u32>,
}

/// Texts that every request of a rule set begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    recent: Vec<u32>,
}

impl Texts {
    /// Forgets all texts and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.rewind(&Beginning::default());
        self.recent.resize(RECENT, NONE);
    }

    /// The texts that are there now, for `rewind`.
    pub(crate) fn beginning(&self) -> Beginning {
        Beginning {
            arena: self.arena.clone(),
            entries: self.entries.clone(),
            recent: self.recent.clone(),
        }
    }

    /// Forgets all texts but those.
    pub(crate) fn rewind(&mut self, beginning: &Beginning) {
        self.arena.clear();
        self.arena.extend_from_slice(&beginning.arena);
        self.entries.clear();
        self.entries.extend_from_slice(&beginning.entries);
        self.recent.clear();
        self.recent.extend_from_slice(&beginning.recent);
        self.derived.clear();
        self.candidates.clear();
        self.exhausted = false;
    }

    /// Bytes kept for reuse.
    pub(crate) fn room(&self) -> usize {
        self.arena.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + (self.candidates.capacity() + self.derived.capacity()) * 8
    }

    /// Whether there were more texts than room, so that some were not judged in every form.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    pub(crate) fn add(&mut self, text: &[u8]) -> TextId {
        if self.arena.len().saturating_add(text.len()) > MOST_BYTES {
            self.exhausted = true;
            return self.add(b"");
        }
        let mix = mix(text);
        let place = mix % RECENT;
        let known = self.recent.get(place).map(|&id| TextId(id));
        if let Some(known) =
            known.filter(|&known| self.entry(known).is_some() && self.get(known) == text)
        {
            return known;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(text);
        let id = self.push(start, text.len(), mix);
        if let Some(recent) = self.recent.get_mut(place) {
            *recent = id.0;
        }
        id
    }

    fn push(&mut self, start: usize, length: usize, mix: usize) -> TextId {
        let id = TextId(u32::try_from(self.entries.len()).unwrap_or(NONE));
        let (start, length) = (
            u32::try_from(start).unwrap_or(0),
            u32::try_from(length).unwrap_or(0),
        );
        self.entries.push(Entry {
            start,
            length,
            bytes: None,
            derived: NONE,
            candidates: NONE,
            case_of: NONE,
            is_whole: false,
            mix: u32::try_from(mix).unwrap_or(0),
            spot: None,
            is_asked: false,
        });
        id
    }

    #[inline]
    fn entry(&self, id: TextId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)
    }

    #[inline]
    pub(crate) fn get(&self, id: TextId) -> &[u8] {
        self.entry(id)
            .and_then(|entry| {
                self.arena
                    .get(entry.start as usize..(entry.start + entry.length) as usize)
            })
            .unwrap_or_default()
    }

    /// The text's mix.
    pub(super) fn mix_of(&self, id: TextId) -> usize {
        self.entry(id).map_or(0, |entry| entry.mix as usize)
    }

    #[inline]
    pub(crate) fn bytes_of(&mut self, id: TextId) -> ByteSet {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return ByteSet::EMPTY;
        };
        let (start, end) = (entry.start as usize, (entry.start + entry.length) as usize);
        let arena = &self.arena;
        *entry
            .bytes
            .get_or_insert_with(|| ByteSet::occurring(arena.get(start..end).unwrap_or_default()))
    }

    /// What the transformations make of a text.
    #[inline]
    pub(crate) fn transformed(&mut self, chains: &[Chain], id: TextId, chain: ChainId) -> TextId {
        let (Some(step), Some(entry)) = (chains.get(usize::from(chain)), self.entry(id)) else {
            return id;
        };
        let known = (entry.derived != NONE).then(|| entry.derived as usize + usize::from(chain));
        match known.and_then(|place| self.derived.get(place)) {
            Some(&to) if to != NONE => TextId(to),
            _ => self.transform(chains, id, (chain, step)),
        }
    }

    fn transform(
        &mut self,
        chains: &[Chain],
        id: TextId,
        (chain, step): (ChainId, &Chain),
    ) -> TextId {
        let Some(last) = step.last else { return id };
        if !step.always && !self.bytes_of(id).intersects(&step.triggers) {
            return id;
        }
        let parent = self.transformed(chains, id, step.before);
        let to = self.apply(last, &step.last_triggers, parent);
        self.remember(chains.len(), id, chain, to);
        to
    }

    fn apply(&mut self, last: Transform, triggers: &ByteSet, parent: TextId) -> TextId {
        if !last.is_always() && !self.bytes_of(parent).intersects(triggers) {
            return parent;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        last.apply(self.get(parent), &mut buffer);
        let to = if buffer == self.get(parent) {
            parent
        } else {
            self.add(&buffer)
        };
        self.buffer = buffer;
        if to == parent {
            return to;
        }
        let left = last.leaves_just(&self.bytes_of(parent));
        if let Some(entry) = self.entries.get_mut(to.0 as usize) {
            entry.bytes = left.or(entry.bytes);
            if matches!(last, Transform::Lowercase | Transform::Uppercase) {
                entry.case_of = parent.0;
            }
        }
        to
    }

    fn remember(&mut self, chains: usize, id: TextId, chain: ChainId, to: TextId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        if entry.derived == NONE {
            entry.derived = u32::try_from(self.derived.len()).unwrap_or(NONE);
            self.derived.resize(self.derived.len() + chains, NONE);
        }
        if let Some(place) = self
            .derived
            .get_mut(entry.derived as usize + usize::from(chain))
        {
            *place = to.0;
        }
    }

    /// The operators that may match a text, found when they are first asked for.
    #[inline]
    pub(crate) fn candidates(&mut self, id: TextId, filter: &Prefilter, seen: &mut Seen) -> &[u64] {
        let at = match self.entry(id).map(|entry| entry.candidates) {
            Some(NONE) => self.find_candidates(id, filter, seen),
            Some(at) => at as usize,
            None => return &[],
        };
        self.candidates
            .get(at..at + filter.words)
            .unwrap_or_default()
    }

    fn find_candidates(&mut self, id: TextId, filter: &Prefilter, seen: &mut Seen) -> usize {
        let spot = self.spot(id, seen);
        let at = self.candidates.len();
        self.candidates.resize(at + filter.words, 0);
        let bytes = self.bytes_of(id);
        let of_other_case = self.of_other_case(id, filter);
        let (before, found) = self.candidates.split_at_mut(at);
        if let Some(entry) = self.entries.get_mut(id.0 as usize) {
            entry.candidates = u32::try_from(at).unwrap_or(NONE);
            if spot.is_some_and(|spot| seen.recall(spot, found)) {
                return at;
            }
            let whole = entry.start as usize..(entry.start + entry.length) as usize;
            let text = self.arena.get(whole).unwrap_or_default();
            if let Some(other) = of_other_case.and_then(|other| before.get(other)) {
                found.copy_from_slice(other);
            } else {
                filter.candidates(text, &bytes, found, &mut self.open, &mut seen.by_bytes);
            }
            entry.is_whole = true;
            entry.spot = seen.learn(entry.mix as usize, text, found);
        }
        at
    }

    /// The candidates of the text in other case, where they are this one's too.
    fn of_other_case(&self, id: TextId, filter: &Prefilter) -> Option<Range<usize>> {
        let other = self.entry(TextId(self.entry(id)?.case_of))?;
        let at = other.candidates as usize;
        (filter.cases_alike && other.is_whole).then(|| at..at + filter.words)
    }

    /// Where the worker remembers the text.
    #[inline]
    pub(crate) fn spot(&mut self, id: TextId, seen: &mut Seen) -> Option<Spot> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        if !entry.is_asked {
            entry.is_asked = true;
            let whole = entry.start as usize..(entry.start + entry.length) as usize;
            let text = self.arena.get(whole).unwrap_or_default();
            entry.spot = seen.find(entry.mix as usize, text);
        }
        entry.spot
    }

    /// Notes that the operator of the probe was run and does not match the text: it is not run on it
    /// again, in this request or another.
    pub(crate) fn refute(&mut self, id: TextId, words: usize, probe: u16, seen: &mut Seen) {
        if let Some(spot) = self.spot(id, seen) {
            seen.refute(spot, words, probe);
        }
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        entry.is_whole = false;
        let place = (entry.candidates as usize).saturating_add(usize::from(probe) / 64);
        let known = entry.candidates != NONE;
        if let Some(word) = self.candidates.get_mut(place).filter(|_| known) {
            *word &= !(1 << (probe % 64));
        }
    }
}
