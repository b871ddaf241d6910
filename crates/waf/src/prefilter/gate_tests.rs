//! With gates and without, a request comes out the same.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::rule::{Bits, Presets};
use crate::{
    Exclusion, Memory, Options, RuleSet, Selected, Tailoring, Transaction, Verdict, Workbench,
};

fn set(text: &str) -> RuleSet {
    let text = format!("SecRuleEngine On\nSecRequestBodyAccess On\n{text}");
    let files = Memory([("rules.conf".to_owned(), text.clone().into_bytes())].into());
    RuleSet::load(&files, &["rules.conf"], &Options::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The same set, each of whose rules is run.
fn without_gates(text: &str) -> RuleSet {
    let mut set = set(text);
    for phase in &mut set.prefilter.phases {
        phase.gates = super::Gates::default();
    }
    set.prefilter.course = super::Course::default();
    set.presets.reached = std::array::from_fn(|_| Bits::default());
    set
}

struct Sent {
    headers: Vec<(&'static str, &'static str)>,
    body: &'static [u8],
}

type Outcome = (Vec<u64>, Option<u64>, Vec<(Vec<u8>, Vec<u8>)>);

fn outcome(mut tx: Transaction<'_>, bench: &mut Workbench, sent: &Sent) -> Outcome {
    tx.request_line(b"POST", b"/?a=b", b"HTTP/1.1");
    for (name, value) in &sent.headers {
        tx.header(name.as_bytes(), value.as_bytes());
    }
    if tx.end_of_request_headers(bench).is_none() {
        tx.body(sent.body);
        tx.end_of_request_body(bench);
    }
    let mut variables = tx.all_tx();
    variables.sort();
    let Verdict {
        matched,
        interruption,
        ..
    } = tx.end(bench);
    let ids = matched.iter().map(|matched| matched.rule).collect();
    (
        ids,
        interruption.map(|interruption| interruption.rule),
        variables,
    )
}

const NAMES: [&str; 5] = ["level", "score", "limit", "made_b", "0"];
const HEADERS: [&str; 4] = ["Content-Length", "Accept", "X-One", "Content-Type"];

fn pick<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

/// A first half of a rule: what it looks at and for what.
fn condition(random: &mut fastrand::Rng) -> String {
    let test = pick(random, &["@eq", "!@eq", "@lt", "@ge", "!@gt"]);
    let bound = match random.u8(..4) {
        0 => "%{tx.limit}".to_owned(),
        _ => random.u8(..4).to_string(),
    };
    let (name, header) = (pick(random, &NAMES), pick(random, &HEADERS));
    match random.u8(..9) {
        0..3 => format!("TX:{name} \"{test} {bound}\""),
        3 => format!("&TX:{name} \"{test} {}\"", random.u8(..2)),
        4 => format!("&REQUEST_HEADERS:{header} \"{test} {}\"", random.u8(..3)),
        5 => format!("REQUEST_HEADERS:{header} \"!@rx ^[0-9]$\""),
        6 => format!("REQBODY_ERROR|TX:{name} \"{test} {bound}\""),
        7 => format!(
            "{} \"{test} {}\"",
            pick(
                random,
                &[
                    "REQUEST_BODY_LENGTH",
                    "REQBODY_ERROR",
                    "&MULTIPART_PART_HEADERS"
                ]
            ),
            random.u8(..2)
        ),
        _ => pick(
            random,
            &["FILES|FILES_NAMES \"!@rx ^x$\"", "ARGS \"@rx b\""],
        )
        .to_owned(),
    }
}

fn assign(random: &mut fastrand::Rng) -> String {
    let name = pick(random, &NAMES);
    match random.u8(..6) {
        0 => ",setvar:tx.made_%{ARGS.a}=1".to_owned(),
        1 => format!(",setvar:tx.{name}=+%{{tx.limit}}"),
        2 => format!(",setvar:tx.{name}={}", random.u8(..4)),
        3 => ",capture".to_owned(),
        _ => String::new(),
    }
}

fn rules(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for (number, name) in NAMES.iter().enumerate().take(random.usize(..6)) {
        let value = random.u8(..4);
        writeln!(
            text,
            "SecAction \"id:{number}1,phase:1,pass,nolog,setvar:tx.{name}={value}\""
        )
        .unwrap();
    }
    // Those that write make the others' variables depend on requests; some sets have few.
    let writes = random.u8(..4);
    for id in 100..100 + random.u32(4..24) {
        let phase = if id < 110 { 1 } else { 2 };
        let after = match random.u8(..8) {
            0 => ",nolog,skipAfter:END-ONE",
            1 => ",nolog,skipAfter:END-TWO",
            2 => ",nolog,skip:2",
            3 => ",nolog,ctl:ruleRemoveById=105-118",
            _ => "",
        };
        let link = |random: &mut fastrand::Rng| {
            let assign = if random.u8(..4) < writes {
                assign(random)
            } else {
                String::new()
            };
            (condition(random), assign)
        };
        if random.u8(..4) == 0 {
            let (name, bound) = (pick(random, &NAMES), random.u8(..4));
            let end = pick(random, &["ONE", "TWO"]);
            writeln!(
                text,
                "SecRule TX:{name} \"@lt {bound}\" \"id:{id},phase:{phase},pass,nolog,skipAfter:END-{end}\""
            )
            .unwrap();
            continue;
        }
        let (first, assigned) = link(random);
        let chain = random.u8(..3) == 0;
        let chained = if chain { ",chain" } else { "" };
        writeln!(
            text,
            "SecRule {first} \"id:{id},phase:{phase},pass{after}{assigned}{chained}\""
        )
        .unwrap();
        if chain {
            let (second, assigned) = link(random);
            writeln!(text, "SecRule {second} \"t:none{assigned}\"").unwrap();
        }
        if id == 107 || id == 116 {
            text.push_str("SecMarker END-ONE\n");
        }
    }
    text.push_str("SecMarker END-ONE\nSecMarker END-TWO\n");
    text
}

fn sent(random: &mut fastrand::Rng) -> Sent {
    let values = ["", "1", "x", "application/json"];
    Sent {
        headers: (0..random.usize(..4))
            .map(|_| (pick(random, &HEADERS), pick(random, &values)))
            .collect(),
        body: pick(random, &[b"".as_slice(), b"a=b&c=d"]),
    }
}

#[test]
fn a_request_comes_out_as_if_every_rule_were_run() {
    let mut random = fastrand::Rng::with_seed(4);
    let (mut matched, mut shut, mut unreached) = (0, 0, 0);
    for _ in 0..1500 {
        let text = rules(&mut random);
        let (gated, plain) = (Arc::new(set(&text)), Arc::new(without_gates(&text)));
        let tailoring = Tailoring {
            settings: match random.bool() && gated.slots.contains_key(&b"level"[..]) {
                true => vec![("level".to_owned(), random.u8(..4).to_string())],
                false => Vec::new(),
            },
            exclusions: (0..random.usize(..2))
                .map(|_| Exclusion {
                    rules: Selected::Id(u64::from(random.u32(100..124))),
                    target: None,
                    until_micros: None,
                    force: true,
                })
                .collect(),
            ..Tailoring::default()
        };
        let (Ok(one), Ok(other)) = (gated.tailor(&tailoring), plain.tailor(&tailoring)) else {
            continue;
        };
        let other = other.without_course();
        unreached += one
            .presets()
            .reached
            .iter()
            .zip(&gated.phases)
            .map(|(reached, phase)| {
                (0..phase.steps.len())
                    .filter(|&at| !reached.has(at))
                    .count()
            })
            .sum::<usize>();
        let (mut bench, mut plain_bench) = (Workbench::new(&gated), Workbench::new(&plain));
        for _ in 0..6 {
            let sent = sent(&mut random);
            let tx = Transaction::begin_tailored(&one, &mut bench, 1, "u");
            let judged = outcome(tx, &mut bench, &sent);
            let tx = Transaction::begin_tailored(&other, &mut plain_bench, 1, "u");
            assert_eq!(
                judged,
                outcome(tx, &mut plain_bench, &sent),
                "{text}\n{tailoring:?}"
            );
            matched += judged.0.len();
            shut += usize::from(judged.0.is_empty());
        }
    }
    assert!(
        matched > 5000 && shut > 100 && unreached > 1000,
        "{matched} {shut} {unreached}"
    );
}

#[test]
fn a_level_that_nothing_changes_is_decided_before_any_request() {
    let text = "SecAction \"id:1,phase:1,pass,nolog,setvar:tx.level=1\"\n\
        SecRule TX:level \"@lt 1\" \"id:2,phase:2,pass,nolog,skipAfter:END\"\n\
        SecRule ARGS \"@rx b\" \"id:3,phase:2,pass\"\n\
        SecRule TX:level \"@lt 2\" \"id:4,phase:2,pass,nolog,skipAfter:END\"\n\
        SecRule ARGS \"@rx b\" \"id:5,phase:2,pass\"\n\
        SecMarker END\n\
        SecRule TX:level \"@ge 2\" \"id:6,phase:2,pass\"\n\
        SecRule TX:level \"@ge 1\" \"id:7,phase:2,pass\"\n";
    let reached = |set: &RuleSet| -> Vec<usize> {
        let [_, second, ..] = &set.presets.reached;
        (0..6).filter(|&position| second.has(position)).collect()
    };
    assert_eq!(reached(&set(text)), [1, 5]);
    let set = set(&format!(
        "{text}SecRule ARGS \"@rx 3\" \"id:8,phase:1,pass,setvar:tx.level=3\"\n"
    ));
    assert_eq!(reached(&set), [0, 1, 2, 3, 4, 5]);
}

impl crate::Tailored {
    /// The same, by which no step is left out.
    fn without_course(mut self) -> Self {
        if let Some(presets) = self.presets_mut() {
            *presets = Presets {
                reached: std::array::from_fn(|_| Bits::default()),
                values: std::mem::take(&mut presets.values),
                ..*presets
            };
        }
        self
    }
}
