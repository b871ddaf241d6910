#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use super::*;

#[test]
fn every_pattern_is_one() {
    assert_eq!(RULES.len(), 12);
}

#[test]
fn what_is_personal_or_secret_is_replaced_by_its_kind() {
    let long_key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\n-----END EC PRIVATE KEY-----";
    for (text, wanted) in [
        (
            "write to ana.b+c@mail.example.org, please",
            "write to [email], please",
        ),
        ("jörg@müller.example!", "[email]!"),
        ("call +49 (0)30 1234-5678 now", "call [phone] now"),
        ("call 030/123 45 67", "call [phone]"),
        ("0301234567", "[phone]"),
        ("card 4111 1111 1111 1111 exp", "card [card] exp"),
        ("card 4111-1111-1111-1112", "card [number]"),
        ("4111111111111111", "[card]"),
        (
            "to DE89 3704 0044 0532 0130 00 and then",
            "to [iban] and then",
        ),
        ("gb82west12345698765432", "[iban]"),
        ("from 192.168.0.17 to 10.0.0.1:443", "from [ip] to [ip]:443"),
        ("at fe80::1ff:fe23:4567:890a.", "at [ip]."),
        ("::ffff:192.0.2.128 said", "[ip] said"),
        (
            "Authorization: Bearer abc.DEF-123",
            "Authorization: [secret] [token]",
        ),
        (
            "authorization: Basic dXNlcjpwYXNz",
            "authorization: Basic [secret]",
        ),
        ("eyJhbGciOi.eyJzdWIi.c2ln and more", "[token] and more"),
        (
            "https://ana:hunter2@db.example/x",
            "https://[secret]@db.example/x",
        ),
        ("password = hunter2; go", "password = [secret]; go"),
        (
            r#"{"api_key": "k1", "x": 1}"#,
            r#"{"api_key": "[secret]", "x": 1}"#,
        ),
        ("my pin is 1234", "my pin is [secret]"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a ok", "[key] ok"),
        ("id 123456", "id [number]"),
        ("id ١٢٣٤٥٦٧", "id [number]"),
        (&format!("a {long_key} b"), "a [private key] b"),
        ("a -----BEGIN PRIVATE KEY-----\nMIIE", "a [private key]"),
    ] {
        assert_eq!(redacted(text), wanted, "{text}");
    }
}

#[test]
fn what_is_not_stays_as_it_was() {
    for text in [
        "",
        "the quick brown fox, 12 times; at 12:34:56",
        "internationalization-of-applications",
        "version 1.2.3, room 12345",
        "a :: b",
        "DE12 is no account",
        "größer @ home",
        "\u{1f600} \u{0}",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn two_in_one_text_are_both_replaced_and_nothing_between_them() {
    let text = "a@b.example 4111111111111111 zwölf DE89370400440532013000 c@d.example";
    assert_eq!(redacted(text), "[email] [card] zwölf [iban] [email]");
}

/// Time that this thread has computed: what else the machine does is not in it.
fn computed() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

/// Sixteen times the text takes sixteen times as long, give or take what the kernel's clock ticks; 256 times would be
/// quadratic.
#[test]
fn hostile_texts_take_time_by_their_length() {
    let _ = redacted("the patterns are compiled");
    for unit in [
        "a",
        "1",
        "1 ",
        "a@",
        "a@b.",
        "DE12 ",
        "DE12A",
        "::",
        "1.",
        "eyJaaaa.",
        "://a:",
        "pin is ",
        "-----BEGIN PRIVATE KEY----",
        "bearer ",
        "a1",
    ] {
        let time = |size: usize| {
            let text = unit.repeat(size / unit.len());
            let began = computed();
            let _ = redacted(&text);
            computed().saturating_sub(began)
        };
        let (short, long) = (time(16 << 10), time(256 << 10));
        let most = short.max(Duration::from_millis(4)) * 80;
        assert!(long < most, "{unit:?}: {short:?}, then {long:?}");
    }
}
