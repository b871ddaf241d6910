//! Rules that a paranoia level never reaches.
//!
//! CRS puts the rules of level N behind `TX:DETECTION_PARANOIA_LEVEL "@lt N" … skipAfter:END`. Where
//! the level is known not to exceed a ceiling, the skip always happens, and what it skips need not
//! be compiled.

use super::draft::{Draft, Gathered};
use crate::bytes::leading_number;
use crate::seclang::{Action, Change, LoadError, NumberTest, Operand, Piece, Selector, Variable};

const DETECTION: &str = "detection_paranoia_level";
/// The TX variables that say the level.
pub(crate) const LEVELS: [&str; 2] = [DETECTION, "blocking_paranoia_level"];

pub(super) fn leave_out(gathered: &mut Gathered, ceiling: u8) -> Result<(), LoadError> {
    for rule in gathered.rules.iter().filter(|rule| !rule.removed) {
        verify_level(rule, ceiling)?;
    }
    let mut skipped: Vec<(u8, usize, usize)> = Vec::new();
    for rule in gathered.rules.iter().filter(|rule| !rule.removed) {
        let Some(marker) = always_skips(rule, ceiling) else {
            continue;
        };
        let end = gathered
            .markers
            .iter()
            .find(|(name, at)| **name == *marker && *at > rule.order);
        if let Some((_, end)) = end {
            skipped.push((rule.phase, rule.order, *end));
        }
    }
    for rule in &mut gathered.rules {
        let covers = |&(phase, from, to): &(u8, usize, usize)| {
            phase == rule.phase && (from + 1..to).contains(&rule.order)
        };
        if skipped.iter().any(covers) {
            rule.removed = true;
        }
    }
    Ok(())
}

/// The marker to which this rule skips whenever the level is at most the ceiling.
fn always_skips(rule: &Draft, ceiling: u8) -> Option<&str> {
    let [link] = rule.links.as_slice() else {
        return None;
    };
    let [target] = link.targets.as_slice() else {
        return None;
    };
    let named = matches!(&target.selector, Selector::Name(name) if &**name == DETECTION);
    let operator = link.operator.as_ref()?;
    let Operand::Number(NumberTest::Less, bound) = &operator.operand else {
        return None;
    };
    let bound = leading_number(bound.literal()?);
    if target.variable != Variable::Tx
        || !named
        || target.count
        || operator.negated
        || bound <= i64::from(ceiling)
    {
        return None;
    }
    link.actions.iter().find_map(|action| match action {
        Action::SkipAfter(marker) => Some(&**marker),
        _ => None,
    })
}

/// A level above the ceiling would silently be no level at all.
fn verify_level(rule: &Draft, ceiling: u8) -> Result<(), LoadError> {
    for link in &rule.links {
        for action in &link.actions {
            let Action::Assign(assign) = action else {
                continue;
            };
            let [Piece::Text(key)] = assign.key.pieces.as_slice() else {
                continue;
            };
            let Change::Set(value) = &assign.change else {
                continue;
            };
            let Some(value) = value.literal() else {
                continue;
            };
            let is_level = LEVELS
                .iter()
                .any(|level| level.as_bytes().eq_ignore_ascii_case(key));
            if is_level && leading_number(value) > i64::from(ceiling) {
                let level = leading_number(value);
                let message = format!(
                    "rule {} asks for paranoia level {level}, the set is compiled for {ceiling}",
                    rule.id
                );
                return Err(link.place.error(message));
            }
        }
    }
    Ok(())
}
