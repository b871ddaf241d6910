//! Directives into statements, files included.

use std::sync::Arc;

use super::error::{LoadError, Place, nearest};
use super::lexer::{self, Line};
use super::source::{Limits, Sources, relative};
use super::statement::{EngineMode, RuleSpec, Select, Setting, Statement};
use super::{actions, control, operators, variables};

/// The statements of the files, in order.
pub(crate) fn parse(
    sources: &dyn Sources,
    files: &[&str],
    limits: &Limits,
) -> Result<Vec<Statement>, LoadError> {
    let mut parser = Parser {
        sources,
        limits,
        open: Vec::new(),
        found: Vec::new(),
    };
    for file in files {
        parser.file(
            &Place {
                file: (*file).into(),
                line: 0,
            },
            file,
        )?;
    }
    Ok(parser.found)
}

struct Parser<'a> {
    sources: &'a dyn Sources,
    limits: &'a Limits,
    /// The files that are being read, outermost first.
    open: Vec<Arc<str>>,
    found: Vec<Statement>,
}

impl Parser<'_> {
    fn file(&mut self, from: &Place, name: &str) -> Result<(), LoadError> {
        if self.open.iter().any(|open| **open == *name) {
            return Err(from.error(format!("{name} includes itself: {}", self.open.join(" → "))));
        }
        if self.open.len() >= self.limits.include_depth {
            return Err(from.error(format!(
                "Include is nested deeper than {} files",
                self.limits.include_depth
            )));
        }
        let bytes = self
            .sources
            .read(name, self.limits.file_bytes)
            .map_err(|why| from.error(why))?;
        let file: Arc<str> = name.into();
        let at = |line| Place {
            file: Arc::clone(&file),
            line,
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            at(0).error(format!("the file is not UTF-8 at byte {offset}"))
        })?;
        let lines = lexer::lines(&text).map_err(|(line, message)| at(line).error(message))?;
        self.open.push(Arc::clone(&file));
        for line in lines {
            self.statement(&at(line.number), &line)?;
        }
        self.open.pop();
        Ok(())
    }

    fn include(&mut self, place: &Place, pattern: &str, optional: bool) -> Result<(), LoadError> {
        let pattern = relative(&place.file, pattern);
        let files = self
            .sources
            .matching(&pattern)
            .map_err(|why| place.error(why))?;
        if files.is_empty() && !optional && !pattern.contains('*') {
            return Err(place.error(format!("Include {pattern} names no file")));
        }
        for file in files {
            self.file(place, &file)?;
        }
        Ok(())
    }

    fn statement(&mut self, place: &Place, line: &Line) -> Result<(), LoadError> {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let Some((&name, arguments)) = words.split_first() else {
            return Ok(());
        };
        if let Some(long) = arguments
            .iter()
            .find(|word| word.len() > self.limits.pattern_bytes)
        {
            let most = self.limits.pattern_bytes;
            return Err(place.error(format!(
                "an argument has {} bytes, at most {most} are allowed",
                long.len()
            )));
        }
        match (name.to_ascii_lowercase().as_str(), arguments) {
            ("include", [pattern]) => return self.include(place, pattern, false),
            ("includeoptional", [pattern]) => return self.include(place, pattern, true),
            (lower, arguments) => {
                let made = statement(place, lower, name, arguments)
                    .map_err(|message| place.error(message))?;
                self.found.extend(made);
            }
        }
        if self.found.len() > self.limits.rules {
            return Err(place.error(format!(
                "there are more than {} statements",
                self.limits.rules
            )));
        }
        Ok(())
    }
}

fn statement(
    place: &Place,
    lower: &str,
    name: &str,
    arguments: &[&str],
) -> Result<Option<Statement>, String> {
    let place = place.clone();
    Ok(Some(match (lower, arguments) {
        ("secrule", [targets, operator, rest @ ..]) if rest.len() <= 1 => {
            Statement::Rule(RuleSpec {
                place,
                targets: variables::parse_targets(targets)?,
                operator: Some(operators::parse(operator)?),
                actions: actions::parse(rest.first().copied().unwrap_or_default())?,
            })
        }
        ("secaction", [text]) => {
            let actions = actions::parse(text)?;
            Statement::Rule(RuleSpec {
                place,
                targets: Vec::new(),
                operator: None,
                actions,
            })
        }
        ("secdefaultaction", [text]) => Statement::Default(place, actions::parse(text)?),
        ("secmarker", [name]) => Statement::Marker((*name).into()),
        ("secruleremovebyid", ids @ [_, ..]) => {
            Statement::Remove(place, Select::Ids(control::ids(&ids.join(" "))?))
        }
        ("secruleremovebytag", [tag]) => {
            Statement::Remove(place, Select::Tag(control::matching(tag)?))
        }
        ("secruleremovebymsg", [text]) => {
            Statement::Remove(place, Select::Message(control::matching(text)?))
        }
        ("secruleupdatetargetbyid", [ids, targets]) => Statement::UpdateTarget(
            place,
            Select::Ids(control::ids(ids)?),
            variables::parse_targets(targets)?,
        ),
        ("secruleupdatetargetbytag", [tag, targets]) => Statement::UpdateTarget(
            place,
            Select::Tag(control::matching(tag)?),
            variables::parse_targets(targets)?,
        ),
        ("secruleupdatetargetbymsg", [text, targets]) => Statement::UpdateTarget(
            place,
            Select::Message(control::matching(text)?),
            variables::parse_targets(targets)?,
        ),
        ("secruleupdateactionbyid", [id, text]) => {
            let id = id.parse().map_err(|_| format!("`{id}` is no rule id"))?;
            Statement::UpdateAction(place, id, actions::parse(text)?)
        }
        // Told by rule sets for people and logs, used by no engine.
        ("seccomponentsignature", [_]) => return Ok(None),
        (_, arguments) => {
            let setting = setting(lower, name, arguments)?;
            return Ok(setting.map(|setting| Statement::Setting(place, setting)));
        }
    }))
}

/// Directives with another home here: what they would say is said elsewhere, so that a file written
/// for another engine loads, and nothing that would change a judgement is passed over.
const ELSEWHERE: &[&str] = &[
    "SecAuditEngine",
    "SecAuditLog",
    "SecAuditLog2",
    "SecAuditLogDirMode",
    "SecAuditLogFileMode",
    "SecAuditLogFormat",
    "SecAuditLogParts",
    "SecAuditLogPrefix",
    "SecAuditLogRelevantStatus",
    "SecAuditLogStorageDir",
    "SecAuditLogType",
    "SecDataDir",
    "SecDebugLog",
    "SecDebugLogLevel",
    "SecServerSignature",
    "SecStatusEngine",
    "SecTmpDir",
    "SecTmpSaveUploadedFiles",
    "SecUploadDir",
    "SecUploadFileLimit",
    "SecUploadFileMode",
    "SecUploadKeepFiles",
    "SecRequestBodyInMemoryLimit",
    "SecPcreMatchLimit",
    "SecPcreMatchLimitRecursion",
    "SecWebAppId",
    "SecSensorId",
    "SecResponseBodyMimeType",
    "SecResponseBodyMimeTypesClear",
    "SecRequestBodyNoFilesLimit",
    "SecCookieFormat",
    "SecXmlExternalEntity",
    "SecArgumentsLimitAction",
];

const SETTINGS: &[&str] = &[
    "Include",
    "IncludeOptional",
    "SecRule",
    "SecAction",
    "SecDefaultAction",
    "SecMarker",
    "SecRuleRemoveById",
    "SecRuleRemoveByTag",
    "SecRuleRemoveByMsg",
    "SecRuleUpdateTargetById",
    "SecRuleUpdateTargetByTag",
    "SecRuleUpdateTargetByMsg",
    "SecRuleUpdateActionById",
    "SecComponentSignature",
    "SecRuleEngine",
    "SecRequestBodyAccess",
    "SecResponseBodyAccess",
    "SecArgumentSeparator",
    "SecArgumentsLimit",
    "SecRequestBodyJsonDepthLimit",
    "SecRequestBodyLimit",
    "SecRequestBodyLimitAction",
    "SecResponseBodyLimit",
    "SecResponseBodyLimitAction",
    "SecCollectionTimeout",
];

fn setting(lower: &str, name: &str, arguments: &[&str]) -> Result<Option<Setting>, String> {
    if ELSEWHERE
        .iter()
        .any(|known| known.eq_ignore_ascii_case(lower))
    {
        return Ok(None);
    }
    let [value] = arguments else {
        return Err(
            match SETTINGS
                .iter()
                .find(|known| known.eq_ignore_ascii_case(lower))
            {
                Some(known) => format!("{known} does not take {} arguments", arguments.len()),
                None => unknown(name),
            },
        );
    };
    let setting = match lower {
        "secruleengine" => Setting::Engine(actions::engine_mode(value)?),
        "secrequestbodyaccess" => Setting::RequestBodyAccess(on_off(name, value)?),
        "secresponsebodyaccess" => Setting::ResponseBodyAccess(on_off(name, value)?),
        "secargumentseparator" => match value.as_bytes() {
            &[byte] => Setting::ArgumentSeparator(byte),
            _ => return Err(format!("{name} takes one byte, not `{value}`")),
        },
        "secargumentslimit" => Setting::ArgumentsLimit(number(name, value)?),
        "secrequestbodyjsondepthlimit" => Setting::JsonDepthLimit(number(name, value)?),
        "secrequestbodylimit" => Setting::RequestBodyLimit(number(name, value)?),
        "secresponsebodylimit" => Setting::ResponseBodyLimit(number(name, value)?),
        "secrequestbodylimitaction" => Setting::RejectLongRequest(is_reject(name, value)?),
        "secresponsebodylimitaction" => Setting::RejectLongResponse(is_reject(name, value)?),
        "seccollectiontimeout" => Setting::CollectionTimeout(number(name, value)?),
        _ => return Err(unknown(name)),
    };
    Ok(Some(setting))
}

fn unknown(name: &str) -> String {
    let known = SETTINGS.iter().chain(ELSEWHERE).copied();
    format!("unknown directive `{name}`{}", nearest(name, known))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} takes a number, not `{value}`"))
}

fn on_off(name: &str, value: &str) -> Result<bool, String> {
    match actions::engine_mode(value) {
        Ok(EngineMode::On) => Ok(true),
        Ok(EngineMode::Off) => Ok(false),
        _ => Err(format!("{name} takes On or Off, not `{value}`")),
    }
}

fn is_reject(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "reject" => Ok(true),
        "processpartial" => Ok(false),
        _ => Err(format!(
            "{name} takes Reject or ProcessPartial, not `{value}`"
        )),
    }
}
