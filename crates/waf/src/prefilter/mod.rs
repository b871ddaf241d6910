//! Which rules a value could match at all.
//!
//! Owns a filter over texts: from the bytes that occur, the length, and one pass that looks for
//! literals, each text gets the operators that may match it. From these each phase gets the rules
//! that are worth running. It only ever leaves out what cannot match (`tests.rs` proves it on the
//! corpus and on mutations), so that with or without it the verdict is the same. It is blind to the
//! case of ASCII letters, so that a text and its lower case are looked at once.
//! Must not: know what a match does.

mod literals;
mod shape;

use regex_syntax::hir::Hir;

use crate::bytes::ByteSet;
use crate::evaluate::{Content, State, TextId, Value, Workbench};
use crate::operator::Operator;
use crate::rule::{Bits, Chain, ChainId, Chosen, Link, Phase, Rule, RuleSet, Target};
use crate::seclang::{TextTest, Variable};
use literals::Literals;
use shape::{MOST_MASKS, Needs};

/// Lengths that are told apart; a longer text is as long as this.
const MOST_LENGTH: usize = 32;

/// The filter of a rule set.
#[derive(Debug, Default)]
pub(crate) struct Prefilter {
    /// The probe of each operator that is filtered.
    probes: Vec<Option<u16>>,
    pub(crate) words: usize,
    layers: Vec<Layer>,
    /// The probes that a text of this length may match.
    lengths: Vec<Bits>,
    literals: Literals,
    phases: [PhaseFilter; 5],
}

/// One requirement of bytes for each probe.
#[derive(Debug)]
struct Layer {
    /// Probes without a mask in this layer.
    free: Bits,
    /// Bytes that are in any mask.
    loud: ByteSet,
    /// The probes whose mask a byte is in: a block of words for each loud byte, in order.
    blocks: Vec<u64>,
    /// The place of a byte's block.
    block_of: Box<[u8; 256]>,
}

/// What a phase looks at.
#[derive(Debug, Default)]
struct PhaseFilter {
    /// Rules that are run whatever the values are.
    always: Bits,
    sources: Vec<Source>,
}

/// A target, and what is done with its values.
#[derive(Debug)]
struct Source {
    target: Target,
    /// The triggers of all chains together.
    triggers: ByteSet,
    /// The chains that a byte triggers, one bit for each of `chains`.
    triggered: Box<[u64; 256]>,
    /// The chains that change every value.
    always: u64,
    /// The probes of all chains together.
    probes: Bits,
    chains: Vec<Reach>,
    /// Rules by probe and place among `chains`.
    rules: Vec<(u16, u8, u32)>,
}

/// Chains of one target that are told apart; rules with those beyond are always run.
const MOST_CHAINS: usize = 64;

/// The probes that look at a target after a chain.
#[derive(Debug)]
struct Reach {
    chain: ChainId,
    probes: Bits,
}

impl Prefilter {
    pub(crate) fn new(
        rules: &[Rule],
        phases: &[Phase; 5],
        operators: &[Operator],
        shapes: &[Option<Hir>],
        chains: &[Chain],
    ) -> Self {
        let mut needs: Vec<Needs> = Vec::new();
        let mut probes = Vec::with_capacity(operators.len());
        for (operator, hir) in operators.iter().zip(shapes) {
            probes.push(need(operator, hir.as_ref()).and_then(|need| {
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
        let words = needs.len().div_ceil(64);
        let mut filter = Self {
            layers: (0..MOST_MASKS).filter_map(|place| layer(&needs, place)).collect(),
            lengths: (0..=MOST_LENGTH).map(|length| those(&needs, |need| need.length.min(MOST_LENGTH) <= length)).collect(),
            literals: Literals::new(&needs),
            probes,
            words,
            phases: std::array::from_fn(|_| PhaseFilter::default()),
        };
        for (place, phase) in phases.iter().enumerate() {
            let made = filter.phase(phase, rules, chains);
            if let Some(slot) = filter.phases.get_mut(place) {
                *slot = made;
            }
        }
        filter
    }

    fn phase(&self, phase: &Phase, rules: &[Rule], chains: &[Chain]) -> PhaseFilter {
        let mut made = PhaseFilter { always: Bits::with_room_for(phase.steps.len()), sources: Vec::new() };
        for (position, step) in phase.steps.iter().enumerate() {
            let Some(link) = rules.get(step.rule as usize).and_then(|rule| rule.links.first()) else { continue };
            let probe = link.operator.and_then(|operator| self.probe(operator));
            match probe.filter(|_| is_filtered(link)) {
                None => made.always.set(position),
                Some(probe) => {
                    for (target, stage) in link.targets.iter().flat_map(|target| link.stages.iter().map(move |stage| (target, stage))) {
                        let Some(chain) = chains.get(usize::from(*stage)) else { continue };
                        if !made.reach(target, (*stage, chain), probe, position, self.words) {
                            made.always.set(position);
                        }
                    }
                }
            }
        }
        made
    }

    fn probe(&self, operator: u16) -> Option<u16> {
        self.probes.get(usize::from(operator)).copied().flatten()
    }

    /// The probes that may match a text, one bit each.
    pub(crate) fn candidates(&self, text: &[u8], bytes: &ByteSet, found: &mut [u64], open: &mut Vec<u64>) {
        match self.lengths.get(text.len().min(MOST_LENGTH)) {
            Some(by_length) => found.copy_from_slice(&by_length.0),
            None => return,
        }
        for layer in &self.layers {
            layer.narrow(bytes, found, open);
        }
        self.literals.narrow(text, found, open);
    }

    /// Whether the operator may match the text.
    pub(crate) fn may_match(&self, operator: u16, state: &mut State, text: TextId) -> bool {
        let Some(probe) = self.probe(operator) else { return true };
        let candidates = state.texts.candidates(text, self);
        candidates.get(usize::from(probe) / 64).is_some_and(|word| word >> (probe % 64) & 1 == 1)
    }

    /// The rules of a phase that are worth running, by position.
    pub(crate) fn live(&self, set: &RuleSet, number: u8, state: &mut State, bench: &mut Workbench, live: &mut Bits) {
        let Some(phase) = self.phases.get(usize::from(number) - 1) else { return };
        live.0.clear();
        live.0.extend_from_slice(&phase.always.0);
        let mut values: Vec<Value> = bench.take_values();
        for source in &phase.sources {
            values.clear();
            state.collect(set, &source.target, &mut values);
            for value in &values {
                if let Content::Text(id) = value.content {
                    self.look(set, source, state, id, live);
                }
            }
        }
        bench.give_values(values);
    }

    fn look(&self, set: &RuleSet, source: &Source, state: &mut State, id: TextId, live: &mut Bits) {
        let changed = source.changed_by(&state.texts.bytes_of(id));
        // The chains that leave the text as it is share one look at it.
        self.hits(state, id, &source.probes, |probe| source.wake(probe, !changed, live));
        let mut rest = changed;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest - 1;
            if let Some(reach) = source.chains.get(place as usize) {
                let text = state.texts.transformed(&set.chains, id, reach.chain);
                self.hits(state, text, &reach.probes, |probe| source.wake(probe, 1 << place, live));
            }
        }
    }

    fn hits(&self, state: &mut State, text: TextId, probes: &Bits, mut hit: impl FnMut(u16)) {
        let candidates = state.texts.candidates(text, self);
        for (place, (found, wanted)) in (0u16..).zip(candidates.iter().zip(&probes.0)) {
            let mut both = found & wanted;
            while both != 0 {
                let bit = both.trailing_zeros();
                hit(place * 64 + u16::try_from(bit).unwrap_or_default());
                both &= both - 1;
            }
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let layers: usize = self.layers.iter().map(|layer| layer.blocks.len() * 8).sum();
        let sources = self.phases.iter().flat_map(|phase| &phase.sources);
        let sources: usize =
            sources.map(|source| 2048 + source.rules.len() * 8 + source.chains.len() * (self.words * 8 + 32)).sum();
        layers + sources + self.literals.memory()
    }
}

impl Layer {
    fn narrow(&self, bytes: &ByteSet, found: &mut [u64], open: &mut Vec<u64>) {
        let words = found.len();
        open.clear();
        open.extend_from_slice(&self.free.0);
        bytes.intersection(&self.loud).visit(|byte| {
            let block = usize::from(self.block_of.get(usize::from(byte)).copied().unwrap_or_default()) * words;
            for (word, more) in open.iter_mut().zip(self.blocks.get(block..block + words).unwrap_or_default()) {
                *word |= more;
            }
        });
        for (word, open) in found.iter_mut().zip(open.iter()) {
            *word &= open;
        }
    }
}

impl PhaseFilter {
    /// Notes a look at a target. Whether there was room to.
    fn reach(&mut self, target: &Target, chain: (ChainId, &Chain), probe: u16, position: usize, words: usize) -> bool {
        let target = widened(target);
        let at = self.sources.iter().position(|source| is_same(&source.target, &target)).unwrap_or_else(|| {
            self.sources.push(Source::new(target, words));
            self.sources.len() - 1
        });
        self.sources.get_mut(at).is_some_and(|source| source.reach(chain, probe, position, words))
    }
}

impl Source {
    fn new(target: Target, words: usize) -> Self {
        Self {
            target,
            triggers: ByteSet::EMPTY,
            triggered: Box::new([0; 256]),
            always: 0,
            probes: Bits(vec![0; words]),
            chains: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Notes that a rule looks at the target with a probe after a chain. Whether there was room to.
    fn reach(&mut self, (id, chain): (ChainId, &Chain), probe: u16, position: usize, words: usize) -> bool {
        let known = self.chains.iter().position(|reach| reach.chain == id);
        if known.is_none() && self.chains.len() >= MOST_CHAINS {
            return false;
        }
        let place = known.unwrap_or_else(|| {
            self.chains.push(Reach { chain: id, probes: Bits(vec![0; words]) });
            let place = self.chains.len() - 1;
            self.add_triggers(place, chain);
            place
        });
        if let Some(reach) = self.chains.get_mut(place) {
            reach.probes.set(usize::from(probe));
        }
        self.probes.set(usize::from(probe));
        let entry = (probe, u8::try_from(place).unwrap_or(u8::MAX), u32::try_from(position).unwrap_or_default());
        let sorted = self.rules.partition_point(|known| *known < entry);
        self.rules.insert(sorted, entry);
        true
    }

    fn add_triggers(&mut self, place: usize, chain: &Chain) {
        let bit = 1u64.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or_default();
        if chain.always {
            self.always |= bit;
            return;
        }
        self.triggers = self.triggers.union(&chain.triggers);
        chain.triggers.visit(|byte| {
            if let Some(chains) = self.triggered.get_mut(usize::from(byte)) {
                *chains |= bit;
            }
        });
    }

    /// The chains that a text of these bytes may be changed by.
    fn changed_by(&self, bytes: &ByteSet) -> u64 {
        let mut changed = self.always;
        bytes.intersection(&self.triggers).visit(|byte| {
            changed |= self.triggered.get(usize::from(byte)).copied().unwrap_or_default();
        });
        changed
    }

    /// Marks the rules that look at this target by the probe, after one of the chains.
    fn wake(&self, probe: u16, chains: u64, live: &mut Bits) {
        let first = self.rules.partition_point(|entry| entry.0 < probe);
        for &(known, place, position) in self.rules.get(first..).unwrap_or_default() {
            if known != probe {
                break;
            }
            if chains >> place & 1 == 1 {
                live.set(position as usize);
            }
        }
    }
}

/// What every match of an operator must contain; nothing where it is not filtered.
fn need(operator: &Operator, hir: Option<&Hir>) -> Option<Needs> {
    Some(match operator {
        Operator::Pattern { .. } | Operator::CardNumber(_) => Needs::of_pattern(hir?),
        Operator::Phrases(phrases) => Needs::of_phrases(&phrases.phrases),
        // Blind to case, as the whole filter is.
        Operator::ByteRange(allowed) => Needs::of_mask(allowed.complement().in_both_cases()),
        Operator::UrlEncoding => Needs::of_mask(ByteSet::of(b"%")),
        Operator::Utf8 => Needs::of_mask(ByteSet::from_words([0, 0, u64::MAX, u64::MAX])),
        Operator::SqlInjection => Needs::of_mask(not_plain(b"")),
        Operator::Xss => Needs::of_mask(not_plain(b"0123456789")),
        Operator::Text(TextTest::Within, _) => return None,
        Operator::Text(_, other) => Needs::of_phrases(&[other.literal()?.into()]),
        _ => return None,
    })
}

/// All bytes but letters, underscores and these. Text of nothing but letters and underscores is one
/// bare word to SQL and to HTML, to HTML with digits too, and neither check calls a bare word an
/// injection.
fn not_plain(others: &[u8]) -> ByteSet {
    let mut plain = ByteSet::of(others);
    plain.insert(b'_');
    plain.insert_range(b'a', b'z');
    plain.insert_range(b'A', b'Z');
    plain.complement()
}

/// Whether the rules of a phase can be told from the values of the link's targets.
fn is_filtered(link: &Link) -> bool {
    !link.negated && link.targets.iter().all(|target| !target.count && is_sent(target.variable))
}

/// Variables whose values are texts that do not change within a phase.
fn is_sent(variable: Variable) -> bool {
    use Variable as V;
    matches!(
        variable,
        V::Args | V::ArgsGet | V::ArgsPost | V::ArgsNames | V::ArgsGetNames | V::ArgsPostNames | V::RequestHeaders
            | V::RequestHeadersNames | V::RequestCookies | V::RequestCookiesNames | V::ResponseHeaders
            | V::ResponseHeadersNames | V::MultipartPartHeaders | V::Files | V::FilesNames | V::FilesTmpContent
            | V::MultipartFilename | V::MultipartName | V::Xml | V::RequestUri | V::RequestUriRaw
            | V::RequestFilename | V::RequestBasename | V::RequestLine | V::RequestMethod | V::RequestProtocol
            | V::RequestBody | V::QueryString | V::ResponseBody | V::PathInfo
    )
}

/// The target, or what holds it where a pattern chooses.
fn widened(target: &Target) -> Target {
    let chosen = match &target.chosen {
        Chosen::Pattern(_) => Chosen::All,
        chosen => chosen.clone(),
    };
    Target { variable: target.variable, chosen, count: false }
}

fn is_same(one: &Target, other: &Target) -> bool {
    one.variable == other.variable
        && match (&one.chosen, &other.chosen) {
            (Chosen::All, Chosen::All)
            | (Chosen::XmlText, Chosen::XmlText)
            | (Chosen::XmlAttributes, Chosen::XmlAttributes) => true,
            (Chosen::Name(one, _), Chosen::Name(other, _)) => one == other,
            _ => false,
        }
}

/// The probes that no rule uses on what a client sends.
fn response_only(rules: &[Rule], probes: &[Option<u16>], count: usize) -> Vec<usize> {
    let mut on_request = Bits::with_room_for(count);
    for link in rules.iter().flat_map(|rule| &rule.links) {
        let is_response = |target: &Target| target.variable.name().starts_with("RESPONSE_");
        let probe = link.operator.and_then(|operator| probes.get(usize::from(operator)).copied().flatten());
        if let Some(probe) = probe.filter(|_| !link.targets.iter().all(is_response)) {
            on_request.set(usize::from(probe));
        }
    }
    (0..count).filter(|probe| !on_request.has(*probe)).collect()
}

fn those(needs: &[Needs], is_one: impl Fn(&Needs) -> bool) -> Bits {
    let mut bits = Bits::with_room_for(needs.len());
    for (probe, _) in needs.iter().enumerate().filter(|(_, need)| is_one(need)) {
        bits.set(probe);
    }
    bits
}

fn layer(needs: &[Needs], place: usize) -> Option<Layer> {
    let masks: Vec<(usize, ByteSet)> =
        needs.iter().enumerate().filter_map(|(probe, need)| need.masks.get(place).map(|mask| (probe, *mask))).collect();
    if masks.is_empty() {
        return None;
    }
    let loud = masks.iter().fold(ByteSet::EMPTY, |all, (_, mask)| all.union(mask));
    let mut block_of = Box::new([0u8; 256]);
    let mut blocks = Vec::new();
    for (block, byte) in (0u8..).zip(loud.iter()) {
        let mut bits = Bits::with_room_for(needs.len());
        masks.iter().filter(|(_, mask)| mask.contains(byte)).for_each(|(probe, _)| bits.set(*probe));
        blocks.extend(bits.0);
        if let Some(place) = block_of.get_mut(usize::from(byte)) {
            *place = block;
        }
    }
    Some(Layer { free: those(needs, |need| need.masks.len() <= place), loud, blocks, block_of })
}

#[cfg(test)]
mod tests;
