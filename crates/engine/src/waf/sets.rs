//! Rule sets by what they are made of, compiled once and shared by routes, plans and workers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use serde::Deserialize;
use vedette_waf::{Analysis, Consequence, CustomRule, Field, Memory, Options, RuleSet, Test};

use crate::load::{EngineDir, LoadError, sha256};
use crate::snapshot::{self, WafRuleAction, WafRuleOperator};
use crate::sys;

/// The rules of the Core Rule Set that judge the scores of requests and of answers.
const JUDGING: [u64; 2] = [949_110, 959_100];
/// The most rule sets of one snapshot. Each takes some megabytes.
const MOST_SETS: usize = 16;
/// Where the ids of typed rules begin.
const OWN_RULES: u64 = 9_000_000;
/// What the paths of the user's files begin with.
const OWN_FILES: &str = "own/";
const NODE: &str = "node.conf";
const LEVEL: &str = "level.conf";

/// The sets of the last snapshot compiled, so that the next one with the same rules costs nothing.
static KEPT: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// A rule set, and what it is made of.
#[derive(Clone)]
struct Loaded {
    key: String,
    set: Arc<RuleSet>,
    prepared: Arc<Once>,
}

/// The Core Rule Set as control packs it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Archive {
    #[allow(dead_code)] // told by the snapshot; here for who reads the blob
    version: String,
    /// Texts by path.
    files: BTreeMap<String, String>,
    /// Paths of the rules, in order; the first is the set-up, before which nothing of it stands.
    load: Vec<String>,
}

impl Archive {
    fn read(blob: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(blob).map_err(|error| error.to_string())
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.files.iter();
        files
            .map(|(path, text)| (path.clone(), text.clone().into_bytes()))
            .collect()
    }
}

/// What the patterns of packed rules are, for engines of this version to load them quickly. Rules that the
/// engine would refuse are refused here.
pub fn analyse_rules(packed: &[u8]) -> Result<Vec<u8>, LoadError> {
    let analysed = Archive::read(packed).and_then(|archive| {
        let load: Vec<&str> = archive.load.iter().map(String::as_str).collect();
        let found = Analysis::of(&Memory(archive.files()), &load, &Options::default());
        found.map_err(|error| error.to_string())
    });
    let analysed = analysed.map_err(|what| LoadError::new("waf_invalid", what))?;
    Ok(analysed.to_bytes())
}

/// Compiles the rule sets of one snapshot.
pub struct Sets<'a> {
    rules: Option<&'a str>,
    dir: &'a EngineDir,
    archive: Option<Archive>,
    /// What is known of the archive's patterns.
    analysis: Option<Arc<Analysis>>,
    used: Vec<Loaded>,
}

impl<'a> Sets<'a> {
    /// `rules` is the digest of the Core Rule Set.
    pub fn new(rules: Option<&'a str>, dir: &'a EngineDir) -> Self {
        Self {
            rules,
            dir,
            archive: None,
            analysis: None,
            used: Vec::new(),
        }
    }

    /// The rule set that `policy` needs; `whose` is the route it is of.
    pub fn load(
        &mut self,
        policy: &snapshot::WafPolicy,
        whose: &str,
    ) -> Result<Arc<RuleSet>, LoadError> {
        let invalid = |what: String| LoadError::new("waf_invalid", format!("{whose}: {what}"));
        let Some(rules) = self.rules else {
            return Err(invalid("the snapshot has no Core Rule Set".to_owned()));
        };
        let key = key(rules, policy);
        let find = |kept: &[Loaded]| kept.iter().find(|it| it.key == key).cloned();
        if let Some(loaded) = find(&self.used) {
            return Ok(loaded.set);
        }
        if self.used.len() >= MOST_SETS {
            let message = format!("more than {MOST_SETS} different sets of rules on one node");
            return Err(invalid(message));
        }
        let loaded = match find(&kept()) {
            Some(loaded) => loaded,
            None => Loaded {
                set: Arc::new(self.compile(policy).map_err(&invalid)?),
                key,
                prepared: Arc::new(Once::new()),
            },
        };
        self.used.push(loaded.clone());
        Ok(loaded.set)
    }

    fn compile(&mut self, policy: &snapshot::WafPolicy) -> Result<RuleSet, String> {
        if self.archive.is_none() {
            let rules = self.rules.unwrap_or_default();
            let blob = self.dir.blob(rules).map_err(|error| error.to_string())?;
            self.archive = Some(Archive::read(&blob)?);
            self.analysis = self.dir.analysis(rules).and_then(|it| read_analysis(&it));
        }
        let Some(archive) = &self.archive else {
            return Err("there is no Core Rule Set".to_owned());
        };
        let mut files = archive.files();
        files.insert(NODE.to_owned(), include_bytes!("node.conf").to_vec());
        files.insert(LEVEL.to_owned(), settings(policy).into_bytes());
        let mut load = vec![NODE.to_owned(), LEVEL.to_owned()];
        let (setup, rules) = archive
            .load
            .split_first()
            .ok_or("its list of files is empty")?;
        load.push(setup.clone());
        for file in &policy.rule_files {
            let blob = self
                .dir
                .blob(&file.blob)
                .map_err(|error| error.to_string())?;
            let path = format!("{OWN_FILES}{}", file.name);
            load.push(path.clone());
            files.insert(path, blob);
        }
        load.extend_from_slice(rules);
        let options = Options {
            paranoia_ceiling: u8::try_from(policy.paranoia_level).ok(),
            custom: (OWN_RULES..).zip(&policy.rules).map(custom).collect(),
            analysis: self.analysis.clone(),
            without_settings: Some(OWN_FILES),
            ..Options::default()
        };
        let load: Vec<&str> = load.iter().map(String::as_str).collect();
        let set = RuleSet::load(&Memory(files), &load, &options);
        let set = set.map_err(|error| error.to_string())?;
        match JUDGING.iter().find(|&&id| !set.has(id)) {
            Some(id) if !policy.rule_files.is_empty() => Err(format!(
                "a rule file takes away rule {id}, without which nothing is blocked"
            )),
            _ => Ok(set),
        }
    }

    /// Lets go of the sets that are not among those loaded here.
    pub fn finish(self) {
        *kept() = self.used;
    }
}

/// Compiles, beside the traffic, what sets that are new leave until a request wants it.
pub fn prepare() {
    let mut new = kept().clone();
    new.retain(|it| !it.prepared.is_completed());
    if new.is_empty() {
        return;
    }
    let compile = move || {
        for it in &new {
            it.prepared.call_once(|| it.set.prepare());
        }
        sys::give_back_memory();
    };
    // Where no thread can be had, requests compile what they want.
    drop(
        std::thread::Builder::new()
            .name("waf".to_owned())
            .spawn(compile),
    );
}

fn read_analysis(bytes: &[u8]) -> Option<Arc<Analysis>> {
    let read = Analysis::from_bytes(bytes);
    let told = |error| sys::say(&format_args!("{error}: the rules are analysed anew"));
    read.map_err(told).ok().map(Arc::new)
}

fn kept() -> MutexGuard<'static, Vec<Loaded>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a set is made of: two policies with the same share it.
fn key(rules: &str, policy: &snapshot::WafPolicy) -> String {
    let mut key = format!("{rules} {}", policy.paranoia_level);
    for file in &policy.rule_files {
        // Writing to a string cannot fail.
        let _ = write!(key, " {file:?}");
    }
    for rule in &policy.rules {
        let _ = write!(key, " {rule:?}");
    }
    sha256(key.as_bytes())
}

/// The settings of the Core Rule Set that make it another set.
fn settings(policy: &snapshot::WafPolicy) -> String {
    let level = policy.paranoia_level;
    format!(
        "SecAction \"id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level={level},\
         setvar:tx.detection_paranoia_level={level}\"\n"
    )
}

fn custom((id, rule): (u64, &snapshot::WafRule)) -> CustomRule {
    let (kind, name) = rule.field.split_once(':').unwrap_or((&rule.field, ""));
    let field = match (kind, name) {
        ("query", _) => Field::Query,
        ("method", _) => Field::Method,
        ("address", _) => Field::Address,
        ("header", name) => Field::Header(name.to_owned()),
        ("cookie", name) => Field::Cookie(name.to_owned()),
        ("argument", "") => Field::AnyArgument,
        ("argument", name) => Field::Argument(name.to_owned()),
        ("body", _) => Field::Body,
        _ => Field::Path,
    };
    CustomRule {
        id,
        message: rule.name.clone(),
        field,
        test: match rule.operator {
            WafRuleOperator::Equals => Test::Equals,
            WafRuleOperator::Contains => Test::Contains,
            WafRuleOperator::StartsWith => Test::StartsWith,
            WafRuleOperator::EndsWith => Test::EndsWith,
            WafRuleOperator::Matches => Test::Matches,
            WafRuleOperator::InNetworks => Test::InNetworks,
        },
        value: rule.value.clone(),
        consequence: match rule.action {
            WafRuleAction::Block => Consequence::Block,
            WafRuleAction::Allow => Consequence::Allow,
            WafRuleAction::Log => Consequence::Log,
        },
    }
}
