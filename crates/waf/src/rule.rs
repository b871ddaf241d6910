//! A rule set as it is judged by: every name resolved, every text split, nothing left to look up.
//!
//! Owns the data that `compile` makes and `evaluate` reads. Immutable, shared by all workers, no
//! locks. Must not: hold anything of one request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::body::Processor;
use crate::operator::{NamePattern, Operator};
use crate::prefilter::Prefilter;
use crate::seclang::{Collection, Disruption, EngineMode, LoadError, NumberTest, Variable};
use crate::transform::Transform;

/// Rules of a set, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bits(pub(crate) Vec<u64>);

impl Bits {
    pub(crate) fn with_room_for(bits: usize) -> Self {
        Self(vec![0; bits.div_ceil(64)])
    }

    #[inline]
    pub(crate) fn set(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(crate) fn clear(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word &= !(1 << (bit % 64));
        }
    }

    /// Whether a bit is in both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let mut words = self.0.iter().zip(&other.0);
        words.any(|(word, other)| word & other != 0)
    }

    /// Whether each bit of the other is in it.
    pub(crate) fn has_all(&self, other: &Self) -> bool {
        let words = |place: usize| self.0.get(place).copied().unwrap_or_default();
        let mut others = other.0.iter().enumerate();
        others.all(|(place, other)| other & !words(place) == 0)
    }

    #[inline]
    pub(crate) fn has(&self, bit: usize) -> bool {
        self.0
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// The first bit at or after `from`.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        let mut word = self.0.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.0.get(index)?;
        }
        Some(index * 64 + word.trailing_zeros() as usize)
    }
}

/// A TX variable that some rule names.
pub(crate) type Slot = u16;
/// A list of transformations; 0 is the empty one.
pub(crate) type ChainId = u16;
/// An operator of the set.
pub(crate) type OperatorId = u16;

/// A name that some target chooses by; 0 is any other.
pub(crate) type NameId = u16;

/// The names that targets choose by, so that what a client sends is compared once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: ByName<NameId>,
    /// The lengths that occur, one bit each.
    lengths: u64,
}

/// A map by the rule set's own names, found by a hash that is quick: who asks for names of his own
/// making cannot make any of these collide.
pub(crate) type ByName<T> = HashMap<Box<[u8]>, T, BuildHasherDefault<Mixed>>;

/// The hash.
#[derive(Default)]
pub(crate) struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let rest = rest.iter().fold(bytes.len() as u64, |rest, &byte| {
            rest << 8 | u64::from(byte)
        });
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        for word in words.chain([rest]) {
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.0 ^= number as u64;
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Longer names are not worth telling apart by number.
const MOST_NAME: usize = 63;

impl Names {
    /// The number of a name in lower case.
    pub(crate) fn intern(&mut self, name: &[u8]) -> NameId {
        let next = NameId::try_from(self.ids.len() + 1).unwrap_or(NameId::MAX);
        self.lengths |= 1 << name.len().min(MOST_NAME);
        *self.ids.entry(name.into()).or_insert(next)
    }

    /// The number of a name in any case.
    pub(crate) fn find(&self, name: &[u8]) -> NameId {
        if self.lengths >> name.len().min(MOST_NAME) & 1 == 0 {
            return 0;
        }
        let mut lower = [0u8; MOST_NAME];
        let found = match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                self.ids.get(&*lower)
            }
            None => self.ids.get(name.to_ascii_lowercase().as_slice()),
        };
        found.copied().unwrap_or(0)
    }
}

/// A text with macros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template(pub(crate) Box<[Part]>);

/// One part of a text with macros.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(Box<[u8]>),
    Slot(Slot),
    Value(Variable, Option<Box<str>>),
}

impl Template {
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match &*self.0 {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Which values of a variable are meant.
#[derive(Clone, Debug)]
pub(crate) enum Chosen {
    All,
    /// By name.
    Name(NameId, Box<[u8]>),
    /// By a TX variable's slot.
    Slot(Slot),
    /// By pattern.
    Pattern(Arc<NamePattern>),
    /// TX variables by pattern, of which those with a slot are known beforehand.
    Slots(Arc<NamePattern>, Box<[Slot]>),
    XmlText,
    XmlAttributes,
}

/// One target.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) variable: Variable,
    pub(crate) chosen: Chosen,
    pub(crate) count: bool,
}

/// A variable that a rule changes.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    Slot(Slot),
    Named(Template),
}

/// What becomes of it.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    SetNumber(i64),
    Set(Template),
    Add(Template),
    Subtract(Template),
    Remove,
}

impl Change {
    /// The text that it takes, if it takes one.
    pub(crate) fn text(&self) -> Option<&Template> {
        match self {
            Self::Set(text) | Self::Add(text) | Self::Subtract(text) => Some(text),
            Self::SetNumber(_) | Self::Remove => None,
        }
    }
}

/// `setvar`.
#[derive(Clone, Debug)]
pub(crate) struct Assign {
    pub(crate) collection: Collection,
    pub(crate) key: Key,
    pub(crate) change: Change,
}

impl Assign {
    /// The texts that it reads: of its name, and of what it sets.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Template> {
        let name = match &self.key {
            Key::Named(name) => Some(name),
            Key::Slot(_) => None,
        };
        name.into_iter().chain(self.change.text())
    }
}

/// What a rule does once when it has matched as a whole.
#[derive(Clone, Debug)]
pub(crate) enum After {
    RemoveRules(Bits),
    RemoveTargets(Arc<Removal>),
    Engine(EngineMode),
    Processor(Processor),
    ForceRequestBody(bool),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
    Audit(bool),
    Expire(Collection, Template, Template),
    Open(Collection, Template),
    SetEnv(Box<str>, Template),
    HideMatched,
    Hide(Variable, Box<[u8]>),
    /// So many rules of the phase are passed over.
    Skip(u32),
    /// The next rule is the one at this position of the phase.
    GoTo(u32),
}

impl After {
    /// The texts that it reads.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Template> {
        let texts = match self {
            Self::Expire(_, name, seconds) => [Some(name), Some(seconds)],
            Self::Open(_, text) | Self::SetEnv(_, text) => [Some(text), None],
            _ => [None, None],
        };
        texts.into_iter().flatten()
    }

    /// The rules that it takes out of the request.
    pub(crate) fn removes(&self) -> Option<&Bits> {
        match self {
            Self::RemoveRules(rules) => Some(rules),
            _ => None,
        }
    }
}

/// Targets that some rules lose.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) rules: Bits,
    pub(crate) targets: Vec<Target>,
}

/// One rule of a chain.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) targets: Box<[Target]>,
    pub(crate) excluded: Box<[Target]>,
    /// The stages that are looked at: the last alone but for `multiMatch`.
    pub(crate) stages: Box<[ChainId]>,
    /// The last stage is the length of the one before it, and is compared as a number.
    pub(crate) measures: bool,
    pub(crate) operator: Option<OperatorId>,
    pub(crate) negated: bool,
    pub(crate) capture: bool,
    pub(crate) message: Option<Template>,
    pub(crate) log_data: Option<Template>,
    pub(crate) severity: Option<u8>,
    pub(crate) assigns: Box<[Assign]>,
    pub(crate) after: Box<[After]>,
}

/// A rule, its chain included.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: u64,
    pub(crate) phase: u8,
    pub(crate) tags: Box<[Box<str>]>,
    pub(crate) logged: bool,
    pub(crate) audited: bool,
    /// Never `Block`: what the phase's default says is in its place.
    pub(crate) disruption: Disruption,
    pub(crate) redirect: Option<Template>,
    pub(crate) status: u16,
    /// Never empty.
    pub(crate) links: Box<[Link]>,
}

/// How a list of transformations is reached: the list before its last, and the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) before: ChainId,
    pub(crate) last: Option<Transform>,
    /// A value without any of these bytes passes the whole list unchanged.
    pub(crate) triggers: crate::bytes::ByteSet,
    /// The same of the last transformation alone.
    pub(crate) last_triggers: crate::bytes::ByteSet,
    /// The list changes every value, the empty one too.
    pub(crate) always: bool,
}

/// What the settings of the files say.
#[allow(clippy::struct_excessive_bools)] // Each is one directive.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(crate) engine: EngineMode,
    /// Whether request bodies are read and judged.
    pub request_body: bool,
    /// Whether response bodies are read and judged.
    pub response_body: bool,
    pub(crate) argument_separator: u8,
    pub(crate) arguments: u32,
    pub(crate) json_depth: u32,
    /// Bytes of a request body that are judged.
    pub request_body_limit: u64,
    /// Bytes of a response body that are judged.
    pub response_body_limit: u64,
    /// Whether a longer request body is refused (or judged up to the limit).
    pub refuses_long_request: bool,
    /// Whether a longer response body is refused (or judged up to the limit).
    pub refuses_long_response: bool,
    pub(crate) collection_timeout: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: EngineMode::Off,
            request_body: true,
            response_body: false,
            argument_separator: b'&',
            arguments: 1000,
            json_depth: 512,
            request_body_limit: 13_107_200,
            response_body_limit: 524_288,
            refuses_long_request: true,
            refuses_long_response: false,
            collection_timeout: 3600,
        }
    }
}

/// The rules of one phase, in order.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    pub(crate) steps: Vec<Step>,
}

/// One step of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) rule: u32,
    pub(crate) guard: Option<Guard>,
}

/// A rule that only compares a TX variable and skips, as CRS does for each paranoia level. There
/// are so many that they are worth a road of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub(crate) slot: Slot,
    pub(crate) test: NumberTest,
    pub(crate) bound: i64,
    /// The position of the phase to go to.
    pub(crate) to: u32,
}

impl Step {
    pub(crate) fn new(index: u32, rule: &Rule, operators: &[Operator]) -> Self {
        Self {
            rule: index,
            guard: Guard::of(rule, operators),
        }
    }
}

impl Guard {
    fn of(rule: &Rule, operators: &[Operator]) -> Option<Self> {
        let [link] = &*rule.links else { return None };
        let ([target], [After::GoTo(to)], [0]) = (&*link.targets, &*link.after, &*link.stages)
        else {
            return None;
        };
        let Operator::Number(test, bound) = operators.get(usize::from(link.operator?))? else {
            return None;
        };
        let bound = crate::bytes::leading_number(bound.literal()?);
        let Chosen::Slot(slot) = target.chosen else {
            return None;
        };
        let plain =
            !target.count && !link.negated && link.assigns.is_empty() && link.excluded.is_empty();
        let silent = !rule.logged && !rule.audited && rule.disruption == Disruption::Pass;
        (plain && silent).then_some(Self {
            slot,
            test: *test,
            bound,
            to: *to,
        })
    }
}

/// A compiled rule set.
#[derive(Debug)]
pub struct RuleSet {
    /// A number that no other rule set of the process has, from 1.
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    pub(crate) rules: Vec<Rule>,
    pub(crate) phases: [Phase; 5],
    pub(crate) operators: Vec<Operator>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) slots: ByName<Slot>,
    pub(crate) slot_names: Vec<Box<[u8]>>,
    pub(crate) names: Arc<Names>,
    pub(crate) patterns: usize,
    pub(crate) prefilter: Prefilter,
    /// What TX variables hold before the first rule of a request.
    pub(crate) presets: Presets,
    /// The positions in phase 1 of the rules that made them, which are not run again.
    pub(crate) constant: Bits,
    /// The highest paranoia level whose rules are in the set.
    pub(crate) ceiling: Option<u8>,
    pub(crate) warnings: Vec<LoadError>,
}

/// What TX variables hold before any request.
#[derive(Debug)]
pub(crate) struct Presets {
    /// A number that no others have, by which a worker knows them again.
    pub(crate) number: u64,
    pub(crate) values: Vec<(Slot, Preset)>,
    /// The steps of each phase that a request may reach, once `fit` was asked for.
    pub(crate) reached: [Bits; 5],
}

impl Presets {
    pub(crate) fn new(values: Vec<(Slot, Preset)>) -> Self {
        Self {
            number: unique(),
            values,
            reached: std::array::from_fn(|_| Bits::default()),
        }
    }

    /// The same, with the steps of the set that requests may reach from here.
    pub(crate) fn fit(mut self, set: &RuleSet) -> Self {
        self.reached = set.prefilter.reached(set, &self);
        self
    }
}

/// A number that was not given before, from 1.
pub(crate) fn unique() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// A value that is there before any request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    Number(i64),
    Text(Box<[u8]>),
}

impl RuleSet {
    /// What the files say of the engine itself.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What has no effect in this set, such as the removal of a rule that is not in it.
    pub fn warnings(&self) -> &[LoadError] {
        &self.warnings
    }

    /// Whether there is a rule of this id.
    pub fn has(&self, id: u64) -> bool {
        self.rules.iter().any(|rule| rule.id == id)
    }

    /// The operator of a link, if it has one.
    pub(crate) fn operator(&self, link: &Link) -> Option<&Operator> {
        self.operators.get(usize::from(link.operator?))
    }

    /// The number of rules, each chain counted as one.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Bytes that the patterns that are compiled, lists and filters take: nearly all that the set does.
    pub fn memory_usage(&self) -> usize {
        let operators: usize = self.operators.iter().map(Operator::memory).sum();
        operators + self.prefilter.memory()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}
