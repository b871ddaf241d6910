//! What statements say of other rules: removed, targets changed, actions changed. They hold for the
//! whole set, wherever they stand.

use super::draft::Gathered;
use crate::seclang::{LoadError, Place, Statement};

/// Applies the changes. Gives back those that changed nothing.
pub(super) fn apply(gathered: &mut Gathered) -> Result<Vec<LoadError>, LoadError> {
    let mut warnings = Vec::new();
    for change in std::mem::take(&mut gathered.changes) {
        let mut found = false;
        match change {
            Statement::Remove(place, select) => {
                for rule in gathered
                    .rules
                    .iter_mut()
                    .filter(|rule| rule.is_selected(&select))
                {
                    rule.removed = true;
                    found = true;
                }
                note(&mut warnings, &place, found);
            }
            Statement::UpdateTarget(place, select, targets) => {
                for rule in gathered
                    .rules
                    .iter_mut()
                    .filter(|rule| rule.is_selected(&select))
                {
                    found = true;
                    let Some(link) = rule.links.first_mut() else {
                        continue;
                    };
                    let (excluded, added): (Vec<_>, Vec<_>) =
                        targets.iter().cloned().partition(|target| target.exclude);
                    link.excluded.extend(excluded);
                    link.targets.extend(added);
                }
                note(&mut warnings, &place, found);
            }
            Statement::UpdateAction(place, id, actions) => {
                let Some(rule) = gathered.rules.iter_mut().find(|rule| rule.id == id) else {
                    return Err(place.error(format!("there is no rule {id} to update")));
                };
                rule.update_actions(&place, actions)?;
            }
            _ => {}
        }
    }
    Ok(warnings)
}

fn note(warnings: &mut Vec<LoadError>, place: &Place, found: bool) {
    if !found {
        warnings.push(place.error("this names no rule of the set and has no effect"));
    }
}
