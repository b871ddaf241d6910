//! Drafts into rules: names to numbers, markers to positions, controls to sets of rules.

use std::sync::Arc;

use super::draft::{Draft, DraftLink, Gathered};
use super::intern::Interner;
use crate::rule::{After, Assign, Bits, Change, Chosen, Key, Link, Removal, Rule, Target};
use crate::seclang::{
    self, Action, Control, Disruption, LoadError, Operand, Place, Select, Selector, TargetSpec,
    Variable, nearest,
};
use crate::transform::Transform;

pub(super) fn rules<'a>(
    gathered: &'a Gathered,
    interner: &mut Interner<'a>,
) -> Result<Vec<Rule>, LoadError> {
    let kept: Vec<&Draft> = gathered.rules.iter().filter(|rule| !rule.removed).collect();
    let resolver = Resolver {
        kept: &kept,
        markers: &gathered.markers,
    };
    kept.iter()
        .map(|draft| resolver.rule(draft, interner))
        .collect()
}

/// Finds beforehand, once all are known, the TX variables that targets choose by pattern.
pub(super) fn find_slots(rules: &mut [Rule], names: &[Box<[u8]>]) {
    let links = rules.iter_mut().flat_map(|rule| &mut rule.links);
    for target in links.flat_map(|link| &mut link.targets) {
        if let (Variable::Tx, Chosen::Pattern(pattern)) = (target.variable, &target.chosen) {
            let found = (0..)
                .zip(names)
                .filter(|(_, name)| pattern.is_match(name))
                .map(|(slot, _)| slot);
            target.chosen = Chosen::Slots(Arc::clone(pattern), found.collect());
        }
    }
}

struct Resolver<'k, 'a> {
    kept: &'k [&'a Draft],
    markers: &'k [(Box<str>, usize)],
}

impl<'a> Resolver<'_, 'a> {
    fn rule(&self, draft: &'a Draft, interner: &mut Interner<'a>) -> Result<Rule, LoadError> {
        let mut links = Vec::with_capacity(draft.links.len());
        for link in &draft.links {
            links.push(self.link(draft, link, interner)?);
        }
        let redirect = match &draft.disruption {
            Disruption::Redirect(to) => Some(interner.template(to)),
            _ => None,
        };
        Ok(Rule {
            id: draft.id,
            phase: draft.phase,
            tags: draft.tags.clone().into_boxed_slice(),
            logged: draft.logged,
            audited: draft.audited,
            disruption: draft.disruption.clone(),
            redirect,
            status: draft.status,
            links: links.into_boxed_slice(),
        })
    }

    fn link(
        &self,
        draft: &Draft,
        link: &'a DraftLink,
        interner: &mut Interner<'a>,
    ) -> Result<Link, LoadError> {
        let place = &link.place;
        let all = interner.chain(&link.transforms);
        let last = all.last().copied().unwrap_or_default();
        let stages = if link.multi_match { all } else { vec![last] };
        let is_number = link
            .operator
            .as_ref()
            .is_some_and(|spec| matches!(spec.operand, Operand::Number(..)));
        let measures =
            is_number && !link.multi_match && link.transforms.last() == Some(&Transform::Length);
        let operator = match &link.operator {
            Some(spec) => Some(interner.operator(place, spec)?),
            None => None,
        };
        let mut assigns = Vec::new();
        let mut after = Vec::new();
        for action in &link.actions {
            match action {
                Action::Assign(assign) => assigns.push(resolve_assign(assign, interner)),
                other => after.push(self.after(draft, place, other, interner)?),
            }
        }
        Ok(Link {
            targets: targets(place, &link.targets, interner)?,
            excluded: targets(place, &link.excluded, interner)?,
            stages: stages.into_boxed_slice(),
            measures,
            operator,
            negated: link.operator.as_ref().is_some_and(|spec| spec.negated),
            capture: link.capture,
            message: link.message.as_ref().map(|text| interner.template(text)),
            log_data: link.log_data.as_ref().map(|text| interner.template(text)),
            severity: link.severity,
            assigns: assigns.into_boxed_slice(),
            after: after.into_boxed_slice(),
        })
    }

    fn after(
        &self,
        draft: &Draft,
        place: &Place,
        action: &Action,
        interner: &mut Interner<'_>,
    ) -> Result<After, LoadError> {
        Ok(match action {
            Action::Expire(collection, key, seconds) => After::Expire(
                *collection,
                interner.template(key),
                interner.template(seconds),
            ),
            Action::Open(collection, key) => After::Open(*collection, interner.template(key)),
            Action::SetEnv(name, value) => After::SetEnv(name.clone(), interner.template(value)),
            Action::Skip(rules) => After::Skip(*rules),
            Action::SkipAfter(marker) => After::GoTo(self.position_after(draft, place, marker)?),
            Action::Control(control) => self.control(place, control, interner)?,
            Action::HideMatched => After::HideMatched,
            Action::Hide(variable, name) => After::Hide(*variable, name.as_bytes().into()),
            _ => return Err(place.error("this action cannot stand here")),
        })
    }

    /// The position, in the rule's phase, of the first rule after the marker.
    fn position_after(&self, draft: &Draft, place: &Place, marker: &str) -> Result<u32, LoadError> {
        let Some((_, end)) = self
            .markers
            .iter()
            .find(|(name, at)| **name == *marker && *at > draft.order)
        else {
            let known = self
                .markers
                .iter()
                .filter(|(_, at)| *at > draft.order)
                .map(|(name, _)| &**name);
            let message = format!(
                "skipAfter:{marker}: no SecMarker of that name follows{}",
                nearest(marker, known)
            );
            return Err(place.error(message));
        };
        let before = self
            .kept
            .iter()
            .filter(|rule| rule.phase == draft.phase && rule.order < *end)
            .count();
        Ok(u32::try_from(before).unwrap_or(u32::MAX))
    }

    fn control(
        &self,
        place: &Place,
        control: &Control,
        interner: &mut Interner<'_>,
    ) -> Result<After, LoadError> {
        Ok(match control {
            Control::RemoveRules(select) => After::RemoveRules(self.selected(select)),
            Control::RemoveTargets(select, specs) => {
                let targets = targets(place, specs, interner)?.into_vec();
                After::RemoveTargets(Arc::new(Removal {
                    rules: self.selected(select),
                    targets,
                }))
            }
            Control::Engine(mode) => After::Engine(*mode),
            Control::RequestBodyProcessor(processor) => After::Processor(*processor),
            Control::ForceRequestBody(on) => After::ForceRequestBody(*on),
            Control::RequestBodyAccess(on) => After::RequestBodyAccess(*on),
            Control::ResponseBodyAccess(on) => After::ResponseBodyAccess(*on),
            Control::Audit(on) => After::Audit(*on),
        })
    }

    fn selected(&self, select: &Select) -> Bits {
        let mut bits = Bits::with_room_for(self.kept.len());
        for (index, _) in self
            .kept
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.is_selected(select))
        {
            bits.set(index);
        }
        bits
    }
}

fn targets(
    place: &Place,
    specs: &[TargetSpec],
    interner: &mut Interner<'_>,
) -> Result<Box<[Target]>, LoadError> {
    let resolved = specs.iter().map(|spec| {
        let chosen = match &spec.selector {
            Selector::All => Chosen::All,
            Selector::Name(name) if spec.variable == Variable::Tx => {
                Chosen::Slot(interner.slot(name.as_bytes()))
            }
            Selector::Name(name) => Chosen::Name(
                interner.names.intern(name.as_bytes()),
                name.as_bytes().into(),
            ),
            Selector::Pattern(text) => Chosen::Pattern(interner.selector(place, text.as_ref())?),
            Selector::XmlText => Chosen::XmlText,
            Selector::XmlAttributes => Chosen::XmlAttributes,
        };
        Ok(Target {
            variable: spec.variable,
            chosen,
            count: spec.count,
        })
    });
    resolved.collect()
}

fn resolve_assign(assign: &seclang::Assign, interner: &mut Interner<'_>) -> Assign {
    let key = match assign.key.literal() {
        Some(name) if assign.collection == seclang::Collection::Tx => {
            Key::Slot(interner.slot(name))
        }
        _ => Key::Named(interner.template(&assign.key)),
    };
    let change = match &assign.change {
        seclang::Change::Set(value) => match value.literal().and_then(whole_number) {
            Some(number) => Change::SetNumber(number),
            None => Change::Set(interner.template(value)),
        },
        seclang::Change::Add(amount) => Change::Add(interner.template(amount)),
        seclang::Change::Subtract(amount) => Change::Subtract(interner.template(amount)),
        seclang::Change::Remove => Change::Remove,
    };
    Assign {
        collection: assign.collection,
        key,
        change,
    }
}

/// A number that is written as we would write it.
pub(crate) fn whole_number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
