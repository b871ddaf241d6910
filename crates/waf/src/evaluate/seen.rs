//! Texts that a worker has judged before, and which operators cannot match them.
//!
//! Clients send the same names and values again and again: what a text cannot match does not change
//! from one request to the next, nor which rules it wakes in a phase that looks at it. Owns a table of
//! fixed size, in which texts that share a place drive each other out; the whole text is compared, so
//! that nobody gains by sharing a place. Must not: hold anything of another rule set.

use std::ops::Range;

use crate::bytes::ByteSet;

/// Places; a power of two.
const PLACES: usize = 1024;
/// Neighbouring places that a text may have: with one alone, two texts of every request that happen to
/// share it would drive each other out for good.
const WAYS: usize = 2;
/// Bytes of a text that is worth a place: a token, or the cookies of a browser.
const MOST_BYTES: usize = 2048;
/// How often a text that was met again stays when another wants its place.
const MOST_LIVES: u8 = 15;
/// Sources whose rules are remembered.
const SOURCES: usize = 256;
/// Rules that a text wakes, at most, to be remembered.
const MOST_WOKEN: usize = 64;
/// Places for sets of bytes; a power of two.
const BYTE_PLACES: usize = 512;

/// Places for sets of bytes and sources; a power of two.
const LOOKS: usize = 1024;

/// The texts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    places: Vec<Place>,
    /// The candidates of each place, a block of words each.
    words: Vec<u64>,
    /// What the bytes of a text leave open.
    pub(super) by_bytes: ByBytes,
    /// Which chains of a source are worth a look at a text of some bytes.
    looks: Vec<Option<(ByteSet, u16, Looks)>>,
}

/// The chains of a source, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looks {
    /// Those that may change the text.
    pub(crate) changed: u64,
    /// Those among them after which some rule may match.
    pub(crate) open: u64,
}

#[derive(Clone, Debug)]
struct Place {
    text: Option<Vec<u8>>,
    lives: u8,
    /// Another for each text that is here.
    stamp: u32,
    /// The sources whose rules are known.
    asked: [u64; SOURCES / 64],
    /// The rules that the text wakes by a source: the source, and the position in its phase.
    woken: Vec<(u16, u32)>,
}

impl Place {
    fn holds(&self, text: &[u8]) -> bool {
        self.text.as_deref() == Some(text)
    }
}

/// Where a text is remembered, for as long as no other has its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    place: u32,
    stamp: u32,
}

impl Seen {
    /// A table for blocks of so many words.
    pub(crate) fn new(words: usize) -> Self {
        let empty = Place {
            text: None,
            lives: 0,
            stamp: 0,
            asked: [0; SOURCES / 64],
            woken: Vec::new(),
        };
        Self {
            places: vec![empty; PLACES],
            words: vec![0; PLACES * words],
            by_bytes: ByBytes::new(words),
            looks: vec![None; LOOKS],
        }
    }

    /// What is known of the bytes and the source, or what `find` says.
    pub(crate) fn looks(
        &mut self,
        bytes: ByteSet,
        source: u16,
        find: impl FnOnce() -> Looks,
    ) -> Looks {
        let at = bytes.mix().wrapping_add(usize::from(source) * 7) % LOOKS;
        let Some(place) = self.looks.get_mut(at) else {
            return find();
        };
        match place {
            Some((known, by, looks)) if *known == bytes && *by == source => *looks,
            _ => {
                let looks = find();
                *place = Some((bytes, source, looks));
                looks
            }
        }
    }

    /// Where the text of this mix is remembered.
    pub(super) fn find(&mut self, mix: usize, text: &[u8]) -> Option<Spot> {
        let ways = self.places.iter_mut().skip(first_place(mix)).take(WAYS);
        let (at, place) = (first_place(mix)..)
            .zip(ways)
            .find(|(_, place)| place.holds(text))?;
        place.lives = (place.lives + 1).min(MOST_LIVES);
        Some(Spot {
            place: u32::try_from(at).ok()?,
            stamp: place.stamp,
        })
    }

    #[inline]
    fn place(&self, spot: Spot) -> Option<&Place> {
        let place = self.places.get(spot.place as usize);
        place.filter(|place| place.stamp == spot.stamp)
    }

    #[inline]
    fn place_mut(&mut self, spot: Spot) -> Option<&mut Place> {
        let place = self.places.get_mut(spot.place as usize);
        place.filter(|place| place.stamp == spot.stamp)
    }

    /// Writes the candidates of a text that is remembered to `found`.
    pub(super) fn recall(&self, spot: Spot, found: &mut [u64]) -> bool {
        let at = spot.place as usize * found.len();
        let words = self
            .place(spot)
            .and_then(|_| self.words.get(at..at + found.len()));
        words.is_some_and(|words| {
            found.copy_from_slice(words);
            true
        })
    }

    /// Remembers the candidates of the text, where one of its places is free or worn out.
    pub(super) fn learn(&mut self, mix: usize, text: &[u8], found: &[u64]) -> Option<Spot> {
        if text.len() > MOST_BYTES {
            return None;
        }
        let ways = self.places.iter_mut().skip(first_place(mix)).take(WAYS);
        let (at, place) = (first_place(mix)..)
            .zip(ways)
            .min_by_key(|(_, place)| (place.text.is_some(), place.lives))?;
        if place.lives > 0 {
            place.lives -= 1;
            return None;
        }
        let words = self
            .words
            .get_mut(at * found.len()..(at + 1) * found.len())?;
        words.copy_from_slice(found);
        let kept = place.text.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(text);
        place.stamp = place.stamp.wrapping_add(1);
        place.asked = [0; SOURCES / 64];
        place.woken.clear();
        Some(Spot {
            place: u32::try_from(at).ok()?,
            stamp: place.stamp,
        })
    }

    /// Notes that the operator of the probe was run and does not match the text.
    pub(super) fn refute(&mut self, spot: Spot, words: usize, probe: u16) {
        let at = spot.place as usize * words + usize::from(probe) / 64;
        if self.place(spot).is_some()
            && let Some(word) = self.words.get_mut(at)
        {
            *word &= !(1 << (probe % 64));
        }
    }

    /// Appends the positions of the rules that the text wakes by the source, if they are known.
    #[inline]
    pub(crate) fn woken(&self, spot: Spot, source: u16, positions: &mut Vec<u32>) -> bool {
        let Some(place) = self.place(spot) else {
            return false;
        };
        let asked = place.asked.get(usize::from(source) / 64);
        if asked.is_none_or(|asked| asked >> (source % 64) & 1 == 0) {
            return false;
        }
        let woken = place.woken.iter().filter(|(by, _)| *by == source);
        positions.extend(woken.map(|(_, position)| position));
        true
    }

    /// Remembers which rules the text wakes by the source.
    pub(crate) fn note(&mut self, spot: Spot, source: u16, positions: &[u32]) {
        let Some(place) = self.place_mut(spot) else {
            return;
        };
        let Some(asked) = place.asked.get_mut(usize::from(source) / 64) else {
            return;
        };
        if place.woken.len() + positions.len() <= MOST_WOKEN {
            *asked |= 1 << (source % 64);
            let woken = positions.iter().map(|&position| (source, position));
            place.woken.extend(woken);
        }
    }

    /// Notes that the rule at the position, woken by one of the sources, does not match the text.
    pub(super) fn let_sleep(&mut self, spot: Spot, sources: &Range<u16>, position: u32) {
        if let Some(place) = self.place_mut(spot) {
            place
                .woken
                .retain(|(source, woken)| *woken != position || !sources.contains(source));
        }
    }
}

fn first_place(mix: usize) -> usize {
    mix % (PLACES / WAYS) * WAYS
}

/// What sets of bytes leave open: ordinary values hold few different ones of those that matter.
#[derive(Debug, Default)]
pub(crate) struct ByBytes {
    sets: Vec<Option<ByteSet>>,
    words: Vec<u64>,
}

impl ByBytes {
    pub(crate) fn new(words: usize) -> Self {
        Self {
            sets: vec![None; BYTE_PLACES],
            words: vec![0; BYTE_PLACES * words],
        }
    }

    /// Takes from `found` what the bytes rule out; `find` says what they leave open, if that is not
    /// known.
    pub(crate) fn narrow(
        &mut self,
        bytes: ByteSet,
        found: &mut [u64],
        find: impl FnOnce(&mut [u64]),
    ) {
        let at = bytes.mix() % BYTE_PLACES;
        let block = at * found.len()..(at + 1) * found.len();
        let (Some(set), Some(words)) = (self.sets.get_mut(at), self.words.get_mut(block)) else {
            find(found);
            return;
        };
        if *set != Some(bytes) {
            words.fill(u64::MAX);
            find(words);
            *set = Some(bytes);
        }
        for (word, open) in found.iter_mut().zip(words) {
            *word &= *open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::strings::mix;
    use super::{MOST_BYTES, MOST_WOKEN, PLACES, Seen, Spot};

    /// The candidates that are remembered of the text, one word.
    fn recalled(seen: &mut Seen, text: &[u8]) -> Option<u64> {
        let mut found = [0];
        let spot = seen.find(mix(text), text)?;
        seen.recall(spot, &mut found).then_some(found[0])
    }

    /// The rules that are known to be woken.
    fn told(seen: &Seen, spot: Spot, source: u16) -> Option<Vec<u32>> {
        let mut positions = Vec::new();
        seen.woken(spot, source, &mut positions)
            .then_some(positions)
    }

    #[test]
    fn what_is_refuted_of_one_text_is_not_of_another_that_shares_its_place() {
        let mut seen = Seen::new(1);
        let texts: Vec<Vec<u8>> = (0..PLACES * 4)
            .map(|n| format!("text {n}").into_bytes())
            .collect();
        let spots: Vec<_> = texts
            .iter()
            .map(|text| seen.learn(mix(text), text, &[0b11]))
            .collect();
        for spot in spots.into_iter().step_by(2).flatten() {
            seen.refute(spot, 1, 0);
        }
        let mut held = 0;
        for (number, text) in texts.iter().enumerate() {
            if let Some(found) = recalled(&mut seen, text) {
                held += 1;
                assert_eq!(found, if number % 2 == 0 { 0b10 } else { 0b11 }, "{number}");
            }
        }
        assert!(held > PLACES / 2, "{held}");
    }

    #[test]
    fn a_text_that_is_met_often_outlives_those_that_are_met_once() {
        let mut seen = Seen::new(1);
        seen.learn(mix(b"Accept"), b"Accept", &[1]);
        for number in 0..100_000 {
            let text = format!("{number}").into_bytes();
            seen.learn(mix(&text), &text, &[0]);
            if number % 512 == 0 {
                assert_eq!(recalled(&mut seen, b"Accept"), Some(1), "{number}");
                assert_eq!(recalled(&mut seen, b"Accept"), Some(1), "{number}");
            }
        }
    }

    #[test]
    fn a_long_text_is_not_remembered() {
        let mut seen = Seen::new(1);
        for text in [[b'a'; MOST_BYTES + 1].as_slice(), &[b'a'; 9000]] {
            assert!(seen.learn(mix(text), text, &[1]).is_none());
            assert!(seen.find(mix(text), text).is_none());
        }
    }

    #[test]
    fn the_rules_that_a_text_wakes_are_told_by_source_until_they_do_not_match() {
        let mut seen = Seen::new(1);
        let spot = seen.learn(mix(b"a"), b"a", &[1]).unwrap();
        assert!(told(&seen, spot, 3).is_none());
        seen.note(spot, 3, &[7, 9]);
        seen.note(spot, 4, &[9]);
        seen.note(spot, 5, &[]);
        assert_eq!(told(&seen, spot, 3), Some(vec![7, 9]));
        assert_eq!(told(&seen, spot, 5), Some(vec![]));
        seen.let_sleep(spot, &(0..4), 9);
        assert_eq!(told(&seen, spot, 3), Some(vec![7]));
        assert_eq!(told(&seen, spot, 4), Some(vec![9]));
    }

    #[test]
    fn a_text_that_wakes_many_rules_is_asked_again() {
        let mut seen = Seen::new(1);
        let spot = seen.learn(mix(b"a"), b"a", &[1]).unwrap();
        seen.note(spot, 3, &[5; MOST_WOKEN + 1]);
        assert!(told(&seen, spot, 3).is_none());
        seen.note(spot, 300, &[1]);
        assert!(told(&seen, spot, 300).is_none());
    }

    #[test]
    fn what_was_known_of_a_text_is_not_told_of_the_next_in_its_place() {
        let mut seen = Seen::new(1);
        let place = mix(b"first");
        let first = seen.learn(place, b"first", &[1]).unwrap();
        seen.note(first, 3, &[7]);
        seen.learn(place, b"other", &[4]).unwrap();
        seen.find(place, b"other").unwrap();
        let second = seen.learn(place, b"second", &[2]).unwrap();
        assert!(told(&seen, first, 3).is_none() && told(&seen, second, 3).is_none());
        seen.note(first, 3, &[7]);
        assert!(told(&seen, second, 3).is_none());
        assert!(!seen.recall(first, &mut [0]));
    }
}
