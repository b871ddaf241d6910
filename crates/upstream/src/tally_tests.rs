use super::*;
use crate::config::SlowShare;

fn shares(volume: u32) -> Shares {
    Shares {
        interval: Duration::from_millis(400),
        volume,
        failure_percent: Some(50),
        slow: Some(SlowShare {
            after: Duration::from_millis(20),
            percent: 30,
        }),
    }
}

fn window(volume: u32) -> Window {
    Window::new(shares(volume))
}

#[test]
fn half_of_too_few_requests_says_nothing_and_of_enough_it_does() {
    let window = window(4);
    for is_bad in [true, false, true] {
        window.add(is_bad, false, 1_000);
        assert_eq!(window.is_too_much(1_000), None);
    }
    window.add(false, false, 1_000);
    let told = window.is_too_much(1_000);
    assert_eq!(told.as_deref(), Some("2 of 4 requests failed"));
}

#[test]
fn slow_answers_have_a_share_of_their_own() {
    let window = window(10);
    for number in 0..10 {
        window.add(false, number < 3, 1_000);
        assert_eq!(window.is_too_much(1_000).is_some(), number == 9);
    }
    let told = window.is_too_much(1_000).unwrap();
    assert_eq!(told, "3 of 10 answers took 20ms or longer");
    let slow = |millis| window.is_slow(Some(Duration::from_millis(millis)));
    assert!(!slow(19) && slow(20) && !window.is_slow(None));
}

#[test]
fn what_is_longer_ago_than_the_interval_counts_no_more() {
    let window = window(2);
    window.add(true, false, 1_000);
    window.add(true, false, 1_100);
    assert!(window.is_too_much(1_399).is_some());
    assert_eq!(window.sum(1_400).all, 1);
    assert_eq!(window.sum(1_500).all, 0);
    // The same place of the ring, a whole turn later: the old part is not added to.
    window.add(false, false, 1_400);
    assert_eq!((window.sum(1_400).all, window.sum(1_400).bad), (2, 1));
}

#[test]
fn a_part_that_is_full_keeps_its_shares() {
    let window = window(1);
    for number in 0..50_000_u32 {
        window.add(number % 4 == 0, false, 1_000);
    }
    let sum = window.sum(1_000);
    assert!((8_000..=COUNT).contains(&sum.all), "{}", sum.all);
    let percent = sum.bad * 100 / sum.all;
    assert!((24..=26).contains(&percent), "{percent}");
    assert_eq!(window.is_too_much(1_000), None);
}

#[test]
fn a_late_failure_is_no_further_request() {
    let window = window(1);
    window.add(false, false, 1_000);
    window.add_late_failure(1_000);
    assert_eq!((window.sum(1_000).all, window.sum(1_000).bad), (1, 1));
    // Its request is in a part that has gone.
    window.add_late_failure(2_000);
    assert_eq!((window.sum(2_000).all, window.sum(2_000).bad), (1, 1));
}

#[test]
fn none_of_a_thousand_additions_at_once_is_lost() {
    let window = window(1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| window.add(true, true, 1_000)));
        }
    });
    let sum = window.sum(1_000);
    assert_eq!((sum.all, sum.bad, sum.slow), (1_000, 1_000, 1_000));
}

#[test]
fn a_good_answer_ends_a_row() {
    let tally = Tally::new(3, None);
    assert!(tally.add_to_row().is_none() && tally.add_to_row().is_none());
    tally.end_row();
    assert!(tally.add_to_row().is_none() && tally.add_to_row().is_none());
    let told = tally.add_to_row();
    assert_eq!(told.as_deref(), Some("3 failures in a row"));
    assert!(Tally::new(0, None).add_to_row().is_none());
}
