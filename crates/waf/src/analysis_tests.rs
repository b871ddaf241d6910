use std::sync::Arc;

use super::{Analysis, AnalysisError, DIGEST, MAGIC, sealed};
use crate::operator::parse_pattern;
use crate::prefilter::Needs;
use crate::prefilter::tests::PATTERNS;
use crate::{Disk, Ends, Limits, Memory, Options, RuleSet, Transaction, Workbench};

const RULES: &str = r#"SecRuleEngine On
SecRule ARGS "@rx (?i)union[\s/*]+select" "id:1,phase:2,deny"
SecRule ARGS "@rx ^[^:/]+://(?:\d{1,3}\.){3}\d{1,3}" "id:2,phase:2,deny,capture"
SecRule ARGS "!@rx ^[a-z0-9 ;:/.=]*$" "id:3,phase:2,deny"
SecRule ARGS "@pm evil worse" "id:4,phase:2,deny"
SecRule ARGS "@verifyCC \d{13,16}" "id:5,phase:2,deny"
SecRule ARGS "@rx x|" "id:6,phase:1,pass,nolog"
"#;

fn rules() -> Memory {
    Memory([("a.conf".to_owned(), RULES.as_bytes().to_vec())].into())
}

fn analysed() -> Analysis {
    Analysis::of(&rules(), &["a.conf"], &Options::default()).unwrap()
}

fn with(analysis: Analysis) -> Options {
    Options {
        analysis: Some(Arc::new(analysis)),
        ..Options::default()
    }
}

/// The rules that block the value of an argument.
fn blocking(set: &RuleSet, value: &str) -> Option<u64> {
    let mut bench = Workbench::new(set);
    let mut tx = Transaction::begin(set, &mut bench, 0, "u");
    tx.connection(&Ends {
        client: ([1, 2, 3, 4].into(), 1),
        server: ([1, 1, 1, 1].into(), 2),
    });
    tx.request_line(b"GET", format!("/?a={value}").as_bytes(), b"HTTP/1.1");
    tx.end_of_request_headers(&mut bench);
    tx.end_of_request_body(&mut bench);
    tx.end(&mut bench).interruption.map(|found| found.rule)
}

#[test]
fn what_was_written_is_read_again_and_every_pattern_is_in_it() {
    let analysis = analysed();
    assert_eq!(analysis.len(), 5);
    let bytes = analysis.to_bytes();
    assert_eq!(Analysis::from_bytes(&bytes), Ok(analysis));
}

#[test]
fn a_set_judges_alike_with_an_analysis_and_without() {
    let load = |options: &Options| RuleSet::load(&rules(), &["a.conf"], options).unwrap();
    let (without, with) = (load(&Options::default()), load(&with(analysed())));
    let values = [
        ("1;union/**/select", Some(1)),
        ("ftp://127.0.0.1", Some(2)),
        ("a'b", Some(3)),
        ("so EVIL", Some(3)),
        ("so evil", Some(4)),
        ("4111111111111111", Some(5)),
        ("honest", None),
    ];
    for (value, rule) in values {
        let value = value.replace(' ', "%20");
        assert_eq!(blocking(&without, &value), rule, "{value}");
        assert_eq!(blocking(&with, &value), rule, "{value}");
    }
}

#[test]
fn with_an_analysis_patterns_are_compiled_when_a_request_wants_them() {
    let load = || RuleSet::load(&rules(), &["a.conf"], &with(analysed())).unwrap();
    let set = load();
    let mut last = set.memory_usage();
    for value in ["honest", "1;union/**/select", "ftp://127.0.0.1"] {
        let _ = blocking(&set, value);
        assert!(set.memory_usage() > last, "{value}");
        last = set.memory_usage();
    }
    let (prepared, before) = (load(), load().memory_usage());
    prepared.prepare();
    let after = prepared.memory_usage();
    assert!(before < after && after < last, "{before} {after} {last}");
    assert_eq!(blocking(&prepared, "honest"), None);
    assert_eq!(prepared.memory_usage(), after);
}

#[test]
fn a_pattern_is_analysed_again_where_less_memory_is_allowed() {
    let small = Limits {
        compiled_pattern_bytes: 100,
        ..Limits::default()
    };
    let options = Options {
        limits: small,
        ..with(analysed())
    };
    let told = RuleSet::load(&rules(), &["a.conf"], &options).unwrap_err();
    assert_eq!(
        told.to_string(),
        "a.conf:2: the pattern takes more than 100 bytes once compiled"
    );
}

#[test]
fn a_pattern_that_is_not_in_the_analysis_is_still_checked() {
    let other = Memory(
        [(
            "b.conf".to_owned(),
            b"SecRule ARGS \"@rx (\" \"id:1\"".to_vec(),
        )]
        .into(),
    );
    let told = RuleSet::load(&other, &["b.conf"], &with(analysed())).unwrap_err();
    assert_eq!((&*told.file, told.line), ("b.conf", 1));
}

#[test]
fn a_file_that_cannot_be_read_has_no_analysis() {
    let told = Analysis::of(&Disk, &["/nowhere.conf"], &Options::default()).unwrap_err();
    assert!(told.to_string().contains("/nowhere.conf"), "{told}");
}

#[test]
fn damage_is_told_wherever_it_is() {
    let whole = analysed().to_bytes();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        let error = if at < MAGIC.len() {
            AnalysisError::Version
        } else {
            AnalysisError::Damaged
        };
        assert_eq!(Analysis::from_bytes(&damaged), Err(error), "{at}");
        assert!(Analysis::from_bytes(&whole[..at]).is_err(), "{at}");
    }
}

/// The content with other bytes at one place, and its digest.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let whole = analysed().to_bytes();
    let mut content = whole[..whole.len() - DIGEST].to_vec();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(&content)
}

#[test]
fn numbers_that_are_too_large_are_refused_under_a_right_digest() {
    let patterns = MAGIC.len() + 8;
    let text = patterns + 4;
    let masks = text + 4 + usize::from(analysed().to_bytes()[text]) + 4;
    let literals = masks + 4 + 2 * 32;
    for at in [patterns, text, masks, literals] {
        for number in [0xffff_ffff_u32, 0x7fff_ffff, 100_000] {
            let bytes = changed(at, &number.to_le_bytes());
            assert_eq!(
                Analysis::from_bytes(&bytes),
                Err(AnalysisError::Damaged),
                "{at}"
            );
        }
    }
}

#[test]
fn what_is_read_has_one_form_however_it_is_forged() {
    let whole = analysed().to_bytes();
    let mut random = fastrand::Rng::with_seed(12);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let at = random.usize(MAGIC.len()..whole.len() - DIGEST);
        let bytes = changed(at, &[random.u8(..)]);
        match Analysis::from_bytes(&bytes) {
            Ok(analysis) => {
                assert_eq!(analysis.to_bytes(), bytes);
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} {refused}");
}

/// An analysis that was written before is believed: whoever changes what is found out about a pattern, or
/// how it is read, changes the last byte of the form too, and then this digest.
#[test]
fn what_is_found_out_is_of_this_version_of_the_form() {
    let found = PATTERNS.iter().map(|text| {
        let needs = Needs::of_pattern(&parse_pattern(text).unwrap());
        (Box::from(*text), needs)
    });
    let bytes = Analysis::new(found.collect(), 1 << 20).to_bytes();
    let digest = bytes[bytes.len() - DIGEST..].first_chunk().unwrap();
    assert_eq!(
        (MAGIC[7], u64::from_be_bytes(*digest)),
        (1, 0xfa41_2df4_10d8_c1ce)
    );
}
