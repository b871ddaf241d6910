//! The firewall of a plan: how each route is inspected, by which rules.
//!
//! Owns what a snapshot says of inspection, compiled. Routes share rule sets: what is a route's own
//! (thresholds, exclusions, types of bodies) lies over the set. Must not: judge; `judgement` does.

mod event;
mod judgement;
mod known;
mod sets;

use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use vedette_waf::{EngineMode, Exclusion, MemoryStore, Selected, Tailored, Tailoring};

pub use event::{action, violations};
pub use judgement::{Acquaintance, Judgement, Ruling, acquaintance, ends, ruling, scores, tell};
pub use known::Known;

use crate::load::{EngineDir, LoadError};
use crate::snapshot::{
    self, WafBodyBeyond, WafOverrideMatchedData, WafOverrideMode, WafPolicyMatchedData,
    WafPolicyMode,
};
use sets::Sets;
pub use sets::{analyse_rules, prepare};

/// Records of collections that outlive a request (`IP`, `GLOBAL`, …), of all rules of the node together.
const MOST_RECORDS: usize = 20_000;
static COLLECTIONS: LazyLock<Arc<MemoryStore>> =
    LazyLock::new(|| Arc::new(MemoryStore::new(MOST_RECORDS)));

/// Where rules keep what outlives a request. A restart forgets it.
pub fn collections() -> Arc<MemoryStore> {
    Arc::clone(&COLLECTIONS)
}

/// How a route is inspected.
pub struct Policy {
    /// The rules, as the route has them.
    pub rules: Tailored,
    /// Whether what scores too high is refused, not only told.
    pub blocks: bool,
    /// Score from which a request is refused.
    pub inbound_threshold: i64,
    /// Score from which an answer is refused.
    pub outbound_threshold: i64,
    /// How much of a request's body is kept back.
    pub body: BodyLimits,
    /// Which answers are inspected.
    pub response: Option<Answers>,
    /// Whether events hold the bytes that matched.
    pub keeps_data: bool,
    /// Whether a request that comes again is judged as it was before.
    pub is_repeatable: bool,
}

/// How much of a request's body is kept back until it is judged.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    most: usize,
    with_files: usize,
    /// Whether a larger one is refused, which only a policy that blocks does; else the rest of it flows on unseen.
    pub rejects: bool,
}

/// Which answers are inspected, and how much of them.
#[derive(Debug)]
pub struct Answers {
    /// Bytes that are kept back at most.
    pub most: usize,
    types: Vec<Box<str>>,
}

/// Makes the policies of one snapshot.
pub struct Compiler<'a> {
    sets: Sets<'a>,
    declared: Option<&'a snapshot::WafPolicy>,
    default: Option<Arc<Policy>>,
    /// The same for models; made for the first route to one.
    of_models: Option<Arc<Policy>>,
}

/// Who answers on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    /// A model, whose process says itself which types of bodies it takes (415).
    Model,
    /// Anybody else.
    Other,
}

/// "Request content type is not allowed by policy", of the Core Rule Set.
const CONTENT_TYPES: u64 = 920_420;

impl<'a> Compiler<'a> {
    /// Compiles what holds for routes that say nothing themselves.
    pub fn new(declared: Option<&'a snapshot::Waf>, dir: &'a EngineDir) -> Result<Self, LoadError> {
        let mut sets = Sets::new(declared.map(|waf| waf.rules.as_str()), dir);
        let declared = declared.map(|waf| &waf.policy);
        let default = match declared {
            Some(declared) => policy(&mut sets, declared, "waf", Answerer::Other)?,
            None => None,
        };
        Ok(Self {
            sets,
            declared,
            default,
            of_models: None,
        })
    }

    /// How this route is inspected; `None`: not at all.
    pub fn policy(
        &mut self,
        route: &snapshot::Route,
        answerer: Answerer,
    ) -> Result<Option<Arc<Policy>>, LoadError> {
        let Some(own) = &route.waf else {
            return match (answerer, self.declared) {
                (Answerer::Model, Some(node)) => self.of_models(node),
                _ => Ok(self.default.clone()),
            };
        };
        let Some(node) = self.declared else {
            let message = format!("{}: the snapshot has no Core Rule Set", route.name);
            return Err(LoadError::new("waf_invalid", message));
        };
        let answerer = match own.content_types {
            // Its own list is meant for it.
            Some(_) => Answerer::Other,
            None => answerer,
        };
        policy(&mut self.sets, &over(node, own), &route.name, answerer)
    }

    fn of_models(&mut self, node: &snapshot::WafPolicy) -> Result<Option<Arc<Policy>>, LoadError> {
        if self.of_models.is_none() {
            self.of_models = policy(&mut self.sets, node, "waf", Answerer::Model)?;
        }
        Ok(self.of_models.clone())
    }

    /// Forgets the rule sets that this snapshot has no use for.
    pub fn finish(self) {
        self.sets.finish();
    }
}

/// What the node says, with what a route has otherwise on top.
fn over(node: &snapshot::WafPolicy, own: &snapshot::WafOverride) -> snapshot::WafPolicy {
    let own = own.clone();
    let mut both = node.clone();
    both.mode = match own.mode {
        None => both.mode,
        Some(WafOverrideMode::Block) => WafPolicyMode::Block,
        Some(WafOverrideMode::Detect) => WafPolicyMode::Detect,
        Some(WafOverrideMode::Off) => WafPolicyMode::Off,
    };
    both.matched_data = match own.matched_data {
        None => both.matched_data,
        Some(WafOverrideMatchedData::Redact) => WafPolicyMatchedData::Redact,
        Some(WafOverrideMatchedData::Keep) => WafPolicyMatchedData::Keep,
    };
    both.paranoia_level = own.paranoia_level.unwrap_or(both.paranoia_level);
    both.inbound_threshold = own.inbound_threshold.unwrap_or(both.inbound_threshold);
    both.outbound_threshold = own.outbound_threshold.unwrap_or(both.outbound_threshold);
    both.content_types = own.content_types.unwrap_or(both.content_types);
    both.body = own.body.unwrap_or(both.body);
    both.response = own.response.or(both.response);
    both.exclusions.extend(own.exclusions);
    both.rules.extend(own.rules);
    both.rule_files.extend(own.rule_files);
    both
}

fn policy(
    sets: &mut Sets<'_>,
    declared: &snapshot::WafPolicy,
    whose: &str,
    answerer: Answerer,
) -> Result<Option<Arc<Policy>>, LoadError> {
    let mode = match declared.mode {
        WafPolicyMode::Off => return Ok(None),
        WafPolicyMode::Block => EngineMode::On,
        WafPolicyMode::Detect => EngineMode::DetectionOnly,
    };
    let invalid = |what: String| LoadError::new("waf_invalid", format!("{whose}: {what}"));
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let score = |score: u64| i64::try_from(score).unwrap_or(i64::MAX);
    let (inbound, outbound) = (declared.inbound_threshold, declared.outbound_threshold);
    let mut excluded = declared
        .exclusions
        .iter()
        .map(exclusions)
        .collect::<Result<Vec<_>, _>>()
        .map_err(&invalid)?
        .concat();
    if answerer == Answerer::Model {
        excluded.push(Exclusion {
            rules: Selected::Id(CONTENT_TYPES),
            target: None,
            until_micros: None,
            force: false,
        });
    }
    let tailoring = Tailoring {
        mode: Some(mode),
        inbound_threshold: Some(score(inbound)),
        outbound_threshold: Some(score(outbound)),
        settings: vec![allowed_types(&declared.content_types)],
        exclusions: excluded,
    };
    let rules = sets
        .load(declared, whose)?
        .tailor(&tailoring)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(Some(Arc::new(Policy {
        is_repeatable: declared.response.is_none() && rules.is_repeatable(),
        rules,
        blocks: mode == EngineMode::On,
        inbound_threshold: score(inbound),
        outbound_threshold: score(outbound),
        body: BodyLimits {
            most: size(declared.body.limit_bytes),
            with_files: size(declared.body.upload_limit_bytes),
            rejects: mode == EngineMode::On && declared.body.beyond == WafBodyBeyond::Reject,
        },
        response: declared.response.as_ref().map(|response| Answers {
            most: size(response.limit_bytes),
            types: response
                .content_types
                .iter()
                .map(|it| it.as_str().into())
                .collect(),
        }),
        keeps_data: declared.matched_data == WafPolicyMatchedData::Keep,
    })))
}

/// As the Core Rule Set writes them, `|application/json| |text/xml|`.
fn allowed_types(types: &[String]) -> (String, String) {
    let written: Vec<String> = types.iter().map(|it| format!("|{it}|")).collect();
    let name = "allowed_request_content_type".to_owned();
    (name, written.join(" "))
}

/// One exclusion for each rule, range or tag that it names.
fn exclusions(declared: &snapshot::WafExclusion) -> Result<Vec<Exclusion>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is no rule id"))
    };
    let until_micros = declared.until.map(|until| until.saturating_mul(1_000_000));
    let selected = |text: &String| -> Result<Selected, String> {
        Ok(match (text.strip_prefix("tag:"), text.split_once('-')) {
            (Some(tag), _) => Selected::Tag(tag.to_owned()),
            (None, Some((from, to))) => Selected::Range(number(from)?, number(to)?),
            (None, None) => Selected::Id(number(text)?),
        })
    };
    declared
        .rules
        .iter()
        .map(|text| {
            Ok(Exclusion {
                rules: selected(text)?,
                target: declared.parameter.clone(),
                until_micros,
                force: false,
            })
        })
        .collect()
}

/// What kind of body a request announces, as far as inspection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Names and values, text, or nobody says what: nothing of it passes before all of it was judged.
    Fields,
    /// The same, with files.
    Upload,
    /// Bytes that no rule takes apart. They flow on as they come.
    Opaque,
}

/// Whether the header fields announce JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let name = media_type(headers).map(str::to_ascii_lowercase);
    name.is_some_and(|name| {
        name.strip_prefix("application/")
            .is_some_and(|it| it == "json" || it.ends_with("+json"))
    })
}

/// Whether the header fields announce text of whatever kind.
pub fn is_text(headers: &HeaderMap) -> bool {
    let start = media_type(headers).and_then(|it| it.get(..5));
    start.is_some_and(|it| it.eq_ignore_ascii_case("text/"))
}

impl BodyKind {
    /// The kind that the header fields announce.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(media_type) = media_type(headers) else {
            return Self::Fields;
        };
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        let ends = |suffix: &str| {
            let at = media_type.len().checked_sub(suffix.len());
            at.and_then(|at| media_type.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        };
        let is_grpc = media_type
            .get(..16)
            .is_some_and(|start| start.eq_ignore_ascii_case("application/grpc"));
        if is("multipart/form-data") {
            return Self::Upload;
        }
        let is_fields = is("application/x-www-form-urlencoded")
            || is("application/csp-report")
            || ends("/json")
            || ends("+json")
            || ends("/xml")
            || ends("+xml");
        let is_text = media_type
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("text/"))
            || ends("ndjson")
            || ends("jsonl")
            || ends("yaml")
            || ends("javascript")
            || ends("graphql");
        match (is_grpc, is_fields || is_text) {
            (false, true) => Self::Fields,
            _ => Self::Opaque,
        }
    }
}

impl BodyLimits {
    /// Bytes of such a body that are kept back at most.
    pub fn of(&self, kind: BodyKind) -> usize {
        match kind {
            BodyKind::Fields => self.most,
            BodyKind::Upload => self.with_files,
            BodyKind::Opaque => 0,
        }
    }
}

impl Answers {
    /// Whether an answer with these header fields is inspected.
    pub fn includes(&self, headers: &HeaderMap) -> bool {
        let media_type = media_type(headers).unwrap_or_default();
        self.types
            .iter()
            .any(|it| it.eq_ignore_ascii_case(media_type))
    }
}

/// The media type without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim_ascii())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(content_type: &str) -> BodyKind {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        BodyKind::of(&headers)
    }

    #[test]
    fn what_rules_take_apart_is_kept_back_and_the_rest_flows() {
        for fields in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "text/xml",
            "image/svg+xml",
            "application/x-www-form-urlencoded",
            "application/csp-report",
            "",
            "text/plain",
            "TEXT/csv; header=present",
            "application/x-ndjson",
            "application/jsonl",
            "application/yaml",
        ] {
            assert_eq!(kind(fields), BodyKind::Fields, "{fields}");
        }
        assert_eq!(kind("multipart/form-data; boundary=x"), BodyKind::Upload);
        for opaque in [
            "application/grpc",
            "application/grpc+json",
            "application/octet-stream",
            "image/png",
            "json",
        ] {
            assert_eq!(kind(opaque), BodyKind::Opaque, "{opaque}");
        }
    }

    fn node() -> snapshot::WafPolicy {
        serde_json::from_value(serde_json::json!({
            "mode": "block", "paranoiaLevel": 2, "inboundThreshold": 5, "outboundThreshold": 4,
            "contentTypes": ["text/plain"], "matchedData": "Redact",
            "body": {"limitBytes": 1024, "uploadLimitBytes": 2048, "beyond": "Reject"},
            "exclusions": [{"rules": ["1"], "reason": "node"}], "rules": [], "ruleFiles": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_route_has_what_the_node_says_but_for_what_it_says_itself() {
        let own = serde_json::json!({
            "mode": "detect", "inboundThreshold": 9, "rules": [], "ruleFiles": [],
            "exclusions": [{"rules": ["2"], "reason": "own"}],
        });
        let both = over(&node(), &serde_json::from_value(own).unwrap());
        assert_eq!(both.mode, WafPolicyMode::Detect);
        assert_eq!((both.paranoia_level, both.inbound_threshold), (2, 9));
        let reasons: Vec<_> = both
            .exclusions
            .iter()
            .map(|it| it.reason.as_str())
            .collect();
        assert_eq!(reasons, ["node", "own"]);
        let nothing = serde_json::json!({"exclusions": [], "rules": [], "ruleFiles": []});
        assert_eq!(
            over(&node(), &serde_json::from_value(nothing).unwrap()),
            node()
        );
    }

    #[test]
    fn an_exclusion_names_rules_one_by_one() {
        let declared = serde_json::json!({
            "rules": ["942100", "941000-941999", "tag:attack-sqli"], "reason": "r",
            "parameter": "ARGS:q", "until": 5,
        });
        let found = exclusions(&serde_json::from_value(declared).unwrap()).unwrap();
        let rules: Vec<_> = found.iter().map(|it| it.rules.clone()).collect();
        let tag = Selected::Tag("attack-sqli".to_owned());
        assert_eq!(
            rules,
            [
                Selected::Id(942_100),
                Selected::Range(941_000, 941_999),
                tag
            ]
        );
        assert!(
            found
                .iter()
                .all(|it| it.until_micros == Some(5_000_000) && !it.force)
        );
    }
}
