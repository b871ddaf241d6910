//! What an event costs, without its connection: `cargo test --release -p vedette-models --lib measure -- --ignored --nocapture`.

use std::time::Instant;

use fastrand::Rng;

use super::detector::Detector;
use super::event;
use super::spec::Spec;

const EVENTS: usize = 200_000;

fn spec(features: usize, depth: u32) -> Spec {
    let names: Vec<_> = (0..features)
        .map(|it| format!(r#"{{"name":"sensor{it}","min":0,"max":1}}"#))
        .collect();
    let file = format!(
        r#"{{"detector":"half-space-trees","depth":{depth},"features":[{}],"drift":{{"adwin":{{}}}}}}"#,
        names.join(",")
    );
    Spec::read(file.as_bytes()).unwrap()
}

/// Reads and judges `EVENTS` events; nanoseconds of each, sorted.
fn times(features: usize, depth: u32) -> Vec<u128> {
    let detector = Detector::new(spec(features, depth));
    let (mut state, mut rng) = (detector.begin(), Rng::with_seed(1));
    let lines: Vec<String> = (0..1_000)
        .map(|_| {
            let members = (0..features).map(|it| format!("\"sensor{it}\": {:.4}", rng.f64()));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let mut values = vec![];
    let mut times: Vec<u128> = (0..EVENTS)
        .map(|n| {
            let line = lines[n % lines.len()].as_bytes();
            let started = Instant::now();
            event::read(line, &detector.spec.features, &mut values).unwrap();
            std::hint::black_box(detector.observe(&mut state, &values));
            started.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
#[ignore = "measures; nothing can be wrong"]
fn measure_events() {
    for (features, depth) in [(3, 8), (16, 8), (64, 8), (3, 15)] {
        let times = times(features, depth);
        let at = |part: usize| times[times.len() * part / 1000];
        let whole: u128 = times.iter().sum();
        if (features, depth) == (3, 8) {
            println!("MEASURED event {}", at(500));
        }
        println!(
            "{features:>2} features, 25 trees of depth {depth:>2}: p50 {} ns, p99 {} ns, p99.9 {} ns, {} events a second",
            at(500),
            at(990),
            at(999),
            EVENTS as u128 * 1_000_000_000 / whole
        );
    }
}
