//! One pass over a text for the literals of all probes.
//!
//! An Aho-Corasick automaton of our own: its states are two bytes each, and a state that ends literals
//! knows at once all that they open.

mod tree;

use super::shape::{Literal, MOST_BYTES, Needs};
use crate::rule::Bits;
use tree::Tree;

/// The literals, and which probes each opens.
#[derive(Debug, Default)]
pub(super) struct Literals {
    automaton: Option<Automaton>,
    /// Probes that need no literal.
    free: Bits,
}

/// Classes of bytes; a power of two, so that the next state is a shift and a load away.
const CLASSES: usize = 64;

/// State 0 is the start; those that end a literal come last.
#[derive(Debug)]
struct Automaton {
    /// The class of each byte; letters are one with their other case.
    classes: Box<[u8; 256]>,
    next: Vec<[u16; CLASSES]>,
    first_ending: u16,
    /// For each state that ends literals, its block of what they open.
    block_of: Vec<u32>,
    blocks: Vec<u64>,
}

impl Literals {
    pub(super) fn new(needs: &[Needs]) -> Self {
        let mut free = Bits::with_room_for(needs.len());
        for (probe, _) in needs
            .iter()
            .enumerate()
            .filter(|(_, need)| need.literals.is_none())
        {
            free.set(probe);
        }
        // Shorter literals open more and are as sound, should there ever be more states than numbers.
        let automaton = (1..=MOST_BYTES)
            .rev()
            .find_map(|longest| Automaton::new(needs, longest));
        // Without an automaton nothing is ruled out by literals.
        Self { automaton, free }
    }

    /// Takes out of `found` the probes whose literals are not in the text.
    pub(super) fn narrow(&self, text: &[u8], found: &mut [u64], open: &mut Vec<u64>) {
        let Some(automaton) = &self.automaton else {
            return;
        };
        if found
            .iter()
            .zip(&self.free.0)
            .all(|(found, free)| found & !free == 0)
        {
            return;
        }
        open.clear();
        open.extend_from_slice(&self.free.0);
        automaton.open(text, open);
        for (word, open) in found.iter_mut().zip(open.iter()) {
            *word &= *open;
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.automaton.as_ref().map_or(0, |automaton| {
            256 + size_of_val(&*automaton.next)
                + automaton.block_of.len() * 4
                + automaton.blocks.len() * 8
        })
    }
}

impl Automaton {
    /// Nothing where there is no literal, or an empty one, or more states than two bytes can tell.
    fn new(needs: &[Needs], longest: usize) -> Option<Self> {
        let classes = classes(needs);
        let mut tree = Tree::new(needs.len());
        for (probe, need) in needs.iter().enumerate() {
            for literal in need.literals.iter().flatten() {
                let literal = literal.bytes();
                tree.add(literal.get(..longest).unwrap_or(literal), &classes, probe)?;
            }
        }
        tree.into_automaton(classes)
    }

    /// Adds to `open` what the literals in the text open.
    #[inline(never)] // The loop has the registers to itself.
    fn open(&self, text: &[u8], open: &mut [u64]) {
        let mut at = 0u16;
        for &byte in text {
            let class = usize::from(class_of(&self.classes, byte)) % CLASSES;
            let states = self.next.get(usize::from(at));
            at = states.map_or(0, |states| states.get(class).copied().unwrap_or(0));
            if at >= self.first_ending {
                let ending = usize::from(at - self.first_ending);
                let block = self.block_of.get(ending).map_or(0, |&at| at as usize);
                let opens = self.blocks.get(block..).unwrap_or_default();
                for (word, more) in open.iter_mut().zip(opens) {
                    *word |= more;
                }
            }
        }
    }
}

/// The bytes that literals consist of, each with its other case, by class; 0 are all others. Bytes that few
/// literals hold share the last class where there are too many, which opens more.
fn classes(needs: &[Needs]) -> Box<[u8; 256]> {
    let mut uses = [(0u32, 0u8); 256];
    for (byte, place) in (0..=u8::MAX).zip(&mut uses) {
        place.1 = byte;
    }
    let literals = needs.iter().flat_map(|need| need.literals.iter().flatten());
    for &byte in literals.flat_map(Literal::bytes) {
        if let Some((count, _)) = uses.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    uses.sort_unstable_by_key(|&(count, byte)| (std::cmp::Reverse(count), byte));
    let mut classes = Box::new([0u8; 256]);
    let used = uses.iter().take_while(|(count, _)| *count > 0);
    for (number, (_, byte)) in (1usize..).zip(used) {
        for case in [*byte, byte.to_ascii_uppercase()] {
            if let Some(class) = classes.get_mut(usize::from(case)) {
                *class = u8::try_from(number.min(CLASSES - 1)).unwrap_or_default();
            }
        }
    }
    classes
}

#[inline]
fn class_of(classes: &[u8; 256], byte: u8) -> u8 {
    classes.get(usize::from(byte)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Literal, Literals, Needs};

    fn needs(literals: &[&str]) -> Needs {
        Needs {
            literals: Some(
                literals
                    .iter()
                    .map(|text| Literal::new(text.as_bytes()))
                    .collect(),
            ),
            ..Needs::default()
        }
    }

    fn opened(literals: &Literals, text: &[u8]) -> u64 {
        let mut found = [u64::MAX];
        literals.narrow(text, &mut found, &mut Vec::new());
        found[0]
    }

    #[test]
    fn a_text_opens_the_probes_whose_literals_it_holds_in_either_case() {
        let probes: Vec<Vec<&str>> = vec![
            vec!["he", "x"],
            vec!["she"],
            vec!["hers", "e'"],
            vec!["his"],
            vec!["is"],
            vec!["rsh"],
        ];
        let needs: Vec<Needs> = probes.iter().map(|probe| needs(probe)).collect();
        let literals = Literals::new(&needs);
        let mut random = fastrand::Rng::with_seed(6);
        let (mut held, mut lacked) = (0, 0);
        for _ in 0..50_000 {
            let text: Vec<u8> = (0..random.usize(..9))
                .map(|_| b"hHeErRsSiIxX'-"[random.usize(..14)])
                .collect();
            let lower = String::from_utf8(text.to_ascii_lowercase()).unwrap();
            let opened = opened(&literals, &text);
            for (probe, words) in probes.iter().enumerate() {
                let holds = words.iter().any(|word| lower.contains(word));
                assert_eq!(opened >> probe & 1 == 1, holds, "{lower} {words:?}");
                held += usize::from(holds);
                lacked += usize::from(!holds);
            }
        }
        assert!(held > 20_000 && lacked > 20_000, "{held} {lacked}");
    }

    #[test]
    fn more_literals_than_states_are_cut_short_and_still_found() {
        let words: Vec<String> = (0..40_000).map(|number| format!("{number:04x}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let all: Vec<Needs> = words.chunks(1000).map(needs).collect();
        let literals = Literals::new(&all);
        for (probe, words) in words.chunks(1000).enumerate() {
            assert_eq!(opened(&literals, words[7].as_bytes()) >> probe & 1, 1);
        }
    }

    #[test]
    fn every_byte_may_be_in_a_literal() {
        let mut all: Vec<Needs> = vec![Needs::default(); 2];
        all[1].literals = Some(
            (0..=255u8)
                .map(|byte| Literal::new(&[byte.to_ascii_lowercase(), b'!']))
                .collect(),
        );
        let literals = Literals::new(&all);
        for byte in 0..=255 {
            assert_eq!(opened(&literals, &[byte, b'!']) & 3, 3);
        }
        assert_eq!(opened(&literals, b"?") & 3, 1);
    }
}
