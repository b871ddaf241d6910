//! Which rules a value could match at all.
//!
//! Owns a filter over texts: from the bytes that occur, the length, and one pass that looks for
//! literals, each text gets the operators that may match it. From these each phase gets the rules
//! that are worth running. It only ever leaves out what cannot match (`tests.rs` proves it on the
//! corpus and on mutations), so that with or without it the verdict is the same.
//! Must not: know what a match does.

mod gate;
mod layer;
mod literals;
mod lookup;
mod need;
mod shape;
mod source;

use std::ops::Range;

use crate::bytes::ByteSet;
use crate::evaluate::{ByBytes, Content, Looks, Seen, State, TextId, Value, Workbench};
use crate::operator::Operator;
use crate::rule::{Bits, Chain, ChainId, Phase, Presets, Rule, RuleSet, Target};
use gate::{Course, Gates};
use layer::{Layer, layer};
use literals::Literals;
pub(crate) use lookup::Lookup;
use need::need;
pub(crate) use shape::{Literal, MOST_BYTES, MOST_MASKS, Needs};
use source::{PhaseFilter, Reach, Source, is_filtered};

/// Lengths that are told apart; a longer text is as long as this.
const MOST_LENGTH: usize = 32;

/// The rules of a phase and the values that they are worth running for.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    /// By position, then source, then as the values were sent.
    pub(crate) wakers: Vec<Waker>,
    pub(crate) values: Vec<Value>,
}

/// A rule, and a value that wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Waker {
    /// Of the rule in its phase.
    pub(crate) position: u32,
    /// Its place in the phase.
    pub(crate) source: u16,
    /// Its place among the values.
    pub(crate) value: u32,
}

/// The filter of a rule set.
#[derive(Debug, Default)]
pub(crate) struct Prefilter {
    /// The probe of each operator that is filtered.
    probes: Vec<Option<u16>>,
    pub(crate) words: usize,
    layers: Vec<Layer>,
    /// The masks of each probe, which the layers hold by byte.
    masks: Vec<Box<[ByteSet]>>,
    /// Bytes that any layer asks for.
    loud: ByteSet,
    /// Bytes that no mask tells from each other, where there are many.
    alike: Vec<ByteSet>,
    /// No layer tells a letter from its other case, and no literal does: a text has the candidates that
    /// it has in lower case.
    pub(crate) cases_alike: bool,
    /// No mask and no trigger of a transformation tells one small letter, capital or digit from another.
    is_plain: bool,
    /// The probes that a text of this length may match.
    lengths: Vec<Bits>,
    literals: Literals,
    phases: [PhaseFilter; 5],
    course: Course,
    /// Few, if any.
    lookups: Vec<Lookup>,
}

impl Prefilter {
    /// The filter of a set, whose phase 1 begins after the `constant` rules have been run. `patterns` are
    /// the needs of those operators that are patterns.
    pub(crate) fn new(set: &RuleSet, patterns: Vec<Option<Needs>>, constant: &Bits) -> Self {
        let RuleSet {
            rules,
            phases,
            operators,
            chains,
            ..
        } = set;
        let mut filter = Self::of_operators(operators, patterns, rules);
        for (place, phase) in phases.iter().enumerate() {
            let mut made = filter.phase(phase, rules, chains);
            made.gates = Gates::new(phase, rules, operators);
            if let Some(slot) = filter.phases.get_mut(place) {
                *slot = made;
            }
        }
        filter.is_plain = filter.masks.iter().flatten().all(ByteSet::is_plain)
            && chains.iter().all(|chain| chain.triggers.is_plain());
        let [first, ..] = &mut filter.phases;
        for (word, constant) in first.always.0.iter_mut().zip(&constant.0) {
            *word &= !constant;
        }
        let sources = filter
            .phases
            .iter_mut()
            .flat_map(|phase| &mut phase.sources);
        for (number, source) in (0..u16::MAX).zip(sources) {
            source.number = number;
        }
        filter.course = Course::of(set);
        filter.lookups = Lookup::all(set);
        filter
    }

    /// The steps of each phase that requests with these presets may reach.
    pub(crate) fn reached(&self, set: &RuleSet, presets: &Presets) -> [Bits; 5] {
        let mut phases = set.phases.iter().zip(&self.phases);
        std::array::from_fn(|_| {
            let phase = phases.next();
            phase.map_or_else(Bits::default, |(phase, filter)| {
                self.course.reached(phase, &filter.gates, presets)
            })
        })
    }

    /// The skips, by rule, that `reached` has followed: where one of them is removed, it does not hold.
    pub(crate) fn followed(&self) -> &Bits {
        &self.course.skips
    }

    /// Whether the rule at the position cannot match, as the request is now.
    #[inline]
    pub(crate) fn is_shut(&self, number: u8, position: usize, state: &State) -> bool {
        let phase = self.phases.get(usize::from(number) - 1);
        phase.is_some_and(|phase| phase.gates.is_shut(position, state))
    }

    /// What the rule at the position is, where it only looks names up.
    #[inline]
    pub(crate) fn lookup(&self, number: u8, position: usize) -> Option<&Lookup> {
        let mut lookups = self.lookups.iter();
        lookups.find(|lookup| lookup.at == (number, position))
    }

    /// How many lookups there are.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.len()
    }

    /// The probes of the operators, without what a phase looks at.
    fn of_operators(operators: &[Operator], patterns: Vec<Option<Needs>>, rules: &[Rule]) -> Self {
        let mut needs: Vec<Needs> = Vec::new();
        let mut probes = Vec::with_capacity(operators.len());
        for (operator, pattern) in operators.iter().zip(patterns) {
            probes.push(pattern.or_else(|| need(operator)).and_then(|need| {
                let probe = u16::try_from(needs.len()).ok()?;
                needs.push(need);
                Some(probe)
            }));
        }
        // What is only looked for in responses is not worth a place in the one pass over requests.
        for probe in response_only(rules, &probes, needs.len()) {
            if let Some(need) = needs.get_mut(probe) {
                need.literals = None;
            }
        }
        let layers: Vec<Layer> = (0..MOST_MASKS)
            .filter_map(|place| layer(&needs, place))
            .collect();
        Self {
            loud: layers
                .iter()
                .fold(ByteSet::EMPTY, |all, layer| all.union(&layer.loud)),
            alike: layer::alike(&needs),
            cases_alike: layers.iter().all(Layer::treats_cases_alike),
            layers,
            is_plain: false,
            masks: needs
                .iter()
                .map(|need| need.masks.clone().into_boxed_slice())
                .collect(),
            lengths: (0..=MOST_LENGTH)
                .map(|length| those(&needs, |need| need.length.min(MOST_LENGTH) <= length))
                .collect(),
            literals: Literals::new(&needs),
            words: needs.len().div_ceil(64),
            probes,
            phases: std::array::from_fn(|_| PhaseFilter::default()),
            course: Course::default(),
            lookups: Vec::new(),
        }
    }

    fn phase(&self, phase: &Phase, rules: &[Rule], chains: &[Chain]) -> PhaseFilter {
        let mut made = PhaseFilter {
            always: Bits::with_room_for(phase.steps.len()),
            sources: Vec::new(),
            looked_at: vec![Vec::new(); phase.steps.len()],
            gates: Gates::default(),
        };
        for (position, step) in phase.steps.iter().enumerate() {
            let Some(link) = rules
                .get(step.rule as usize)
                .and_then(|rule| rule.links.first())
            else {
                continue;
            };
            let probe = link.operator.and_then(|operator| self.probe(operator));
            match probe.filter(|_| is_filtered(link)) {
                None => made.always.set(position),
                Some(probe) => {
                    for target in &link.targets {
                        let source = made.source(target, self.words);
                        made.look_at(position, source);
                        for stage in &link.stages {
                            let Some(chain) = chains.get(usize::from(*stage)) else {
                                continue;
                            };
                            if !made.reach(source, (*stage, chain), probe, position) {
                                made.always.set(position);
                            }
                        }
                    }
                }
            }
        }
        made
    }

    /// The probe of an operator that is filtered.
    pub(crate) fn probe(&self, operator: u16) -> Option<u16> {
        self.probes.get(usize::from(operator)).copied().flatten()
    }

    /// The probes that may match a text, one bit each.
    pub(crate) fn candidates(
        &self,
        text: &[u8],
        bytes: &ByteSet,
        found: &mut [u64],
        open: &mut Vec<u64>,
        by_bytes: &mut ByBytes,
    ) {
        match self.lengths.get(text.len().min(MOST_LENGTH)) {
            Some(by_length) => found.copy_from_slice(&by_length.0),
            None => return,
        }
        let mut loud = bytes.intersection(&self.loud);
        for alike in &self.alike {
            loud = loud.with_one_of(alike);
        }
        by_bytes.narrow(loud, found, |left| {
            for layer in &self.layers {
                layer.narrow(&loud, left, open);
            }
        });
        self.literals.narrow(text, found, open);
    }

    /// Whether the operator of the probe may match the text.
    pub(crate) fn may_match(
        &self,
        probe: u16,
        state: &mut State,
        seen: &mut Seen,
        text: TextId,
    ) -> bool {
        let candidates = state.texts.candidates(text, self, seen);
        candidates
            .get(usize::from(probe) / 64)
            .is_some_and(|word| word >> (probe % 64) & 1 == 1)
    }

    /// The rules of a phase that are worth running, by position; and of those that are only run for some
    /// text, which texts.
    pub(crate) fn live(
        &self,
        set: &RuleSet,
        number: u8,
        state: &mut State,
        bench: &mut Workbench,
        (live, woken): (&mut Bits, &mut Wakers),
    ) {
        let Some(phase) = self.phases.get(usize::from(number) - 1) else {
            return;
        };
        live.0.clear();
        live.0.extend_from_slice(&phase.always.0);
        woken.wakers.clear();
        woken.values.clear();
        let mut values: Vec<Value> = bench.take_values();
        let mut positions = bench.take_positions();
        for (at, source) in (0..u16::MAX).zip(&phase.sources) {
            values.clear();
            state.collect(set, &source.target, &mut values);
            for value in &values {
                let Content::Text(id) = value.content else {
                    continue;
                };
                let seen = &mut bench.seen;
                positions.clear();
                let spot = state.texts.spot(id, seen);
                if !spot.is_some_and(|spot| seen.woken(spot, source.number, &mut positions)) {
                    self.look(set, source, (state, seen), id, &mut positions);
                    positions.sort_unstable();
                    positions.dedup();
                    if let Some(spot) = state.texts.spot(id, seen) {
                        seen.note(spot, source.number, &positions);
                    }
                }
                if positions.is_empty() {
                    continue;
                }
                woken.values.push(*value);
                let value = u32::try_from(woken.values.len() - 1).unwrap_or(u32::MAX);
                for &position in &positions {
                    live.set(position as usize);
                    woken.wakers.push(Waker {
                        position,
                        source: at,
                        value,
                    });
                }
            }
        }
        woken.wakers.sort_unstable();
        bench.give_values(values);
        bench.give_positions(positions);
    }

    /// Where a rule's first link looks, a source of the phase for each target; nothing where the rule is
    /// run whatever the values are.
    pub(crate) fn looked_at(&self, number: u8, position: usize) -> Option<&[u16]> {
        let phase = self.phases.get(usize::from(number) - 1)?;
        let looked_at = phase.looked_at.get(position)?;
        (!phase.always.has(position)).then_some(looked_at)
    }

    /// The sources of a phase, by number.
    pub(crate) fn sources(&self, number: u8) -> Range<u16> {
        let phase = self.phases.get(usize::from(number) - 1);
        let sources = phase.map(|phase| phase.sources.as_slice());
        match sources {
            Some([first, .., last]) => first.number..last.number + 1,
            Some([only]) => only.number..only.number + 1,
            _ => 0..0,
        }
    }

    fn look(
        &self,
        set: &RuleSet,
        source: &Source,
        (state, seen): (&mut State, &mut Seen),
        id: TextId,
        woken: &mut Vec<u32>,
    ) {
        let bytes = state.texts.bytes_of(id);
        let bytes = if self.is_plain {
            bytes.with_one_of_each()
        } else {
            bytes
        };
        let Looks { changed, open } = seen.looks(bytes, source.number, || {
            self.looks(source, &set.chains, bytes)
        });
        // The chains that leave the text as it is share one look at it.
        let candidates = state.texts.candidates(id, self, seen);
        hits(candidates, &source.probes, |probe| {
            source.wake(probe, !changed, woken);
        });
        let mut rest = open;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest - 1;
            if let Some(reach) = source.chains.get(place as usize) {
                let text = state.texts.transformed(&set.chains, id, reach.chain);
                if text != id && !self.is_any_open(reach, &state.texts.bytes_of(text)) {
                    continue;
                }
                let candidates = state.texts.candidates(text, self, seen);
                hits(candidates, &reach.probes, |probe| {
                    source.wake(probe, 1 << place, woken);
                });
            }
        }
    }

    /// The chains that may change a text of these bytes, and those of them after which the masks of some
    /// probe may be satisfied: most are looked at by a rule or two, which want other bytes.
    fn looks(&self, source: &Source, chains: &[Chain], bytes: ByteSet) -> Looks {
        let changed = source.changed_by(&bytes);
        let mut open = changed;
        for (place, reach) in source.chains.iter().enumerate() {
            if changed >> place & 1 == 1
                && !self.is_any_open(reach, &leaves(chains, reach.chain, bytes))
            {
                open &= !(1 << place);
            }
        }
        Looks { changed, open }
    }

    /// Whether a text of these bytes satisfies the masks of any of the probes.
    fn is_any_open(&self, reach: &Reach, bytes: &ByteSet) -> bool {
        reach.listed.iter().any(|&probe| {
            self.masks
                .get(usize::from(probe))
                .is_none_or(|masks| masks.iter().all(|mask| mask.intersects(bytes)))
        })
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::memory).sum();
        let sources = self.phases.iter().flat_map(|phase| &phase.sources);
        let sources: usize = sources.map(Source::memory).sum();
        layers + sources + self.literals.memory()
    }
}

/// The bytes that the list of transformations may leave of these.
fn leaves(chains: &[Chain], chain: ChainId, bytes: ByteSet) -> ByteSet {
    match chains.get(usize::from(chain)) {
        Some(Chain {
            before,
            last: Some(last),
            last_triggers,
            ..
        }) => last.leaves(last_triggers, &leaves(chains, *before, bytes)),
        _ => bytes,
    }
}

/// Calls `hit` with each candidate that is among the probes.
#[inline]
fn hits(candidates: &[u64], probes: &Bits, mut hit: impl FnMut(u16)) {
    for (place, (found, wanted)) in (0u16..).zip(candidates.iter().zip(&probes.0)) {
        let mut both = found & wanted;
        while both != 0 {
            let bit = both.trailing_zeros();
            hit(place * 64 + u16::try_from(bit).unwrap_or_default());
            both &= both - 1;
        }
    }
}

/// The probes that rules use on responses and on nothing else.
fn response_only(rules: &[Rule], probes: &[Option<u16>], count: usize) -> Vec<usize> {
    let (mut on_request, mut on_response) =
        (Bits::with_room_for(count), Bits::with_room_for(count));
    for link in rules.iter().flat_map(|rule| &rule.links) {
        let is_response = |target: &Target| target.variable.name().starts_with("RESPONSE_");
        let probe = link
            .operator
            .and_then(|operator| probes.get(usize::from(operator)).copied().flatten());
        let side = if link.targets.iter().all(is_response) {
            &mut on_response
        } else {
            &mut on_request
        };
        if let Some(probe) = probe {
            side.set(usize::from(probe));
        }
    }
    (0..count)
        .filter(|&probe| on_response.has(probe) && !on_request.has(probe))
        .collect()
}

fn those(needs: &[Needs], is_one: impl Fn(&Needs) -> bool) -> Bits {
    let mut bits = Bits::with_room_for(needs.len());
    for (probe, _) in needs.iter().enumerate().filter(|(_, need)| is_one(need)) {
        bits.set(probe);
    }
    bits
}

#[cfg(test)]
pub(crate) mod tests;
