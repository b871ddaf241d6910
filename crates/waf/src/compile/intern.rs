//! Names to numbers, and equal things to one: TX variables, transformations, operators.

use std::collections::HashMap;
use std::sync::Arc;

use regex_syntax::hir::Hir;

use crate::bytes::ByteSet;
use crate::operator::{AddressSet, NamePattern, Operator, Pattern, Phrases, parse_pattern};
use crate::rule::{ByName, Chain, ChainId, Names, OperatorId, Part, Slot, Template};
use crate::seclang::{
    self, Limits, LoadError, Macro, Operand, OperatorSpec, Piece, Place, Sources, Variable,
};
use crate::transform::Transform;

/// What was interned.
pub(super) struct Interned {
    pub(super) operators: Vec<Operator>,
    /// The syntax of the operators that are patterns.
    pub(super) shapes: Vec<Option<Hir>>,
    pub(super) chains: Vec<Chain>,
    pub(super) slots: ByName<Slot>,
    pub(super) slot_names: Vec<Box<[u8]>>,
    pub(super) names: Names,
    pub(super) patterns: usize,
}

pub(super) struct Interner<'a> {
    sources: &'a dyn Sources,
    limits: &'a Limits,
    slots: ByName<Slot>,
    slot_names: Vec<Box<[u8]>>,
    pub(super) names: Names,
    chains: Vec<Chain>,
    chain_ids: HashMap<(ChainId, Transform), ChainId>,
    operator_ids: HashMap<String, OperatorId>,
    waiting: Vec<(Place, Waiting)>,
    selectors: HashMap<Box<str>, Arc<NamePattern>>,
}

/// An operator whose costly part is done for all at once.
enum Waiting {
    Ready(Operator),
    Pattern {
        hir: Hir,
        every_match: bool,
        card: bool,
    },
}

impl<'a> Interner<'a> {
    pub(super) fn new(sources: &'a dyn Sources, limits: &'a Limits) -> Self {
        let mut interner = Self {
            sources,
            limits,
            slots: ByName::default(),
            slot_names: Vec::new(),
            names: Names::default(),
            chains: vec![Chain {
                before: 0,
                last: None,
                triggers: ByteSet::EMPTY,
                last_triggers: ByteSet::EMPTY,
                always: false,
            }],
            chain_ids: HashMap::new(),
            operator_ids: HashMap::new(),
            waiting: Vec::new(),
            selectors: HashMap::new(),
        };
        // The groups of a match: slot N is TX.N.
        for group in b'0'..=b'9' {
            interner.slot(&[group]);
        }
        interner
    }

    pub(super) fn slot(&mut self, name: &[u8]) -> Slot {
        let name = name.to_ascii_lowercase().into_boxed_slice();
        if let Some(&slot) = self.slots.get(&name) {
            return slot;
        }
        let slot = Slot::try_from(self.slot_names.len()).unwrap_or(Slot::MAX);
        self.slot_names.push(name.clone());
        self.slots.insert(name, slot);
        slot
    }

    pub(super) fn template(&mut self, text: &Macro) -> Template {
        let parts = text.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => Part::Text(text.clone()),
            Piece::Value(Variable::Tx, Some(key)) => Part::Slot(self.slot(key.as_bytes())),
            Piece::Value(variable, key) => Part::Value(*variable, key.clone()),
        });
        Template(parts.collect())
    }

    /// The id of a list of transformations, and those of all its beginnings.
    pub(super) fn chain(&mut self, transforms: &[Transform]) -> Vec<ChainId> {
        let mut stages = vec![0];
        let mut at = 0;
        for &last in transforms {
            at = self.longer_chain(at, last);
            stages.push(at);
        }
        stages
    }

    fn longer_chain(&mut self, before: ChainId, last: Transform) -> ChainId {
        if let Some(&known) = self.chain_ids.get(&(before, last)) {
            return known;
        }
        let id = ChainId::try_from(self.chains.len()).unwrap_or(ChainId::MAX);
        let chain = self.chains.get(usize::from(before));
        let (triggers, always) = chain.map_or((ByteSet::EMPTY, false), |chain| {
            (chain.triggers, chain.always)
        });
        let last_triggers = last.triggers();
        self.chains.push(Chain {
            before,
            last: Some(last),
            triggers: triggers.union(&last_triggers),
            last_triggers,
            always: always || last.is_always(),
        });
        self.chain_ids.insert((before, last), id);
        id
    }

    /// The pattern of a target's selector.
    pub(super) fn selector(
        &mut self,
        place: &Place,
        text: &str,
    ) -> Result<Arc<NamePattern>, LoadError> {
        if let Some(known) = self.selectors.get(text) {
            return Ok(Arc::clone(known));
        }
        let pattern = NamePattern::new(text, self.limits.compiled_pattern_bytes)
            .map_err(|error| place.error(error.0))?;
        let pattern = Arc::new(pattern);
        self.selectors.insert(text.into(), Arc::clone(&pattern));
        Ok(pattern)
    }

    pub(super) fn operator(
        &mut self,
        place: &Place,
        spec: &OperatorSpec,
    ) -> Result<OperatorId, LoadError> {
        // Files are named relative to the rule's own, so the folder is part of what is equal.
        let folder = match spec.operand {
            Operand::PhrasesFrom(_) | Operand::AddressesFrom(_) => {
                seclang::relative(&place.file, "")
            }
            _ => String::new(),
        };
        let key = format!("{folder}{:?}", spec.operand);
        if let Some(&known) = self.operator_ids.get(&key) {
            return Ok(known);
        }
        let waiting = self
            .prepare(place, &spec.operand)
            .map_err(|message| place.error(message))?;
        let id = OperatorId::try_from(self.waiting.len())
            .map_err(|_| place.error("there are more than 65,536 different operators"))?;
        self.waiting.push((place.clone(), waiting));
        self.operator_ids.insert(key, id);
        Ok(id)
    }

    fn prepare(&mut self, place: &Place, operand: &Operand) -> Result<Waiting, String> {
        let pattern = |text: &str| parse_pattern(text).map_err(|error| error.0);
        Ok(Waiting::Ready(match operand {
            Operand::Pattern { text, .. } if text.contains("%{") => {
                return Err(
                    "a macro in a pattern would compile it for each request: use @within or @streq"
                        .to_owned(),
                );
            }
            Operand::Pattern { text, every_match } => {
                return Ok(Waiting::Pattern {
                    hir: pattern(text)?,
                    every_match: *every_match,
                    card: false,
                });
            }
            Operand::CardNumber(text) => {
                return Ok(Waiting::Pattern {
                    hir: pattern(text)?,
                    every_match: false,
                    card: true,
                });
            }
            Operand::Phrases(phrases) => Operator::Phrases(Phrases::new(phrases)?),
            Operand::PhrasesFrom(files) => {
                Operator::Phrases(Phrases::new(&self.phrases(place, files)?)?)
            }
            Operand::Number(test, other) => Operator::Number(*test, self.template(other)),
            Operand::Text(test, other) => Operator::Text(*test, self.template(other)),
            Operand::Addresses(networks) => Operator::Addresses(AddressSet::new(networks)),
            Operand::AddressesFrom(file) => Operator::Addresses(self.addresses(place, file)?),
            Operand::ByteRange(allowed) => Operator::ByteRange(ByteSet::from_words(*allowed)),
            Operand::UrlEncoding => Operator::UrlEncoding,
            Operand::Utf8 => Operator::Utf8,
            Operand::SqlInjection => Operator::SqlInjection,
            Operand::Xss => Operator::Xss,
            Operand::Country => Operator::Country,
            Operand::Always => Operator::Always,
            Operand::Never => Operator::Never,
        }))
    }

    fn phrases(&self, place: &Place, files: &[Box<str>]) -> Result<Vec<Box<[u8]>>, String> {
        let mut phrases = Vec::new();
        for file in files {
            let path = seclang::relative(&place.file, file);
            phrases.extend(Phrases::of_file(
                &self.sources.read(&path, self.limits.file_bytes)?,
            ));
        }
        Ok(phrases)
    }

    fn addresses(&self, place: &Place, file: &str) -> Result<AddressSet, String> {
        let path = seclang::relative(&place.file, file);
        let text = self.sources.read(&path, self.limits.file_bytes)?;
        let text = String::from_utf8(text).map_err(|_| format!("{path} is not UTF-8"))?;
        let mut networks = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default();
            networks.extend(
                seclang::addresses(entry).map_err(|error| format!("{path}:{number}: {error}"))?,
            );
        }
        Ok(AddressSet::new(&networks))
    }

    pub(super) fn finish(self) -> Result<Interned, LoadError> {
        let shapes = self.waiting.iter().map(|(_, waiting)| match waiting {
            Waiting::Pattern { hir, .. } => Some(hir.clone()),
            Waiting::Ready(_) => None,
        });
        let shapes = shapes.collect();
        let mut operators = compile_all(self.waiting, self.limits.compiled_pattern_bytes)?;
        let mut patterns = 0;
        for pattern in operators.iter_mut().filter_map(Operator::pattern_mut) {
            pattern.cache = patterns;
            patterns += 1;
        }
        let (slots, slot_names, names) = (self.slots, self.slot_names, self.names);
        Ok(Interned {
            operators,
            shapes,
            chains: self.chains,
            slots,
            slot_names,
            names,
            patterns,
        })
    }
}

/// Compiles the patterns on every core: they are nearly all the time that a load takes.
fn compile_all(
    waiting: Vec<(Place, Waiting)>,
    most_bytes: usize,
) -> Result<Vec<Operator>, LoadError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let mut shares: Vec<Vec<(usize, Place, Waiting)>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, (place, waiting)) in waiting.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(index % threads) {
            share.push((index, place, waiting));
        }
    }
    let mut made: Vec<(usize, Result<Operator, LoadError>)> = std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|share| {
                scope.spawn(move || {
                    let compiled = share
                        .into_iter()
                        .map(|(index, place, one)| (index, compile(&place, one, most_bytes)));
                    compiled.collect::<Vec<_>>()
                })
            })
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    made.sort_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, operator)| operator).collect()
}

fn compile(place: &Place, waiting: Waiting, most_bytes: usize) -> Result<Operator, LoadError> {
    match waiting {
        Waiting::Ready(operator) => Ok(operator),
        Waiting::Pattern {
            hir,
            every_match,
            card,
        } => {
            let pattern = Pattern::new(&hir, most_bytes).map_err(|error| place.error(error.0))?;
            Ok(if card {
                Operator::CardNumber(pattern)
            } else {
                Operator::Pattern {
                    pattern,
                    every_match,
                }
            })
        }
    }
}
