use super::super::collected::{Collected, pairs, read, read_within};
use super::super::{Limits, Outcome, Processor};
use super::*;

const TYPE: &str = "multipart/form-data; boundary=b";

/// A body whose lines end with LF here and with CR LF on the wire.
fn lines(body: &str) -> Vec<u8> {
    body.replace('\n', "\r\n").into_bytes()
}

fn multipart(body: &[u8]) -> (Collected, Outcome) {
    read(Processor::Multipart, TYPE, body)
}

fn flags(content_type: &str, body: &[u8]) -> Flags {
    read(Processor::Multipart, content_type, body).1.multipart
}

fn error(body: &[u8]) -> &'static str {
    multipart(body).1.error.map_or("none", |error| error.what)
}

/// One field called `a`, with these header lines.
fn with_headers(headers: &str) -> Vec<u8> {
    lines(&format!("--b\n{headers}\n\n1\n--b--\n"))
}

const FIELD: &str = "--b\nContent-Disposition: form-data; name=\"a\"\n\n1\n--b--\n";

#[test]
fn a_form_has_its_fields_files_and_headers() {
    let (found, outcome) = multipart(&lines(concat!(
        "--b\nContent-Disposition: form-data; name=\"a\"\n\n1\n2\n",
        "--b\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\nContent-Type: text/plain\n\nhello\n\n",
        "--b--\n"
    )));
    assert_eq!(outcome.error, None);
    assert_eq!(found.arguments, pairs(&[("a", "1\r\n2")]));
    assert_eq!(
        found.files,
        [("f".to_owned(), "x.txt".to_owned(), "hello\r\n".to_owned())]
    );
    assert_eq!(
        found.part_headers,
        pairs(&[
            ("a", "Content-Disposition: form-data; name=\"a\""),
            (
                "f",
                "Content-Disposition: form-data; name=\"f\"; filename=\"x.txt\""
            ),
            ("f", "Content-Type: text/plain"),
        ])
    );
    assert!(!outcome.multipart.is_strict_error());
    assert_eq!(outcome.multipart.unmatched_boundary, 2);
    assert_eq!(
        (
            &*outcome.multipart.part_name,
            &*outcome.multipart.part_filename
        ),
        (&b"f"[..], &b"x.txt"[..])
    );
}

#[test]
fn the_last_boundary_needs_no_end_of_line() {
    let body = lines(FIELD);
    let (found, outcome) = multipart(body.strip_suffix(b"\r\n").unwrap());
    assert_eq!(
        (found.arguments, outcome.error),
        (pairs(&[("a", "1")]), None)
    );
    assert!(!outcome.multipart.is_strict_error());
}

#[test]
fn an_empty_value_and_an_empty_file_name_are_a_field() {
    let body = lines("--b\nContent-Disposition: form-data; name=\"a\"; filename=\"\"\n\n\n--b--\n");
    let (found, outcome) = multipart(&body);
    assert_eq!(
        (found.arguments, outcome.error),
        (pairs(&[("a", "")]), None)
    );
}

#[test]
fn an_empty_body_is_no_error() {
    assert_eq!(multipart(b"").1.error, None);
}

#[test]
fn a_body_without_end_is_an_error_and_is_inspected() {
    let body = lines("--b\nContent-Disposition: form-data; name=\"a\"\n\n<script>\n");
    let (found, outcome) = multipart(&body);
    assert_eq!(
        outcome.error.map(|error| error.what),
        Some(NO_FINAL_BOUNDARY)
    );
    assert_eq!(found.arguments, pairs(&[("a", "<script>\r\n")]));
    assert!(outcome.multipart.is_strict_error());
    assert_eq!(error(b"no boundary at all"), NO_BOUNDARY);
    assert_eq!(error(b"no boundary\r\nat all\r\n"), NO_BOUNDARY);
}

#[test]
fn each_oddity_of_the_media_type_has_its_flag() {
    let body = lines(FIELD);
    for (content_type, flag) in [
        ("multipart/form-data; boundary=\"b\"", Flag::BoundaryQuoted),
        ("multipart/form-data; boundary =b", Flag::BoundaryWhitespace),
        ("multipart/form-data boundary=b", Flag::MissingSemicolon),
    ] {
        let found = flags(content_type, &body);
        assert!(found.has(flag) && found.is_strict_error(), "{content_type}");
        assert!(!flags(TYPE, &body).has(flag), "{content_type}");
    }
}

#[test]
fn a_media_type_that_can_be_read_in_two_ways_is_an_error_that_names_the_cause() {
    let long = format!("multipart/form-data; boundary={}", "b".repeat(1_000));
    for (content_type, what) in [
        ("", "Content-Type header not available."),
        (&long, "Invalid boundary in C-T (length)."),
        ("multipart/mixed; boundary=b", "Invalid MIME type."),
        ("multipart", "Invalid MIME type."),
        ("multipart/form-data", "Boundary not found in C-T."),
        (
            "multipart/form-data; boundary=",
            "Invalid boundary in C-T (empty).",
        ),
        (
            "multipart/form-data; boundary=\"b",
            "Invalid boundary in C-T (quote).",
        ),
        (
            "multipart/form-data; boundary=b\"",
            "Invalid boundary in C-T (quote).",
        ),
        (
            "multipart/form-data; boundary=b; boundary=c",
            "Multiple boundary parameters in C-T.",
        ),
        (
            "multipart/form-data; boundary=boundary=x",
            "Multiple boundary parameters in C-T.",
        ),
        (
            "multipart/form-data; x=y; boundary=b",
            "Invalid boundary in C-T (malformed).",
        ),
        (
            "multipart/form-data;; boundary=b",
            "Invalid boundary in C-T (malformed).",
        ),
        (
            "multipart/form-data; boundary",
            "Invalid boundary in C-T (malformed).",
        ),
        (
            "multipart/form-data; boundaryx=b",
            "Invalid boundary in C-T (parameter name).",
        ),
        (
            "multipart/form-data; BOUNDARY=b",
            "Invalid boundary in C-T (case sensitivity).",
        ),
        (
            "multipart/form-data; boundary=b\u{e9}",
            "Invalid boundary in C-T (characters).",
        ),
        (
            "multipart/form-data; boundary=b{",
            "Invalid boundary in C-T (characters).",
        ),
        (
            "multipart/form-data; boundary=b ",
            "Invalid boundary in C-T (characters).",
        ),
    ] {
        let (found, outcome) = read(Processor::Multipart, content_type, &lines(FIELD));
        assert_eq!(
            outcome.error.map(|error| error.what),
            Some(what),
            "{content_type}"
        );
        assert!(outcome.multipart.is_strict_error(), "{content_type}");
        assert_eq!(found, Collected::default(), "{content_type}");
    }
}

#[test]
fn a_parameter_behind_the_boundary_is_tolerated() {
    let (found, outcome) = read(
        Processor::Multipart,
        "multipart/form-data; boundary=b;charset=utf-8",
        &lines(FIELD),
    );
    assert_eq!(
        (found.arguments, outcome.error),
        (pairs(&[("a", "1")]), None)
    );
}

#[test]
fn data_outside_the_parts_has_its_flags() {
    let before = [b"x\r\n".to_vec(), lines(FIELD)].concat();
    assert!(flags(TYPE, &before).has(Flag::DataBefore));
    let after = [lines(FIELD), b"x".to_vec()].concat();
    assert!(flags(TYPE, &after).has(Flag::DataAfter));
    let neither = flags(TYPE, &lines(FIELD));
    assert!(!neither.has(Flag::DataBefore) && !neither.has(Flag::DataAfter));
}

#[test]
fn lines_that_end_with_lf_have_their_flag_and_so_has_a_mixture() {
    let found = flags(TYPE, FIELD.as_bytes());
    assert!(found.has(Flag::LfLine) && found.is_strict_error() && !found.has_both_line_ends());
    let mixed = flags(
        TYPE,
        &[
            &lines("--b\n")[..],
            FIELD.strip_prefix("--b\n").unwrap().as_bytes(),
        ]
        .concat(),
    );
    assert!(mixed.has_both_line_ends());
    assert!(!flags(TYPE, &lines(FIELD)).has(Flag::LfLine));
    let data = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\n--b--\r\n";
    assert!(flags(TYPE, data).has(Flag::LfLine));
}

#[test]
fn folded_headers_are_joined_and_told() {
    let body = with_headers("Content-Disposition: form-data;\n\tname=\"a\"");
    let (found, outcome) = multipart(&body);
    assert_eq!(found.arguments, pairs(&[("a", "1")]));
    assert_eq!(
        found.part_headers,
        pairs(&[("a", "Content-Disposition: form-data; name=\"a\"")])
    );
    assert!(
        outcome.multipart.has(Flag::HeaderFolding)
            && !outcome.multipart.has(Flag::InvalidHeaderFolding)
    );
    let odd = with_headers("Content-Disposition: form-data;\n\u{b}name=\"a\"");
    assert!(flags(TYPE, &odd).has(Flag::InvalidHeaderFolding));
    assert_eq!(error(&with_headers(" name=\"a\"")), FOLDED_NOTHING);
}

#[test]
fn headers_that_servers_read_differently_are_errors() {
    for (headers, what) in [
        ("Content-Type: text/plain", NO_DISPOSITION),
        ("Content-Disposition: form-data", NO_NAME),
        ("Content-Disposition: form-data; name=\"\"", NO_NAME),
        ("Content-Disposition", NO_COLON),
        (": form-data; name=a", NO_HEADER_NAME),
        (
            "Content-\u{e}Disposition: form-data; name=a",
            BAD_HEADER_NAME,
        ),
        ("Content-Disposition : form-data; name=a", BAD_HEADER_NAME),
        (
            "Content-Disposition: form-data; name=a\ncontent-disposition: form-data; name=b",
            TWICE,
        ),
        ("Content-Disposition: form-data; name=a\0", NUL),
    ] {
        assert_eq!(error(&with_headers(headers)), what, "{headers:?}");
    }
    let long = format!(
        "Content-Disposition: form-data; name=a\nX: {}",
        "x".repeat(4_096)
    );
    assert_eq!(error(&with_headers(&long)), HEADER_TOO_LONG);
    let folded = format!(
        "Content-Disposition: form-data; name=a\nX: {}",
        "x\n ".repeat(4_096)
    );
    assert_eq!(error(&with_headers(&folded)), HEADER_TOO_LONG);
}

#[test]
fn a_header_with_a_bad_name_is_shown_to_the_rules() {
    let (found, _) = multipart(&with_headers("Content-\u{e}Disposition: form-data; name=a"));
    assert_eq!(
        found.part_headers,
        pairs(&[("", "Content-\u{e}Disposition: form-data; name=a")])
    );
}

#[test]
fn dispositions_that_servers_read_differently_are_errors() {
    for value in [
        "attachment; name=a",
        "form-data, name=a",
        "form-data; name",
        "form-data; name=a; name=b",
        "form-data; name=a; filename=b; filename=c",
        "form-data; name=a; x=y",
        "form-data; NAME=a",
        "form-data; name=a b",
        "form-data; name=a; ",
        "\rform-data; name=a",
        "form-data; name=\"a\"b",
        "form-data; name=\"a",
        "form-data; name=\"a\\",
        "form-data; name=a; filename =b",
        "form-data; name=a; filename*=UTF-8''b",
        "form-data; name=a; filename=b; filename*=UTF-8'b",
        "form-data; name=a; filename=b; filename*=''b",
        "form-data; name=a; filename=b; filename*=UTF-8''%4",
        "form-data; name=a; filename=b; filename*=UTF-8''b; filename*=UTF-8''b",
    ] {
        let body = with_headers(&format!("Content-Disposition: {value}"));
        assert!(multipart(&body).1.error.is_some(), "{value}");
    }
}

#[test]
fn names_are_read_with_quotes_escapes_and_without() {
    for (value, name, filename) in [
        ("form-data; name=a", "a", ""),
        ("form-data;name=\"a b\"", "a b", ""),
        ("form-data ; name = a", "a", ""),
        (r#"form-data; name="a\"b\\c\d""#, r#"a"b\c\d"#, ""),
        ("form-data; name=a;", "a", ""),
        (
            "form-data; filename=\"C:\\x.txt\"; name=\"a\"",
            "a",
            "C:\\x.txt",
        ),
        (
            "form-data; name=a; filename=b; filename*=UTF-8'en'%C3%A9",
            "a",
            "b",
        ),
    ] {
        let mut flags = Flags::default();
        let found = disposition::parse(value.as_bytes(), &mut flags);
        let expected = Disposition {
            name: name.into(),
            filename: filename.into(),
        };
        assert_eq!(found, Ok(expected), "{value}");
        assert!(!flags.has(Flag::InvalidQuoting), "{value}");
    }
}

#[test]
fn single_quotes_have_their_flag() {
    for value in ["form-data; name='a'", "form-data; name=a'b"] {
        let body = with_headers(&format!("Content-Disposition: {value}"));
        let found = flags(TYPE, &body);
        assert!(
            found.has(Flag::InvalidQuoting) && found.is_strict_error(),
            "{value}"
        );
    }
    let within = with_headers("Content-Disposition: form-data; name=\"a'b\"");
    assert!(!flags(TYPE, &within).has(Flag::InvalidQuoting));
}

#[test]
fn what_only_resembles_a_boundary_is_told() {
    let other = lines("--c\n--b\nContent-Disposition: form-data; name=a\n\n1\n");
    assert_eq!(flags(TYPE, &other).unmatched_boundary, 1);
    let within = lines("--b\nContent-Disposition: form-data; name=a\n\n1 --b\n");
    assert_eq!(flags(TYPE, &within).unmatched_boundary, 1);
    let plain = lines("--b\nContent-Disposition: form-data; name=a\n\n1\n");
    assert_eq!(flags(TYPE, &plain).unmatched_boundary, 0);
    assert_eq!(
        error(&lines(
            "--b\nContent-Disposition: form-data; name=a\n\n1\n-- b\n"
        )),
        SPACED_BOUNDARY
    );
    assert_eq!(
        error(&lines(
            "--bc\nContent-Disposition: form-data; name=a\n\n1\n--b--\n"
        )),
        BAD_BOUNDARY
    );
    let quoted = lines("--b\nContent-Disposition: form-data; name=a\n\n1\n--\"b\"\n");
    let outcome = read(
        Processor::Multipart,
        "multipart/form-data; boundary=\"b\"",
        &quoted,
    )
    .1;
    assert_eq!(outcome.error.map(|error| error.what), Some(QUOTED_BOUNDARY));
}

#[test]
fn a_boundary_where_data_must_begin_is_no_boundary() {
    let body = lines(
        "--b\nContent-Disposition: form-data; name=a\n\n--b\nContent-Disposition: form-data; name=c\n\n1\n--b--\n",
    );
    let (found, outcome) = multipart(&body);
    assert!(outcome.multipart.has(Flag::InvalidPart) && outcome.multipart.is_strict_error());
    assert_eq!(found.arguments.len(), 1);
    assert!(
        found
            .arguments
            .iter()
            .all(|(name, value)| name == "a" && value.contains("name=c"))
    );
}

#[test]
fn more_parts_or_arguments_than_the_limit_are_an_error() {
    let part = "--b\nContent-Disposition: form-data; name=a; filename=f\n\n1\n";
    let body = lines(&format!("{}--b--\n", part.repeat(3)));
    let within = |parts| {
        read_within(
            &Limits {
                parts,
                ..Limits::default()
            },
            Processor::Multipart,
            TYPE,
            &body,
        )
    };
    assert_eq!(within(3).1.error, None);
    let (found, outcome) = within(2);
    assert_eq!(
        (
            found.files.len(),
            outcome.multipart.has(Flag::FileLimitExceeded)
        ),
        (2, true)
    );
    let fields = lines(&format!(
        "{}--b--\n",
        part.replace("; filename=f", "").repeat(3)
    ));
    let limits = Limits {
        arguments: 2,
        ..Limits::default()
    };
    let (found, outcome) = read_within(&limits, Processor::Multipart, TYPE, &fields);
    assert_eq!(
        (found.arguments.len(), outcome.error.map(|error| error.what)),
        (2, Some(TOO_MANY_ARGUMENTS))
    );
}
