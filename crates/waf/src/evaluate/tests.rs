use std::net::IpAddr;
use std::sync::Arc;

use super::{Ends, MemoryStore, Transaction, Verdict, Workbench};
use crate::{EngineMode, Memory, Options, RuleSet};

/// A request in short: what a test does not name is empty.
#[derive(Default)]
struct Sent<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
}

fn get(target: &str) -> Sent<'_> {
    Sent {
        method: "GET",
        target,
        ..Sent::default()
    }
}

fn rules(text: &str) -> RuleSet {
    let files = Memory(
        [(
            "rules.conf".to_owned(),
            format!("SecRuleEngine On\n{text}").into_bytes(),
        )]
        .into(),
    );
    RuleSet::load(&files, &["rules.conf"], &Options::default()).unwrap()
}

fn begin<'r>(set: &'r RuleSet, bench: &mut Workbench, sent: &Sent<'_>) -> Transaction<'r> {
    let mut tx = Transaction::begin(set, bench, 1_700_000_000_000_000, "unique");
    tx.connection(&Ends {
        client: (IpAddr::from([192, 0, 2, 7]), 4000),
        server: (IpAddr::from([127, 0, 0, 1]), 80),
    });
    tx.request_line(sent.method.as_bytes(), sent.target.as_bytes(), b"HTTP/1.1");
    for (name, value) in sent.headers {
        tx.header(name.as_bytes(), value.as_bytes());
    }
    if tx.end_of_request_headers(bench).is_none() {
        tx.body(sent.body);
        tx.end_of_request_body(bench);
    }
    tx
}

fn judge(text: &str, sent: &Sent<'_>) -> Verdict {
    let set = rules(text);
    let mut bench = Workbench::new(&set);
    begin(&set, &mut bench, sent).end(&mut bench)
}

fn is_blocked(text: &str, sent: &Sent<'_>) -> bool {
    judge(text, sent).interruption.is_some()
}

/// The TX variable `name` after both phases, as text.
fn tx_after(text: &str, sent: &Sent<'_>, name: &str) -> Option<String> {
    let set = rules(text);
    let mut bench = Workbench::new(&set);
    let tx = begin(&set, &mut bench, sent);
    tx.tx(name).map(|value| String::from_utf8(value).unwrap())
}

fn matched_ids(verdict: &Verdict) -> Vec<u64> {
    verdict.matched.iter().map(|matched| matched.rule).collect()
}

const SCORED: &str = "SecRule TX:score \"@ge 5\" \"id:99,phase:2,deny\"";

#[test]
fn the_last_link_of_a_chain_scores() {
    let text = format!(
        "SecRule REQUEST_METHOD \"@streq GET\" \"id:1,phase:2,pass,chain\"\n\
         SecRule ARGS:a \"@rx b\" \"setvar:tx.score=+5\"\n{SCORED}"
    );
    assert!(is_blocked(&text, &get("/?a=b")));
    assert!(!is_blocked(&text, &get("/?a=c")));
}

#[test]
fn a_dot_matches_a_newline() {
    assert!(is_blocked(
        "SecRule ARGS:a \"@rx ^x.*y$\" \"id:1,phase:2,deny\"",
        &get("/?a=x%0Ay")
    ));
}

#[test]
fn a_variable_is_set_once_for_each_value_that_matches() {
    let text = format!("SecRule ARGS \"@rx b\" \"id:1,phase:2,pass,setvar:tx.score=+2\"\n{SCORED}");
    assert!(!is_blocked(&text, &get("/?a=b&c=b")));
    assert!(is_blocked(&text, &get("/?a=b&c=b&d=b")));
}

#[test]
fn a_negated_operator_says_nothing_of_a_header_that_was_not_sent() {
    let text = "SecRule REQUEST_HEADERS:X-Token \"!@rx ^secret$\" \"id:1,phase:1,deny\"";
    assert!(!is_blocked(text, &get("/")));
    let sent = Sent {
        headers: &[("x-token", "other")],
        ..get("/")
    };
    assert!(is_blocked(text, &sent));
}

#[test]
fn an_absent_variable_counts_zero() {
    assert!(is_blocked(
        "SecRule &REQUEST_HEADERS:Host \"@eq 0\" \"id:1,phase:1,deny\"",
        &get("/")
    ));
    let sent = Sent {
        headers: &[("Host", "x"), ("HOST", "y")],
        ..get("/")
    };
    assert!(is_blocked(
        "SecRule &REQUEST_HEADERS:Host \"@eq 2\" \"id:1,phase:1,deny\"",
        &sent
    ));
}

#[test]
fn an_earlier_link_keeps_its_score_when_the_chain_fails() {
    let text = "SecRule ARGS:a \"@rx b\" \"id:1,phase:2,deny,chain,setvar:tx.seen=1\"\n\
                SecRule ARGS:c \"@rx d\" \"setvar:tx.whole=1\"";
    assert_eq!(tx_after(text, &get("/?a=b"), "seen").as_deref(), Some("1"));
    assert_eq!(tx_after(text, &get("/?a=b"), "whole"), None);
}

#[test]
fn a_chain_is_told_once_under_its_first_rule() {
    let text = "SecRule ARGS:a \"@rx b\" \"id:1,phase:2,pass,log,chain,msg:'both'\"\nSecRule ARGS:c \"@rx d\" \"t:none\"";
    let verdict = judge(text, &get("/?a=b&c=d"));
    assert_eq!(matched_ids(&verdict), [1]);
    assert_eq!(verdict.matched[0].message, "both");
    assert_eq!(verdict.matched[0].found[0].variable, "ARGS:a");
}

#[test]
fn groups_are_kept_only_by_a_rule_that_captures() {
    let text = "SecRule ARGS:a \"@rx ^(.)(.)\" \"id:1,phase:2,pass,capture,setvar:'tx.kept=%{tx.2}%{tx.1}'\"\n\
                SecRule ARGS:b \"@rx ^(.)\" \"id:2,phase:2,pass,setvar:'tx.other=%{tx.1}'\"";
    assert_eq!(
        tx_after(text, &get("/?a=xy&b=z"), "kept").as_deref(),
        Some("yx")
    );
    assert_eq!(
        tx_after(text, &get("/?a=xy&b=z"), "other").as_deref(),
        Some("x")
    );
}

#[test]
fn what_matched_is_a_variable_of_the_next_link() {
    let text = "SecRule ARGS \"@rx ^b\" \"id:1,phase:2,deny,chain\"\n\
                SecRule MATCHED_VARS \"@streq bad\" \"chain\"\nSecRule MATCHED_VAR_NAME \"@endsWith :q\" \"t:none\"";
    assert!(is_blocked(text, &get("/?p=bon&q=bad")));
    assert!(!is_blocked(text, &get("/?p=bad&r=bon")));
}

#[test]
fn a_skip_goes_to_its_marker() {
    let text = "SecRule ARGS:a \"@rx b\" \"id:1,phase:2,pass,nolog,skipAfter:END\"\n\
                SecAction \"id:2,phase:2,deny\"\nSecMarker END\nSecAction \"id:3,phase:2,pass,nolog,setvar:tx.after=1\"";
    assert!(!is_blocked(text, &get("/?a=b")));
    assert_eq!(tx_after(text, &get("/?a=b"), "after").as_deref(), Some("1"));
    assert!(is_blocked(text, &get("/")));
}

#[test]
fn a_guard_on_a_level_skips_as_any_rule_does() {
    let text = "SecAction \"id:1,phase:2,pass,nolog,setvar:tx.level=1\"\n\
                SecRule TX:LEVEL \"@lt 2\" \"id:2,phase:2,pass,nolog,skipAfter:END\"\n\
                SecAction \"id:3,phase:2,deny\"\nSecMarker END";
    assert!(!is_blocked(text, &get("/")));
    assert!(is_blocked(&text.replace("level=1", "level=2"), &get("/")));
    let removed = format!("SecAction \"id:4,phase:1,pass,nolog,ctl:ruleRemoveById=2\"\n{text}");
    assert!(is_blocked(&removed, &get("/")));
}

#[test]
fn skip_passes_over_a_number_of_rules() {
    let text = "SecAction \"id:1,phase:2,pass,nolog,skip:1\"\nSecAction \"id:2,phase:2,deny\"\n\
                SecAction \"id:3,phase:2,pass,nolog,setvar:tx.x=1\"";
    assert_eq!(tx_after(text, &get("/"), "x").as_deref(), Some("1"));
    assert!(!is_blocked(text, &get("/")));
}

#[test]
fn detection_scores_and_does_not_block() {
    let set = rules("SecRule ARGS \"@rx b\" \"id:1,phase:2,deny,setvar:tx.score=+5\"");
    let mut bench = Workbench::new(&set);
    let mut tx = Transaction::begin(&set, &mut bench, 0, "u");
    tx.set_mode(EngineMode::DetectionOnly);
    tx.request_line(b"GET", b"/?a=b", b"HTTP/1.1");
    tx.end_of_request_headers(&mut bench);
    assert_eq!(tx.end_of_request_body(&mut bench), None);
    assert_eq!(tx.tx("score").as_deref(), Some(&b"5"[..]));
    assert_eq!(matched_ids(&tx.end(&mut bench)), [1]);
}

#[test]
fn an_engine_that_is_off_runs_no_rule() {
    let set = rules("SecAction \"id:1,phase:1,deny\"");
    let mut bench = Workbench::new(&set);
    let mut tx = Transaction::begin(&set, &mut bench, 0, "u");
    tx.set_mode(EngineMode::Off);
    assert_eq!(tx.end_of_request_headers(&mut bench), None);
    assert!(tx.end(&mut bench).matched.is_empty());
}

#[test]
fn block_is_what_the_phase_says_by_default() {
    let rule = "SecRule ARGS \"@rx b\" \"id:1,phase:2,block\"";
    assert!(!is_blocked(rule, &get("/?a=b")));
    let verdict = judge(
        &format!("SecDefaultAction \"phase:2,deny,status:406,log\"\n{rule}"),
        &get("/?a=b"),
    );
    assert_eq!(verdict.interruption.unwrap().status, 406);
}

#[test]
fn an_allow_ends_the_request_phases_and_an_allow_of_a_phase_only_that() {
    let later =
        "SecAction \"id:2,phase:1,pass,nolog,setvar:tx.one=1\"\nSecAction \"id:3,phase:2,deny\"";
    assert!(!is_blocked(
        &format!("SecAction \"id:1,phase:1,allow,nolog\"\n{later}"),
        &get("/")
    ));
    let phase = format!("SecAction \"id:1,phase:1,allow:phase,nolog\"\n{later}");
    assert!(is_blocked(&phase, &get("/")));
    assert_eq!(tx_after(&phase, &get("/"), "one"), None);
}

#[test]
fn a_redirect_says_where_to() {
    let text = "SecRule ARGS:a \"@rx b\" \"id:1,phase:2,redirect:'https://x.example/?%{ARGS.a}',status:307\"";
    let interruption = judge(text, &get("/?a=b")).interruption.unwrap();
    assert_eq!(
        interruption.answer,
        super::Answer::Redirect("https://x.example/?b".to_owned())
    );
    assert_eq!(interruption.status, 307);
}

#[test]
fn rules_are_removed_for_one_request_by_id_range_and_tag() {
    let rule = "SecRule ARGS \"@rx b\" \"id:100,phase:2,deny,tag:'one/two'\"";
    for removal in [
        "ruleRemoveById=100",
        "ruleRemoveById=90-110",
        "ruleRemoveByTag=one/two",
        "ruleRemoveByTag=/^one/",
    ] {
        let text =
            format!("SecRule ARGS:off \"@eq 1\" \"id:1,phase:1,pass,nolog,ctl:{removal}\"\n{rule}");
        assert!(!is_blocked(&text, &get("/?a=b&off=1")), "{removal}");
        assert!(is_blocked(&text, &get("/?a=b&off=0")), "{removal}");
    }
}

#[test]
fn a_target_is_removed_for_one_request_and_others_stay() {
    let text = "SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=100;ARGS:free\"\n\
                SecRule ARGS \"@rx b\" \"id:100,phase:2,deny\"";
    assert!(!is_blocked(text, &get("/?free=b")));
    assert!(is_blocked(text, &get("/?free=b&bound=b")));
    let by_tag = "SecAction \"id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=x;REQUEST_COOKIES:/^_ga/\"\n\
                  SecRule REQUEST_COOKIES \"@rx b\" \"id:100,phase:2,deny,tag:x\"";
    assert!(!is_blocked(
        by_tag,
        &Sent {
            headers: &[("Cookie", "_ga_1=b")],
            ..get("/")
        }
    ));
    assert!(is_blocked(
        by_tag,
        &Sent {
            headers: &[("Cookie", "ga=b")],
            ..get("/")
        }
    ));
}

#[test]
fn an_excluded_target_is_not_looked_at() {
    let text = "SecRule ARGS|!ARGS:free|!ARGS:/^x_/ \"@rx b\" \"id:1,phase:2,deny\"";
    assert!(!is_blocked(text, &get("/?FREE=b&x_1=b")));
    assert!(is_blocked(text, &get("/?frei=b")));
}

#[test]
fn a_pattern_of_names_chooses_among_the_values_that_wake_a_rule() {
    let text = "SecRule ARGS:/^a/|ARGS_NAMES|ARGS:/b$/ \"@rx e[v]il\" \"id:1,phase:2,pass,t:none,\
                setvar:tx.score=+1\"";
    let score = |query: &str| tx_after(text, &get(query), "score");
    assert_eq!(score("/?c=evil&d=evil"), None);
    assert_eq!(score("/?a1=evil&c=evil").as_deref(), Some("1"));
    // In each target that means it.
    assert_eq!(score("/?ab=evil&c=evil&xb=evil").as_deref(), Some("3"));
    assert_eq!(score("/?evil=1&cb=evil").as_deref(), Some("2"));
}

#[test]
fn multi_match_looks_at_every_stage() {
    let rule = |extra: &str| {
        format!("SecRule ARGS \"@rx %41\" \"id:1,phase:2,deny,t:none,t:urlDecodeUni{extra}\"")
    };
    assert!(is_blocked(&rule(",multiMatch"), &get("/?a=%2541")));
    assert!(!is_blocked(&rule(""), &get("/?a=%2541")));
}

#[test]
fn a_form_and_its_raw_body_are_variables_of_phase_2() {
    let sent = Sent {
        method: "POST",
        target: "/?a=1",
        headers: &[("Content-Type", "application/x-www-form-urlencoded")],
        body: b"b=x%20y&c=2",
    };
    assert!(is_blocked(
        "SecRule ARGS_POST:b \"@streq x y\" \"id:1,phase:2,deny\"",
        &sent
    ));
    assert!(is_blocked(
        "SecRule REQUEST_BODY \"@contains x%20y\" \"id:1,phase:2,deny\"",
        &sent
    ));
    assert!(is_blocked(
        "SecRule &ARGS \"@eq 3\" \"id:1,phase:2,deny\"",
        &sent
    ));
    assert!(is_blocked(
        "SecRule ARGS_COMBINED_SIZE \"@eq 8\" \"id:1,phase:2,deny\"",
        &sent
    ));
    assert!(is_blocked(
        "SecRule REQBODY_PROCESSOR \"@streq URLENCODED\" \"id:1,phase:1,deny\"",
        &sent
    ));
    assert!(!is_blocked(
        "SecRule ARGS_GET:b \"@unconditionalMatch\" \"id:1,phase:2,deny\"",
        &sent
    ));
}

#[test]
fn json_is_taken_apart_when_a_rule_says_so() {
    let sent = Sent {
        method: "POST",
        target: "/",
        headers: &[("Content-Type", "application/json")],
        body: br#"{"a":{"b":["x","evil"]}}"#,
    };
    let rule = "SecRule ARGS \"@streq evil\" \"id:1,phase:2,deny\"";
    let json = "SecAction \"id:2,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON\"";
    assert!(!is_blocked(rule, &sent));
    let verdict = judge(&format!("{json}\n{rule}"), &sent);
    assert_eq!(
        verdict.matched[0].found[0].variable,
        "ARGS:json.a.b.array_1"
    );
    let broken = Sent {
        body: b"{\"a\":",
        ..sent
    };
    assert!(is_blocked(
        &format!("{json}\nSecRule REQBODY_ERROR \"!@eq 0\" \"id:1,phase:2,deny\""),
        &broken
    ));
}

#[test]
fn a_body_beyond_the_limit_is_told() {
    let set =
        rules("SecRequestBodyLimit 4\nSecRule INBOUND_DATA_ERROR \"@eq 1\" \"id:1,phase:2,deny\"");
    let mut bench = Workbench::new(&set);
    let mut tx = Transaction::begin(&set, &mut bench, 0, "u");
    tx.request_line(b"POST", b"/", b"HTTP/1.1");
    tx.end_of_request_headers(&mut bench);
    assert!(tx.body(b"1234"));
    assert!(!tx.body(b"5"));
    assert!(tx.end_of_request_body(&mut bench).is_some());
}

#[test]
fn a_response_is_judged_in_phases_3_and_4() {
    let set = rules(
        "SecResponseBodyAccess On\nSecRule RESPONSE_STATUS \"@streq 500\" \"id:1,phase:3,pass,log\"\n\
         SecRule RESPONSE_BODY \"@contains ORA-00933\" \"id:2,phase:4,deny\"",
    );
    let mut bench = Workbench::new(&set);
    let mut tx = begin(&set, &mut bench, &get("/"));
    tx.response_line(b"HTTP/1.1", 500);
    tx.response_header(b"Content-Type", b"text/html; charset=utf-8");
    assert_eq!(tx.end_of_response_headers(&mut bench), None);
    tx.response_body(b"error ORA-00933 near");
    assert!(tx.end_of_response_body(&mut bench).is_some());
    assert_eq!(matched_ids(&tx.end(&mut bench)), [1, 2]);
}

#[test]
fn a_collection_outlives_its_request_until_it_expires() {
    let set = rules(
        "SecAction \"id:1,phase:1,pass,nolog,initcol:ip=%{REMOTE_ADDR}\"\n\
         SecRule IP:count \"@ge 2\" \"id:2,phase:1,deny\"\n\
         SecAction \"id:3,phase:2,pass,nolog,setvar:ip.count=+1,expirevar:ip.count=60\"",
    );
    let store = Arc::new(MemoryStore::new(16));
    let mut bench = Workbench::new(&set).with_store(store.clone());
    let mut at = |seconds: u64| {
        let mut tx = Transaction::begin(&set, &mut bench, seconds * 1_000_000, "u");
        tx.connection(&Ends {
            client: (IpAddr::from([1, 2, 3, 4]), 1),
            server: (IpAddr::from([1, 1, 1, 1]), 2),
        });
        let blocked = tx.end_of_request_headers(&mut bench).is_some();
        tx.end_of_request_body(&mut bench);
        tx.end(&mut bench);
        blocked
    };
    assert_eq!([at(100), at(101), at(102)], [false, false, true]);
    assert!(!at(161 + 60));
    assert_eq!(store.len(), 1);
}

#[test]
fn a_store_in_memory_never_outgrows_its_bound() {
    let store = MemoryStore::new(64);
    for key in 0..10_000u32 {
        let stored = super::Stored {
            name: (*b"n").into(),
            value: (*b"1").into(),
            expires: 1_000_000,
        };
        super::Store::save(
            &store,
            "IP",
            &key.to_be_bytes(),
            vec![stored],
            u64::from(key),
        );
    }
    assert!(store.len() <= 64, "{}", store.len());
}

#[test]
fn a_hidden_argument_is_not_told() {
    let text = "SecAction \"id:1,phase:1,pass,nolog,sanitiseArg:password\"\nSecRule ARGS \"@rx b\" \"id:2,phase:2,pass,log\"";
    let verdict = judge(text, &get("/?password=b&q=b"));
    let bytes: Vec<&[u8]> = verdict.matched[0]
        .found
        .iter()
        .map(|found| found.bytes.as_slice())
        .collect();
    assert_eq!(bytes, [b"<hidden>".as_slice(), b"b"]);
}

#[test]
fn what_is_told_of_a_rule_is_bounded() {
    let query = (0..900)
        .map(|n| format!("a{n}={}", "b".repeat(600)))
        .collect::<Vec<_>>()
        .join("&");
    let verdict = judge(
        "SecRule ARGS \"@rx b+\" \"id:1,phase:2,pass,log\"",
        &get(&format!("/?{query}")),
    );
    let matched = &verdict.matched[0];
    assert_eq!((matched.values, matched.found.len()), (900, 16));
    assert!(matched.found.iter().all(|found| found.bytes.len() <= 256));
}

#[test]
fn names_that_rules_make_up_are_variables_that_a_pattern_finds() {
    let text = "SecRule ARGS_NAMES \"@rx .\" \"id:1,phase:2,pass,nolog,setvar:'tx.seen_%{MATCHED_VAR}=+1'\"\n\
                SecRule TX:/^seen_/ \"@ge 2\" \"id:2,phase:2,deny,msg:'%{MATCHED_VAR_NAME}'\"";
    assert!(!is_blocked(text, &get("/?a=1&b=1")));
    assert_eq!(
        judge(text, &get("/?a=1&B=1&b=2"))
            .interruption
            .unwrap()
            .message,
        "TX:seen_b"
    );
}

#[test]
fn a_state_is_clean_when_it_is_used_again() {
    let set = rules(
        "SecRule ARGS:a \"@rx b\" \"id:1,phase:2,deny,setvar:tx.x=1\"\nSecRule TX:x \"@eq 1\" \"id:2,phase:1,deny\"",
    );
    let mut bench = Workbench::new(&set);
    assert!(
        begin(&set, &mut bench, &get("/?a=b"))
            .end(&mut bench)
            .interruption
            .is_some()
    );
    assert!(
        begin(&set, &mut bench, &get("/"))
            .end(&mut bench)
            .interruption
            .is_none()
    );
}

#[test]
fn the_path_the_query_and_the_line_are_what_was_sent() {
    let sent = Sent {
        headers: &[("Cookie", " a=1;b=2=3 ;; c")],
        ..get("http://x.example/p%61th/f.php?q=%41#frag")
    };
    for (target, value) in [
        (
            "REQUEST_URI_RAW",
            "http://x.example/p%61th/f.php?q=%41#frag",
        ),
        ("REQUEST_URI", "/path/f.php?q=A"),
        ("REQUEST_BASENAME", "f.php"),
        ("QUERY_STRING", "q=%41"),
        ("ARGS:q", "A"),
        (
            "REQUEST_LINE",
            "GET http://x.example/p%61th/f.php?q=%41#frag HTTP/1.1",
        ),
        ("REQUEST_COOKIES:b", "2=3 "),
        ("REQUEST_COOKIES_NAMES:c", "c"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("TIME_YEAR", "2023"),
        ("TIME_WDAY", "2"),
        ("TIME", "22:13:20"),
    ] {
        assert!(
            is_blocked(
                &format!("SecRule {target} \"@streq {value}\" \"id:1,phase:2,deny,t:none\""),
                &sent
            ),
            "{target}"
        );
    }
}

#[test]
fn a_workbench_serves_one_set_after_another() {
    let one = rules("SecRule ARGS \"@rx ^a+$\" \"id:1,phase:2,deny\"");
    let other = rules(
        "SecRule ARGS \"@rx z\" \"id:1,phase:2,pass\"\nSecRule ARGS \"@rx (?i)[a-c]{2}$\" \"id:2,phase:2,deny\"",
    );
    let mut bench = Workbench::new(&one);
    let mut judged = |set, target| {
        begin(set, &mut bench, &get(target))
            .end(&mut bench)
            .interruption
            .is_some()
    };
    for _ in 0..3 {
        assert!(judged(&one, "/?q=aaa"));
        assert!(judged(&other, "/?q=xBC"));
        assert!(!judged(&one, "/?q=xBC"));
        assert!(!judged(&other, "/?q=x"));
    }
}

#[test]
fn a_value_is_judged_the_same_the_second_time() {
    let set = rules("SecRule ARGS \"@rx ^[a-z]+1$\" \"id:1,phase:2,deny,t:none,t:lowercase\"");
    let mut bench = Workbench::new(&set);
    for _ in 0..3 {
        for (target, blocked) in [
            ("/?q=ABC", false),
            ("/?q=abc1", true),
            ("/?q=ABC1", true),
            ("/?q=abc", false),
        ] {
            let verdict = begin(&set, &mut bench, &get(target)).end(&mut bench);
            assert_eq!(verdict.interruption.is_some(), blocked, "{target}");
        }
    }
}
