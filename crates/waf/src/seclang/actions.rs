//! The actions of SecLang by name.

use super::control::control;
use super::error::nearest;
use super::macros::Macro;
use super::statement::{Action, Allow, Assign, Change, Collection, Disruption, EngineMode};
use super::variables::Variable;
use crate::transform::Transform;

const NAMES: &[&str] = &[
    "id",
    "phase",
    "msg",
    "logdata",
    "severity",
    "tag",
    "ver",
    "rev",
    "maturity",
    "accuracy",
    "xmlns",
    "block",
    "deny",
    "drop",
    "pass",
    "allow",
    "redirect",
    "status",
    "log",
    "nolog",
    "auditlog",
    "noauditlog",
    "chain",
    "capture",
    "multiMatch",
    "t",
    "setvar",
    "expirevar",
    "initcol",
    "setuid",
    "setsid",
    "setrsc",
    "setenv",
    "skip",
    "skipAfter",
    "ctl",
    "sanitiseMatched",
    "sanitiseMatchedBytes",
    "sanitiseArg",
    "sanitiseRequestHeader",
    "sanitiseResponseHeader",
];

const REFUSED: &[(&str, &str)] = &[
    ("exec", "rules start no programs"),
    ("proxy", "where a request goes is the route's to say"),
    ("pause", "a worker never sleeps; use a rate limit"),
    ("append", "a judge does not change what it judges"),
    ("prepend", "a judge does not change what it judges"),
    ("deprecatevar", "use expirevar"),
];

pub(super) fn parse(text: &str) -> Result<Vec<Action>, String> {
    split(text)?
        .into_iter()
        .map(|(name, value)| action(&name, value.as_deref()))
        .collect()
}

/// `name[:value]` between commas; a value may stand in single quotes.
fn split(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([':', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let name = name.trim().to_owned();
        if let Some(after) = after.strip_prefix(':') {
            let (value, next) = value(after.trim_start())?;
            found.push((name, Some(value)));
            rest = next;
        } else {
            rest = after;
            if !name.is_empty() {
                found.push((name, None));
            }
        }
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(format!("a comma is missing before `{rest}`")),
        }
    }
    Ok(found)
}

fn value(text: &str) -> Result<(String, &str), String> {
    // `ctl:ruleRemoveTargetById='…'` and `setvar:'…'`: a quote may follow what it belongs to.
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut rest = quoted;
    while let Some((before, after)) = rest.split_once(['\\', '\'']) {
        value.push_str(before);
        if rest
            .get(before.len()..)
            .is_some_and(|at| at.starts_with('\''))
        {
            return Ok((value, after));
        }
        let mut letters = after.chars();
        match letters.next() {
            Some('\'') => value.push('\''),
            next => value.extend(['\\'].into_iter().chain(next)),
        }
        rest = letters.as_str();
    }
    Err(format!("the quote before `{quoted}` is never closed"))
}

fn action(name: &str, value: Option<&str>) -> Result<Action, String> {
    let lower = name.to_ascii_lowercase();
    if let Some(action) = flag(&lower, value) {
        return Ok(action);
    }
    let needed = || {
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("the action `{name}` needs a value"))
    };
    match lower.as_str() {
        "id" => number(name, needed()?).map(Action::Id),
        "phase" => phase(needed()?),
        "msg" => Macro::parse(value.unwrap_or_default()).map(Action::Message),
        "logdata" => Macro::parse(value.unwrap_or_default()).map(Action::LogData),
        "severity" => severity(needed()?),
        "tag" => Ok(Action::Tag(needed()?.into())),
        "ver" | "rev" | "maturity" | "accuracy" | "xmlns" => Ok(Action::Note),
        "allow" => allow(value),
        "redirect" => {
            Macro::parse(needed()?).map(|to| Action::Disruption(Disruption::Redirect(to)))
        }
        "status" => number(name, needed()?).map(Action::Status),
        "t" => transform(needed()?),
        "setvar" => assign(needed()?).map(Action::Assign),
        "expirevar" => expire(needed()?),
        "initcol" => open(needed()?),
        "setuid" => Macro::parse(needed()?).map(|key| Action::Open(Collection::User, key)),
        "setsid" => Macro::parse(needed()?).map(|key| Action::Open(Collection::Session, key)),
        "setrsc" => Macro::parse(needed()?).map(|key| Action::Open(Collection::Resource, key)),
        "setenv" => {
            let (key, text) = needed()?
                .split_once('=')
                .unwrap_or((value.unwrap_or_default(), "1"));
            Macro::parse(text).map(|text| Action::SetEnv(key.to_ascii_lowercase().into(), text))
        }
        "skip" => number(name, needed()?).map(Action::Skip),
        "skipafter" => Ok(Action::SkipAfter(needed()?.into())),
        "ctl" => control(needed()?).map(Action::Control),
        "sanitisearg" | "sanitizearg" => Ok(Action::Hide(
            Variable::Args,
            needed()?.to_ascii_lowercase().into(),
        )),
        "sanitiserequestheader" | "sanitizerequestheader" => Ok(Action::Hide(
            Variable::RequestHeaders,
            needed()?.to_ascii_lowercase().into(),
        )),
        "sanitiseresponseheader" | "sanitizeresponseheader" => Ok(Action::Hide(
            Variable::ResponseHeaders,
            needed()?.to_ascii_lowercase().into(),
        )),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    match REFUSED
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
    {
        Some((known, why)) => format!("the action `{known}` is not supported: {why}"),
        None => format!(
            "unknown action `{name}`{}",
            nearest(name, NAMES.iter().copied())
        ),
    }
}

/// The actions without a value.
fn flag(name: &str, value: Option<&str>) -> Option<Action> {
    if name.starts_with("sanitisematched") || name.starts_with("sanitizematched") {
        return Some(Action::HideMatched);
    }
    if value.is_some() {
        return None;
    }
    Some(match name {
        "block" => Action::Disruption(Disruption::Block),
        "deny" => Action::Disruption(Disruption::Deny),
        "drop" => Action::Disruption(Disruption::Drop),
        "pass" => Action::Disruption(Disruption::Pass),
        "log" => Action::Log(true),
        "nolog" => Action::Log(false),
        "auditlog" => Action::Audit(true),
        "noauditlog" => Action::Audit(false),
        "chain" => Action::Chain,
        "capture" => Action::Capture,
        "multimatch" => Action::MultiMatch,
        _ => return None,
    })
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .trim()
        .parse()
        .map_err(|_| format!("`{name}:{value}` is not a number in range"))
}

fn phase(value: &str) -> Result<Action, String> {
    let phase = match value.to_ascii_lowercase().as_str() {
        "1" => 1,
        "2" | "request" => 2,
        "3" => 3,
        "4" | "response" => 4,
        "5" | "logging" => 5,
        _ => {
            return Err(format!(
                "`phase:{value}`: phases are 1 to 5, request, response and logging"
            ));
        }
    };
    Ok(Action::Phase(phase))
}

const SEVERITIES: [&str; 8] = [
    "EMERGENCY",
    "ALERT",
    "CRITICAL",
    "ERROR",
    "WARNING",
    "NOTICE",
    "INFO",
    "DEBUG",
];

fn severity(value: &str) -> Result<Action, String> {
    let by_name = SEVERITIES
        .iter()
        .position(|name| name.eq_ignore_ascii_case(value));
    let by_number = value
        .parse::<usize>()
        .ok()
        .filter(|&number| number < SEVERITIES.len());
    by_name
        .or(by_number)
        .and_then(|number| u8::try_from(number).ok())
        .map(Action::Severity)
        .ok_or_else(|| {
            format!(
                "unknown severity `{value}`{}",
                nearest(value, SEVERITIES.into_iter())
            )
        })
}

fn allow(value: Option<&str>) -> Result<Action, String> {
    let scope = match value.map(str::to_ascii_lowercase).as_deref() {
        None => Allow::All,
        Some("phase") => Allow::Phase,
        Some("request") => Allow::Request,
        Some(other) => {
            return Err(format!(
                "`allow:{other}`: an allow may say phase or request"
            ));
        }
    };
    Ok(Action::Disruption(Disruption::Allow(scope)))
}

fn transform(name: &str) -> Result<Action, String> {
    if name.eq_ignore_ascii_case("none") {
        return Ok(Action::NoTransform);
    }
    Transform::named(name)
        .map(Action::Transform)
        .ok_or_else(|| {
            format!(
                "unknown transformation `{name}`{}",
                nearest(name, Transform::names())
            )
        })
}

fn collection(text: &str) -> Result<(Collection, &str), String> {
    let (name, key) = text
        .split_once(['.', ':'])
        .ok_or_else(|| format!("`{text}` names no collection, as in tx.name"))?;
    let collection = Collection::named(name).ok_or_else(|| {
        let known = Collection::ALL
            .into_iter()
            .map(|collection| collection.variable().name());
        format!(
            "`{name}` is not a collection that rules write to{}",
            nearest(name, known)
        )
    })?;
    Ok((collection, key))
}

fn assign(text: &str) -> Result<Assign, String> {
    let (removed, text) = text
        .strip_prefix('!')
        .map_or((false, text), |rest| (true, rest));
    let (target, value) = text
        .split_once('=')
        .map_or((text, None), |(target, value)| (target, Some(value)));
    let (collection, key) = collection(target.trim())?;
    let key = Macro::parse(key.trim())?;
    let change = match (removed, value) {
        (true, None) => Change::Remove,
        (true, Some(_)) => return Err(format!("`!{text}`: a variable is either removed or set")),
        (false, None) => Change::Set(Macro::parse("1")?),
        (false, Some(value)) => match (value.strip_prefix('+'), value.strip_prefix('-')) {
            (Some(amount), _) => Change::Add(Macro::parse(amount)?),
            (_, Some(amount)) => Change::Subtract(Macro::parse(amount)?),
            _ => Change::Set(Macro::parse(value)?),
        },
    };
    Ok(Assign {
        collection,
        key,
        change,
    })
}

fn expire(text: &str) -> Result<Action, String> {
    let (target, seconds) = text.split_once('=').unwrap_or((text, "3600"));
    let (collection, key) = collection(target)?;
    if collection == Collection::Tx {
        return Err(
            "expirevar of a TX variable has no effect: it ends with its transaction".to_owned(),
        );
    }
    Ok(Action::Expire(
        collection,
        Macro::parse(key)?,
        Macro::parse(seconds)?,
    ))
}

fn open(text: &str) -> Result<Action, String> {
    let (name, key) = text
        .split_once('=')
        .ok_or_else(|| format!("`initcol:{text}` lacks its key, as in ip=%{{…}}"))?;
    match Collection::named(name) {
        Some(Collection::Tx) | None => Err(format!(
            "`initcol:{text}`: {name} is not a persistent collection"
        )),
        Some(collection) => Macro::parse(key).map(|key| Action::Open(collection, key)),
    }
}

pub(super) fn engine_mode(value: &str) -> Result<EngineMode, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" => Ok(EngineMode::On),
        "off" => Ok(EngineMode::Off),
        "detectiononly" => Ok(EngineMode::DetectionOnly),
        _ => Err(format!(
            "`{value}` is no mode of the engine: On, DetectionOnly or Off"
        )),
    }
}
