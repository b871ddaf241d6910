//! Fuzz targets of stage admit: see `vedette_engine::fuzz`. Each takes bytes and must neither panic
//! nor run away.

#![allow(clippy::panic, clippy::missing_panics_doc)]

use std::net::IpAddr;
use std::time::Duration;

use crate::challenge::{Agent, Answer, Binding, Challenges, Page, Terms, page};
use crate::country::Countries;
use crate::hello::{self, First, Ja4};
use crate::ranges::{AddressSet, Feed, FeedLimits, Network, OnBadLine};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("hello", hello),
    ("feed", feed),
    ("country", country),
    ("challenge", challenge),
];

/// The first bytes of a connection. What is a hello with less is the same hello with more; its
/// fingerprint is one.
fn hello(bytes: &[u8]) {
    let read = hello::read(bytes);
    if let Ok(First::Hello(found)) = &read {
        assert!(Ja4::parse(found.ja4().as_str()).is_some(), "no fingerprint");
        let more = [bytes, b"\x16\x03\x01\x00\x01\x00"].concat();
        assert_eq!(hello::read(&more), read, "what follows changes it");
    }
    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
    match hello::read(half) {
        Ok(First::Incomplete) => {}
        other => assert_eq!(other, read, "more bytes change what was decided"),
    }
}

/// A feed: each address that a line of its own names is in the set.
fn feed(bytes: &[u8]) {
    let Ok(feed) = Feed::parse(bytes, OnBadLine::LeaveOut, FeedLimits::default()) else {
        return;
    };
    assert!(feed.addresses.ranges() <= feed.networks);
    let strict = Feed::parse(bytes, OnBadLine::Refuse, FeedLimits::default());
    assert_eq!(strict.is_ok(), feed.left_out == 0);
    for word in bytes.split(|byte| *byte == b'\n') {
        let address = std::str::from_utf8(word)
            .ok()
            .and_then(|it| it.parse::<IpAddr>().ok());
        if let Some(address) = address {
            assert!(feed.addresses.contains(address), "{address} is not in it");
        }
        let network = std::str::from_utf8(word)
            .ok()
            .and_then(|it| Network::parse(it).ok());
        if let Some(network) = network {
            assert_eq!(AddressSet::of([network]).ranges(), 1);
        }
    }
}

/// A database: refused or read, and asked.
fn country(bytes: &[u8]) {
    if let Ok(countries) = Countries::parse(bytes) {
        for address in [[0; 4], [192, 0, 2, 1], [255; 4]] {
            let found = countries.of(IpAddr::from(address));
            assert!(found.is_none_or(|it| it.as_str().len() == 2));
        }
    }
}

/// A token, its answer and cookies, separated by newlines: never a pass, nobody has the key. What is
/// asked for stays in its attribute.
fn challenge(bytes: &[u8]) {
    let challenges = Challenges::new(&[1; 32], Terms::default(), 0);
    let binding = Binding {
        host: "fuzz",
        source: None,
        agent: Agent::of(bytes),
    };
    let now = Duration::from_secs(1_795_000_000);
    let text = String::from_utf8_lossy(bytes);
    let (token, number) = text.split_once('\n').unwrap_or((&text, ""));
    for answer in [Answer::Wait, Answer::Work(number)] {
        assert!(challenges.answer(token, answer, &binding, now).is_err());
    }
    assert!(!challenges.has_pass(bytes, &binding, now));
    let html = page(&Page {
        token: "t",
        difficulty: 1,
        wait: 1,
        answer_path: "/",
        target: &text,
        request_id: &text,
    });
    assert_eq!(html.matches("<script>").count(), 1);
    assert_eq!(html.matches("</script>").count(), 1);
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn every_seed_of_stage_admit_passes_its_target() {
    replay::all(TARGETS);
}
