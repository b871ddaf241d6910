use crate::seclang::Memory;
use crate::{Ends, Options, RuleSet, Transaction, Workbench};

fn load_with(text: &str, options: &Options) -> Result<RuleSet, String> {
    let files = [
        ("a.conf", format!("SecRuleEngine On\n{text}")),
        ("words.data", "# words\nevil\n\nworse\n".to_owned()),
    ];
    let files = Memory(
        files
            .map(|(name, text)| (name.to_owned(), text.into_bytes()))
            .into(),
    );
    RuleSet::load(&files, &["a.conf"], options).map_err(|error| error.to_string())
}

fn load(text: &str) -> Result<RuleSet, String> {
    load_with(text, &Options::default())
}

fn blocks(set: &RuleSet, target: &str) -> bool {
    let mut bench = Workbench::new(set);
    let mut tx = Transaction::begin(set, &mut bench, 0, "u");
    tx.connection(&Ends {
        client: ([1, 2, 3, 4].into(), 1),
        server: ([1, 1, 1, 1].into(), 2),
    });
    tx.request_line(b"GET", target.as_bytes(), b"HTTP/1.1");
    tx.end_of_request_headers(&mut bench);
    tx.end_of_request_body(&mut bench);
    tx.end(&mut bench).interruption.is_some()
}

const RULE: &str = "SecRule ARGS \"@rx b\" \"id:10,phase:2,deny,tag:'x/y',msg:'the message'\"\n";

#[test]
fn an_id_is_taken_once() {
    let told = load(&format!("{RULE}{RULE}")).unwrap_err();
    assert_eq!(told, "a.conf:3: the id 10 is taken by a.conf:2");
}

#[test]
fn a_rule_without_an_id_is_refused() {
    assert!(
        load("SecAction \"pass\"")
            .unwrap_err()
            .contains("the rule has no id")
    );
}

#[test]
fn rules_are_removed_by_id_range_tag_and_message_wherever_that_is_said() {
    for removal in [
        "SecRuleRemoveById 10",
        "SecRuleRemoveById 1 5-20",
        "SecRuleRemoveByTag x/y",
        "SecRuleRemoveByTag /^x/",
        "SecRuleRemoveByMsg \"the message\"",
    ] {
        for text in [format!("{RULE}{removal}"), format!("{removal}\n{RULE}")] {
            assert!(!blocks(&load(&text).unwrap(), "/?a=b"), "{removal}");
        }
    }
    assert!(blocks(&load(RULE).unwrap(), "/?a=b"));
}

#[test]
fn a_removal_that_names_no_rule_is_a_warning() {
    let set = load(&format!("{RULE}SecRuleRemoveById 11")).unwrap();
    let [warning] = set.warnings() else {
        panic!("{:?}", set.warnings())
    };
    assert_eq!(
        warning.to_string(),
        "a.conf:3: this names no rule of the set and has no effect"
    );
}

#[test]
fn targets_are_taken_and_given_by_id_tag_and_message() {
    for which in ["ById 10", "ByTag x/y", "ByMsg \"the message\""] {
        let set = load(&format!(
            "{RULE}SecRuleUpdateTarget{which} \"!ARGS:/^_ga/,REQUEST_FILENAME\""
        ))
        .unwrap();
        assert!(!blocks(&set, "/?_ga1=b"), "{which}");
        assert!(blocks(&set, "/?x=b"), "{which}");
        assert!(blocks(&set, "/b"), "{which}");
    }
}

#[test]
fn actions_are_updated_by_id() {
    let set = load(&format!(
        "{RULE}SecRuleUpdateActionById 10 \"pass,t:none,t:uppercase\""
    ))
    .unwrap();
    assert!(!blocks(&set, "/?a=b"));
    assert!(
        load("SecRuleUpdateActionById 10 pass")
            .unwrap_err()
            .contains("there is no rule 10")
    );
    assert!(
        load(&format!("{RULE}SecRuleUpdateActionById 10 id:11"))
            .unwrap_err()
            .contains("cannot change the id")
    );
}

#[test]
fn a_marker_that_does_not_follow_is_refused() {
    let told =
        load("SecMarker END_A\nSecAction \"id:1,phase:1,skipAfter:END_B\"\nSecMarker END_BB")
            .unwrap_err();
    assert!(
        told.starts_with("a.conf:3: skipAfter:END_B: no SecMarker") && told.contains("`END_BB`"),
        "{told}"
    );
}

#[test]
fn a_chain_that_its_file_leaves_open_is_the_mistake_of_that_file() {
    let files = Memory(
        [
            (
                "own.conf".to_owned(),
                b"\nSecRule ARGS @rx \"id:1,chain\"".to_vec(),
            ),
            ("rules.conf".to_owned(), b"SecRule ARGS @rx id:2".to_vec()),
        ]
        .into(),
    );
    let told = RuleSet::load(&files, &["own.conf", "rules.conf"], &Options::default());
    let told = told.unwrap_err().to_string();
    assert!(
        told.starts_with("own.conf:2: the chain has no next rule"),
        "{told}"
    );
}

#[test]
fn a_host_that_decides_about_settings_refuses_them_in_files_of_others() {
    let load = |path: &str, directive: &str| {
        let files = Memory([(path.to_owned(), format!("\n{directive}").into_bytes())].into());
        let options = Options {
            without_settings: Some("own/"),
            ..Options::default()
        };
        RuleSet::load(&files, &[path], &options).map(drop)
    };
    for directive in [
        "SecRuleEngine DetectionOnly",
        "SecRequestBodyAccess Off",
        "SecRequestBodyLimit 10",
        "SecResponseBodyLimitAction Reject",
    ] {
        let told = load("own/a.conf", directive).unwrap_err().to_string();
        assert!(
            told.starts_with("own/a.conf:2: this setting is not for a rule file"),
            "{told}"
        );
        assert!(load("node.conf", directive).is_ok(), "{directive}");
    }
    assert!(load("own/a.conf", "SecAuditEngine On").is_ok());
    assert!(load("own/a.conf", "SecRule ARGS \"@rx a\" id:1").is_ok());
}

#[test]
fn a_chain_needs_its_next_rule_and_one_id() {
    assert!(
        load("SecRule ARGS @rx \"id:1,chain\"")
            .unwrap_err()
            .contains("the chain has no next rule")
    );
    let told = load("SecRule ARGS @rx \"id:1,chain\"\nSecRule ARGS @rx id:2").unwrap_err();
    assert!(
        told.starts_with("a.conf:3: a rule inside a chain has an id"),
        "{told}"
    );
}

#[test]
fn defaults_hold_for_the_rules_after_them() {
    let set = load("SecRule ARGS \"@rx B\" \"id:1,phase:2,block\"\nSecDefaultAction \"phase:2,deny,t:uppercase\"\nSecRule ARGS \"@rx C\" \"id:2,phase:2,block\"").unwrap();
    assert!(!blocks(&set, "/?a=b"));
    assert!(!blocks(&set, "/?a=B"));
    assert!(blocks(&set, "/?a=c"));
}

#[test]
fn phrases_come_from_a_file_beside_the_rule() {
    let set = load("SecRule ARGS \"@pmFromFile words.data\" \"id:1,phase:2,deny\"").unwrap();
    assert!(blocks(&set, "/?a=so+WORSE"));
    assert!(!blocks(&set, "/?a=words"));
    assert!(
        load("SecRule ARGS \"@pmFromFile no.data\" \"id:1\"")
            .unwrap_err()
            .contains("there is no file no.data")
    );
}

#[test]
fn a_pattern_that_cannot_be_matched_in_linear_time_is_refused() {
    let told = load("SecRule ARGS \"@rx (?=a)b\" id:1").unwrap_err();
    assert!(
        told.starts_with("a.conf:2: the pattern cannot be used: look-around"),
        "{told}"
    );
    assert!(
        load("SecRule ARGS \"@rx (a)\\1\" id:1")
            .unwrap_err()
            .contains("backreferences")
    );
    let huge = load("SecRule ARGS \"@rx (?:\\d{900}){900}\" id:1").unwrap_err();
    assert!(
        huge.contains("bytes once compiled") || huge.contains("cannot be used"),
        "{huge}"
    );
}

#[test]
fn a_pattern_of_12_000_bytes_is_taken() {
    let words: Vec<String> = (0..1500).map(|n| format!("w{n:06}")).collect();
    let set = load(&format!(
        "SecRule ARGS \"@rx ^(?:{})$\" \"id:1,phase:2,deny\"",
        words.join("|")
    ))
    .unwrap();
    assert!(blocks(&set, "/?a=w001499"));
    assert!(!blocks(&set, "/?a=w001500"));
}

#[test]
fn a_macro_in_a_pattern_is_refused() {
    assert!(
        load("SecRule ARGS \"@rx ^%{tx.a}$\" id:1")
            .unwrap_err()
            .contains("a macro in a pattern")
    );
}

const LEVELS: &str = "SecRule TX:DETECTION_PARANOIA_LEVEL \"@lt 2\" \"id:1,phase:2,pass,nolog,skipAfter:END\"\n\
                      SecRule ARGS \"@rx b\" \"id:2,phase:2,deny\"\nSecMarker END\n\
                      SecRule ARGS \"@rx c\" \"id:3,phase:2,deny\"\n";

#[test]
fn what_only_a_higher_level_reaches_is_left_out() {
    let level = |level: u8| {
        format!(
            "SecAction \"id:9,phase:1,pass,nolog,setvar:tx.detection_paranoia_level={level}\"\n{LEVELS}"
        )
    };
    let ceiling = |level| Options {
        paranoia_ceiling: Some(level),
        ..Options::default()
    };
    let folded = load_with(&level(1), &ceiling(1)).unwrap();
    assert_eq!(folded.len(), 3);
    assert!(!blocks(&folded, "/?a=b"));
    assert!(blocks(&folded, "/?a=c"));
    let whole = load_with(&level(2), &ceiling(2)).unwrap();
    assert_eq!(whole.len(), 4);
    assert!(blocks(&whole, "/?a=b"));
    let told = load_with(&level(2), &ceiling(1)).unwrap_err();
    assert!(
        told.contains("rule 9 asks for paranoia level 2, the set is compiled for 1"),
        "{told}"
    );
}

#[test]
fn a_set_of_nothing_lets_everything_pass() {
    let set = load("").unwrap();
    assert!(set.is_empty());
    assert!(!blocks(&set, "/?a=b"));
}

#[test]
fn rules_that_come_out_the_same_for_every_request_are_run_at_the_load() {
    let text = "SecRule REQUEST_HEADERS:Content-Type \"json\" \"id:1,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON\"\n\
                SecRule &TX:a \"@eq 0\" \"id:2,phase:1,pass,nolog,setvar:tx.a=5\"\n\
                SecRule &TX:b \"@eq 0\" \"id:3,phase:1,pass,nolog,setvar:'tx.b=%{tx.a}',setvar:'tx.c=x y'\"\n\
                SecRule TX:b \"@eq 5\" \"id:4,phase:1,deny\"";
    let set = load(text).unwrap();
    assert_eq!(set.presets.values.len(), 3);
    assert!(blocks(&set, "/"));
}

#[test]
fn a_rule_that_a_request_may_change_is_not_run_at_the_load() {
    for before in [
        "SecRule ARGS:x \"@eq 1\" \"id:1,phase:1,pass,nolog,setvar:tx.a=1\"",
        "SecRule ARGS_NAMES \"@rx .\" \"id:1,phase:1,pass,nolog,setvar:'tx.%{MATCHED_VAR}=1'\"",
        "SecRule ARGS:x \"@eq 1\" \"id:1,phase:1,pass,nolog,ctl:ruleRemoveById=2\"",
        "SecRule ARGS:x \"@eq 1\" \"id:1,phase:1,pass,nolog,skipAfter:END\"",
        "SecRule ARGS:x \"@eq 1\" \"id:1,phase:1,pass,nolog,chain\"\nSecRule &TX:a \"@eq 0\" \"t:none\"",
        "SecRule ARGS:x \"@eq 1\" \"id:1,phase:1,allow,nolog\"",
    ] {
        let set = load(&format!("{before}\nSecRule &TX:a \"@eq 0\" \"id:2,phase:1,pass,nolog,setvar:tx.a=5\"\nSecMarker END")).unwrap();
        assert!(set.presets.values.is_empty(), "{before}");
    }
}
