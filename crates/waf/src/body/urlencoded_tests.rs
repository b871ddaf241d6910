use super::super::collected::{Collected, pairs, read, read_within};
use super::super::{Limits, Outcome, Processor};

fn form(body: &[u8]) -> (Collected, Outcome) {
    read(Processor::UrlEncoded, "", body)
}

#[test]
fn a_form_is_its_names_and_values_decoded() {
    let (found, outcome) = form(b"a=1&b%3D=x+y%26z&c");
    assert_eq!(
        found.arguments,
        pairs(&[("a", "1"), ("b=", "x y&z"), ("c", "")])
    );
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn only_the_first_equals_sign_of_a_pair_divides() {
    assert_eq!(form(b"a=b=c").0.arguments, pairs(&[("a", "b=c")]));
}

#[test]
fn an_empty_pair_is_an_argument_but_for_the_last() {
    assert_eq!(
        form(b"a&&b&").0.arguments,
        pairs(&[("a", ""), ("", ""), ("b", "")])
    );
}

#[test]
fn a_percent_sign_that_starts_no_byte_stays_and_is_told() {
    for body in ["a=%", "a=%4", "a=%zz", "%u=b"] {
        let (found, outcome) = form(body.as_bytes());
        assert!(outcome.has_bad_escape, "{body}");
        assert_eq!(outcome.error, None, "{body}");
        assert!(
            found
                .arguments
                .iter()
                .any(|(name, value)| name.contains('%') || value.contains('%'))
        );
    }
}

#[test]
fn bytes_are_decoded_once() {
    assert_eq!(form(b"a=%2541").0.arguments, pairs(&[("a", "%41")]));
}

#[test]
fn nul_and_bytes_that_are_no_text_are_kept() {
    let mut found = Vec::new();
    super::arguments(
        b"a=%00\xFF%fe",
        b'&',
        &Limits::default(),
        &mut |_, value| found.push(value.to_vec()),
    );
    assert_eq!(found, [[0, 0xFF, 0xFE]]);
}

#[test]
fn another_separator_is_taken_where_rules_name_one() {
    let mut found = Vec::new();
    super::arguments(
        b"a=1;b=2&c",
        b';',
        &Limits::default(),
        &mut |name, value| {
            found.push((name.to_vec(), value.to_vec()));
        },
    );
    assert_eq!(
        found,
        [
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), b"2&c".to_vec())
        ]
    );
}

#[test]
fn a_million_arguments_end_at_the_limit_with_an_error_that_says_where() {
    let (found, outcome) = form("a=b&".repeat(1_000_000).as_bytes());
    assert_eq!(found.arguments.len(), 1_000);
    assert_eq!(outcome.error.map(|error| error.at), Some(4_000));
}

#[test]
fn as_many_arguments_as_the_limit_are_no_error() {
    let limits = Limits {
        arguments: 2,
        ..Limits::default()
    };
    let count = |body: &[u8]| {
        let (found, outcome) = read_within(&limits, Processor::UrlEncoded, "", body);
        (found.arguments.len(), outcome.error.is_some())
    };
    assert_eq!(count(b"a&b"), (2, false));
    assert_eq!(count(b"a&b&"), (2, false));
    assert_eq!(count(b"a&b&c"), (2, true));
}
