//! The automaton under construction: the tree of the literals, and what it falls back on.

use std::collections::{HashMap, VecDeque};

use super::{Automaton, CLASSES, class_of};
use crate::rule::Bits;

/// The states, the start first.
pub(super) struct Tree {
    probes: usize,
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    /// Where a literal goes on, by class.
    next: Vec<(u8, u16)>,
    /// What it opens, where it ends literals.
    opens: Option<Bits>,
    /// The longest of its ends that is a state too.
    fail: u16,
}

impl Tree {
    pub(super) fn new(probes: usize) -> Self {
        Self {
            probes,
            states: vec![State::default()],
        }
    }

    /// Has the literal open the probe. Nothing where it is empty or there are too many states.
    pub(super) fn add(&mut self, literal: &[u8], classes: &[u8; 256], probe: usize) -> Option<()> {
        let mut at = 0;
        for &byte in literal {
            let class = class_of(classes, byte);
            at = match self.child(at, class) {
                Some(child) => child,
                None => self.grow(at, class)?,
            };
        }
        if at == 0 {
            return None;
        }
        let opens = &mut self.states.get_mut(usize::from(at))?.opens;
        opens
            .get_or_insert_with(|| Bits::with_room_for(self.probes))
            .set(probe);
        Some(())
    }

    fn child(&self, state: u16, class: u8) -> Option<u16> {
        let next = &self.states.get(usize::from(state))?.next;
        let found = next.iter().find(|(known, _)| *known == class);
        found.map(|(_, child)| *child)
    }

    fn grow(&mut self, state: u16, class: u8) -> Option<u16> {
        let child = u16::try_from(self.states.len()).ok()?;
        let state = self.states.get_mut(usize::from(state))?;
        state.next.push((class, child));
        self.states.push(State::default());
        Some(child)
    }

    /// Where the state goes by the class, or the first that it falls back on.
    fn going(&self, mut state: u16, class: u8) -> u16 {
        loop {
            if let Some(child) = self.child(state, class) {
                return child;
            }
            if state == 0 {
                return 0;
            }
            state = self.fail(state);
        }
    }

    fn fail(&self, state: u16) -> u16 {
        self.states
            .get(usize::from(state))
            .map_or(0, |state| state.fail)
    }

    /// Nothing where there is no literal.
    pub(super) fn into_automaton(mut self, classes: Box<[u8; 256]>) -> Option<Automaton> {
        if self.states.len() == 1 {
            return None;
        }
        let order = self.link();
        let (numbers, first_ending) = self.numbers()?;
        let number = |state: u16| numbers.get(usize::from(state)).copied();
        let mut next = vec![[0; CLASSES]; self.states.len()];
        for state in order {
            let mut row = match state {
                0 => [0; CLASSES],
                _ => *next.get(usize::from(number(self.fail(state))?))?,
            };
            for (class, child) in &self.states.get(usize::from(state))?.next {
                *row.get_mut(usize::from(*class))? = number(*child)?;
            }
            *next.get_mut(usize::from(number(state)?))? = row;
        }
        let (block_of, blocks) = self.blocks()?;
        Some(Automaton {
            classes,
            next,
            first_ending,
            block_of,
            blocks,
        })
    }

    /// Finds what each state falls back on, and adds what that opens. Gives back the states in the order
    /// of their depth, in which each comes after what it falls back on.
    fn link(&mut self) -> Vec<u16> {
        let mut order = Vec::with_capacity(self.states.len());
        let mut waiting = VecDeque::from([0u16]);
        while let Some(state) = waiting.pop_front() {
            order.push(state);
            let Some(State { next, fail, .. }) = self.states.get(usize::from(state)) else {
                continue;
            };
            let (next, fail) = (next.clone(), *fail);
            for (class, child) in next {
                // From the start, the state itself would be found.
                let fail = if state == 0 {
                    0
                } else {
                    self.going(fail, class)
                };
                self.fall_back(child, fail);
                waiting.push_back(child);
            }
        }
        order
    }

    fn fall_back(&mut self, state: u16, fail: u16) {
        let more = self.states.get(usize::from(fail));
        let more = more.and_then(|fail| fail.opens.clone());
        let Some(state) = self.states.get_mut(usize::from(state)) else {
            return;
        };
        state.fail = fail;
        match (&mut state.opens, more) {
            (Some(opens), Some(more)) => opens.add(&more),
            (opens @ None, more) => *opens = more,
            _ => {}
        }
    }

    /// The number of each state, those that end literals last, and the first of these.
    fn numbers(&self) -> Option<(Vec<u16>, u16)> {
        let plain = self.states.iter().filter(|state| state.opens.is_none());
        let first_ending = u16::try_from(plain.count()).ok()?;
        let (mut next_plain, mut next_ending) = (0, usize::from(first_ending));
        let numbers = self.states.iter().map(|state| {
            let next = match state.opens {
                None => &mut next_plain,
                Some(_) => &mut next_ending,
            };
            *next += 1;
            u16::try_from(*next - 1).ok()
        });
        Some((numbers.collect::<Option<_>>()?, first_ending))
    }

    /// For each state that ends literals its block of what they open; equal ones are one.
    fn blocks(&self) -> Option<(Vec<u32>, Vec<u64>)> {
        let (mut block_of, mut blocks) = (Vec::new(), Vec::new());
        let mut known: HashMap<&Bits, u32> = HashMap::new();
        for opens in self.states.iter().filter_map(|state| state.opens.as_ref()) {
            let fresh = u32::try_from(blocks.len()).ok()?;
            let block = *known.entry(opens).or_insert(fresh);
            if block == fresh {
                blocks.extend(&opens.0);
            }
            block_of.push(block);
        }
        Some((block_of, blocks))
    }
}
