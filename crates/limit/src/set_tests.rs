//! That no key ever gets more than its limit: over threads, floods, refusals and restarts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::{Kind, Per, Period, Quota, Rate};

const SECOND: u64 = 1_000_000_000;
const SOURCE: Per = Per {
    principal: false,
    route: false,
    source: true,
};

fn at(nanos: u64) -> Now {
    Now {
        nanos,
        unix_seconds: 1_700_000_000,
    }
}

fn limit(name: &str, per: Per) -> Limit {
    Limit {
        name: name.into(),
        per,
        routes: vec![],
        rate: None,
        concurrency: None,
        quota: None,
    }
}

fn rate(name: &str, per: Per, requests: u64, period_millis: u64) -> Limit {
    let rate = Some(Rate {
        requests,
        period_millis,
        burst: None,
    });
    Limit {
        rate,
        ..limit(name, per)
    }
}

fn concurrency(name: &str, per: Per, most: u32) -> Limit {
    Limit {
        concurrency: Some(most),
        ..limit(name, per)
    }
}

fn quota(name: &str, per: Per, requests: u64, period: Period) -> Limit {
    Limit {
        quota: Some(Quota { requests, period }),
        ..limit(name, per)
    }
}

fn set(limits: Vec<Limit>) -> LimitSet {
    LimitSet::compile(limits, Memory::default(), None).unwrap()
}

fn small(limits: Vec<Limit>) -> LimitSet {
    let memory = Memory {
        table_bytes: LEAST_BYTES,
        total_bytes: LEAST_BYTES,
    };
    LimitSet::compile(limits, memory, None).unwrap()
}

fn from(source: IpAddr) -> RequestKeys<'static> {
    RequestKeys {
        principal: Some("https://issuer#ann"),
        route: "r",
        source,
    }
}

fn v4(number: u32) -> RequestKeys<'static> {
    from(Ipv4Addr::from(number).into())
}

fn v6(text: &str) -> RequestKeys<'static> {
    from(text.parse::<Ipv6Addr>().unwrap().into())
}

fn refusal(set: &LimitSet, keys: &RequestKeys<'_>, now: Now) -> Refused {
    set.check(keys, now).unwrap_err()
}

/// How many of `tries` pass.
fn passing(set: &LimitSet, keys: &RequestKeys<'_>, now: Now, tries: usize) -> usize {
    (0..tries).filter(|_| set.check(keys, now).is_ok()).count()
}

#[test]
fn a_rate_lets_a_burst_through_then_says_exactly_how_long_to_wait() {
    let set = set(vec![rate("r", SOURCE, 3, 1_000)]);
    let first = set.check(&v4(1), at(5)).unwrap().standing.unwrap();
    assert_eq!(first.to_string(), "\"r\";r=2;t=1");
    assert_eq!(first.policy(), "\"r\";q=3;w=2");
    assert_eq!(passing(&set, &v4(1), at(5), 9), 2);
    let refused = refusal(&set, &v4(1), at(5));
    assert_eq!(refused.retry_after, Duration::from_nanos(333_333_334));
    assert_eq!(refused.kind, Kind::Rate);
    assert_eq!(refused.retry_after_seconds(), 1);
    assert!(set.check(&v4(1), at(5 + 333_333_333)).is_err());
    assert!(set.check(&v4(1), at(5 + 333_333_334)).is_ok());
    assert!(set.check(&v4(2), at(5)).is_ok());
}

#[test]
fn threads_together_never_get_more_than_burst_and_time_allow() {
    let set = set(vec![
        rate("a", Per::default(), 1_000, 1_000),
        quota("b", Per::default(), 60_000, Period::Day),
    ]);
    let clock = AtomicU64::new(0);
    let work = || {
        let step = || at(clock.fetch_add(10_000, Ordering::Relaxed));
        (0..200_000)
            .filter(|_| set.check(&v4(1), step()).is_ok())
            .count()
    };
    let passed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    let allowed = 1_000 + usize::try_from(clock.load(Ordering::Relaxed) / 1_000_000).unwrap();
    assert!(passed <= allowed, "{passed} of {allowed}");
    // Threads whose clock is behind wait in vain now and then, no more.
    assert!(passed >= allowed * 9 / 10, "{passed} of {allowed}");
}

#[test]
fn threads_together_use_up_a_quota_to_the_last_request_and_all_places_come_back() {
    let set = set(vec![
        quota("q", SOURCE, 50_000, Period::Day),
        concurrency("w", SOURCE, 2),
    ]);
    let passed = AtomicU64::new(0);
    let held = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    let Ok(allowed) = set.check(&v4(1), at(0)) else {
                        continue;
                    };
                    assert!(held.fetch_add(1, Ordering::SeqCst) < 2);
                    passed.fetch_add(1, Ordering::SeqCst);
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(allowed);
                }
            });
        }
    });
    while let Ok(allowed) = set.check(&v4(1), at(0)) {
        passed.fetch_add(1, Ordering::SeqCst);
        drop(allowed);
    }
    assert_eq!(passed.into_inner(), 50_000);
    assert_eq!(refusal(&set, &v4(1), at(0)).kind, Kind::Quota);
}

#[test]
fn what_a_refused_request_took_is_given_back() {
    let set = set(vec![
        rate("a", SOURCE, 10, 1_000),
        quota("b", SOURCE, 10, Period::Hour),
        concurrency("c", SOURCE, 5),
        concurrency("d", Per::default(), 1),
    ]);
    let held = set.check(&v4(1), at(0)).unwrap();
    assert_eq!(held.places.count(), 2);
    for _ in 0..1_000 {
        let refused = refusal(&set, &v4(1), at(0));
        assert_eq!((&*refused.limit, refused.kind), ("d", Kind::Concurrency));
    }
    drop(held);
    assert_eq!(passing(&set, &v4(1), at(0), 20), 9);
    assert_eq!(&*refusal(&set, &v4(1), at(0)).limit, "a");
}

#[test]
fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
    let set = set(vec![rate("r", SOURCE, 1, 60_000)]);
    let passes = |text: &str| {
        let keys = from(text.parse().unwrap());
        set.check(&keys, at(0)).is_ok()
    };
    assert!(passes("192.0.2.1"));
    assert!(!passes("::ffff:192.0.2.1"));
    assert!(passes("::ffff:192.0.2.2"));
    assert!(!passes("192.0.2.2"));
    assert!(passes("2001:db8:0:1::1"));
    assert!(!passes("2001:db8:0:1:ffff:ffff:ffff:ffff"));
    assert!(passes("2001:db8:0:2::1"));
}

#[test]
fn all_networks_of_a_site_have_four_times_what_a_source_has() {
    for one in [
        rate("r", SOURCE, 2, 3_600_000),
        quota("q", SOURCE, 2, Period::Day),
        concurrency("c", SOURCE, 2),
    ] {
        let limited = set(vec![one]);
        let ask = |text: &str| limited.check(&v6(text), at(0)).map(|it| it.places);
        let networks = (0..100).map(|subnet| ask(&format!("2001:db8:7:{subnet:x}::1")));
        let networks: Vec<_> = networks.collect();
        assert_eq!(networks.iter().filter(|it| it.is_ok()).count(), 8);
        let refused = networks.into_iter().find_map(Result::err).unwrap();
        assert!(refused.is_of_site);
        assert!(ask("2001:db8:8::1").is_ok(), "another site");
    }
    let limited = set(vec![rate("r", SOURCE, 2, 3_600_000)]);
    let one = v6("2001:db8:7::1");
    let taken = (0..9)
        .filter(|_| limited.check(&one, at(0)).is_ok())
        .count();
    assert_eq!(taken, 2);
    assert!(!limited.check(&one, at(0)).unwrap_err().is_of_site);
}

#[test]
fn what_a_site_is_refused_costs_its_source_nothing() {
    let limited = set(vec![rate("r", SOURCE, 2, 8_000)]);
    let ask = |text: &str, now| limited.check(&v6(text), at(now)).is_ok();
    for subnet in 0..8 {
        assert!(ask(&format!("2001:db8:7:{subnet:x}::1"), 0));
    }
    for _ in 0..10 {
        assert!(!ask("2001:db8:7:ff::1", 0));
    }
    assert!(ask("2001:db8:7:ff::1", SECOND), "the site has one a second");
    assert!(ask("2001:db8:7:ff::1", 2 * SECOND));
}

#[test]
fn principals_and_routes_count_apart_where_the_limit_says_so() {
    let per = Per {
        principal: true,
        route: true,
        source: false,
    };
    let mut only = rate("only", Per::default(), 1, 60_000);
    only.routes = vec!["b".into()];
    let set = set(vec![rate("each", per, 1, 60_000), only]);
    let source = IpAddr::from([192, 0, 2, 1]);
    let passes = |principal, route| {
        let keys = RequestKeys {
            principal,
            route,
            source,
        };
        set.check(&keys, at(0)).map(|_| ()).map_err(|it| it.limit)
    };
    assert_eq!(passes(Some("ann"), "a"), Ok(()));
    assert_eq!(passes(Some("ann"), "a"), Err("each".into()));
    assert_eq!(passes(Some("ann"), "b"), Ok(()));
    assert_eq!(passes(Some("bob"), "a"), Ok(()));
    assert_eq!(passes(Some("bob"), "b"), Err("only".into()));
    assert_eq!(passes(None, "a"), Ok(()));
    assert_eq!(passes(None, "a"), Err("each".into()));
}

#[test]
fn a_quota_opens_again_at_the_border_and_not_when_the_clock_steps_back() {
    // 2024-02-29T23:59:59Z.
    let last = Now {
        nanos: 0,
        unix_seconds: 1_709_251_199,
    };
    let next = Now {
        nanos: 0,
        unix_seconds: 1_709_251_200,
    };
    for period in [Period::Hour, Period::Day, Period::Month] {
        let set = set(vec![quota("q", SOURCE, 2, period)]);
        assert_eq!(passing(&set, &v4(1), last, 5), 2);
        let wait = refusal(&set, &v4(1), last).retry_after;
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(passing(&set, &v4(1), next, 5), 2);
        assert_eq!(passing(&set, &v4(1), last, 5), 0);
        assert_eq!(passing(&set, &v4(1), next, 5), 0);
    }
}

#[test]
fn counts_are_kept_when_numbers_change_and_dropped_when_keys_do() {
    let before = set(vec![quota("q", SOURCE, 2, Period::Day)]);
    assert_eq!(passing(&before, &v4(1), at(0), 5), 2);
    let after = |limit| LimitSet::compile(vec![limit], Memory::default(), Some(&before)).unwrap();
    let same = after(quota("q", SOURCE, 2, Period::Day));
    assert_eq!(passing(&same, &v4(1), at(0), 5), 0);
    let more = after(quota("q", SOURCE, 3, Period::Day));
    assert_eq!(passing(&more, &v4(1), at(0), 5), 1);
    let other = after(quota("q", Per::default(), 2, Period::Day));
    assert_eq!(passing(&other, &v4(1), at(0), 5), 2);
}

#[test]
fn a_place_taken_under_the_plan_before_counts_under_the_next() {
    let before = set(vec![concurrency("c", SOURCE, 1)]);
    let held = before.check(&v4(1), at(0)).unwrap().places;
    let limits = vec![concurrency("c", SOURCE, 1)];
    let after = LimitSet::compile(limits, Memory::default(), Some(&before)).unwrap();
    drop(before);
    assert_eq!(refusal(&after, &v4(1), at(0)).kind, Kind::Concurrency);
    thread::spawn(move || drop(held)).join().unwrap();
    assert!(after.check(&v4(1), at(0)).is_ok());
}

#[test]
fn quotas_survive_a_restart_and_rates_start_anew() {
    let limits = || {
        vec![
            quota("day", SOURCE, 3, Period::Day),
            quota("hour", Per::default(), 1_000, Period::Hour),
        ]
    };
    let before = set(limits());
    for source in 0..100 {
        assert_eq!(passing(&before, &v4(source), at(0), 2), 2);
    }
    let bytes = before.export(at(0));
    let image = Image::parse(&bytes).unwrap();
    let after = LimitSet::restore(limits(), Memory::default(), &image, at(0)).unwrap();
    for source in 0..100 {
        assert_eq!(passing(&after, &v4(source), at(0), 5), 1);
    }
    assert_eq!(after.export(at(0)).len(), bytes.len());
}

#[test]
fn what_was_dropped_is_still_owed_after_a_restart() {
    let limits = || vec![quota("q", SOURCE, 50, Period::Month)];
    let before = small(limits());
    for source in 0..50_000 {
        let _ = before.check(&v4(source), at(0));
    }
    let newcomer = |set: &LimitSet| passing(set, &v4(1 << 30), at(0), 60);
    let bytes = before.export(at(0));
    let memory = Memory {
        table_bytes: LEAST_BYTES,
        total_bytes: LEAST_BYTES,
    };
    let image = Image::parse(&bytes).unwrap();
    let after = LimitSet::restore(limits(), memory, &image, at(0)).unwrap();
    let left = newcomer(&before);
    assert!(left > 0 && left < 45, "{left}");
    assert!(newcomer(&after) <= left);
}

fn resident_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_million_sources_stay_within_the_bytes_and_free_no_limited_key() {
    let memory = Memory {
        table_bytes: 4 << 20,
        total_bytes: 4 << 20,
    };
    // One request each minute, ten at once: what came during the flood is owed until its end.
    let mut slow = rate("r", SOURCE, 1, 60_000);
    slow.rate = slow.rate.map(|rate| Rate {
        burst: Some(10),
        ..rate
    });
    let set = LimitSet::compile(vec![slow], memory, None).unwrap();
    let honest = v6("2001:db8::1");
    assert_eq!(passing(&set, &honest, at(0), 20), 10);
    let before = resident_pages();
    for source in 0..1_000_000u32 {
        let _ = set.check(&v4(source), at(u64::from(source) * 10_000));
        if source.is_multiple_of(1_000) {
            assert!(set.check(&honest, at(u64::from(source) * 10_000)).is_err());
        }
    }
    let stats = set.stats().remove(0);
    assert!(stats.bytes <= 4 << 20, "{stats:?}");
    assert!(
        stats.capacity_bytes <= 4 << 20 && stats.dropped > 500_000,
        "{stats:?}"
    );
    // Tests of other threads take memory as well, but a million keys of their own would show.
    assert!(resident_pages() - before < (48 << 20) / 4_096);
    // Its bucket has one request again after a minute, and no more.
    assert_eq!(passing(&set, &honest, at(60 * SECOND), 5), 1);
}

#[test]
fn a_key_that_was_dropped_never_comes_back_with_more() {
    let set = small(vec![quota("q", SOURCE, 20, Period::Month)]);
    let mut passed = [0usize; 64];
    for round in 0..200u32 {
        for (source, passed) in (0..).zip(&mut passed) {
            *passed += usize::from(set.check(&v4(source), at(0)).is_ok());
        }
        for other in 0..2_000 {
            let _ = set.check(&v4(1_000 + round * 2_000 + other), at(0));
        }
    }
    assert!(set.stats()[0].dropped > 1_000);
    assert!(passed.iter().all(|it| *it <= 20), "{passed:?}");
}

#[test]
fn when_requests_hold_every_way_newcomers_share_one_limit() {
    let set = small(vec![concurrency("c", SOURCE, 2)]);
    let mut held = Vec::new();
    let mut refused = 0;
    for source in 0..20_000 {
        match set.check(&v4(source), at(0)) {
            Ok(allowed) => held.push(allowed),
            Err(_) => refused += 1,
        }
    }
    let stats = set.stats().remove(0);
    // 3 shards of 32 sets: 15 ways with one request each, and two requests in each rest.
    assert_eq!(stats.keys, 3 * 32 * 15);
    assert_eq!(held.len(), 3 * 32 * (15 + 2));
    assert_eq!(refused + held.len(), 20_000);
    assert_eq!(stats.shared, 20_000 - 3 * 32 * 15);
    assert_eq!(stats.dropped, 0);
    held.clear();
    let again: Vec<_> = (0..20_000).map(|it| set.check(&v4(it), at(0))).collect();
    assert_eq!(again.iter().filter(|it| it.is_ok()).count(), 3 * 32 * 17);
}

#[test]
fn tables_start_small_and_together_keep_to_the_total() {
    let limits: Vec<_> = (0..100)
        .map(|it| rate(&format!("l{it}"), SOURCE, 1, 1_000))
        .collect();
    let set = set(limits.clone());
    let sum =
        |set: &LimitSet, of: fn(&TableStats) -> usize| set.stats().iter().map(of).sum::<usize>();
    assert!(sum(&set, |it| it.bytes) < 2 << 20);
    assert!(sum(&set, |it| it.capacity_bytes) <= 256 << 20);
    let more = (0..200).map(|it| rate(&format!("l{it}"), SOURCE, 1, 1_000));
    let grown = LimitSet::compile(more.collect(), Memory::default(), Some(&set)).unwrap();
    assert!(sum(&grown, |it| it.capacity_bytes) <= (256 << 20) + 100 * LEAST_BYTES);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let refused = |limits| LimitSet::compile(limits, Memory::default(), None).err();
    let twice = vec![rate("a", SOURCE, 1, 1), rate("a", SOURCE, 2, 1)];
    assert_eq!(refused(twice), Some(CompileError::Twice("a".into())));
    for limit in [
        rate("a", SOURCE, 0, 1),
        rate("a", SOURCE, 1, 0),
        concurrency("a", SOURCE, 0),
        quota("a", SOURCE, 0, Period::Day),
        limit("a", SOURCE),
    ] {
        let senseless = Some(CompileError::Senseless("a".into()));
        assert_eq!(refused(vec![limit]), senseless);
    }
    let many = vec![rate("a", SOURCE, 1, 1); 1_025];
    assert_eq!(refused(many), Some(CompileError::TooMany));
    let most = rate("a", SOURCE, u64::MAX, u64::MAX);
    let edge = set(vec![most]);
    assert!(edge.check(&v4(1), at(u64::MAX)).is_ok());
}
