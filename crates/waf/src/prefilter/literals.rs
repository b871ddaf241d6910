//! One pass over a text for the literals of all probes.
//!
//! An Aho-Corasick automaton of our own: its states are two bytes each, and a state that ends literals
//! knows at once all that they open.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::shape::Needs;
use crate::rule::Bits;

/// The literals, and which probes each opens.
#[derive(Debug, Default)]
pub(super) struct Literals {
    automaton: Option<Automaton>,
    /// Probes that need no literal.
    free: Bits,
}

/// State 0 is the start; those that end a literal come last.
#[derive(Debug)]
struct Automaton {
    /// The class of each byte; letters are one with their other case.
    classes: Box<[u8; 256]>,
    stride: usize,
    next: Vec<u16>,
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
        let automaton = (1..=4)
            .rev()
            .find_map(|longest| Automaton::new(&by_literal(needs, longest), needs.len()));
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
            256 + automaton.next.len() * 2
                + automaton.block_of.len() * 4
                + automaton.blocks.len() * 8
        })
    }
}

/// What each literal opens, cut to so many bytes.
fn by_literal(needs: &[Needs], longest: usize) -> BTreeMap<&[u8], Bits> {
    let mut by_literal: BTreeMap<&[u8], Bits> = BTreeMap::new();
    for (probe, need) in needs.iter().enumerate() {
        for literal in need.literals.iter().flatten() {
            by_literal
                .entry(literal.get(..longest).unwrap_or(literal))
                .or_insert_with(|| Bits::with_room_for(needs.len()))
                .set(probe);
        }
    }
    by_literal
}

/// A state under construction.
struct Draft {
    next: HashMap<u8, usize>,
    opens: Option<Bits>,
    fail: usize,
}

/// The tree of the literals.
fn tree(literals: &BTreeMap<&[u8], Bits>) -> Vec<Draft> {
    let new = || Draft {
        next: HashMap::new(),
        opens: None,
        fail: 0,
    };
    let mut tree = vec![new()];
    for (literal, opens) in literals {
        let mut at = 0;
        for &byte in *literal {
            let following = tree.len();
            let Some(state) = tree.get_mut(at) else { break };
            at = *state.next.entry(byte).or_insert(following);
            if at == following {
                tree.push(new());
            }
        }
        if let Some(state) = tree.get_mut(at) {
            state.opens = Some(opens.clone());
        }
    }
    tree
}

impl Automaton {
    /// Nothing where there is no literal, or an empty one, or more states than two bytes can tell.
    fn new(literals: &BTreeMap<&[u8], Bits>, probes: usize) -> Option<Self> {
        if literals.is_empty() || literals.contains_key(&b""[..]) {
            return None;
        }
        let mut tree = tree(literals);
        if tree.len() > usize::from(u16::MAX) {
            return None;
        }
        let (classes, stride) = classes(literals);
        let rows = rows(&mut tree, &classes, stride);
        let order = order(&tree);
        let mut automaton = Self {
            classes,
            stride,
            next: vec![0; rows.len()],
            first_ending: u16::try_from(tree.iter().filter(|state| state.opens.is_none()).count())
                .ok()?,
            block_of: Vec::new(),
            blocks: Vec::new(),
        };
        let mut known: HashMap<Bits, u32> = HashMap::new();
        let words = probes.div_ceil(64);
        let mut by_number: Vec<usize> = (0..tree.len()).collect();
        by_number.sort_by_key(|&state| order.get(state));
        for (number, &state) in by_number.iter().enumerate() {
            let from = rows.get(state * stride..(state + 1) * stride)?;
            let to = automaton
                .next
                .get_mut(number * stride..(number + 1) * stride)?;
            for (to, from) in to.iter_mut().zip(from) {
                *to = *order.get(*from)?;
            }
            if let Some(opens) = &tree.get(state)?.opens {
                let fresh = u32::try_from(known.len() * words).ok()?;
                let block = *known.entry(opens.clone()).or_insert(fresh);
                if block == fresh {
                    automaton.blocks.extend(&opens.0);
                }
                automaton.block_of.push(block);
            }
        }
        Some(automaton)
    }

    /// Adds to `open` what the literals in the text open.
    fn open(&self, text: &[u8], open: &mut [u64]) {
        let mut at = 0u16;
        for &byte in text {
            let class = usize::from(class_of(&self.classes, byte));
            at = self
                .next
                .get(usize::from(at) * self.stride + class)
                .copied()
                .unwrap_or(0);
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

/// The bytes that literals consist of, each with its other case, by class; 0 are all others.
fn classes(literals: &BTreeMap<&[u8], Bits>) -> (Box<[u8; 256]>, usize) {
    let mut classes = Box::new([0u8; 256]);
    let mut last = 0u8;
    for &byte in literals.keys().copied().flatten() {
        if class_of(&classes, byte) == 0 {
            // All 256 bytes in literals leave one that shares another's class, and opens more.
            last = last.saturating_add(1);
            for case in [byte, byte.to_ascii_uppercase()] {
                if let Some(class) = classes.get_mut(usize::from(case)) {
                    *class = last;
                }
            }
        }
    }
    (classes, usize::from(last) + 1)
}

#[inline]
fn class_of(classes: &[u8; 256], byte: u8) -> u8 {
    classes.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Where each state goes by each class; gives states the fails and what they open by them.
fn rows(tree: &mut [Draft], classes: &[u8; 256], stride: usize) -> Vec<usize> {
    let mut rows = vec![0; tree.len() * stride];
    let mut waiting = VecDeque::from([0usize]);
    while let Some(state) = waiting.pop_front() {
        let Some(draft) = tree.get(state) else {
            continue;
        };
        let fail = draft.fail;
        let inherited = rows
            .get(fail * stride..(fail + 1) * stride)
            .map(<[usize]>::to_vec)
            .unwrap_or_default();
        let children: Vec<(u8, usize)> = draft.next.iter().map(|(&byte, &to)| (byte, to)).collect();
        if let Some(row) = rows.get_mut(state * stride..(state + 1) * stride) {
            row.copy_from_slice(&inherited);
            for &(byte, to) in &children {
                if let Some(place) = row.get_mut(usize::from(class_of(classes, byte))) {
                    *place = to;
                }
            }
        }
        for (byte, to) in children {
            let class = usize::from(class_of(classes, byte));
            // From the start, the state itself would be found where it has just been put.
            let by_fail = inherited.get(class).copied().filter(|_| state != 0);
            let fail = by_fail.unwrap_or(0);
            let more = tree.get(fail).and_then(|fail| fail.opens.clone());
            if let Some(child) = tree.get_mut(to) {
                child.fail = fail;
                match (&mut child.opens, more) {
                    (Some(opens), Some(more)) => opens.add(&more),
                    (opens @ None, more) => *opens = more,
                    _ => {}
                }
            }
            waiting.push_back(to);
        }
    }
    rows
}

/// The number of each state: those that end no literal first, the start as the first of all.
fn order(tree: &[Draft]) -> Vec<u16> {
    let plain = tree.iter().filter(|state| state.opens.is_none()).count();
    let (mut next_plain, mut next_ending) = (0, plain);
    let numbers = tree.iter().map(|state| {
        let next = if state.opens.is_none() {
            &mut next_plain
        } else {
            &mut next_ending
        };
        *next += 1;
        u16::try_from(*next - 1).unwrap_or(0)
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::{Literals, Needs};

    fn needs(literals: &[&str]) -> Needs {
        Needs {
            literals: Some(
                literals
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
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
                .map(|byte| vec![byte.to_ascii_lowercase(), b'!'])
                .collect(),
        );
        let literals = Literals::new(&all);
        for byte in 0..=255 {
            assert_eq!(opened(&literals, &[byte, b'!']) & 3, 3);
        }
        assert_eq!(opened(&literals, b"?") & 3, 1);
    }
}
