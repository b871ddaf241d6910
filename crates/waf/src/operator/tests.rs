use std::net::IpAddr;

use regex_automata::meta::{self, Regex};

use super::{AddressSet, Caches, Pattern, Phrases, agree, compare, is_card_number, parse_pattern};
use crate::seclang::{NumberTest, TextTest, addresses};

fn compiled(pattern: &str) -> Pattern {
    Pattern::new(pattern, &parse_pattern(pattern).unwrap(), 1 << 20).unwrap()
}

fn matches(pattern: &str, value: &[u8]) -> bool {
    compiled(pattern).is_match(&mut Caches::with_room_for(1), value)
}

#[test]
fn patterns_match_bytes_and_not_lines() {
    assert!(matches("^a.b$", b"a\nb"));
    assert!(!matches("^b$", b"a\nb"));
    assert!(matches("^.$", b"\xff"));
    assert!(matches(r"\xff", b"\xff"));
    assert!(!matches(r"\xff", "ÿ".as_bytes()));
}

#[test]
fn a_braced_escape_of_a_byte_is_that_byte() {
    assert!(matches(r"\x{e2}\x80[\x98\x99]", "\u{2019}".as_bytes()));
    assert!(matches(
        r"\\x{41}",
        b"\\xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    ));
    assert!(matches(r"\x{20ac}", "€".as_bytes()));
}

/// Another engine over the same syntax.
fn another(pattern: &str) -> Regex {
    let config = meta::Config::new().utf8_empty(false);
    meta::Builder::new()
        .configure(config)
        .build_from_hir(&parse_pattern(pattern).unwrap())
        .unwrap()
}

#[test]
fn matches_lie_where_another_engine_finds_them() {
    let patterns = [
        "a+b|a",
        "^(?:a|(ab))(c|bcd)?",
        "(?i)(x)?(SELECT|sel)[^a-z]*?(b)$",
        r"\b(sel|é)\b",
        "",
        "(a*)*b",
        "(?:^|a)b*",
        "a{2,9}[^b]{3}c",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let (mut hits, mut caches) = (0, Caches::with_room_for(patterns.len()));
    for (number, text) in patterns.iter().enumerate() {
        let (mut pattern, other) = (compiled(text), another(text));
        pattern.cache = number;
        for round in 0..3000 {
            // One in a hundred is too long for the quicker way to find where it lies.
            let length = random.usize(..if round % 100 == 0 { 80_000 } else { 12 });
            let value: Vec<u8> = (0..length)
                .flat_map(|_| {
                    [
                        b"a",
                        b"b",
                        b"c",
                        b"d",
                        &b"sel"[..],
                        b"X",
                        b" ",
                        "é".as_bytes(),
                        b"\xff",
                    ][random.usize(..9)]
                })
                .copied()
                .collect();
            let expected = other.captures_iter(&value).next().map(|found| {
                let groups = found.iter().map(|span| span.map(|it| (it.start, it.end)));
                groups.collect::<Vec<_>>()
            });
            let whole = expected.as_ref().map(|groups| groups[0].unwrap());
            assert_eq!(
                pattern.is_match(&mut caches, &value),
                whole.is_some(),
                "{text}"
            );
            assert_eq!(pattern.find(&mut caches, &value, 0), whole, "{text}");
            assert_eq!(pattern.groups(&mut caches, &value), expected, "{text}");
            let from = random.usize(..=value.len());
            let input = regex_automata::Input::new(&value).span(from..value.len());
            let next = other
                .search(&input)
                .map(|found| (found.start(), found.end()));
            assert_eq!(
                pattern.find(&mut caches, &value, from),
                next,
                "{text} from {from}"
            );
            hits += usize::from(whole.is_some());
        }
    }
    assert!(hits > 5000 && hits < 23_000, "{hits}");
}

#[test]
fn a_pattern_that_could_not_be_compiled_when_it_was_wanted_matches() {
    let mut caches = Caches::with_room_for(1);
    for (text, most_bytes) in [("(", 1 << 20), ("a{1000}", 100)] {
        let pattern = Pattern::known(text, most_bytes);
        assert!(pattern.is_match(&mut caches, b"x"), "{text}");
        assert_eq!(pattern.find(&mut caches, b"xyz", 1), Some((1, 3)));
        assert_eq!(pattern.groups(&mut caches, b"x"), Some(vec![Some((0, 1))]));
    }
    let known = Pattern::known("a", 1 << 20);
    assert!(!known.is_match(&mut caches, b"x"));
}

#[test]
fn a_word_has_no_letter_beside_it() {
    let word = |text: &str| agree(TextTest::ContainsWord, text.as_bytes(), b"cat").is_some();
    assert!(word("a cat.") && word("cat"));
    assert!(!word("concat") && !word("cat_1"));
}

#[test]
fn texts_agree_as_their_operator_says() {
    assert!(agree(TextTest::Equal, b"a", b"a").is_some());
    assert_eq!(agree(TextTest::Contains, b"xaby", b"ab"), Some(&b"ab"[..]));
    assert!(agree(TextTest::BeginsWith, b"ab", b"b").is_none());
    assert_eq!(agree(TextTest::EndsWith, b"ab", b"b"), Some(&b"b"[..]));
    assert!(agree(TextTest::Within, b"GET", b"GET HEAD").is_some());
    assert!(agree(TextTest::Within, b"", b"GET").is_some());
    assert!(agree(TextTest::Within, b"PUT", b"GET HEAD").is_none());
}

#[test]
fn numbers_are_compared_value_first() {
    let all = |value, other| {
        use NumberTest as T;
        [
            T::Equal,
            T::Greater,
            T::GreaterOrEqual,
            T::Less,
            T::LessOrEqual,
        ]
        .map(|test| compare(test, value, other))
    };
    assert_eq!(all(1, 2), [false, false, false, true, true]);
    assert_eq!(all(2, 2), [true, false, true, false, true]);
    assert_eq!(all(3, 2), [false, true, true, false, false]);
}

#[test]
fn an_address_is_found_in_its_network() {
    let set = AddressSet::new(
        &addresses("192.0.2.0/24,10.1.2.3,2001:db8::/32,192.0.2.128/25,0.0.0.0/32").unwrap(),
    );
    let has = |text: &str| set.contains(text.parse::<IpAddr>().unwrap());
    assert!(
        has("192.0.2.255")
            && has("10.1.2.3")
            && has("2001:db8:1::1")
            && has("::ffff:192.0.2.1")
            && has("0.0.0.0")
    );
    assert!(!has("192.0.3.0") && !has("10.1.2.4") && !has("2001:db9::1"));
    let all = AddressSet::new(&addresses("::/0").unwrap());
    assert!(all.contains("1.2.3.4".parse().unwrap()));
}

#[test]
fn the_phrase_that_ends_first_is_found_as_an_automaton_finds_it() {
    let mut random = fastrand::Rng::with_seed(13);
    let (mut hits, mut misses) = (0, 0);
    let text = |random: &mut fastrand::Rng, length: std::ops::Range<usize>| -> Vec<u8> {
        let length = random.usize(length);
        (0..length)
            .map(|_| b"aAbBcC-\xff"[random.usize(..8)])
            .collect()
    };
    for round in 0..2000 {
        let shortest = round % 6 + 1;
        let list: Vec<Box<[u8]>> = (0..random.usize(..12))
            .map(|_| text(&mut random, shortest..9).into())
            .collect();
        let other = aho_corasick::AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&list)
            .unwrap();
        let phrases = Phrases::new(list);
        for _ in 0..50 {
            let value = text(&mut random, 0..40);
            let expected = other.find(&value).map(|it| (it.start(), it.end()));
            assert_eq!(phrases.find(&value), expected, "{value:?} {phrases:?}");
            hits += usize::from(expected.is_some());
            misses += usize::from(expected.is_none());
        }
    }
    assert!(hits > 10_000 && misses > 10_000, "{hits} {misses}");
}

#[test]
fn phrases_are_found_without_case_and_comments_are_no_phrases() {
    let phrases = Phrases::new(Phrases::of_file(b"# evil\r\n  Worse \r\n\n"));
    assert_eq!(phrases.find(b"so WORSE"), Some((3, 8)));
    assert_eq!(phrases.find(b"evil"), None);
}

#[test]
fn a_card_number_has_its_check_digit() {
    assert!(is_card_number(b"4111-1111-1111-1111"));
    assert!(!is_card_number(b"4111-1111-1111-1112"));
}
