//! Whether a request that comes again is judged as it was before.

use super::{Lost, Tailored};
use crate::operator::Operator;
use crate::rule::{After, Assign, Bits, Link, Part, Rule, RuleSet, Target, Template};
use crate::seclang::{Collection, Variable};

impl Tailored {
    /// Whether the verdict on a request without a body, or whose body is not told, depends on nothing but
    /// the addresses of both ends, the request line, the header fields and [`Tailored::expired_at`]: no rule
    /// that a request may reach asks for the time, chance, the client's port or what requests before left.
    /// Of the answer nothing is said.
    pub fn is_repeatable(&self) -> bool {
        let set = &*self.set;
        let mut skipped = Bits::with_room_for(set.rules.len());
        let mut removals = Vec::new();
        for (phase, reached) in set.phases.iter().zip(&self.presets().reached) {
            for (position, step) in phase.steps.iter().enumerate() {
                let Some(rule) = set.rules.get(step.rule as usize) else {
                    continue;
                };
                match (reached.has(position), is_steady(rule, set)) {
                    (true, false) => return false,
                    (false, false) => skipped.set(step.rule as usize),
                    (_, true) => {}
                }
                let after = rule.links.iter().flat_map(|link| &link.after);
                removals.extend(after.filter_map(After::removes));
            }
        }
        // Where a skip is removed, what it skips is run, but for what is removed with it.
        let followed = set.prefilter.followed();
        removals.extend(self.removed.iter().map(|(_, rules)| rules));
        removals
            .into_iter()
            .all(|removed| !removed.meets(followed) || removed.has_all(&skipped))
    }

    /// How many exclusions have run out by then. They run out in one order, so that of two times with the
    /// same number the same ones hold.
    pub fn expired_at(&self, now_micros: u64) -> usize {
        let removed = self.removed.iter().filter_map(|(until, _)| *until);
        let lost = self.lost.iter().flat_map(|(_, lost)| lost);
        let untils = removed.chain(lost.filter_map(Lost::until));
        untils.filter(|until| now_micros >= *until).count()
    }
}

fn is_steady(rule: &Rule, set: &RuleSet) -> bool {
    rule.links.iter().all(|link| {
        link.targets.iter().all(is_told)
            && is_operator_steady(link, set)
            && link.assigns.iter().all(is_assign_steady)
            && link.after.iter().all(is_after_steady)
    })
}

fn is_told(target: &Target) -> bool {
    is_variable_told(target.variable)
}

fn is_operator_steady(link: &Link, set: &RuleSet) -> bool {
    match set.operator(link) {
        Some(Operator::Number(_, other) | Operator::Text(_, other)) => is_template_steady(other),
        Some(_) => true,
        None => link.operator.is_none(),
    }
}

fn is_assign_steady(assign: &Assign) -> bool {
    assign.collection == Collection::Tx && assign.texts().all(is_template_steady)
}

fn is_after_steady(after: &After) -> bool {
    match after {
        After::SetEnv(_, value) => is_template_steady(value),
        After::Expire(..) | After::Open(..) => false,
        After::RemoveRules(_)
        | After::RemoveTargets(_)
        | After::Engine(_)
        | After::Processor(_)
        | After::ForceRequestBody(_)
        | After::RequestBodyAccess(_)
        | After::ResponseBodyAccess(_)
        | After::Audit(_)
        | After::HideMatched
        | After::Hide(..)
        | After::Skip(_)
        | After::GoTo(_) => true,
    }
}

fn is_template_steady(template: &Template) -> bool {
    template.0.iter().all(|part| match part {
        Part::Text(_) | Part::Slot(_) => true,
        Part::Value(variable, _) => is_variable_told(*variable),
    })
}

/// Whether equal requests have the same values of it.
fn is_variable_told(variable: Variable) -> bool {
    use Variable as V;
    !matches!(
        variable,
        V::Duration
            | V::Env
            | V::Global
            | V::Ip
            | V::RemotePort
            | V::Resource
            | V::Session
            | V::Time
            | V::TimeDay
            | V::TimeEpoch
            | V::TimeHour
            | V::TimeMin
            | V::TimeMon
            | V::TimeSec
            | V::TimeWday
            | V::TimeYear
            | V::UniqueId
            | V::User
    )
}

#[cfg(test)]
#[path = "repeat_tests.rs"]
mod tests;
