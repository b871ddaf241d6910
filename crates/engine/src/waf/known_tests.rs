use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Hears, Known, Likeness, Parts, SETS, WAYS};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn likeness(
    known: &Known,
    (policy, expired, client): (usize, usize, IpAddr),
    line: [&str; 3],
    headers: &[(&str, &str)],
) -> Likeness {
    let mut buffer = b"what was there before".to_vec();
    let mut parts = Parts::begin(&mut buffer, policy, expired, client);
    parts.line(line[0].as_bytes(), line[1].as_bytes(), line[2].as_bytes());
    for (name, value) in headers {
        parts.header(name.as_bytes(), value.as_bytes());
    }
    known.likeness(&parts)
}

fn numbered(known: &Known, number: usize) -> Likeness {
    let target = format!("/{number}");
    likeness(known, (1, 0, HERE), ["GET", &target, "HTTP/1.1"], &[])
}

#[test]
fn each_part_tells_requests_apart_and_so_does_where_one_ends() {
    let known = Known::default();
    let line = ["GET", "/a?b=c", "HTTP/1.1"];
    let headers = [("host", "a"), ("x", "yz")];
    let of = |judged, line, headers: &[_]| likeness(&known, judged, line, headers);
    let there = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let all = [
        of((1, 0, HERE), line, &headers),
        of((2, 0, HERE), line, &headers),
        of((1, 1, HERE), line, &headers),
        of((1, 0, there), line, &headers),
        of((1, 0, mapped), line, &headers),
        of((1, 0, IpAddr::V6(Ipv6Addr::LOCALHOST)), line, &headers),
        of((1, 0, HERE), ["HEAD", line[1], line[2]], &headers),
        of((1, 0, HERE), [line[0], "/a?b=d", line[2]], &headers),
        of((1, 0, HERE), [line[0], line[1], "HTTP/2.0"], &headers),
        of((1, 0, HERE), line, &[("host", "a"), ("xy", "z")]),
        of((1, 0, HERE), line, &[("x", "yz"), ("host", "a")]),
        of((1, 0, HERE), line, &[("host", "a"), ("x", "yz"), ("x", "")]),
        of((1, 0, HERE), line, &[("host", "a")]),
    ];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(all.iter().position(|other| other == one), Some(at));
    }
    assert_eq!(all[0], of((1, 0, HERE), line, &headers));
    let other = Known::default();
    assert_ne!(all[0], likeness(&other, (1, 0, HERE), line, &headers));
}

#[test]
fn what_was_remembered_is_known_and_nothing_else() {
    let mut known = Known::default();
    assert!(!known.has(numbered(&known, 0)));
    for number in 0..1000 {
        known.remember(numbered(&known, number));
    }
    let met = (0..1000).filter(|&number| known.has(numbered(&known, number)));
    assert!(met.count() > 900);
    assert!((1000..9000).all(|number| !known.has(numbered(&known, number))));
}

#[test]
fn a_request_that_is_met_again_outlives_those_that_are_met_once() {
    let mut known = Known::default();
    known.remember(numbered(&known, 0));
    for number in 1..100 * SETS * WAYS {
        known.remember(numbered(&known, number));
        if number % (SETS / 16) == 0 {
            assert!(known.has(numbered(&known, 0)), "{number}");
        }
    }
    assert_eq!(known.sets.len(), SETS);
    for number in 0..100 * SETS {
        known.remember(numbered(&known, SETS * 1000 + number));
    }
    assert!(!known.has(numbered(&known, 0)));
}

#[test]
fn remembering_the_same_twice_takes_one_place() {
    let mut known = Known::default();
    let request = numbered(&known, 0);
    (0..WAYS * 2).for_each(|_| known.remember(request));
    let places = known.sets.iter().flatten();
    assert_eq!(places.filter(|place| **place != 0).count(), 1);
}
