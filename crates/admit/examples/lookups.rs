//! What looking a client up costs: nanoseconds for each lookup, in sets, countries, offenders and hellos.
//!
//! `lookups [DATABASE.mmdb]`. Prints the median of rounds, hot and on one thread, with addresses that differ each time.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use vedette_admit::challenge::{Agent, Answer, Binding, Challenges, Terms as ChallengeTerms};
use vedette_admit::country::Countries;
use vedette_admit::hello::{self, First};
use vedette_admit::offenders::{Offenders, Terms};
use vedette_admit::ranges::{AddressSet, Network};

/// What OpenSSL says first.
const HELLO: &[u8] = include_bytes!("../../fuzz/seeds/hello/openssl");
const ROUNDS: usize = 21;
const LOOKUPS: usize = 200_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut v4 = || IpAddr::from(Ipv4Addr::from(random.u32(..)));
    let clients: Vec<IpAddr> = (0..LOOKUPS).map(|_| v4()).collect();
    let mut random = fastrand::Rng::with_seed(2);
    let mut v6 = || IpAddr::from(Ipv6Addr::from(random.u128(..) >> 4 | 2 << 124));
    let clients6: Vec<IpAddr> = (0..LOOKUPS).map(|_| v6()).collect();

    let mut random = fastrand::Rng::with_seed(3);
    let networks: Result<Vec<Network>, _> = (0..100_000)
        .map(|_| Network::parse(&format!("{}/24", Ipv4Addr::from(random.u32(..)))))
        .collect();
    let set = AddressSet::of(networks.map_err(|fault| fault.to_string())?);
    println!("set: {} ranges, {} bytes", set.ranges(), set.memory_usage());
    report("set, IPv4", median(&clients, |it| set.contains(it)));
    report(
        "set, IPv6 (none in it)",
        median(&clients6, |it| set.contains(it)),
    );

    if let Some(path) = std::env::args().nth(1) {
        let file = std::fs::read(path)?;
        let begun = Instant::now();
        let countries = Countries::parse(&file)?;
        let took = begun.elapsed().as_millis();
        let (networks, bytes) = (countries.networks(), countries.memory_usage());
        println!("countries: {networks} networks, {bytes} bytes, read in {took} ms");
        report("country, IPv4", median(&clients, |it| countries.of(it)));
        report("country, IPv6", median(&clients6, |it| countries.of(it)));
    }

    let offenders = Offenders::within(2 << 20, Terms::default());
    let now = Duration::from_secs(1);
    report(
        "offenders, empty",
        median(&clients, |it| offenders.block(it, now)),
    );
    for client in clients.iter().take(20_000) {
        offenders.offend(*client, 20.0, now);
    }
    report(
        "offenders, 20,000 known",
        median(&clients, |it| offenders.block(it, now)),
    );
    report(
        "an offence",
        median(&clients, |it| offenders.offend(it, 1.0, now)),
    );
    report(
        "a hello, to its JA4",
        median(
            clients.get(..20_000).unwrap_or(&clients),
            |_| match hello::read(HELLO) {
                Ok(First::Hello(hello)) => Some(hello.ja4()),
                _ => None,
            },
        ),
    );
    passes(&clients)
}

/// What judging a pass costs, and an answer that is wrong.
fn passes(clients: &[IpAddr]) -> Result<(), Box<dyn Error>> {
    let challenges = Challenges::new(&[7; 32], ChallengeTerms::default(), 1 << 20);
    let now = Duration::from_secs(1_795_000_000);
    let binding = |source| Binding {
        host: "shop.example.com",
        source,
        agent: Agent::Firefox,
    };
    let token = challenges.issue(&binding(None), 1, now);
    let later = now + Duration::from_secs(60);
    let pass = challenges
        .answer(&token, Answer::Wait, &binding(None), later)
        .map_err(|no| format!("{no:?}"))?;
    report(
        "a pass",
        median(clients, |_| {
            challenges.pass(&pass.value, &binding(None), later)
        }),
    );
    let wrong = Answer::Work("1");
    report(
        "an answer",
        median(clients, |it| {
            challenges.answer(&token, wrong, &binding(Some(it)), later)
        }),
    );
    Ok(())
}

fn median<T>(clients: &[IpAddr], mut look_up: impl FnMut(IpAddr) -> T) -> u128 {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for client in clients {
                black_box(look_up(black_box(*client)));
            }
            begun.elapsed().as_nanos() / clients.len() as u128
        })
        .collect();
    rounds.sort_unstable();
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn report(what: &str, nanos: u128) {
    println!("{what:<28}{nanos:>6} ns");
}
