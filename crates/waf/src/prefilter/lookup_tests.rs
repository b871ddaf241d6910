//! With lookups and without, a request comes out the same.

use crate::{Memory, Options, RuleSet, Sources, Transaction, Workbench};

/// As CRS has it: each name is noted, and looked for in a list.
const CHAIN: &str = "SecRule REQUEST_HEADERS_NAMES \"@rx ^.*$\" \"id:10,phase:1,deny,capture,t:lowercase,\
     msg:'%{MATCHED_VAR}',setvar:'tx.name_%{tx.0}=/%{tx.0}/',chain\"\n\
     SecRule TX:/^name_/ \"@within %{tx.list}\" \"setvar:tx.score=+1\"\n";
const LIST: &str =
    "SecAction \"id:1,phase:1,pass,nolog,setvar:'tx.list=/proxy/ /x-if/ /range/'\"\n";

fn set(text: &str) -> RuleSet {
    let text = format!("SecRuleEngine DetectionOnly\n{text}");
    let files = Memory([("rules.conf".to_owned(), text.clone().into_bytes())].into());
    RuleSet::load(&files, &["rules.conf"], &Options::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

type Outcome = Vec<(u64, String, Vec<u8>, Vec<(String, Vec<u8>)>)>;

fn outcome(set: &RuleSet, bench: &mut Workbench, names: &[&str]) -> Outcome {
    let mut tx = Transaction::begin(set, bench, 0, "u");
    tx.request_line(b"GET", b"/?a=b", b"HTTP/1.1");
    for name in names {
        tx.header(name.as_bytes(), b"Value");
    }
    tx.end_of_request_headers(bench);
    tx.end_of_request_body(bench);
    let matched = tx.end(bench).matched.into_iter();
    matched
        .map(|matched| {
            let found = matched.found.into_iter();
            let found = found.map(|found| (found.variable, found.bytes)).collect();
            (matched.rule, matched.message, matched.data, found)
        })
        .collect()
}

#[test]
fn a_chain_that_looks_names_up_is_left_out_where_it_would_be_seen_by_nobody() {
    let mut random = fastrand::Rng::with_seed(11);
    let names = [
        "Host",
        "Proxy",
        "X-If",
        "accept",
        "RANGE",
        "ran",
        "x-",
        "other_a",
        "paramcounter_b",
        "0",
        "",
        "a-name-that-is-longer-than-those-that-are-kept",
        "x-list",
    ];
    let others = [
        "",
        "SecRule TX:/other_.*/ \"@rx .\" \"id:20,phase:1,pass,log,msg:'%{MATCHED_VAR_NAME}'\"\n",
        "SecRule TX:/paramcounter_/ \"!@rx ^x\" \"id:21,phase:2,pass,log\"\n",
        "SecRule TX:name_host \"@rx .\" \"id:22,phase:2,pass,log\"\n",
        "SecRule TX:0 \"@rx (.)\" \"id:23,phase:1,pass,log,msg:'%{MATCHED_VAR}'\"\n",
        "SecAction \"id:24,phase:1,pass,log,msg:'x',setvar:'tx.seen=%{tx.0}'\"\n\
         SecRule TX:seen \"@rx .\" \"id:25,phase:1,pass,log\"\n",
        "SecRule &TX \"@gt 4\" \"id:26,phase:2,pass,log\"\n",
        "SecRule REQUEST_HEADERS:X-List \"@rx ^.*$\" \"id:5,phase:1,pass,nolog,setvar:'tx.list=/host/'\"\n",
        "SecAction \"id:6,phase:1,pass,nolog,setvar:'tx.name_own=x-if'\"\n",
        "SecRule REQUEST_HEADERS_NAMES \"@rx ^(a)\" \"id:7,phase:1,pass,nolog,capture,setvar:'tx.name_%{tx.1}=proxy'\"\n",
        "SecRule REQUEST_HEADERS \"@rx (?i)val(.)\" \"id:27,phase:2,pass,log,capture,msg:'%{tx.1}'\"\n",
    ];
    let (mut left_out, mut matched, mut asked) = (0, 0, 0);
    for before in others {
        for after in others {
            if before == after && !before.is_empty() {
                continue;
            }
            let text = format!("{LIST}{before}{CHAIN}{after}");
            let (set, mut plain) = (set(&text), set(&text));
            plain.prefilter.lookups.clear();
            left_out += set.prefilter.lookups.len();
            let mut benches = [Workbench::new(&set), Workbench::new(&plain)];
            for _ in 0..60 {
                let sent: Vec<&str> = (0..random.usize(..5))
                    .map(|_| names[random.usize(..names.len())])
                    .collect();
                let [one, other] = &mut benches;
                let ours = outcome(&set, one, &sent);
                assert_eq!(ours, outcome(&plain, other, &sent), "{text}\n{sent:?}");
                matched += usize::from(ours.iter().any(|(rule, ..)| *rule == 10));
                asked += 1;
            }
        }
    }
    assert!(left_out > 30, "{left_out}");
    assert!(
        matched > asked / 8 && matched < asked / 2,
        "{matched} of {asked}"
    );
}

#[test]
fn a_chain_of_which_something_could_be_seen_is_no_lookup() {
    let known = format!("{LIST}{CHAIN}");
    assert_eq!(set(&known).prefilter.lookups.len(), 1);
    for (from, to) in [
        ("^.*$", "^.+$"),
        ("@rx ^", "!@rx ^"),
        ("capture,", ""),
        ("t:lowercase,", "t:lowercase,multiMatch,"),
        ("setvar:'tx.name_", "setvar:'tx.count=+1',setvar:'tx.name_"),
        ("setvar:'tx.name_", "ctl:auditEngine=On,setvar:'tx.name_"),
        ("tx.name_%{tx.0}=", "tx.%{tx.0}="),
        ("tx.name_%{tx.0}=/%{tx.0}/", "tx.name_%{tx.0}=/%{tx.1}/"),
        ("@within %{tx.list}", "@within /proxy/"),
        ("@within %{tx.list}", "@contains %{tx.list}"),
        ("@within %{tx.list}", "!@within %{tx.list}"),
        (
            "\"setvar:tx.score=+1\"",
            "\"t:lowercase,setvar:tx.score=+1\"",
        ),
        ("TX:/^name_/", "&TX:/^name_/"),
        ("TX:/^name_/", "TX:/^name_/|!TX:name_a"),
    ] {
        let text = known.replacen(from, to, 1);
        assert_ne!(text, known, "{from}");
        assert_eq!(set(&text).prefilter.lookups.len(), 0, "{from} → {to}");
    }
}

#[test]
fn the_core_rule_set_looks_the_names_of_headers_up() {
    let Ok(folder) = std::env::var("VEDETTE_CRS_RULES") else {
        println!("skipped: VEDETTE_CRS_RULES names no folder with the Core Rule Set's rules");
        return;
    };
    let mut files = vec![format!("{folder}/../@crs-setup.conf.example")];
    files.extend(crate::Disk.matching(&format!("{folder}/*.conf")).unwrap());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let set = RuleSet::load(&crate::Disk, &files, &Options::default()).unwrap();
    let ids: Vec<u64> = set
        .prefilter
        .lookups
        .iter()
        .map(|lookup| {
            let (phase, position) = lookup.at;
            set.rules[set.phases[usize::from(phase) - 1].steps[position].rule as usize].id
        })
        .collect();
    assert_eq!(ids, [920_450, 920_451]);
}
