//! Names to numbers, and equal things to one: TX variables, transformations, operators.

use std::collections::HashMap;
use std::sync::Arc;

use super::Options;
use crate::bytes::ByteSet;
use crate::operator::{AddressSet, NamePattern, Operator, Pattern, Phrases, parse_pattern};
use crate::prefilter::Needs;
use crate::rule::{ByName, Chain, ChainId, Names, OperatorId, Part, Slot, Template};
use crate::seclang::{
    self, LoadError, Macro, Operand, OperatorSpec, Piece, Place, Sources, Variable,
};
use crate::transform::Transform;

/// What was interned.
pub(super) struct Interned {
    pub(super) operators: Vec<Operator>,
    /// What the matches of the operators that are patterns need.
    pub(super) needs: Vec<Option<Needs>>,
    pub(super) chains: Vec<Chain>,
    pub(super) slots: ByName<Slot>,
    pub(super) slot_names: Vec<Box<[u8]>>,
    pub(super) names: Names,
    pub(super) patterns: usize,
}

pub(super) struct Interner<'a> {
    sources: &'a dyn Sources,
    options: &'a Options,
    slots: ByName<Slot>,
    slot_names: Vec<Box<[u8]>>,
    pub(super) names: Names,
    chains: Vec<Chain>,
    chain_ids: HashMap<(ChainId, Transform), ChainId>,
    operator_ids: HashMap<(String, &'a Operand), OperatorId>,
    operators: Vec<Operator>,
    needs: Vec<Option<Needs>>,
    patterns: usize,
    selectors: HashMap<Box<str>, Arc<NamePattern>>,
}

impl<'a> Interner<'a> {
    pub(super) fn new(sources: &'a dyn Sources, options: &'a Options) -> Self {
        let mut interner = Self {
            sources,
            options,
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
            operators: Vec::new(),
            needs: Vec::new(),
            patterns: 0,
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
        let pattern = NamePattern::new(text, self.options.limits.compiled_pattern_bytes)
            .map_err(|error| place.error(error.0))?;
        let pattern = Arc::new(pattern);
        self.selectors.insert(text.into(), Arc::clone(&pattern));
        Ok(pattern)
    }

    pub(super) fn operator(
        &mut self,
        place: &Place,
        spec: &'a OperatorSpec,
    ) -> Result<OperatorId, LoadError> {
        // Files are named relative to the rule's own, so the folder is part of what is equal.
        let folder = match spec.operand {
            Operand::PhrasesFrom(_) | Operand::AddressesFrom(_) => {
                seclang::relative(&place.file, "")
            }
            _ => String::new(),
        };
        let key = (folder, &spec.operand);
        if let Some(&known) = self.operator_ids.get(&key) {
            return Ok(known);
        }
        let (operator, needs) = self
            .compile(place, &spec.operand)
            .map_err(|message| place.error(message))?;
        let id = OperatorId::try_from(self.operators.len())
            .map_err(|_| place.error("there are more than 65,536 different operators"))?;
        self.operators.push(operator);
        self.needs.push(needs);
        self.operator_ids.insert(key, id);
        Ok(id)
    }

    /// The operator and, of a pattern, what its matches need.
    fn compile(
        &mut self,
        place: &Place,
        operand: &Operand,
    ) -> Result<(Operator, Option<Needs>), String> {
        let operator = match operand {
            Operand::Pattern { text, .. } if text.contains("%{") => {
                return Err(
                    "a macro in a pattern would compile it for each request: use @within or @streq"
                        .to_owned(),
                );
            }
            Operand::Pattern { text, every_match } => {
                let (pattern, needs) = self.pattern(text)?;
                let every_match = *every_match;
                let operator = Operator::Pattern {
                    pattern,
                    every_match,
                };
                return Ok((operator, Some(needs)));
            }
            Operand::CardNumber(text) => {
                let (pattern, needs) = self.pattern(text)?;
                return Ok((Operator::CardNumber(pattern), Some(needs)));
            }
            Operand::Phrases(phrases) => Operator::Phrases(Phrases::new(phrases.clone())),
            Operand::PhrasesFrom(files) => {
                Operator::Phrases(Phrases::new(self.phrases(place, files)?))
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
        };
        Ok((operator, None))
    }

    /// The pattern and what its matches need: as an earlier load found out, or from its syntax.
    fn pattern(&mut self, text: &str) -> Result<(Pattern, Needs), String> {
        let most_bytes = self.options.limits.compiled_pattern_bytes;
        let known = self.options.analysis.as_ref();
        let (mut pattern, needs) =
            if let Some(needs) = known.and_then(|it| it.needs(text, most_bytes)) {
                (Pattern::known(text, most_bytes), needs.clone())
            } else {
                let hir = parse_pattern(text).map_err(|error| error.0)?;
                let pattern = Pattern::new(text, &hir, most_bytes).map_err(|error| error.0)?;
                (pattern, Needs::of_pattern(&hir))
            };
        pattern.cache = self.patterns;
        self.patterns += 1;
        Ok((pattern, needs))
    }

    fn phrases(&self, place: &Place, files: &[Box<str>]) -> Result<Vec<Box<[u8]>>, String> {
        let mut phrases = Vec::new();
        for file in files {
            let path = seclang::relative(&place.file, file);
            phrases.extend(Phrases::of_file(
                &self.sources.read(&path, self.options.limits.file_bytes)?,
            ));
        }
        Ok(phrases)
    }

    fn addresses(&self, place: &Place, file: &str) -> Result<AddressSet, String> {
        let path = seclang::relative(&place.file, file);
        let text = self.sources.read(&path, self.options.limits.file_bytes)?;
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

    pub(super) fn finish(self) -> Interned {
        Interned {
            operators: self.operators,
            needs: self.needs,
            chains: self.chains,
            slots: self.slots,
            slot_names: self.slot_names,
            names: self.names,
            patterns: self.patterns,
        }
    }
}
