use super::super::collected::{Collected, pairs, read, read_within};
use super::super::{Limits, Outcome, Processor};
use super::*;

fn json(body: &str) -> (Collected, Outcome) {
    read(Processor::Json, "", body.as_bytes())
}

fn arguments(body: &str) -> Vec<(String, String)> {
    let (found, outcome) = json(body);
    assert_eq!(outcome.error, None, "{body}");
    found.arguments
}

fn error(body: &[u8]) -> &'static str {
    read(Processor::Json, "", body)
        .1
        .error
        .map_or("none", |error| error.what)
}

#[test]
fn names_are_the_path_as_libmodsecurity_writes_it() {
    assert_eq!(
        arguments(r#"{"a":{"b":1},"c":[1,{"d":true},[null]],"":"e","f":{},"g":[]}"#),
        pairs(&[
            ("json.a.b", "1"),
            ("json.c.array_0", "1"),
            ("json.c.array_1.d", "true"),
            ("json.c.array_2.array_0", ""),
            ("json.empty-key", "e"),
        ])
    );
}

#[test]
fn a_scalar_or_an_array_may_be_the_whole_document() {
    assert_eq!(arguments(r#" "a" "#), pairs(&[("json", "a")]));
    assert_eq!(
        arguments("[1,[2],3]"),
        pairs(&[
            ("json.array_0", "1"),
            ("json.array_1.array_0", "2"),
            ("json.array_2", "3")
        ])
    );
    assert_eq!(arguments("{}"), pairs(&[]));
}

#[test]
fn a_name_that_occurs_twice_is_two_arguments() {
    assert_eq!(
        arguments(r#"{"a":1,"a":2}"#),
        pairs(&[("json.a", "1"), ("json.a", "2")])
    );
}

#[test]
fn numbers_are_kept_as_they_are_written() {
    assert_eq!(
        arguments("[-0,1.50,1e400,-2E-3]"),
        pairs(&[
            ("json.array_0", "-0"),
            ("json.array_1", "1.50"),
            ("json.array_2", "1e400"),
            ("json.array_3", "-2E-3")
        ])
    );
}

#[test]
fn escapes_stand_for_their_characters_in_names_and_values() {
    assert_eq!(
        arguments(r#"{"\u0061\"":"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}"#),
        pairs(&[("json.a\"", "\\/\u{8}\u{c}\n\r\té😀")])
    );
}

#[test]
fn half_a_surrogate_pair_is_a_question_mark() {
    assert_eq!(
        arguments(r#"["\ud83dx","\udc00"]"#),
        pairs(&[("json.array_0", "?x"), ("json.array_1", "?")])
    );
}

#[test]
fn an_escaped_nul_is_a_nul() {
    assert_eq!(
        arguments(r#"["a\u0000b"]"#),
        pairs(&[("json.array_0", "a\0b")])
    );
}

#[test]
fn an_empty_body_is_no_document_and_no_error() {
    assert_eq!(json("").1.error, None);
    assert_eq!(error(b"  "), PREMATURE_END);
}

#[test]
fn what_is_no_json_is_an_error_that_names_the_cause() {
    for (body, what) in [
        (r#"{"a":1"#, PREMATURE_END),
        (r#"{"a":"b"#, PREMATURE_END),
        ("[", PREMATURE_END),
        (r#"{"a" 1}"#, NO_COLON),
        ("{1:2}", NO_KEY),
        (r#"{"a":1,}"#, NO_KEY),
        ("[1,]", UNEXPECTED),
        ("[1 2]", NO_COMMA_IN_ARRAY),
        (r#"{"a":1 "b":2}"#, NO_COMMA_IN_OBJECT),
        ("[1}", NO_COMMA_IN_ARRAY),
        ("[tru]", UNEXPECTED),
        ("[01]", BAD_NUMBER),
        ("[-]", BAD_NUMBER),
        ("[1.]", BAD_NUMBER),
        ("[1e]", BAD_NUMBER),
        ("[+1]", UNEXPECTED),
        ("{} {}", TRAILING),
        ("[\"a\nb\"]", CONTROL),
        (r#"["\x41"]"#, BAD_ESCAPE),
        (r#"["\u00g0"]"#, BAD_HEX),
        ("{'a':1}", NO_KEY),
        ("[1] // comment", TRAILING),
        ("\u{feff}[]", UNEXPECTED),
    ] {
        assert_eq!(error(body.as_bytes()), what, "{body}");
    }
    assert_eq!(error(b"[\"\xC0\xAF\"]"), NOT_UTF8);
    assert_eq!(error(b"[\"\xED\xA0\x80\"]"), NOT_UTF8);
    assert_eq!(error(b"[1]\0"), TRAILING);
}

#[test]
fn what_comes_before_an_error_is_inspected() {
    let (found, outcome) = json(r#"{"a":"<script>","b":]"#);
    assert_eq!(found.arguments, pairs(&[("json.a", "<script>")]));
    assert_eq!(outcome.error.map(|error| error.at), Some(20));
}

#[test]
fn ten_thousand_levels_are_refused_without_recursion() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        assert_eq!(error(body.as_bytes()), TOO_DEEP);
    }
    let as_deep_as_allowed = format!("{}1{}", "[".repeat(512), "]".repeat(512));
    assert_eq!(error(as_deep_as_allowed.as_bytes()), "none");
}

#[test]
fn a_long_name_above_many_values_is_refused() {
    let body = format!("{{\"{}\":[{}1]}}", "a".repeat(100_000), "1,".repeat(500));
    assert_eq!(error(body.as_bytes()), NAME_TOO_LONG);
}

#[test]
fn a_million_values_end_at_the_limit() {
    let body = format!("[{}1]", "1,".repeat(1_000_000));
    let (found, outcome) = json(&body);
    assert_eq!(found.arguments.len(), 1_000);
    assert_eq!(outcome.error.map(|error| error.what), Some(TOO_MANY));
    let limits = Limits {
        arguments: 2,
        ..Limits::default()
    };
    assert_eq!(
        read_within(&limits, Processor::Json, "", b"[1,2]").1.error,
        None
    );
}

/// What a tree of `serde_json` holds, by our names.
fn flattened(name: String, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
    use serde_json::Value;
    match value {
        Value::Null => out.push((name, String::new())),
        Value::Bool(value) => out.push((name, value.to_string())),
        Value::Number(value) => out.push((name, value.to_string())),
        Value::String(value) => out.push((name, value.clone())),
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                flattened(format!("{name}.array_{at}"), value, out);
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                let key = if key.is_empty() { "empty-key" } else { key };
                flattened(format!("{name}.{key}"), value, out);
            }
        }
    }
}

#[test]
fn what_another_reader_takes_is_taken_with_the_same_names_and_values() {
    let parts = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\"",
        "\"\\u00e9\\n\"",
        "1",
        "-2",
        "true",
        "null",
        " ",
        "{\"k\":",
        "[[",
        "]]",
        "{}",
        "[]",
        "\"b\":1",
        "0",
        "x",
        "\"",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let mut taken = 0;
    for _ in 0..200_000 {
        let body: String = (0..random.usize(1..9))
            .map(|_| random.choice(parts).unwrap())
            .collect();
        let (mut found, outcome) = json(&body);
        let other = serde_json::from_str::<serde_json::Value>(&body);
        assert_eq!(outcome.error.is_none(), other.is_ok(), "{body}");
        // The other reader keeps the last of two that have one name, and sorts them.
        let names: std::collections::HashSet<_> =
            found.arguments.iter().map(|(name, _)| name).collect();
        if let Ok(tree) = other
            && names.len() == found.arguments.len()
        {
            let mut expected = Vec::new();
            flattened("json".to_owned(), &tree, &mut expected);
            expected.sort();
            found.arguments.sort();
            if body.matches("{\"k\":").count() < 2 && body.matches("\"a\"").count() < 2 {
                assert_eq!(found.arguments, expected, "{body}");
                taken += usize::from(!expected.is_empty());
            }
        }
    }
    assert!(taken > 1_000, "only {taken} documents were compared");
}
