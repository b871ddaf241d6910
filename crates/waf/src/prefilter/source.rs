//! What a phase looks at: the targets of its rules, and which rules look at each by which probe.

use super::gate::Gates;
use crate::bytes::ByteSet;
use crate::rule::{Bits, Chain, ChainId, Chosen, Link, Target};
use crate::seclang::Variable;

/// What a phase looks at.
#[derive(Debug, Default)]
pub(super) struct PhaseFilter {
    /// Rules that are run whatever the values are.
    pub(super) always: Bits,
    pub(super) sources: Vec<Source>,
    /// By position, the source of each target of the rule's first link.
    pub(super) looked_at: Vec<Vec<u16>>,
    pub(super) gates: Gates,
}

/// A target, and what is done with its values.
#[derive(Debug)]
pub(super) struct Source {
    /// Its number among the sources of all phases.
    pub(super) number: u16,
    pub(super) target: Target,
    /// The triggers of all chains together.
    triggers: ByteSet,
    /// The chains that a byte triggers, one bit for each of `chains`.
    triggered: Box<[u64; 256]>,
    /// The chains that change every value.
    always: u64,
    /// The probes of all chains together.
    pub(super) probes: Bits,
    pub(super) chains: Vec<Reach>,
    /// Rules by probe and place among `chains`.
    rules: Vec<(u16, u8, u32)>,
}

/// Chains of one target that are told apart; rules with those beyond are always run.
const MOST_CHAINS: usize = 64;

/// The probes that look at a target after a chain.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) chain: ChainId,
    pub(super) probes: Bits,
    /// The same one by one.
    pub(super) listed: Vec<u16>,
}

impl PhaseFilter {
    /// The place of the source that has the target's values; of none where there are too many.
    pub(super) fn source(&mut self, target: &Target, words: usize) -> u16 {
        let target = widened(target);
        let mut sources = self.sources.iter();
        let known = sources.position(|source| is_same(&source.target, &target));
        let at = known.unwrap_or(self.sources.len());
        if known.is_none() && at < usize::from(u16::MAX) {
            self.sources.push(Source::new(target, words));
        }
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Notes that the next target of the rule at the position is in the source.
    pub(super) fn look_at(&mut self, position: usize, source: u16) {
        if let Some(looked_at) = self.looked_at.get_mut(position) {
            looked_at.push(source);
        }
    }

    /// Notes a look at the values of a source. Whether there was room to.
    pub(super) fn reach(
        &mut self,
        source: u16,
        chain: (ChainId, &Chain),
        probe: u16,
        position: usize,
    ) -> bool {
        self.sources
            .get_mut(usize::from(source))
            .is_some_and(|source| source.reach(chain, probe, position))
    }
}

impl Source {
    fn new(target: Target, words: usize) -> Self {
        Self {
            number: u16::MAX,
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
    fn reach(&mut self, (id, chain): (ChainId, &Chain), probe: u16, position: usize) -> bool {
        let known = self.chains.iter().position(|reach| reach.chain == id);
        if known.is_none() && self.chains.len() >= MOST_CHAINS {
            return false;
        }
        let place = known.unwrap_or_else(|| {
            self.chains.push(Reach {
                chain: id,
                probes: Bits(vec![0; self.probes.0.len()]),
                listed: Vec::new(),
            });
            let place = self.chains.len() - 1;
            self.add_triggers(place, chain);
            place
        });
        if let Some(reach) = self.chains.get_mut(place) {
            if !reach.probes.has(usize::from(probe)) {
                reach.listed.push(probe);
            }
            reach.probes.set(usize::from(probe));
        }
        self.probes.set(usize::from(probe));
        let entry = (
            probe,
            u8::try_from(place).unwrap_or(u8::MAX),
            u32::try_from(position).unwrap_or_default(),
        );
        let sorted = self.rules.partition_point(|known| *known < entry);
        self.rules.insert(sorted, entry);
        true
    }

    fn add_triggers(&mut self, place: usize, chain: &Chain) {
        let bit = 1u64
            .checked_shl(u32::try_from(place).unwrap_or(u32::MAX))
            .unwrap_or_default();
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

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        let chains: usize = self
            .chains
            .iter()
            .map(|reach| 32 + reach.probes.0.len() * 8)
            .sum();
        size_of_val(&*self.triggered) + self.rules.len() * 8 + chains
    }

    /// The chains that a text of these bytes may be changed by.
    pub(super) fn changed_by(&self, bytes: &ByteSet) -> u64 {
        let mut changed = self.always;
        bytes.intersection(&self.triggers).visit(|byte| {
            changed |= self
                .triggered
                .get(usize::from(byte))
                .copied()
                .unwrap_or_default();
        });
        changed
    }

    /// Appends the rules that look at this target by the probe, after one of the chains.
    pub(super) fn wake(&self, probe: u16, chains: u64, woken: &mut Vec<u32>) {
        let first = self.rules.partition_point(|entry| entry.0 < probe);
        for &(known, place, position) in self.rules.get(first..).unwrap_or_default() {
            if known != probe {
                break;
            }
            if chains >> place & 1 == 1 {
                woken.push(position);
            }
        }
    }
}

/// Whether the rules of a phase can be told from the values of the link's targets.
pub(super) fn is_filtered(link: &Link) -> bool {
    !link.negated
        && link
            .targets
            .iter()
            .all(|target| !target.count && is_sent(target.variable))
}

/// Variables whose values are texts that do not change within a phase.
fn is_sent(variable: Variable) -> bool {
    use Variable as V;
    matches!(
        variable,
        V::Args
            | V::ArgsGet
            | V::ArgsPost
            | V::ArgsNames
            | V::ArgsGetNames
            | V::ArgsPostNames
            | V::RequestHeaders
            | V::RequestHeadersNames
            | V::RequestCookies
            | V::RequestCookiesNames
            | V::ResponseHeaders
            | V::ResponseHeadersNames
            | V::MultipartPartHeaders
            | V::Files
            | V::FilesNames
            | V::FilesTmpContent
            | V::MultipartFilename
            | V::MultipartName
            | V::Xml
            | V::RequestUri
            | V::RequestUriRaw
            | V::RequestFilename
            | V::RequestBasename
            | V::RequestLine
            | V::RequestMethod
            | V::RequestProtocol
            | V::RequestBody
            | V::QueryString
            | V::ResponseBody
            | V::PathInfo
    )
}

/// The target, or what holds it where a pattern chooses.
fn widened(target: &Target) -> Target {
    let chosen = match &target.chosen {
        Chosen::Pattern(_) => Chosen::All,
        chosen => chosen.clone(),
    };
    Target {
        variable: target.variable,
        chosen,
        count: false,
    }
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
