//! Texts that a worker has judged before, and which operators cannot match them.
//!
//! Clients send the same names and values again and again: what a text cannot match does not change
//! from one request to the next. Owns a table of fixed size, in which texts that share a place drive
//! each other out; the whole text is compared, so that nobody gains by sharing a place. Must not:
//! hold anything of another rule set.

use super::strings::mix;
use crate::bytes::ByteSet;

/// Places; a power of two.
const PLACES: usize = 512;
/// Bytes of a text that is worth a place.
const MOST_BYTES: usize = 128;
/// How often a text that was met again stays when another wants its place.
const MOST_LIVES: u8 = 15;
/// Places for sets of bytes; a power of two.
const BYTE_PLACES: usize = 512;

/// The texts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    places: Vec<Place>,
    /// The candidates of each place, a block of words each.
    words: Vec<u64>,
    /// What the bytes of a text leave open.
    pub(super) by_bytes: ByBytes,
}

#[derive(Clone, Debug)]
struct Place {
    length: Option<u8>,
    lives: u8,
    text: [u8; MOST_BYTES],
}

impl Place {
    fn holds(&self, text: &[u8]) -> bool {
        self.length
            .is_some_and(|length| usize::from(length) == text.len())
            && self.text.get(..text.len()) == Some(text)
    }
}

impl Seen {
    /// A table for blocks of so many words.
    pub(crate) fn new(words: usize) -> Self {
        let empty = Place {
            length: None,
            lives: 0,
            text: [0; MOST_BYTES],
        };
        Self {
            places: vec![empty; PLACES],
            words: vec![0; PLACES * words],
            by_bytes: ByBytes::new(words),
        }
    }

    fn at(text: &[u8]) -> usize {
        mix(text) % PLACES
    }

    /// Writes the candidates of the text to `found`, if they are known.
    pub(super) fn recall(&mut self, text: &[u8], found: &mut [u64]) -> bool {
        let at = Self::at(text);
        let Some(place) = self.places.get_mut(at).filter(|place| place.holds(text)) else {
            return false;
        };
        place.lives = (place.lives + 1).min(MOST_LIVES);
        let block = at * found.len()..(at + 1) * found.len();
        self.words.get(block).is_some_and(|words| {
            found.copy_from_slice(words);
            true
        })
    }

    /// Remembers the candidates of the text, where its place is free or worn out.
    pub(super) fn learn(&mut self, text: &[u8], found: &[u64]) {
        let at = Self::at(text);
        let (Some(place), Ok(length)) = (self.places.get_mut(at), u8::try_from(text.len())) else {
            return;
        };
        if place.lives > 0 {
            place.lives -= 1;
            return;
        }
        let Some(kept) = place.text.get_mut(..text.len()) else {
            return;
        };
        let Some(words) = self.words.get_mut(at * found.len()..(at + 1) * found.len()) else {
            return;
        };
        kept.copy_from_slice(text);
        words.copy_from_slice(found);
        place.length = Some(length);
    }

    /// Notes that the operator of the probe was run and does not match the text.
    pub(super) fn refute(&mut self, text: &[u8], words: usize, probe: u16) {
        let at = Self::at(text);
        if self.places.get(at).is_some_and(|place| place.holds(text))
            && let Some(word) = self.words.get_mut(at * words + usize::from(probe) / 64)
        {
            *word &= !(1 << (probe % 64));
        }
    }
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
    use super::{PLACES, Seen};

    #[test]
    fn what_is_refuted_of_one_text_is_not_of_another_that_shares_its_place() {
        let mut seen = Seen::new(1);
        let texts: Vec<Vec<u8>> = (0..PLACES * 4)
            .map(|n| format!("text {n}").into_bytes())
            .collect();
        for text in &texts {
            seen.learn(text, &[0b11]);
        }
        for text in texts.iter().step_by(2) {
            seen.refute(text, 1, 0);
        }
        let mut recalled = 0;
        for (number, text) in texts.iter().enumerate() {
            let mut found = [0];
            if seen.recall(text, &mut found) {
                recalled += 1;
                assert_eq!(
                    found,
                    [if number % 2 == 0 { 0b10 } else { 0b11 }],
                    "{number}"
                );
            }
        }
        assert!(recalled > PLACES / 2, "{recalled}");
    }

    #[test]
    fn a_text_that_is_met_often_outlives_those_that_are_met_once() {
        let mut seen = Seen::new(1);
        seen.learn(b"Accept", &[1]);
        for number in 0..100_000 {
            seen.learn(format!("{number}").as_bytes(), &[0]);
            if number % 512 == 0 {
                assert!(seen.recall(b"Accept", &mut [0]), "{number}");
                assert!(seen.recall(b"Accept", &mut [0]), "{number}");
            }
        }
    }

    #[test]
    fn a_long_text_is_not_remembered() {
        let mut seen = Seen::new(1);
        seen.learn(&[b'a'; 129], &[1]);
        seen.learn(&[b'a'; 300], &[1]);
        assert!(!seen.recall(&[b'a'; 129], &mut [0]) && !seen.recall(&[b'a'; 300], &mut [0]));
    }
}
