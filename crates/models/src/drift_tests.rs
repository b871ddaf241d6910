#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::float_cmp)]

use serde::Deserialize;

use super::*;

/// Values, and what scipy says of them (`tests/models/test_drift_cases.py`).
#[derive(Deserialize)]
struct Case {
    name: String,
    before: Vec<f32>,
    now: Vec<f32>,
    psi: f64,
    ks: f64,
    ks_by_chance: f64,
}

fn distance(before: &[f32], now: &[f32]) -> Distance {
    let reference = Reference::of(&mut before.to_vec()).unwrap();
    let mut watch = Watch::new(reference);
    for value in now {
        watch.add(*value);
    }
    assert_eq!(watch.distance(), None, "no window has come yet");
    watch.turn();
    watch.distance().unwrap()
}

#[test]
fn distances_are_those_of_scipy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("drift_cases.json")).unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let found = distance(&case.before, &case.now);
        for (what, is, wanted) in [
            ("psi", found.psi, case.psi),
            ("ks", found.ks, case.ks),
            ("by chance", found.ks_by_chance, case.ks_by_chance),
        ] {
            assert!(
                (is - wanted).abs() < 1e-9,
                "{} {what}: {is} {wanted}",
                case.name
            );
        }
    }
}

#[test]
fn what_came_long_ago_is_forgotten() {
    // Low and high in turn.
    let before: Vec<f32> = (0..1000_u32)
        .map(|it| f32::from(u16::try_from(it * 501 % 1000).unwrap()))
        .collect();
    let reference = Reference::of(&mut before.clone()).unwrap();
    let mut watch = Watch::new(reference);
    for _ in 0..500 {
        watch.add(5000.0);
    }
    watch.turn();
    assert!(watch.distance().unwrap().psi > 1.0);
    for half in [&before, &before] {
        for value in half {
            watch.add(*value);
        }
        watch.turn();
    }
    let calm = watch.distance().unwrap();
    assert!(calm.ks <= calm.ks_by_chance, "{calm:?}");
}

#[test]
fn values_that_are_all_one_or_no_numbers_are_compared_too() {
    let one = distance(&[1.0; 100], &[1.0; 100]);
    assert_eq!((one.psi, one.ks), (0.0, 0.0));
    let other = distance(&[1.0; 100], &[f32::NAN; 100]);
    assert_eq!(other.ks, 1.0);
    assert_eq!(Reference::of(&mut []), None);
    assert!(Learner::new(1).reference().is_none());
    let mut learner = Learner::new(1);
    learner.add(f32::NAN);
    assert!(learner.reference().is_none());
}

#[test]
fn a_sample_stands_for_the_whole_stream_in_memory_that_does_not_grow() {
    let mut learner = Learner::new(7);
    for value in 0..100_000_u32 {
        #[allow(clippy::cast_precision_loss)]
        learner.add(value as f32);
    }
    assert_eq!(learner.sample.len(), SAMPLE);
    let mean = learner.sample.iter().map(|it| f64::from(*it)).sum::<f64>() / 4096.0;
    assert!((mean - 50_000.0).abs() < 2_500.0, "{mean}"); // five standard errors
}

#[test]
fn what_is_kept_goes_on_as_it_was_and_what_is_none_is_refused() {
    let mut watch = Watch::new(Reference::of(&mut [1.0, 2.0, 3.0, 4.0]).unwrap());
    watch.add(2.5);
    watch.turn();
    watch.add(f32::NAN);
    let kept = watch.keep();
    let text = serde_json::to_string(&kept).unwrap();
    let read: Kept = serde_json::from_str(&text).unwrap();
    assert_eq!(Watch::of(&read).unwrap(), watch);
    let none = |change: fn(&mut Kept)| {
        let mut kept = kept.clone();
        change(&mut kept);
        assert_eq!(Watch::of(&kept), None, "{kept:?}");
    };
    none(|it| it.edges.reverse());
    none(|it| it.edges[0] = f32::NEG_INFINITY);
    none(|it| it.edges = vec![]);
    none(|it| it.counts.push(1));
    none(|it| it.counts.fill(0));
    none(|it| it.now.fill(u32::MAX));
    none(|it| {
        let bins = 1000_u16;
        it.edges = (1..bins).map(f32::from).collect();
        it.counts = vec![1; bins.into()];
        it.now = vec![0; bins.into()];
        it.before = vec![0; bins.into()];
    });
}
