//! The proof that the filter never drops a match, on values that are near to matching.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::{Needs, Prefilter};
use crate::bytes::ByteSet;
use crate::operator::{Caches, Operator, Pattern, Phrases, parse_pattern};

/// Shapes in which rules are written: classes, words without case, evasions, anchors, optional parts.
pub(crate) const PATTERNS: &[&str] = &[
    r"(?i)union[\s/*]+select",
    r"(?i)<script[^>]*>[\s\S]*?",
    r"(?:^|[^\\])\\[cdeghijklmpqwxyz123456789]",
    r#"(?i)\b(?:s(?:h(?:ell)?|leep)|c(?:at|url)|w[\\'"]*g[\\'"]*e[\\'"]*t)\b\s*[(|;&]"#,
    r"^[^:/]+://(?:\d{1,3}\.){3}\d{1,3}",
    r"(?i)(?:\.|%2e|0x2e){2}(?:/|%2f|0x2f|\\)",
    r"[\n\r](?:get|post|head)\s+\S+\s+HTTP/\d",
    r#"(?i)["'`]\s*?(?:or|and)\s*?["'`\d]+\s*?=="#,
    r"\$(?:\{|\(\()[^}]*?(?:jndi|env|lower)",
    r"a{2,5}b?c*d+(?:ef|gh)*z",
    r"(?i)k(?:elvin)?",
    r"x|",
    r"(?u:(?i)straße|ſhell)",
    r"\x{e2}\x80[\x98\x99]|&#x27;",
    r"(?:abc|abd){1,2}[0-9]{3}%",
    r"^(?i:content-(?:type|length))$",
];

/// A text that the pattern is likely to match: a walk through its syntax.
fn sample(hir: &Hir, random: &mut fastrand::Rng, out: &mut Vec<u8>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
        HirKind::Class(Class::Bytes(class)) => {
            let range = class.ranges()[random.usize(..class.ranges().len())];
            out.push(random.u8(range.start()..=range.end()));
        }
        HirKind::Class(Class::Unicode(class)) => {
            let range = class.ranges()[random.usize(..class.ranges().len())];
            out.extend_from_slice(range.start().to_string().as_bytes());
        }
        HirKind::Repetition(repetition) => {
            let most = repetition
                .max
                .unwrap_or(repetition.min + 3)
                .min(repetition.min + 3);
            for _ in 0..random.u32(repetition.min..=most) {
                sample(&repetition.sub, random, out);
            }
        }
        HirKind::Capture(capture) => sample(&capture.sub, random, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| sample(part, random, out)),
        HirKind::Alternation(branches) => {
            sample(&branches[random.usize(..branches.len())], random, out);
        }
    }
}

fn mutated(text: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..random.usize(..3) {
        let at = random.usize(..=text.len());
        match random.u8(..5) {
            0 if at < text.len() => text[at] ^= 0x20,
            1 if at < text.len() => drop(text.remove(at)),
            2 => text.insert(at, random.u8(..)),
            3 => text.extend_from_slice(b" tail"),
            _ => text.splice(..0, *b"head ").for_each(drop),
        }
    }
    text
}

fn bytes_of(text: &[u8]) -> ByteSet {
    ByteSet::of(text)
}

/// The filter for operators as if each were used on requests.
fn with_literals(operators: &[Operator], shapes: &[Option<Hir>]) -> Prefilter {
    let needs = shapes.iter().map(|hir| hir.as_ref().map(Needs::of_pattern));
    Prefilter::of_operators(operators, needs.collect(), &[])
}

fn may_match(filter: &Prefilter, operator: u16, text: &[u8]) -> bool {
    let mut found = vec![0; filter.words];
    filter.candidates(
        text,
        &bytes_of(text),
        &mut found,
        &mut Vec::new(),
        &mut crate::evaluate::ByBytes::default(),
    );
    filter
        .probe(operator)
        .is_none_or(|probe| found[usize::from(probe) / 64] >> (probe % 64) & 1 == 1)
}

fn compiled(patterns: &[&str]) -> (Vec<Operator>, Vec<Option<Hir>>) {
    let shapes: Vec<Hir> = patterns
        .iter()
        .map(|text| parse_pattern(text).unwrap())
        .collect();
    let operators = shapes.iter().enumerate().map(|(index, hir)| {
        let mut pattern = Pattern::new(patterns[index], hir, 1 << 22).unwrap();
        pattern.cache = index;
        Operator::Pattern {
            pattern,
            every_match: false,
        }
    });
    (operators.collect(), shapes.into_iter().map(Some).collect())
}

/// Each pattern against texts near to matching any of them: the numbers of matches and rejections.
fn prove(patterns: &[&str], rounds: usize) -> (usize, usize) {
    let (operators, shapes) = compiled(patterns);
    let filter = with_literals(&operators, &shapes);
    let mut caches = Caches::with_room_for(operators.len());
    let mut random = fastrand::Rng::with_seed(1);
    let (mut matched, mut rejected) = (0, 0);
    for hir in shapes.iter().flatten() {
        for _ in 0..rounds {
            let mut text = Vec::new();
            sample(hir, &mut random, &mut text);
            let text = mutated(&text, &mut random);
            for (other, operator) in operators.iter().enumerate() {
                let Operator::Pattern { pattern, .. } = operator else {
                    continue;
                };
                let is_match = pattern.is_match(&mut caches, &text);
                let passed = may_match(&filter, u16::try_from(other).unwrap(), &text);
                matched += usize::from(is_match);
                rejected += usize::from(!passed);
                assert!(
                    passed || !is_match,
                    "{} matches {:?}",
                    patterns[other],
                    text.escape_ascii().to_string()
                );
            }
        }
    }
    (matched, rejected)
}

#[test]
fn what_the_filter_rejects_the_pattern_rejects() {
    let (matched, rejected) = prove(PATTERNS, 1000);
    // Both sides are met often, or the proof would be empty.
    assert!(
        matched > 10_000 && rejected > 50_000,
        "{matched} matches, {rejected} rejections"
    );
}

#[test]
fn what_the_filter_rejects_the_core_rule_set_rejects() {
    let Ok(folder) = std::env::var("VEDETTE_CRS_RULES") else {
        println!("skipped: VEDETTE_CRS_RULES names no folder with the Core Rule Set's rules");
        return;
    };
    let mut patterns = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "conf") {
            let name = path.to_str().unwrap();
            for statement in
                crate::seclang::parse(&crate::Disk, &[name], &crate::Limits::default()).unwrap()
            {
                let crate::seclang::Statement::Rule(rule) = statement else {
                    continue;
                };
                if let Some(crate::seclang::Operand::Pattern { text, .. }) =
                    rule.operator.map(|spec| spec.operand)
                {
                    patterns.push(text.to_string());
                }
            }
        }
    }
    patterns.sort();
    patterns.dedup();
    assert!(patterns.len() > 200, "{}", patterns.len());
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let (matched, rejected) = prove(&patterns, 60);
    println!(
        "{} patterns, {matched} matches, {rejected} rejections",
        patterns.len()
    );
    assert!(
        matched > 50_000 && rejected > 1_000_000,
        "{matched} matches, {rejected} rejections"
    );
}

#[test]
fn what_the_filter_rejects_the_phrases_reject() {
    let words: Vec<Box<[u8]>> = [&b"/etc/passwd"[..], b"Sleep(", b"a", b"base64_decode"]
        .map(Into::into)
        .into();
    let lists = [
        Phrases::new(words[..2].to_vec()),
        Phrases::new(words.clone()),
        Phrases::new(words[3..].to_vec()),
    ];
    let operators = lists.map(Operator::Phrases);
    let filter = with_literals(&operators, &[None, None, None]);
    let mut random = fastrand::Rng::with_seed(2);
    for round in 0..20_000 {
        let text = mutated(&words[round % words.len()], &mut random);
        for (index, operator) in (0u16..).zip(&operators) {
            let Operator::Phrases(phrases) = operator else {
                continue;
            };
            assert!(may_match(&filter, index, &text) || phrases.find(&text).is_none());
        }
    }
}

#[test]
fn a_word_that_the_filter_keeps_from_the_injection_checks_is_no_injection() {
    let operators = [Operator::SqlInjection, Operator::Xss];
    let filter = with_literals(&operators, &[None, None]);
    let words = [
        "union", "select", "or", "and", "null", "sleep", "database", "exec", "true", "between",
        "n", "onload",
    ];
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..200_000 {
        let mut text = words[round % words.len()].as_bytes().to_vec();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..=text.len());
            text.insert(at, *random.choice(b"_0123456789abcxyzN").unwrap());
        }
        assert!(
            may_match(&filter, 0, &text) || crate::injection::is_sql_injection(&text).is_none()
        );
        assert!(may_match(&filter, 1, &text) || !crate::injection::is_xss(&text));
    }
}

#[test]
fn what_is_kept_of_one_set_of_bytes_is_not_told_of_another() {
    let (operators, shapes) = compiled(PATTERNS);
    let filter = with_literals(&operators, &shapes);
    let mut kept = crate::evaluate::ByBytes::new(filter.words);
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..20_000 {
        let text: Vec<u8> = (0..random.usize(..20)).map(|_| random.u8(..)).collect();
        let (mut one, mut other) = (vec![0; filter.words], vec![0; filter.words]);
        let bytes = bytes_of(&text);
        filter.candidates(&text, &bytes, &mut one, &mut Vec::new(), &mut kept);
        let mut nothing = crate::evaluate::ByBytes::default();
        filter.candidates(&text, &bytes, &mut other, &mut Vec::new(), &mut nothing);
        assert_eq!(one, other, "{}", text.escape_ascii());
    }
}

/// Rules over most transformations, beside each other and after one another.
fn transformed_rules(random: &mut fastrand::Rng) -> String {
    use std::fmt::Write as _;
    let lists = [
        "t:none",
        "t:lowercase",
        "t:urlDecodeUni",
        "t:cmdLine",
        "t:cmdLine,t:normalizePath",
        "t:removeWhitespace",
        "t:urlDecodeUni,t:jsDecode,t:base64Decode",
        "t:urlDecodeUni,t:htmlEntityDecode,t:lowercase",
        "t:compressWhitespace",
        "t:replaceComments",
        "t:removeNulls,t:cssDecode",
        "t:normalizePathWin",
        "t:removeCommentsChar,t:lowercase",
        "t:uppercase",
        "t:sqlHexDecode",
        "t:hexEncode",
        "t:utf8toUnicode",
        "multiMatch,t:lowercase,t:removeWhitespace",
        "t:trim",
        "t:base64Decode,t:lowercase",
    ];
    let operators = [
        "@rx (?i)select[\\s(]",
        "@rx ^[a-z]+;",
        "@rx [|$]\\w",
        "@pm ls cat uname",
        "@rx \\.\\./",
        "@contains UN",
        "@detectSQLi",
        "@detectXSS",
        "@rx <s",
        "@validateByteRange 32-126",
        "@rx ^/\\.",
        "@rx \\bor\\b",
        "@rx [;']",
        "@streq a b",
        "@rx %u00",
        "@endsWith .php",
    ];
    let mut text = String::from("SecRuleEngine On\n");
    for id in 1..=60 {
        let targets = [
            "ARGS",
            "ARGS|ARGS_NAMES",
            "REQUEST_URI|ARGS",
            "REQUEST_HEADERS|ARGS:b",
        ][random.usize(..4)];
        let operator = operators[random.usize(..operators.len())];
        let list = lists[random.usize(..lists.len())];
        writeln!(
            text,
            "SecRule {targets} \"{operator}\" \"id:{id},phase:{},pass,log,{list}\"",
            1 + id % 2
        )
        .unwrap();
    }
    text
}

#[test]
fn with_the_filter_and_all_that_a_worker_remembers_the_verdict_is_the_same() {
    let mut random = fastrand::Rng::with_seed(9);
    let words = [
        "select",
        "SELECT(1",
        "ls;",
        "'or 1=1",
        "<Script>",
        "a  b",
        "..%2f",
        "/./x.php",
        "L2V0Yw==",
        "%5c2e",
        "&lt;s",
        "un%00ame",
        "c/**/at",
        "0x3c73",
        "plain",
        "7",
        "%u0073",
        "caf%c3%a9",
        "$x",
        "a",
        "Garden, folding",
        "bHM7",
    ];
    let (mut matched, mut asked) = (0, 0);
    for _ in 0..25 {
        let files = crate::Memory(
            [(
                "a.conf".to_owned(),
                transformed_rules(&mut random).into_bytes(),
            )]
            .into(),
        );
        let load =
            || crate::RuleSet::load(&files, &["a.conf"], &crate::Options::default()).unwrap();
        let (set, mut plain) = (load(), load());
        plain.prefilter = Prefilter::default();
        for (phase, steps) in plain.prefilter.phases.iter_mut().zip(&plain.phases) {
            phase.always = crate::rule::Bits(vec![u64::MAX; steps.steps.len().div_ceil(64)]);
        }
        let mut benches = [crate::Workbench::new(&set), crate::Workbench::new(&plain)];
        for _ in 0..300 {
            let word = |random: &mut fastrand::Rng| {
                let mut text = String::new();
                for _ in 0..random.usize(1..4) {
                    text.push_str(words[random.usize(..words.len())]);
                }
                text
            };
            let target = format!(
                "/{}?a={}&b={}&{}=1",
                word(&mut random),
                word(&mut random),
                word(&mut random),
                word(&mut random)
            );
            let target = target.replace(' ', "%20").replace('#', "");
            let header = word(&mut random);
            let [ours, theirs] = [(&set, 0), (&plain, 1)].map(|(set, bench)| {
                let bench = &mut benches[bench];
                let mut tx = crate::Transaction::begin(set, bench, 0, "u");
                tx.request_line(b"GET", target.as_bytes(), b"HTTP/1.1");
                tx.header(b"X-Word", header.as_bytes());
                tx.end_of_request_headers(bench);
                tx.end_of_request_body(bench);
                tx.end(bench).matched
            });
            assert_eq!(ours, theirs, "{target} {header}");
            matched += ours.len();
            asked += 60;
        }
    }
    assert!(
        matched > asked / 50 && matched < asked / 2,
        "{matched} of {asked}"
    );
}
