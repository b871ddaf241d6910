//! `ctl`: what a rule changes of the engine for one request, and how rules are chosen.

use std::sync::Arc;

use super::actions::engine_mode;
use super::error::nearest;
use super::statement::{Control, Matching, Select};
use super::variables;
use crate::body::Processor;

fn on_off(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{name}={value}` is neither On nor Off")),
    }
}

const CONTROLS: &[&str] = &[
    "ruleRemoveById",
    "ruleRemoveByTag",
    "ruleRemoveByMsg",
    "ruleRemoveTargetById",
    "ruleRemoveTargetByTag",
    "ruleRemoveTargetByMsg",
    "ruleEngine",
    "requestBodyProcessor",
    "forceRequestBodyVariable",
    "requestBodyAccess",
    "responseBodyAccess",
    "auditEngine",
    "auditLogParts",
];

pub(super) fn control(text: &str) -> Result<Control, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`ctl:{text}` lacks its value"))?;
    let value = value
        .strip_prefix('\'')
        .and_then(|value| value.strip_suffix('\''))
        .unwrap_or(value);
    let targets = |value: &str| -> Result<_, String> {
        let (which, targets) = value
            .split_once(';')
            .ok_or_else(|| format!("`{text}` lacks `;TARGET`"))?;
        Ok((which.to_owned(), variables::parse_targets(targets)?))
    };
    Ok(match name.to_ascii_lowercase().as_str() {
        "ruleremovebyid" => Control::RemoveRules(Select::Ids(ids(value)?)),
        "ruleremovebytag" => Control::RemoveRules(Select::Tag(matching(value)?)),
        "ruleremovebymsg" => Control::RemoveRules(Select::Message(matching(value)?)),
        "ruleremovetargetbyid" => {
            let (which, targets) = targets(value)?;
            Control::RemoveTargets(Select::Ids(ids(&which)?), targets)
        }
        "ruleremovetargetbytag" => {
            let (which, targets) = targets(value)?;
            Control::RemoveTargets(Select::Tag(matching(&which)?), targets)
        }
        "ruleremovetargetbymsg" => {
            let (which, targets) = targets(value)?;
            Control::RemoveTargets(Select::Message(matching(&which)?), targets)
        }
        "ruleengine" => Control::Engine(engine_mode(value)?),
        "requestbodyprocessor" => Control::RequestBodyProcessor(processor(value)?),
        "forcerequestbodyvariable" => Control::ForceRequestBody(on_off(name, value)?),
        "requestbodyaccess" => Control::RequestBodyAccess(on_off(name, value)?),
        "responsebodyaccess" => Control::ResponseBodyAccess(on_off(name, value)?),
        "auditengine" => Control::Audit(!value.eq_ignore_ascii_case("off")),
        // Which parts of a request an event holds is the configuration's to say.
        "auditlogparts" => Control::Audit(true),
        _ => {
            return Err(format!(
                "unknown `ctl:{name}`{}",
                nearest(name, CONTROLS.iter().copied())
            ));
        }
    })
}

fn processor(value: &str) -> Result<Processor, String> {
    Processor::from_name(value).ok_or_else(|| {
        let known = Processor::ALL.into_iter().map(Processor::name);
        format!("unknown body processor `{value}`{}", nearest(value, known))
    })
}

/// Ids and ranges of ids, separated by commas or spaces.
pub(super) fn ids(text: &str) -> Result<Vec<(u64, u64)>, String> {
    let mut found = Vec::new();
    for part in text
        .split([',', ' '])
        .map(|part| part.trim_matches('"'))
        .filter(|part| !part.is_empty())
    {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        match (low.trim().parse(), high.trim().parse()) {
            (Ok(low), Ok(high)) if low <= high => found.push((low, high)),
            _ => return Err(format!("`{part}` is no rule id and no range of ids")),
        }
    }
    if found.is_empty() {
        Err("no rule id is named".to_owned())
    } else {
        Ok(found)
    }
}

/// A text, or a pattern between slashes.
pub(crate) fn matching(text: &str) -> Result<Matching, String> {
    match text
        .strip_prefix('/')
        .and_then(|text| text.strip_suffix('/'))
    {
        None => Ok(Matching::Text(text.into())),
        Some(pattern) => regex_automata::meta::Regex::new(pattern)
            .map(|pattern| Matching::Pattern(Arc::new(pattern)))
            .map_err(|error| format!("/{pattern}/ is no pattern: {error}")),
    }
}
