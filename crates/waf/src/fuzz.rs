//! Fuzz targets of the rule engine: see `vedette_engine::fuzz`. Each takes bytes and must neither panic nor run away.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::sync::LazyLock;

use crate::analysis;
use crate::body::fuzz::{form, json, multipart, xml};
use crate::injection::{is_sql_injection, is_xss};
use crate::transform::Transform;
use crate::{Analysis, Ends, Memory, Options, RuleSet, Transaction, Workbench};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("analysis", analysis),
    ("seclang", seclang),
    ("transformation", transformation),
    ("transaction", transaction),
    ("form", form),
    ("multipart", multipart),
    ("json", json),
    ("xml", xml),
    ("injection", injection),
];

/// SecLang of any kind: refused or loaded.
pub fn seclang(text: &[u8]) {
    let files = Memory([("fuzz.conf".to_owned(), text.to_vec())].into());
    drop(RuleSet::load(&files, &["fuzz.conf"], &Options::default()));
}

/// An analysis that is damaged on purpose, so that its digest says nothing: refused, or of this one form.
pub fn analysis(content: &[u8]) {
    let bytes = analysis::sealed(content);
    if let Ok(read) = Analysis::from_bytes(&bytes) {
        assert_eq!(read.to_bytes(), bytes);
    }
}

/// The transformation that the first byte chooses, over the rest, twice: the second input is what
/// an attacker who knows the first would send.
pub fn transformation(bytes: &[u8]) {
    let Some((&choice, input)) = bytes.split_first() else {
        return;
    };
    let names: Vec<&str> = Transform::names().collect();
    let name = names
        .get(usize::from(choice) % names.len())
        .copied()
        .unwrap_or_default();
    let Some(transform) = Transform::named(name) else {
        return;
    };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    transform.apply(input, &mut once);
    transform.apply(&once, &mut twice);
}

/// Rules that use what is intricate: chains, captures, names that are made up, removals.
const RULES: &str = r#"SecRuleEngine On
SecResponseBodyAccess On
SecRule REQUEST_HEADERS:Content-Type "json" "id:1,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQUEST_HEADERS:Content-Type "xml" "id:2,phase:1,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule ARGS_NAMES|ARGS|XML:/*|FILES|REQUEST_COOKIES "@rx (.)(.)?" "id:3,phase:2,pass,capture,multiMatch,t:urlDecodeUni,t:htmlEntityDecode,t:jsDecode,t:cssDecode,t:normalizePath,setvar:'tx.seen_%{MATCHED_VAR_NAME}=+%{tx.1}',chain"
  SecRule MATCHED_VARS|TX:/^seen_/ "!@within %{tx.0}" "t:utf8toUnicode,t:cmdLine,setvar:tx.score=+1"
SecRule ARGS|REQUEST_BODY "@detectSQLi" "id:4,phase:2,pass,capture"
SecRule ARGS|REQUEST_URI "@detectXSS" "id:5,phase:2,pass,ctl:ruleRemoveTargetById=3;ARGS:/a/"
SecRule TX:score "@gt 3" "id:6,phase:2,deny,msg:'%{tx.score} %{MATCHED_VARS_NAMES}'"
"#;

/// Loaded once: a load takes as long as a hundred requests.
static SET: LazyLock<Option<RuleSet>> = LazyLock::new(|| {
    let files = Memory([("fuzz.conf".to_owned(), RULES.as_bytes().to_vec())].into());
    RuleSet::load(&files, &["fuzz.conf"], &Options::default()).ok()
});

/// A request: target, one header and body, separated by newlines.
pub fn transaction(bytes: &[u8]) {
    let Some(set) = &*SET else {
        return;
    };
    let mut bench = Workbench::new(set);
    let mut parts = bytes.splitn(4, |&byte| byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (target, media_type, cookie, body) = (next(), next(), next(), next());
    let mut tx = Transaction::begin(set, &mut bench, 1_700_000_000_000_000, "fuzz");
    tx.connection(&Ends {
        client: ([192, 0, 2, 1].into(), 1),
        server: ([192, 0, 2, 2].into(), 80),
    });
    tx.request_line(b"POST", target, b"HTTP/1.1");
    tx.header(b"Content-Type", media_type);
    tx.header(b"Cookie", cookie);
    tx.end_of_request_headers(&mut bench);
    tx.body(body);
    tx.end_of_request_body(&mut bench);
    tx.response_line(b"HTTP/1.1", 200);
    tx.end_of_response_headers(&mut bench);
    tx.response_body(body);
    tx.end_of_response_body(&mut bench);
    drop(tx.end(&mut bench));
}

/// A value that may be SQL or script.
pub fn injection(value: &[u8]) {
    if let Some(found) = is_sql_injection(value) {
        assert!(!found.as_str().is_empty());
    }
    let _ = is_xss(value);
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod tests;

#[cfg(test)]
#[test]
fn every_seed_of_the_rule_engine_passes_its_target() {
    replay::all(TARGETS);
}
