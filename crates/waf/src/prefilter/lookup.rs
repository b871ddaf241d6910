//! Chains that only look names up in a list, as CRS does with the names of headers: the first link notes each
//! name in a variable of its own, the second looks for what was noted in a list of what is restricted.
//!
//! Where no name is in the list the chain does not match, and what it noted is nothing that any other rule
//! would see. Owns which chains of a set are so, and the question whether a name is in the list. Must not:
//! leave out a chain of which anything could be seen.

use std::sync::Arc;

use crate::bytes::find;
use crate::evaluate::State;
use crate::operator::{NamePattern, Operator};
use crate::rule::{
    After, Assign, ChainId, Change, Chosen, Key, Link, Part, Rule, RuleSet, Slot, Target, Template,
};
use crate::seclang::{Collection, TextTest, Variable};

/// A longer name is not judged here.
const MOST_NAME: usize = 1024;
/// What a pattern captures is in the first slots.
const CAPTURES: Slot = 10;

/// A chain that only looks names up.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Its number among those of the set.
    pub(crate) number: usize,
    /// The phase, and the position in it.
    pub(super) at: (u8, usize),
    /// What the names are those of, and how they are read.
    pub(crate) targets: Box<[Target]>,
    pub(crate) stage: ChainId,
    /// The variable that holds the list.
    pub(crate) list: Slot,
    noted: Noted,
    /// Chooses what the second link looks at: a pattern, and the slots that it means.
    looked_at: (Arc<NamePattern>, Box<[Slot]>),
    /// Choose what other links look at.
    others: Vec<Arc<NamePattern>>,
}

/// How a name is noted.
#[derive(Debug)]
struct Noted {
    /// What stands before it in the variable's name.
    name: Box<[u8]>,
    before: Box<[u8]>,
    after: Box<[u8]>,
}

impl Lookup {
    /// The lookups of a set.
    pub(super) fn all(set: &RuleSet) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        if !set
            .rules
            .iter()
            .all(|rule| reads_what_it_captured(rule, set))
        {
            return found;
        }
        for (number, phase) in (1u8..).zip(&set.phases) {
            for (position, step) in phase.steps.iter().enumerate() {
                let index = step.rule as usize;
                let lookup = set.rules.get(index).and_then(|rule| Self::of(rule, set));
                if let Some(mut lookup) = lookup
                    && let Some(others) = others(set, index)
                {
                    lookup.at = (number, position);
                    lookup.number = found.len();
                    lookup.others = others;
                    found.push(lookup);
                }
            }
        }
        found
    }

    fn of(rule: &Rule, set: &RuleSet) -> Option<Self> {
        let [notes, looks] = &*rule.links else {
            return None;
        };
        let Some(Operator::Pattern {
            pattern,
            every_match: false,
        }) = set.operator(notes)
        else {
            return None;
        };
        let ([stage], [assign], [], [target], [0]) = (
            &*notes.stages,
            &*notes.assigns,
            &*notes.after,
            &*looks.targets,
            &*looks.stages,
        ) else {
            return None;
        };
        let Some(Operator::Text(TextTest::Within, list)) = set.operator(looks) else {
            return None;
        };
        let [Part::Slot(list)] = *list.0 else {
            return None;
        };
        let looked_at = match &target.chosen {
            Chosen::Pattern(pattern) => (Arc::clone(pattern), Box::default()),
            Chosen::Slots(pattern, slots) => (Arc::clone(pattern), slots.clone()),
            _ => return None,
        };
        let is_read = target.variable == Variable::Tx && !target.count;
        let is_so = pattern.text() == "^.*$"
            && !(notes.negated || notes.measures || looks.negated || looks.measures)
            && notes.capture
            && is_read
            && looks.excluded.is_empty();
        is_so.then_some(())?;
        Some(Self {
            number: 0,
            at: (0, 0),
            targets: notes.targets.clone(),
            stage: *stage,
            list,
            noted: Noted::by(assign)?,
            looked_at,
            others: Vec::new(),
        })
    }

    /// Whether the second link would look at anything that is there already.
    pub(crate) fn finds_others(&self, state: &State) -> bool {
        let (pattern, slots) = &self.looked_at;
        let mut names = state.tx.named().map(|(name, _)| state.texts.get(name));
        slots.iter().any(|&slot| state.tx.get(slot).is_some())
            || names.any(|name| pattern.is_match(name))
    }

    /// Whether a name, as it is read, is not in the list, and to note it would be seen by nobody.
    pub(crate) fn is_clear(&self, set: &RuleSet, list: &[u8], name: &[u8]) -> bool {
        if name.len() > MOST_NAME {
            return false;
        }
        let variable = [&*self.noted.name, name].concat().to_ascii_lowercase();
        let value = [&*self.noted.before, name, &*self.noted.after].concat();
        !value.is_empty()
            && find(list, &value).is_none()
            && !set.slots.contains_key(variable.as_slice())
            && !self.others.iter().any(|other| other.is_match(&variable))
    }
}

impl Noted {
    /// Of an assignment that notes what was captured under its own name.
    fn by(assign: &Assign) -> Option<Self> {
        let (Key::Named(name), Change::Set(value)) = (&assign.key, &assign.change) else {
            return None;
        };
        let [Part::Text(prefix), Part::Slot(0)] = &*name.0 else {
            return None;
        };
        let (before, after): (&[u8], &[u8]) = match &*value.0 {
            [Part::Slot(0)] => (b"", b""),
            [Part::Text(before), Part::Slot(0)] => (before, b""),
            [Part::Slot(0), Part::Text(after)] => (b"", after),
            [Part::Text(before), Part::Slot(0), Part::Text(after)] => (before, after),
            _ => return None,
        };
        (assign.collection == Collection::Tx).then(|| Self {
            name: prefix.clone(),
            before: before.into(),
            after: after.into(),
        })
    }
}

/// The patterns by which the links of other rules choose variables; nothing where one chooses otherwise than
/// by pattern or slot.
fn others(set: &RuleSet, but: usize) -> Option<Vec<Arc<NamePattern>>> {
    let rules = set
        .rules
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != but);
    let links = rules.flat_map(|(_, rule)| &rule.links);
    let mut others = Vec::new();
    for target in links.flat_map(|link| &link.targets) {
        match (target.variable, &target.chosen) {
            (Variable::Tx, Chosen::Pattern(pattern) | Chosen::Slots(pattern, _)) => {
                others.push(Arc::clone(pattern));
            }
            (Variable::Tx, Chosen::Slot(_)) => {}
            (Variable::Tx, _) => return None,
            _ => {}
        }
    }
    Some(others)
}

/// Whether each thing captured that the rule reads is one that it has captured itself. Its messages are not
/// looked at: one that tells what another rule captured tells what came by chance (CRS has one, 954130).
fn reads_what_it_captured(rule: &Rule, set: &RuleSet) -> bool {
    let mut captured = 0;
    rule.links.iter().all(|link| {
        // Values and operands are read before the link captures, all else after.
        let before = captured;
        captured = captured.max(captures(link, set));
        let operand = match set.operator(link) {
            Some(Operator::Number(_, other) | Operator::Text(_, other)) => Some(other),
            _ => None,
        };
        let mut slots = link
            .targets
            .iter()
            .filter_map(|target| match target.chosen {
                Chosen::Slot(slot) if target.variable == Variable::Tx => Some(slot),
                _ => None,
            });
        let mut texts = link
            .assigns
            .iter()
            .flat_map(Assign::texts)
            .chain(link.after.iter().flat_map(After::texts));
        operand.is_none_or(|text| is_known(text, before))
            && !slots.any(|slot| (before..CAPTURES).contains(&slot))
            && texts.all(|text| is_known(text, captured))
    })
}

/// How many slots the link sets when it matches.
fn captures(link: &Link, set: &RuleSet) -> Slot {
    match set.operator(link) {
        _ if !link.capture || link.negated => 0,
        Some(Operator::Pattern { .. }) => CAPTURES,
        Some(
            Operator::Phrases(_)
            | Operator::Text(..)
            | Operator::SqlInjection
            | Operator::Xss
            | Operator::CardNumber(_),
        ) => 1,
        _ => 0,
    }
}

/// Whether the text reads no variable by a name that it makes up, and of what is captured so many slots.
fn is_known(text: &Template, captured: Slot) -> bool {
    text.0.iter().all(|part| match part {
        Part::Slot(slot) => !(captured..CAPTURES).contains(slot),
        Part::Value(variable, _) => *variable != Variable::Tx,
        Part::Text(_) => true,
    })
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
