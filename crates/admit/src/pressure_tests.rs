//! Levels under samples.

use super::*;

fn cpu(share: f64) -> Sample {
    Sample {
        cpu: share,
        ..Sample::default()
    }
}

/// The levels after each of so many seconds.
fn seconds(pressure: &mut Pressure, sample: &Sample, count: usize) -> Vec<Level> {
    let levels = (0..count).map(|_| {
        pressure.sample(sample);
        pressure.level()
    });
    levels.collect()
}

#[test]
fn a_level_is_entered_after_some_seconds_above_its_mark_one_at_a_time() {
    let mut pressure = Pressure::new(Terms::default());
    let levels = seconds(&mut pressure, &cpu(1.0), 13);
    let wanted = [
        Level::Calm,
        Level::Calm,
        Level::Challenge,
        Level::Challenge,
        Level::Challenge,
        Level::UnknownExpensive,
        Level::UnknownExpensive,
        Level::UnknownExpensive,
        Level::Unknown,
        Level::Unknown,
        Level::Unknown,
        Level::KnownExpensive,
        Level::KnownExpensive,
    ];
    assert_eq!(levels, wanted);
}

#[test]
fn load_between_two_marks_stays_at_its_level() {
    let mut pressure = Pressure::new(Terms::default());
    seconds(&mut pressure, &cpu(0.9), 100);
    assert_eq!(pressure.level(), Level::Challenge);
    // Below the mark of its level, and not by the gap: it stays.
    seconds(&mut pressure, &cpu(0.72), 100);
    assert_eq!(pressure.level(), Level::Challenge);
}

#[test]
fn a_level_is_left_after_more_seconds_well_below_its_mark() {
    let mut pressure = Pressure::new(Terms::default());
    seconds(&mut pressure, &cpu(0.9), 3);
    let levels = seconds(&mut pressure, &cpu(0.5), 15);
    assert_eq!(levels[13..], [Level::Challenge, Level::Calm]);
    seconds(&mut pressure, &cpu(0.0), 100);
    assert_eq!(pressure.level(), Level::Calm);
}

#[test]
fn a_second_that_interrupts_starts_the_count_again() {
    let mut pressure = Pressure::new(Terms::default());
    for _ in 0..50 {
        seconds(&mut pressure, &cpu(1.0), 2);
        seconds(&mut pressure, &cpu(0.1), 1);
    }
    assert_eq!(pressure.level(), Level::Calm);
}

#[test]
fn every_move_says_why() {
    let mut pressure = Pressure::new(Terms::default());
    let sample = Sample {
        cpu: 0.2,
        in_flight: 0.97,
        handshakes: 0.4,
    };
    let moves: Vec<_> = (0..3).filter_map(|_| pressure.sample(&sample)).collect();
    let text: Vec<_> = moves.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        ["calm to challenge: inFlight at 97 %, above the mark for 3 s"]
    );
    let down: Vec<_> = (0..15).filter_map(|_| pressure.sample(&cpu(0.3))).collect();
    assert_eq!(
        down[0].to_string(),
        "challenge to calm: cpu at 30 %, below the mark for 15 s"
    );
}

#[test]
fn unknown_callers_are_shed_before_known_ones_and_expensive_routes_before_cheap_ones() {
    let asked = |is_known, is_expensive| Asked {
        is_known,
        is_expensive,
    };
    let order = [
        asked(false, true),
        asked(false, false),
        asked(true, true),
        asked(true, false),
    ];
    let shed = LEVELS.map(|level| order.iter().filter(|it| level.sheds(**it)).count());
    assert_eq!(shed, [0, 0, 1, 2, 3]);
    // What a level sheds is the beginning of the order, never something else.
    for level in LEVELS {
        let flags: Vec<_> = order.iter().map(|it| level.sheds(*it)).collect();
        assert!(flags.is_sorted_by(|one, other| one >= other), "{level:?}");
    }
    assert!(!Level::Calm.challenges() && Level::Challenge.challenges());
}

#[test]
fn whatever_is_sampled_a_move_is_one_step_and_time_passes_between_two() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut pressure = Pressure::new(Terms::default());
    let mut since = 0;
    for _ in 0..100_000 {
        let share = match random.u32(0..20) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            _ => random.f64() * 0.5 + 0.6,
        };
        let before = pressure.level();
        since += 1;
        let moved = pressure.sample(&cpu(share));
        let places = |level: Level| LEVELS.iter().position(|it| *it == level).unwrap();
        let apart = places(before).abs_diff(places(pressure.level()));
        assert_eq!(apart, usize::from(moved.is_some()));
        if moved.is_some() {
            assert!(since >= 3);
            since = 0;
        }
    }
}
