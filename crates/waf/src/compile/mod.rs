//! Statements into a rule set.
//!
//! Owns the order of the steps: gather rules and chains, apply what statements say of other rules,
//! leave out what the paranoia level never reaches, intern, resolve. Must not: judge anything.

mod draft;
mod fold;
mod intern;
mod prelude;
mod resolve;
mod update;

use intern::{Interned, Interner};

pub(crate) use fold::LEVELS;
pub(crate) use resolve::whole_number;

use std::sync::Arc;

use crate::analysis::Analysis;
use crate::custom::CustomRule;
use crate::evaluate;
use crate::prefilter::Prefilter;
use crate::rule::{Bits, Phase, Presets, Rule, RuleSet, Settings, Step, unique};
use crate::seclang::{self, Limits, LoadError, Sources};

/// How a rule set is compiled.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the load may cost.
    pub limits: Limits,
    /// Rules that only a higher paranoia level reaches are left out. Files that set a higher level
    /// are refused.
    pub paranoia_ceiling: Option<u8>,
    /// Rules that go before those of the files.
    pub custom: Vec<CustomRule>,
    /// What an earlier load found out about patterns. Those that it holds are compiled when they are
    /// first wanted (see [`RuleSet::prepare`]), others at once. The set judges the same.
    pub analysis: Option<Arc<Analysis>>,
    /// What the names of files begin with whose settings (`SecRuleEngine` and the like) are refused, because the host
    /// decides about them elsewhere.
    pub without_settings: Option<&'static str>,
}

/// The statements of the files as rules and what they share.
struct Resolved {
    rules: Vec<Rule>,
    interned: Interned,
    settings: Settings,
    warnings: Vec<LoadError>,
}

fn resolve(
    sources: &dyn Sources,
    files: &[&str],
    options: &Options,
) -> Result<Resolved, LoadError> {
    let mut statements = options
        .custom
        .iter()
        .map(CustomRule::statement)
        .collect::<Result<Vec<_>, _>>()?;
    statements.extend(seclang::parse(sources, files, &options.limits)?);
    let mut gathered = draft::gather(statements, options.without_settings)?;
    let warnings = update::apply(&mut gathered)?;
    if let Some(ceiling) = options.paranoia_ceiling {
        fold::leave_out(&mut gathered, ceiling)?;
    }
    let mut interner = Interner::new(sources, options);
    let mut rules = resolve::rules(&gathered, &mut interner)?;
    let interned = interner.finish();
    resolve::find_slots(&mut rules, &interned.slot_names);
    Ok(Resolved {
        rules,
        interned,
        settings: gathered.settings,
        warnings,
    })
}

impl Analysis {
    /// Finds out about the patterns of the files, of every paranoia level.
    pub fn of(sources: &dyn Sources, files: &[&str], options: &Options) -> Result<Self, LoadError> {
        let options = Options {
            paranoia_ceiling: None,
            analysis: None,
            ..options.clone()
        };
        let Interned {
            operators, needs, ..
        } = resolve(sources, files, &options)?.interned;
        let patterns = operators.iter().zip(needs).filter_map(|(operator, needs)| {
            let text = operator.pattern()?.text();
            Some((text.into(), needs?))
        });
        Ok(Self::new(
            patterns.collect(),
            options.limits.compiled_pattern_bytes,
        ))
    }
}

impl RuleSet {
    /// Compiles the files, in order, as one set.
    pub fn load(
        sources: &dyn Sources,
        files: &[&str],
        options: &Options,
    ) -> Result<Self, LoadError> {
        let Resolved {
            rules,
            interned,
            settings,
            warnings,
        } = resolve(sources, files, options)?;
        let mut phases: [Phase; 5] = std::array::from_fn(|_| Phase::default());
        for (index, rule) in (0u32..).zip(&rules) {
            if let Some(phase) = phases.get_mut(usize::from(rule.phase) - 1) {
                phase
                    .steps
                    .push(Step::new(index, rule, &interned.operators));
            }
        }
        let mut set = Self {
            generation: unique(),
            settings,
            rules,
            phases,
            operators: interned.operators,
            chains: interned.chains,
            slots: interned.slots,
            slot_names: interned.slot_names,
            names: Arc::new(interned.names),
            patterns: interned.patterns,
            prefilter: Prefilter::default(),
            presets: Presets::new(Vec::new()),
            constant: Bits::default(),
            ceiling: options.paranoia_ceiling,
            warnings,
        };
        set.constant = prelude::positions(&set);
        set.presets = evaluate::presets(&set, &Presets::new(Vec::new()));
        set.prefilter = Prefilter::new(&set, interned.needs, &set.constant);
        set.presets.reached = set.prefilter.reached(&set, &set.presets);
        // The presets were found without the filter: what a worker kept of that is of another set.
        set.generation = unique();
        Ok(set)
    }
}

#[cfg(test)]
mod tests;
