//! What a check costs with 100,000 live keys on two threads, and what ten million sources do.
//!
//! Prints medians of rounds: wall nanoseconds per check and thread, the empty loop taken off.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use vedette_limit::{
    CompileError, Limit, LimitSet, Memory, Now, Per, Period, Quota, Rate, RequestKeys,
};

const KEYS: [u32; 2] = [1_000, 100_000];
const CHECKS: u32 = 400_000;
const ROUNDS: usize = 15;
const THREADS: usize = 2;

fn main() -> Result<(), CompileError> {
    let (per, all) = (source(), Per::default());
    let cases = [
        ("rate per source", vec![limit("a", per, false)]),
        (
            "rate, concurrency, quota per source",
            vec![limit("a", per, true)],
        ),
        (
            "the same and a rate of all",
            vec![limit("a", per, true), limit("b", all, false)],
        ),
    ];
    let empty = median(|thread| spin(thread, 1_000, &mut |keys, now| _ = black_box((keys, now))));
    println!("empty loop: {empty} ns");
    for (name, limits) in cases {
        let set = LimitSet::compile(limits, Memory::default(), None)?;
        let check = |keys: &RequestKeys<'_>, now| drop(black_box(set.check(keys, now)));
        for live in KEYS {
            spin(0, live, &mut |keys, now| check(keys, now));
            let cost = median(|thread| spin(thread, live, &mut |keys, now| check(keys, now)));
            println!("{name}, {live} keys: {} ns", cost.saturating_sub(empty));
        }
    }
    flood()
}

fn source() -> Per {
    Per {
        source: true,
        ..Per::default()
    }
}

fn limit(name: &str, per: Per, all_kinds: bool) -> Limit {
    Limit {
        name: name.into(),
        per,
        routes: vec![],
        rate: Some(Rate {
            requests: 1_000_000,
            period_millis: 1_000,
            burst: None,
        }),
        concurrency: all_kinds.then_some(1_000),
        quota: all_kinds.then_some(Quota {
            requests: 1_000_000_000,
            period: Period::Month,
        }),
    }
}

fn spin(thread: usize, live: u32, check: &mut dyn FnMut(&RequestKeys<'_>, Now)) -> u128 {
    let mut number = u32::from(thread > 0) * 7_919;
    let begin = Instant::now();
    for step in 0..CHECKS {
        // A walk over all keys in an order that no cache foresees.
        number = (number + 61_803) % live;
        let keys = RequestKeys {
            principal: None,
            route: "hello",
            source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)),
        };
        let now = Now {
            nanos: 1 + u64::from(step),
            unix_seconds: 1_700_000_000,
        };
        check(black_box(&keys), now);
    }
    begin.elapsed().as_nanos() / u128::from(CHECKS)
}

fn median(round: impl Fn(usize) -> u128 + Sync) -> u128 {
    let mut rounds: Vec<u128> = (0..ROUNDS).map(|_| together(&round)).collect();
    rounds.sort_unstable();
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

/// The mean over threads that begin at the same time.
fn together(round: &(impl Fn(usize) -> u128 + Sync)) -> u128 {
    let barrier = Barrier::new(THREADS);
    let run = |thread| {
        barrier.wait();
        round(thread)
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let times = threads.into_iter().filter_map(|it| it.join().ok());
        times.sum::<u128>() / THREADS as u128
    })
}

fn flood() -> Result<(), CompileError> {
    let mut slow = limit("a", source(), true);
    slow.rate = Some(Rate {
        requests: 1,
        period_millis: 60_000,
        burst: Some(10),
    });
    let set = LimitSet::compile(vec![slow], Memory::default(), None)?;
    let begin = Instant::now();
    for number in 0..10_000_000 {
        let keys = RequestKeys {
            principal: None,
            route: "hello",
            source: IpAddr::V4(Ipv4Addr::from(number)),
        };
        let now = Now {
            nanos: u64::from(number) * 1_000,
            unix_seconds: 1_700_000_000,
        };
        drop(black_box(set.check(&keys, now)));
    }
    let cost = begin.elapsed().as_nanos() / 10_000_000;
    println!("ten million sources: {cost} ns each; {:?}", set.stats());
    let resident = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    println!("statm (pages): {}", resident.trim());
    Ok(())
}
