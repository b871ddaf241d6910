use super::*;
use crate::snapshot;

fn sources(most: u64, burst: u64) -> Sources {
    let sources = Sources::default();
    sources.follow(Some(&declared(most, burst))).unwrap();
    sources
}

fn declared(most: u64, burst: u64) -> SourceConnections {
    SourceConnections {
        most,
        rate: snapshot::Rate {
            requests: 1,
            period_millis: 3_600_000,
            burst: Some(burst),
        },
    }
}

fn cause(entered: Result<Places, Refusal>) -> Option<Cause> {
    entered.err().map(|refusal| refusal.cause)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_source_has_no_more_connections_than_it_may_and_a_closed_one_makes_room() {
    let sources = sources(2, 100);
    let client = address("192.0.2.1");
    let first = sources.enter(client).unwrap();
    let _second = sources.enter(client).unwrap();
    let third = cause(sources.enter(client));
    assert_eq!(third, Some(Cause::TooManyConnections));
    assert!(
        sources.enter(address("192.0.2.2")).is_ok(),
        "another source"
    );
    drop(first);
    assert!(sources.enter(client).is_ok());
}

#[test]
fn connections_that_come_too_fast_are_refused_also_when_none_stays_open() {
    let sources = sources(100, 3);
    let client = address("192.0.2.1");
    for _ in 0..3 {
        drop(sources.enter(client).unwrap());
    }
    let fourth = cause(sources.enter(client));
    assert_eq!(fourth, Some(Cause::ConnectingTooOften));
    let mapped = cause(sources.enter(address("::ffff:192.0.2.1")));
    assert_eq!(mapped, Some(Cause::ConnectingTooOften), "the same client");
}

#[test]
fn all_networks_of_a_site_have_four_times_what_one_has() {
    let sources = sources(100, 2);
    let taken: Vec<_> = (0..20)
        .map(|subnet| sources.enter(address(&format!("2001:db8:7:{subnet:x}::1"))))
        .collect();
    let let_in = taken.iter().filter(|it| it.is_ok()).count();
    assert_eq!(let_in, 8);
    let told = taken.into_iter().find_map(Result::err).unwrap();
    assert_eq!(told.detail.as_deref(), Some("of its /48"));
    assert!(
        sources.enter(address("2001:db8:8::1")).is_ok(),
        "another /48"
    );
}

#[test]
fn this_machines_own_address_is_not_counted() {
    let sources = sources(1, 1);
    for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for _ in 0..10 {
            assert!(sources.enter(address(own)).is_ok(), "{own}");
        }
    }
    assert!(sources.enter(address("127.0.0.2")).is_ok());
    assert!(sources.enter(address("127.0.0.2")).is_err());
}

#[test]
fn other_numbers_keep_what_was_counted() {
    let sources = sources(2, 100);
    let client = address("192.0.2.1");
    let _held = [
        sources.enter(client).unwrap(),
        sources.enter(client).unwrap(),
    ];
    sources.follow(Some(&declared(3, 100))).unwrap();
    let _third = sources.enter(client).unwrap();
    assert!(sources.enter(client).is_err());
}

#[test]
fn a_million_sources_take_no_more_than_their_tables() {
    let sources = sources(10, 10);
    for number in 0..1_000_000u128 {
        let source = Ipv6Addr::from(0x2001_0db8_u128 << 96 | number << 64);
        let _ = sources.enter(source.into());
    }
    let counts = sources.0.load_full().unwrap();
    for stats in counts.limit.stats() {
        assert!(stats.bytes <= TABLE_BYTES, "{stats:?}");
    }
}
