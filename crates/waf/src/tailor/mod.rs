//! A rule set as one route has it: its mode, its thresholds and settings, and the rules and targets
//! it is spared, over a set that all routes share.
//!
//! Owns what a tailoring says and its check against the set; compiled, it is a few numbers and lists
//! of positions. Must not: change the set, or read a clock (`begin_tailored` is told the time).

mod error;
mod repeat;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::bytes::leading_number;
use crate::compile::{LEVELS, whole_number};
use crate::evaluate;
use crate::operator::NamePattern;
use crate::rule::{After, Bits, Chosen, Key, Preset, Presets, Rule, RuleSet, Slot, Target};
use crate::seclang::{
    Collection, Disruption, EngineMode, Limits, Matching, Selector, Variable, matching, nearest,
    parse_targets,
};

pub use error::TailorError;

/// What one route has otherwise than the set.
#[derive(Clone, Debug, Default)]
pub struct Tailoring {
    /// In place of `SecRuleEngine`.
    pub mode: Option<EngineMode>,
    /// The inbound score that blocks: `tx.inbound_anomaly_score_threshold`.
    pub inbound_threshold: Option<i64>,
    /// The outbound score that blocks: `tx.outbound_anomaly_score_threshold`.
    pub outbound_threshold: Option<i64>,
    /// TX variables, by name without `tx.`, as `allowed_methods`. They hold in place of what the set
    /// gives every request, and what it derives from them follows.
    pub settings: Vec<(String, String)>,
    /// Rules and targets that the route is spared.
    pub exclusions: Vec<Exclusion>,
}

/// Rules, or targets of rules, that do not count.
#[derive(Clone, Debug)]
pub struct Exclusion {
    /// The rules.
    pub rules: Selected,
    /// The values that they do not look at, as `ARGS:comment` or `REQUEST_COOKIES:/^_ga/`; without,
    /// the rules are not run at all.
    pub target: Option<String>,
    /// Microseconds of the Unix epoch from which it counts no more.
    pub until_micros: Option<u64>,
    /// Whether it may take away rules that judge the score, or have the body read.
    pub force: bool,
}

/// Which rules are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// One rule.
    Id(u64),
    /// Rules from one id to another, both included.
    Range(u64, u64),
    /// Rules with this tag; between slashes, with a tag that the pattern finds.
    Tag(String),
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "rule {id}"),
            Self::Range(from, to) => write!(f, "rules {from}-{to}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
        }
    }
}

/// A set as a route has it.
pub struct Tailored {
    set: Arc<RuleSet>,
    mode: EngineMode,
    /// In place of the set's, where a setting differs.
    presets: Option<Presets>,
    /// Rules that are not run, and until when.
    removed: Vec<(Option<u64>, Bits)>,
    /// Rules that lose targets.
    losing: Bits,
    /// What they lose, in the order of the rules.
    lost: Vec<(usize, Vec<Lost>)>,
    warnings: Vec<String>,
}

/// Targets that a rule loses.
#[derive(Debug)]
pub(crate) struct Lost {
    until: Option<u64>,
    pub(crate) targets: Vec<Target>,
}

impl Lost {
    fn until(&self) -> Option<u64> {
        self.until
    }

    pub(crate) fn holds(&self, now: u64) -> bool {
        is_before(now, self.until)
    }
}

fn is_before(now: u64, until: Option<u64>) -> bool {
    until.is_none_or(|until| now < until)
}

impl fmt::Debug for Tailored {
    /// Without the set, which fills pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tailored")
            .field("mode", &self.mode)
            .field("presets", &self.presets)
            .field("removed", &self.removed)
            .field("lost", &self.lost)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Tailored {
    /// The set that it is made of.
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Exclusions that have no effect in this set.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn mode(&self) -> EngineMode {
        self.mode
    }

    pub(crate) fn presets(&self) -> &Presets {
        self.presets.as_ref().unwrap_or(&self.set.presets)
    }

    #[cfg(test)]
    pub(crate) fn presets_mut(&mut self) -> Option<&mut Presets> {
        self.presets.as_mut()
    }

    pub(crate) fn removed_at(&self, now: u64) -> impl Iterator<Item = &Bits> {
        let holds = move |(until, _): &&(Option<u64>, Bits)| is_before(now, *until);
        self.removed.iter().filter(holds).map(|(_, rules)| rules)
    }

    pub(crate) fn loses_targets(&self) -> bool {
        !self.lost.is_empty()
    }

    /// What the rule loses, expired or not.
    #[inline]
    pub(crate) fn lost(&self, rule: usize) -> Option<&[Lost]> {
        if !self.losing.has(rule) {
            return None;
        }
        let at = self.lost.binary_search_by_key(&rule, |(rule, _)| *rule);
        at.ok()
            .and_then(|at| self.lost.get(at))
            .map(|(_, lost)| lost.as_slice())
    }
}

impl RuleSet {
    /// The set as one route has it. Costs microseconds where no setting is given, and little memory:
    /// the set itself is shared.
    pub fn tailor(self: &Arc<Self>, tailoring: &Tailoring) -> Result<Tailored, TailorError> {
        let given = self.given(tailoring)?;
        let mut tailored = Tailored {
            mode: tailoring.mode.unwrap_or(self.settings.engine),
            presets: (!given.values.is_empty()).then(|| evaluate::presets(self, &given).fit(self)),
            removed: Vec::new(),
            losing: Bits::with_room_for(self.rules.len()),
            lost: Vec::new(),
            warnings: Vec::new(),
            set: Arc::clone(self),
        };
        let mut lost: BTreeMap<usize, Vec<Lost>> = BTreeMap::new();
        for exclusion in &tailoring.exclusions {
            let rules = self.rules_of(exclusion)?;
            let targets = exclusion.targets()?;
            if let Some(warning) = self.warning(exclusion, &rules, &targets) {
                tailored.warnings.push(warning);
            } else if targets.is_empty() {
                tailored.remove(exclusion.until_micros, &rules);
            } else {
                for rule in rules {
                    tailored.losing.set(rule);
                    lost.entry(rule).or_default().push(Lost {
                        until: exclusion.until_micros,
                        targets: targets.clone(),
                    });
                }
            }
        }
        tailored.lost = lost.into_iter().collect();
        Ok(tailored)
    }

    /// The settings by slot.
    fn given(&self, tailoring: &Tailoring) -> Result<Presets, TailorError> {
        let threshold = |name: &str, score: Option<i64>| {
            score.map(|score| (name.to_owned(), score.to_string()))
        };
        let scores = [
            threshold(
                "inbound_anomaly_score_threshold",
                tailoring.inbound_threshold,
            ),
            threshold(
                "outbound_anomaly_score_threshold",
                tailoring.outbound_threshold,
            ),
        ];
        let settings = tailoring.settings.iter().cloned();
        settings
            .chain(scores.into_iter().flatten())
            .map(|(name, value)| self.setting(&name, value.as_bytes()))
            .collect::<Result<_, _>>()
            .map(Presets::new)
    }

    fn setting(&self, name: &str, value: &[u8]) -> Result<(Slot, Preset), TailorError> {
        let name = name.to_ascii_lowercase();
        let Some(&slot) = self.slots.get(name.as_bytes()) else {
            let known = self.slot_names.iter();
            let near = nearest(
                &name,
                known.filter_map(|name| std::str::from_utf8(name).ok()),
            );
            return Err(TailorError::UnknownSetting(name + &near));
        };
        if let Some(rule) = self.writes_always(slot) {
            return Err(TailorError::Overwritten(name, rule));
        }
        let level = leading_number(value);
        match self.ceiling {
            Some(ceiling) if LEVELS.contains(&name.as_str()) && level > i64::from(ceiling) => {
                return Err(TailorError::AboveCeiling(level, ceiling));
            }
            _ => {}
        }
        let preset = whole_number(value).map_or_else(|| Preset::Text(value.into()), Preset::Number);
        Ok((slot, preset))
    }

    /// The rule that sets the variable for each request.
    fn writes_always(&self, slot: Slot) -> Option<u64> {
        let is_always = |(index, rule): &(usize, &Rule)| {
            let [link] = &*rule.links else { return false };
            let mut assigns = link.assigns.iter();
            link.operator.is_none()
                && !self.is_constant(*index)
                && assigns.any(|assign| {
                    assign.collection == Collection::Tx
                        && matches!(assign.key, Key::Slot(written) if written == slot)
                })
        };
        let mut rules = self.rules.iter().enumerate();
        rules.find(is_always).map(|(_, rule)| rule.id)
    }

    /// Whether the rule was run at the load.
    fn is_constant(&self, rule: usize) -> bool {
        let [first, ..] = &self.phases;
        let at = first
            .steps
            .binary_search_by_key(&rule, |step| step.rule as usize);
        at.is_ok_and(|position| self.constant.has(position))
    }

    /// The rules that an exclusion means, by their place in the set.
    fn rules_of(&self, exclusion: &Exclusion) -> Result<Vec<usize>, TailorError> {
        let wanted = match &exclusion.rules {
            Selected::Tag(tag) => Some(matching(tag).map_err(|why| exclusion.unreadable(why))?),
            Selected::Id(_) | Selected::Range(..) => None,
        };
        let is_meant = |rule: &Rule| match (&exclusion.rules, &wanted) {
            (Selected::Id(id), _) => rule.id == *id,
            (Selected::Range(from, to), _) => (from..=to).contains(&&rule.id),
            (_, Some(tag)) => has_tag(rule, tag),
            _ => false,
        };
        let mut meant = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if !is_meant(rule) {
                continue;
            }
            let which = || exclusion.rules.to_string();
            if self.is_constant(index) {
                return Err(TailorError::OnlyDefaults(which(), rule.id));
            }
            if !exclusion.force && is_essential(rule) {
                return Err(TailorError::Essential(which(), rule.id));
            }
            meant.push(index);
        }
        Ok(meant)
    }

    fn warning(
        &self,
        exclusion: &Exclusion,
        rules: &[usize],
        targets: &[Target],
    ) -> Option<String> {
        let which = &exclusion.rules;
        if rules.is_empty() {
            return Some(format!(
                "the exclusion of {which} names no rule of the set and has no effect"
            ));
        }
        let looks = |rule: &usize| {
            let links = self.rules.get(*rule).map(|rule| &rule.links);
            let looked = links
                .and_then(|links| links.first())
                .map(|link| &link.targets);
            looked.into_iter().flatten().any(|looked| {
                targets
                    .iter()
                    .any(|target| target.variable == looked.variable)
            })
        };
        let target = exclusion.target.as_ref()?;
        (!rules.iter().any(looks)).then(|| {
            format!("the exclusion of {target} from {which}: no rule of these begins by looking there, so that it has no effect")
        })
    }
}

impl Tailored {
    fn remove(&mut self, until: Option<u64>, rules: &[usize]) {
        let known = self.removed.iter().position(|(known, _)| *known == until);
        let at = known.unwrap_or_else(|| {
            let none = Bits::with_room_for(self.set.rules.len());
            self.removed.push((until, none));
            self.removed.len() - 1
        });
        if let Some((_, removed)) = self.removed.get_mut(at) {
            for &rule in rules {
                removed.set(rule);
            }
        }
    }
}

impl Exclusion {
    fn unreadable(&self, why: String) -> TailorError {
        TailorError::Unreadable(self.rules.to_string(), why)
    }

    /// What the rules lose; nothing where they are not run at all.
    fn targets(&self) -> Result<Vec<Target>, TailorError> {
        let Some(text) = &self.target else {
            return Ok(Vec::new());
        };
        let specs = parse_targets(text).map_err(|why| self.unreadable(why))?;
        let resolved = specs.into_iter().map(|spec| {
            if spec.exclude || spec.count {
                let why = format!("`{text}`: a target is named as it is, without ! and &");
                return Err(self.unreadable(why));
            }
            let chosen = match &spec.selector {
                Selector::All => Chosen::All,
                Selector::Name(name) => Chosen::Name(0, name.as_bytes().into()),
                Selector::Pattern(text) => Chosen::Pattern(self.pattern(text)?),
                Selector::XmlText => Chosen::XmlText,
                Selector::XmlAttributes => Chosen::XmlAttributes,
            };
            Ok(Target {
                variable: spec.variable,
                chosen,
                count: false,
            })
        });
        resolved.collect()
    }

    fn pattern(&self, text: &str) -> Result<Arc<NamePattern>, TailorError> {
        NamePattern::new(text, Limits::default().compiled_pattern_bytes)
            .map(Arc::new)
            .map_err(|error| self.unreadable(error.0))
    }
}

fn has_tag(rule: &Rule, wanted: &Matching) -> bool {
    rule.tags.iter().any(|tag| wanted.is_match(tag))
}

/// The families of the Core Rule Set that begin, sum up and judge the score, by thousands of ids.
const FAMILIES: [u64; 4] = [901, 949, 959, 980];

/// Whether without the rule scores come to nothing, or bodies are not read: it is of such a family, or
/// looks at named TX variables alone and acts on what it finds, or says how the body is read.
fn is_essential(rule: &Rule) -> bool {
    let first = rule.links.first();
    let is_named_tx = |target: &Target| {
        target.variable == Variable::Tx && matches!(target.chosen, Chosen::Slot(_))
    };
    let judges = first.is_some_and(|link| {
        let acts = !matches!(rule.disruption, Disruption::Pass) || !link.assigns.is_empty();
        acts && !link.targets.is_empty() && link.targets.iter().all(is_named_tx)
    });
    let mut after = rule.links.iter().flat_map(|link| &link.after);
    let reads = after.any(|after| {
        matches!(
            after,
            After::Processor(_) | After::RequestBodyAccess(true) | After::ForceRequestBody(true)
        )
    });
    judges || reads || FAMILIES.contains(&(rule.id / 1000))
}

#[cfg(test)]
mod tests;
