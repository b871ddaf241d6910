use std::fmt::Write as _;
use std::sync::Arc;

use super::{Exclusion, Selected, TailorError, Tailored, Tailoring};
use crate::{Ends, EngineMode, Memory, Options, RuleSet, Transaction, Verdict, Workbench};

/// In small what the Core Rule Set is: defaults, detection that scores, a sum and a judgement.
const RULES: &str = r#"
SecDefaultAction "phase:2,log,pass"
SecRule &TX:inbound_anomaly_score_threshold "@eq 0" "id:901100,phase:1,nolog,pass,setvar:tx.inbound_anomaly_score_threshold=5"
SecRule &TX:blocking_paranoia_level "@eq 0" "id:901120,phase:1,nolog,pass,setvar:tx.blocking_paranoia_level=1"
SecRule &TX:detection_paranoia_level "@eq 0" "id:901125,phase:1,nolog,pass,setvar:tx.detection_paranoia_level=%{TX.blocking_paranoia_level}"
SecRule &TX:allowed_methods "@eq 0" "id:901160,phase:1,nolog,pass,setvar:'tx.allowed_methods=GET HEAD POST'"
SecRule REQUEST_METHOD "!@within %{tx.allowed_methods}" "id:911100,phase:1,block,tag:'attack-generic',setvar:tx.score=+5"
SecRule ARGS|ARGS_NAMES|REQUEST_COOKIES "@rx select" "id:942100,phase:2,capture,tag:'attack-sqli',tag:'CRS',setvar:tx.score=+5"
SecRule ARGS|REQUEST_HEADERS:Referer "@rx (?i)<script" "id:941100,phase:2,t:urlDecodeUni,tag:'attack-xss',tag:'CRS',setvar:tx.score=+5"
SecRule ARGS|REQUEST_COOKIES|!REQUEST_COOKIES:theme "@pm sleep benchmark" "id:942160,phase:2,t:lowercase,tag:'attack-sqli',tag:'CRS',setvar:tx.score=+3"
SecRule ARGS "@rx [';]" "id:942200,phase:2,tag:'attack-sqli',chain,setvar:tx.seen=+1"
SecRule MATCHED_VARS "@rx select" "setvar:tx.score=+5"
SecRule &ARGS:a "@gt 1" "id:921180,phase:2,tag:'attack-protocol',setvar:tx.score=+2"
SecRule ARGS:number "!@rx ^\d+$" "id:920100,phase:2,tag:'attack-protocol',setvar:tx.score=+2"
SecRule ARGS "@streq off" "id:900500,phase:2,pass,nolog,ctl:ruleRemoveTargetById=942100;ARGS:b"
SecRule TX:DETECTION_PARANOIA_LEVEL "@lt 2" "id:942011,phase:2,pass,nolog,skipAfter:END"
SecRule ARGS "@rx [()]" "id:942430,phase:2,tag:'attack-sqli',tag:'paranoia-level/2',setvar:tx.score=+3"
SecMarker END
SecRule TX:score "@ge %{tx.inbound_anomaly_score_threshold}" "id:949110,phase:2,deny,tag:'CRS'"
"#;

fn set(more: &str) -> Arc<RuleSet> {
    let files = Memory(
        [(
            "rules.conf".to_owned(),
            format!("SecRuleEngine On\n{more}\n{RULES}").into_bytes(),
        )]
        .into(),
    );
    Arc::new(RuleSet::load(&files, &["rules.conf"], &Options::default()).unwrap())
}

struct Sent {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
}

fn get(target: &str) -> Sent {
    Sent {
        method: "GET",
        target: target.to_owned(),
        headers: Vec::new(),
    }
}

type Variables = Vec<(Vec<u8>, Vec<u8>)>;

fn judge(mut tx: Transaction<'_>, bench: &mut Workbench, sent: &Sent) -> (Verdict, Variables) {
    tx.connection(&Ends {
        client: ([192, 0, 2, 7].into(), 4000),
        server: ([127, 0, 0, 1].into(), 80),
    });
    tx.request_line(sent.method.as_bytes(), sent.target.as_bytes(), b"HTTP/1.1");
    for (name, value) in &sent.headers {
        tx.header(name.as_bytes(), value.as_bytes());
    }
    if tx.end_of_request_headers(bench).is_none() {
        tx.end_of_request_body(bench);
    }
    let mut variables = tx.all_tx();
    variables.sort();
    (tx.end(bench), variables)
}

const NOW: u64 = 1_700_000_000_000_000;

fn judged(tailored: &Tailored, sent: &Sent) -> (Verdict, Variables) {
    let mut bench = Workbench::new(tailored.set());
    let tx = Transaction::begin_tailored(tailored, &mut bench, NOW, "unique");
    judge(tx, &mut bench, sent)
}

fn is_blocked(tailored: &Tailored, sent: &Sent) -> bool {
    judged(tailored, sent).0.interruption.is_some()
}

fn exclusion(rules: Selected, target: Option<&str>) -> Exclusion {
    Exclusion {
        rules,
        target: target.map(ToOwned::to_owned),
        until_micros: None,
        force: false,
    }
}

fn without(exclusions: Vec<Exclusion>) -> Tailoring {
    Tailoring {
        exclusions,
        ..Tailoring::default()
    }
}

fn settings(settings: &[(&str, &str)]) -> Tailoring {
    Tailoring {
        settings: settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Tailoring::default()
    }
}

#[test]
fn a_tailoring_that_says_nothing_changes_nothing() {
    let tailored = set("").tailor(&Tailoring::default()).unwrap();
    assert!(is_blocked(&tailored, &get("/?a=select")));
    assert!(!is_blocked(&tailored, &get("/?a=b")));
}

#[test]
fn a_route_in_detection_is_told_and_not_blocked() {
    let tailoring = Tailoring {
        mode: Some(EngineMode::DetectionOnly),
        ..Tailoring::default()
    };
    let (verdict, _) = judged(&set("").tailor(&tailoring).unwrap(), &get("/?a=select"));
    assert!(verdict.interruption.is_none());
    assert_eq!(
        verdict
            .matched
            .iter()
            .map(|told| told.rule)
            .collect::<Vec<_>>(),
        [942_100, 949_110]
    );
}

#[test]
fn a_route_has_its_own_threshold_beside_another_with_the_default() {
    let set = set("");
    let (strict, lax) = (
        Tailoring {
            inbound_threshold: Some(3),
            ..Tailoring::default()
        },
        Tailoring {
            inbound_threshold: Some(10),
            ..Tailoring::default()
        },
    );
    let [strict, lax] = [strict, lax].map(|tailoring| set.tailor(&tailoring).unwrap());
    let (weak, strong) = (get("/?a=sleep"), get("/?a=select"));
    assert!(is_blocked(&strict, &weak) && is_blocked(&strict, &strong));
    assert!(!is_blocked(&lax, &weak) && !is_blocked(&lax, &strong));
    let plain = set.tailor(&Tailoring::default()).unwrap();
    assert!(!is_blocked(&plain, &weak) && is_blocked(&plain, &strong));
}

#[test]
fn what_the_set_derives_from_a_setting_follows_it() {
    let tailored = set("")
        .tailor(&settings(&[("blocking_paranoia_level", "2")]))
        .unwrap();
    let (_, variables) = judged(&tailored, &get("/?a=(1)"));
    let level = (b"detection_paranoia_level".to_vec(), b"2".to_vec());
    assert!(variables.contains(&level) && variables.contains(&(b"score".to_vec(), b"3".to_vec())));
}

#[test]
fn a_setting_holds_where_the_files_say_otherwise() {
    let more = "SecAction \"id:900200,phase:1,nolog,pass,setvar:'tx.allowed_methods=GET'\"";
    let tailored = set(more)
        .tailor(&settings(&[("allowed_methods", "GET PUT")]))
        .unwrap();
    let put = Sent {
        method: "PUT",
        ..get("/")
    };
    assert!(!is_blocked(&tailored, &put));
    assert!(is_blocked(
        &tailored,
        &Sent {
            method: "POST",
            ..get("/")
        }
    ));
}

#[test]
fn a_setting_that_a_rule_would_overwrite_is_refused() {
    let more = "SecAction \"id:900200,phase:1,log,pass,setvar:'tx.allowed_methods=GET'\"";
    let told = set(more).tailor(&settings(&[("allowed_methods", "PUT")]));
    let wanted = TailorError::Overwritten("allowed_methods".to_owned(), 900_200);
    assert_eq!(told.unwrap_err(), wanted);
}

#[test]
fn a_setting_that_no_rule_knows_is_refused_with_the_nearest() {
    let told = set("")
        .tailor(&settings(&[("allowed_method", "PUT")]))
        .unwrap_err();
    assert_eq!(
        told.to_string(),
        "no rule of the set knows the setting tx.allowed_method; the nearest known name is `allowed_methods`"
    );
}

#[test]
fn a_level_above_that_of_the_set_is_refused() {
    let files = Memory([("a.conf".to_owned(), RULES.into())].into());
    let options = Options {
        paranoia_ceiling: Some(1),
        ..Options::default()
    };
    let set = Arc::new(RuleSet::load(&files, &["a.conf"], &options).unwrap());
    let told = set.tailor(&settings(&[("detection_paranoia_level", "2")]));
    assert_eq!(told.unwrap_err(), TailorError::AboveCeiling(2, 1));
}

#[test]
fn an_exclusion_spares_one_parameter_of_one_rule() {
    let tailoring = without(vec![exclusion(Selected::Id(942_100), Some("ARGS:comment"))]);
    let tailored = set("").tailor(&tailoring).unwrap();
    assert!(!is_blocked(&tailored, &get("/?comment=select")));
    assert!(!is_blocked(&tailored, &get("/?COMMENT=select")));
    assert!(is_blocked(&tailored, &get("/?other=select")));
    assert!(is_blocked(&tailored, &get("/?comment=%3Cscript")));
}

#[test]
fn an_exclusion_may_choose_cookies_by_a_pattern_and_rules_by_a_range_or_a_tag() {
    for rules in [
        Selected::Range(942_000, 942_999),
        Selected::Tag("attack-sqli".to_owned()),
        Selected::Tag("/^attack-s/".to_owned()),
    ] {
        let tailoring = without(vec![exclusion(rules, Some("REQUEST_COOKIES:/^_ga/"))]);
        let tailored = set("").tailor(&tailoring).unwrap();
        let with = |cookie: &str| Sent {
            headers: vec![("Cookie", cookie.to_owned())],
            ..get("/")
        };
        assert!(!is_blocked(&tailored, &with("_ga_1=select")));
        assert!(is_blocked(&tailored, &with("ga=select")));
    }
}

#[test]
fn an_exclusion_ends_when_its_time_has_come() {
    for target in [None, Some("ARGS:a")] {
        for (until, blocked) in [(NOW - 1, true), (NOW, true), (NOW + 1, false)] {
            let tailoring = without(vec![Exclusion {
                until_micros: Some(until),
                ..exclusion(Selected::Id(942_100), target)
            }]);
            let tailored = set("").tailor(&tailoring).unwrap();
            assert_eq!(is_blocked(&tailored, &get("/?a=select")), blocked);
        }
    }
}

#[test]
fn an_exclusion_that_names_nothing_there_is_a_warning() {
    let tailoring = without(vec![
        exclusion(Selected::Id(1), None),
        exclusion(Selected::Tag("none".to_owned()), Some("ARGS:a")),
        exclusion(Selected::Id(942_100), Some("REQUEST_HEADERS:Referer")),
    ]);
    let tailored = set("").tailor(&tailoring).unwrap();
    let [first, second, third] = tailored.warnings() else {
        panic!("{:?}", tailored.warnings())
    };
    assert_eq!(
        first,
        "the exclusion of rule 1 names no rule of the set and has no effect"
    );
    assert!(
        second.contains("tag none") && third.contains("REQUEST_HEADERS:Referer from rule 942100")
    );
}

#[test]
fn an_exclusion_that_cannot_be_read_says_why() {
    for (target, why) in [
        ("ARG:a", "unknown variable `ARG`"),
        ("!ARGS:a", "without ! and &"),
        ("ARGS:/(/", "cannot be used"),
    ] {
        let tailoring = without(vec![exclusion(Selected::Id(942_100), Some(target))]);
        let told = set("").tailor(&tailoring).unwrap_err().to_string();
        assert!(told.contains("rule 942100") && told.contains(why), "{told}");
    }
}

#[test]
fn rules_that_judge_the_score_are_only_taken_away_by_force() {
    let reader = "SecRule REQUEST_HEADERS:Content-Type \"@contains json\" \"id:200001,phase:1,nolog,pass,ctl:requestBodyProcessor=JSON\"";
    let set = set(&format!(
        "SecRule TX:score \"@ge 9\" \"id:77,deny\"\n{reader}"
    ));
    for (rules, essential) in [
        (Selected::Id(949_110), 949_110),
        (Selected::Range(940_000, 950_000), 949_110),
        (Selected::Tag("CRS".to_owned()), 949_110),
        (Selected::Id(77), 77),
        (Selected::Id(200_001), 200_001),
    ] {
        for target in [None, Some("TX:score")] {
            let spared = exclusion(rules.clone(), target);
            let told = set.tailor(&without(vec![spared.clone()])).unwrap_err();
            assert_eq!(told, TailorError::Essential(rules.to_string(), essential));
            let forced = Exclusion {
                force: true,
                ..spared
            };
            assert!(set.tailor(&without(vec![forced])).is_ok());
        }
    }
    let forced = Exclusion {
        force: true,
        ..exclusion(Selected::Id(949_110), None)
    };
    let tailored = set.tailor(&without(vec![forced])).unwrap();
    assert!(!is_blocked(&tailored, &get("/?a=select")));
}

#[test]
fn rules_that_only_give_defaults_are_never_taken_away() {
    let forced = Exclusion {
        force: true,
        ..exclusion(Selected::Id(901_100), None)
    };
    let told = set("").tailor(&without(vec![forced])).unwrap_err();
    assert!(
        matches!(told, TailorError::OnlyDefaults(_, 901_100)),
        "{told}"
    );
}

/// A request of which many rules of the set find something.
fn random_request(random: &mut fastrand::Rng) -> Sent {
    let words = [
        "select",
        "sleep",
        "%3Cscript",
        "'select",
        "(x)",
        "7",
        "ok",
        "off",
        ";",
    ];
    let mut target = String::from("/?");
    for _ in 0..random.usize(..5) {
        let name = random
            .choice(["a", "b", "number", "select", "comment"])
            .unwrap();
        write!(target, "{name}={}&", words[random.usize(..words.len())]).unwrap();
    }
    let cookie = |random: &mut fastrand::Rng| {
        let name = ["_ga", "theme", "session"][random.usize(..3)];
        format!("{name}={}", words[random.usize(..words.len())])
    };
    Sent {
        method: ["GET", "POST", "PUT"][random.usize(..3)],
        target,
        headers: vec![
            ("Cookie", format!("{}; {}", cookie(random), cookie(random))),
            ("Referer", words[random.usize(..words.len())].to_owned()),
        ],
    }
}

/// Exclusions, and the same in SecLang.
fn random_exclusions(random: &mut fastrand::Rng) -> (Vec<Exclusion>, String) {
    let ids = [
        911_100, 942_100, 941_100, 942_160, 942_200, 921_180, 920_100, 900_500, 942_011, 942_430,
    ];
    let tags = [
        "attack-sqli",
        "attack-xss",
        "attack-protocol",
        "paranoia-level/2",
    ];
    let targets = [
        "ARGS:a",
        "ARGS",
        "ARGS:/^[bn]/",
        "REQUEST_COOKIES:_ga",
        "REQUEST_COOKIES",
        "ARGS_NAMES:select",
        "REQUEST_HEADERS:Referer",
        "ARGS:number,ARGS:b",
        "REQUEST_METHOD",
    ];
    let (mut exclusions, mut text) = (Vec::new(), String::new());
    for _ in 0..random.usize(..4) {
        let (selected, kind, which) = match random.u8(..3) {
            0 => {
                let id = ids[random.usize(..ids.len())];
                (Selected::Id(id), "Id", id.to_string())
            }
            1 => {
                let from = ids[random.usize(..ids.len())];
                (
                    Selected::Range(from, from + 80),
                    "Id",
                    format!("{from}-{}", from + 80),
                )
            }
            _ => {
                let tag = tags[random.usize(..tags.len())];
                (Selected::Tag(tag.to_owned()), "Tag", tag.to_owned())
            }
        };
        let target = random
            .bool()
            .then(|| targets[random.usize(..targets.len())]);
        match target {
            None => writeln!(text, "SecRuleRemoveBy{kind} {which}").unwrap(),
            Some(target) => {
                let without: Vec<String> = target.split(',').map(|one| format!("!{one}")).collect();
                let without = without.join(",");
                writeln!(text, "SecRuleUpdateTargetBy{kind} {which} \"{without}\"").unwrap();
            }
        }
        exclusions.push(exclusion(selected, target));
    }
    (exclusions, text)
}

#[test]
fn a_tailored_set_decides_as_the_set_loaded_with_the_same_exclusions() {
    let mut random = fastrand::Rng::with_seed(5);
    let shared = set("");
    let (mut blocked, mut spared) = (0, 0);
    for _ in 0..300 {
        let (exclusions, text) = random_exclusions(&mut random);
        let tailored = shared.tailor(&without(exclusions)).unwrap();
        let loaded = set(&text);
        let mut benches = (Workbench::new(&shared), Workbench::new(&loaded));
        for _ in 0..40 {
            let sent = random_request(&mut random);
            let tx = Transaction::begin_tailored(&tailored, &mut benches.0, NOW, "unique");
            let (ours, our_tx) = judge(tx, &mut benches.0, &sent);
            let tx = Transaction::begin(&loaded, &mut benches.1, NOW, "unique");
            let (theirs, their_tx) = judge(tx, &mut benches.1, &sent);
            let said = format!("{text}{} {:?}", sent.target, sent.headers);
            assert_eq!(ours.interruption, theirs.interruption, "{said}");
            assert_eq!(ours.matched, theirs.matched, "{said}");
            assert_eq!(our_tx, their_tx, "{said}");
            let tx = Transaction::begin(&shared, &mut benches.0, NOW, "unique");
            let plain = judge(tx, &mut benches.0, &sent).0;
            blocked += usize::from(ours.interruption.is_some());
            spared += usize::from(plain.matched != ours.matched);
        }
    }
    // Both are met often, or the proof would be empty.
    assert!(
        blocked > 1000 && spared > 1000,
        "{blocked} blocked, {spared} spared"
    );
}
