use std::sync::Arc;

use crate::{Exclusion, Memory, Options, RuleSet, Selected, Tailored, Tailoring};

/// A default that skips, as the Core Rule Set has it for sampling, and a rule that every request reaches.
const RULES: &str = r#"
SecRuleEngine On
SecRule &TX:sampling "@eq 0" "id:901130,phase:1,nolog,pass,setvar:tx.sampling=100"
SecRule TX:sampling "@eq 100" "id:901400,phase:1,pass,nolog,skipAfter:END-SAMPLING"
SecRule UNIQUE_ID "@rx ^[a-f]*([0-9])" "id:901410,phase:1,pass,nolog,capture,setvar:tx.chance=%{tx.1}"
SecMarker END-SAMPLING
SecRule ARGS "@rx select" "id:942100,phase:2,log,pass,tag:'attack',setvar:tx.score=+5"
"#;

fn set(more: &str) -> Arc<RuleSet> {
    let text = format!("{RULES}{more}\n");
    let files = Memory([("rules.conf".to_owned(), text.into_bytes())].into());
    Arc::new(RuleSet::load(&files, &["rules.conf"], &Options::default()).unwrap())
}

fn tailored(set: &Arc<RuleSet>, tailoring: &Tailoring) -> Tailored {
    set.tailor(tailoring).unwrap()
}

fn is_repeatable(more: &str) -> bool {
    tailored(&set(more), &Tailoring::default()).is_repeatable()
}

fn without(id: u64, until_micros: Option<u64>, target: Option<&str>) -> Tailoring {
    let exclusion = Exclusion {
        rules: Selected::Id(id),
        target: target.map(str::to_owned),
        until_micros,
        force: true,
    };
    Tailoring {
        exclusions: vec![exclusion],
        ..Tailoring::default()
    }
}

#[test]
fn rules_about_the_request_alone_repeat_their_verdict() {
    assert!(is_repeatable(""));
    assert!(is_repeatable(
        r#"SecRule REMOTE_ADDR "@ipMatch 192.0.2.1" "id:1,phase:1,deny""#
    ));
    assert!(is_repeatable(
        r#"SecRule REQUEST_HEADERS:Host "@streq %{SERVER_NAME}" "id:1,phase:1,pass,ctl:ruleRemoveById=942100""#
    ));
}

#[test]
fn rules_about_time_chance_ports_and_earlier_requests_do_not() {
    for rule in [
        r#"SecRule TIME_HOUR "@lt 8" "id:1,phase:1,deny""#,
        r#"SecRule REMOTE_PORT "@lt 1024" "id:1,phase:1,deny""#,
        r#"SecRule DURATION "@gt 1000" "id:1,phase:2,deny""#,
        r#"SecRule UNIQUE_ID "@rx ^a" "id:1,phase:1,deny""#,
        r#"SecRule ARGS:hour "@streq %{TIME_HOUR}" "id:1,phase:2,deny""#,
        r#"SecRule ARGS:a "@rx ." "id:1,phase:2,pass,setvar:tx.then=%{TIME_EPOCH}""#,
        r#"SecRule ARGS:a "@rx ." "id:1,phase:2,pass,setvar:'tx.seen_%{UNIQUE_ID}=1'""#,
        r#"SecRule ARGS:a "@rx ." "id:1,phase:2,pass,chain"
           SecRule TIME_HOUR "@lt 8" "setvar:tx.early=1""#,
        r#"SecAction "id:1,phase:1,pass,initcol:ip=%{REMOTE_ADDR}""#,
        r#"SecRule IP:blocked "@eq 1" "id:1,phase:1,deny""#,
        r#"SecAction "id:1,phase:5,pass,nolog,setvar:ip.count=+1""#,
    ] {
        assert!(!is_repeatable(rule), "{rule}");
    }
}

#[test]
fn what_no_request_reaches_does_not_count_until_the_skip_is_taken_away() {
    let set = set("");
    assert!(tailored(&set, &Tailoring::default()).is_repeatable());
    let sampled = Tailoring {
        settings: vec![("sampling".to_owned(), "50".to_owned())],
        ..Tailoring::default()
    };
    assert!(!tailored(&set, &sampled).is_repeatable());
    assert!(!tailored(&set, &without(901_400, None, None)).is_repeatable());
    assert!(!is_repeatable(
        r#"SecRule ARGS:a "@rx ." "id:1,phase:1,pass,ctl:ruleRemoveById=901400""#
    ));
    assert!(is_repeatable(
        r#"SecRule ARGS:a "@rx ." "id:1,phase:1,pass,ctl:ruleRemoveById=901000-901999""#
    ));
}

#[test]
fn exclusions_that_run_out_are_told_apart_by_their_number() {
    let set = set("");
    for target in [None, Some("ARGS:q")] {
        let limited = tailored(&set, &without(942_100, Some(1000), target));
        assert!(limited.is_repeatable());
        assert_eq!((limited.expired_at(999), limited.expired_at(1000)), (0, 1));
        let always = tailored(&set, &without(942_100, None, target));
        assert_eq!(always.expired_at(u64::MAX), 0);
    }
}

#[test]
fn the_core_rule_set_repeats_its_verdict_at_every_level() {
    let Ok(folder) = std::env::var("VEDETTE_CRS_RULES") else {
        println!("skipped: VEDETTE_CRS_RULES names no folder with the Core Rule Set's rules");
        return;
    };
    let files = crate::Sources::matching(&crate::Disk, &format!("{folder}/*.conf")).unwrap();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for level in 1..=4 {
        let options = Options {
            paranoia_ceiling: Some(level),
            ..Options::default()
        };
        let set = Arc::new(RuleSet::load(&crate::Disk, &files, &options).unwrap());
        let level = Tailoring {
            settings: vec![("blocking_paranoia_level".to_owned(), level.to_string())],
            ..Tailoring::default()
        };
        assert!(tailored(&set, &level).is_repeatable());
    }
}
