//! One pass over a text for the literals of all probes.

use std::collections::BTreeMap;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;

use super::shape::Needs;
use crate::rule::Bits;

/// The literals, and which probes each opens.
#[derive(Debug, Default)]
pub(super) struct Literals {
    finder: Option<DFA>,
    opens: Vec<Bits>,
    /// Probes that need no literal.
    free: Bits,
}

impl Literals {
    pub(super) fn new(needs: &[Needs]) -> Self {
        let mut by_literal: BTreeMap<&[u8], Bits> = BTreeMap::new();
        let mut free = Bits::with_room_for(needs.len());
        for (probe, need) in needs.iter().enumerate() {
            match &need.literals {
                None => free.set(probe),
                Some(literals) => {
                    for literal in literals {
                        by_literal
                            .entry(literal)
                            .or_insert_with(|| Bits::with_room_for(needs.len()))
                            .set(probe);
                    }
                }
            }
        }
        let finder = DFA::builder()
            .ascii_case_insensitive(true)
            .build(by_literal.keys());
        match finder {
            Ok(finder) if !by_literal.is_empty() => Self {
                finder: Some(finder),
                opens: by_literal.into_values().collect(),
                free,
            },
            // Without an automaton nothing is ruled out by literals.
            _ => Self::default(),
        }
    }

    /// Takes out of `found` the probes whose literals are not in the text.
    pub(super) fn narrow(&self, text: &[u8], found: &mut [u64], open: &mut Vec<u64>) {
        let Some(finder) = &self.finder else { return };
        if found
            .iter()
            .zip(&self.free.0)
            .all(|(found, free)| found & !free == 0)
        {
            return;
        }
        open.clear();
        open.extend_from_slice(&self.free.0);
        let Ok(mut at) = finder.start_state(Anchored::No) else {
            return;
        };
        for &byte in text {
            at = finder.next_state(Anchored::No, at, byte);
            if finder.is_special(at) && finder.is_match(at) {
                self.open_all(finder, at, open);
            }
        }
        for (word, open) in found.iter_mut().zip(open.iter()) {
            *word &= *open;
        }
    }

    #[cold]
    fn open_all(&self, finder: &DFA, at: StateID, open: &mut [u64]) {
        for index in 0..finder.match_len(at) {
            let pattern = finder.match_pattern(at, index);
            if let Some(opens) = self.opens.get(pattern.as_usize()) {
                for (word, more) in open.iter_mut().zip(&opens.0) {
                    *word |= more;
                }
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        let opens: usize = self.opens.iter().map(|bits| bits.0.len() * 8 + 24).sum();
        opens + self.finder.as_ref().map_or(0, Automaton::memory_usage)
    }
}
