use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::config::{Shares, SlowShare};

const PAUSE: Duration = Duration::from_millis(100);

fn breaker(failures: u32, trials: u32, shares: Option<Shares>) -> Arc<Breaker> {
    Breaker::new(BreakerConfig {
        failures,
        shares,
        pause: PAUSE,
        trials,
    })
}

fn fail(breaker: &Arc<Breaker>) {
    breaker.pass().unwrap().judge(true, None);
}

fn state(breaker: &Breaker) -> CircuitState {
    breaker.circuit().state
}

fn wait_half_open(breaker: &Breaker) {
    while state(breaker) == CircuitState::Open {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_opens_after_failures_in_a_row_and_says_for_how_long() {
    let breaker = breaker(3, 1, None);
    fail(&breaker);
    fail(&breaker);
    breaker.pass().unwrap().judge(false, None);
    fail(&breaker);
    fail(&breaker);
    assert_eq!(state(&breaker), CircuitState::Closed);
    fail(&breaker);
    let Err(SendError::CircuitOpen(left)) = breaker.pass() else {
        panic!("it is closed");
    };
    assert!(!left.is_zero() && left <= PAUSE, "{left:?}");
    let known = breaker.circuit();
    assert_eq!((known.opened, known.refused), (1, 1));
    assert_eq!(known.why.as_deref(), Some("3 failures in a row"));
    assert!(known.open_until.is_some());
    assert!(breaker.is_open());
    wait_half_open(&breaker);
    assert!(!breaker.is_open(), "a trial may go, and would find out");
}

#[test]
fn as_many_trials_as_it_wants_close_it_and_no_more_are_let_go() {
    let breaker = breaker(1, 2, None);
    fail(&breaker);
    wait_half_open(&breaker);
    let (mut one, mut two) = (breaker.pass().unwrap(), breaker.pass().unwrap());
    assert!(matches!(breaker.pass(), Err(SendError::CircuitOpen(_))));
    one.judge(false, None);
    // A good one keeps its place: two in all, not two at a time.
    assert!(breaker.pass().is_err());
    assert_eq!(state(&breaker), CircuitState::HalfOpen);
    two.judge(false, None);
    assert_eq!(state(&breaker), CircuitState::Closed);
    assert!(breaker.pass().is_ok());
}

#[test]
fn a_trial_that_fails_opens_it_again_for_the_others_too() {
    let breaker = breaker(1, 2, None);
    fail(&breaker);
    wait_half_open(&breaker);
    let (mut one, mut two) = (breaker.pass().unwrap(), breaker.pass().unwrap());
    one.judge(true, None);
    assert_eq!(state(&breaker), CircuitState::Open);
    two.judge(false, None);
    assert_eq!(state(&breaker), CircuitState::Open);
    assert_eq!(breaker.circuit().opened, 2);
}

#[test]
fn a_trial_that_nobody_waits_for_gives_its_place_back() {
    let breaker = breaker(1, 1, None);
    fail(&breaker);
    wait_half_open(&breaker);
    let trial = breaker.pass().unwrap();
    assert!(breaker.pass().is_err());
    drop(trial);
    assert!(breaker.pass().is_ok());
}

#[test]
fn a_trial_that_takes_longer_than_a_pause_keeps_nobody_out() {
    let breaker = breaker(1, 1, None);
    fail(&breaker);
    wait_half_open(&breaker);
    let mut stuck = breaker.pass().unwrap();
    assert!(breaker.pass().is_err());
    std::thread::sleep(PAUSE * 2);
    let mut next = breaker.pass().unwrap();
    next.judge(false, None);
    assert_eq!(state(&breaker), CircuitState::Closed);
    stuck.judge(true, None);
    assert_eq!(state(&breaker), CircuitState::Closed, "it is too late");
}

#[test]
fn what_was_sent_before_it_opened_says_nothing_afterwards() {
    let breaker = breaker(1, 1, None);
    let mut early = breaker.pass().unwrap();
    let mut earlier = breaker.pass().unwrap();
    fail(&breaker);
    early.judge(true, None);
    assert_eq!(breaker.circuit().opened, 1);
    wait_half_open(&breaker);
    breaker.pass().unwrap().judge(false, None);
    earlier.judge(true, None);
    assert_eq!(state(&breaker), CircuitState::Closed);
}

#[test]
fn a_share_of_slow_answers_opens_it_and_a_slow_trial_does_not_close_it() {
    let shares = Shares {
        interval: Duration::from_secs(3_600),
        volume: 4,
        failure_percent: None,
        slow: Some(SlowShare {
            after: Duration::from_millis(50),
            percent: 50,
        }),
    };
    let breaker = breaker(0, 1, Some(shares));
    let slow = Some(Duration::from_millis(50));
    for took in [slow, None, slow] {
        breaker.pass().unwrap().judge(false, took);
    }
    assert_eq!(state(&breaker), CircuitState::Closed);
    // Given up after so long, it is as slow as one that was answered then.
    breaker.pass().unwrap().given_up(slow);
    assert_eq!(state(&breaker), CircuitState::Open);
    wait_half_open(&breaker);
    breaker.pass().unwrap().judge(false, slow);
    assert_eq!(state(&breaker), CircuitState::Open);
    wait_half_open(&breaker);
    breaker.pass().unwrap().judge(false, None);
    assert_eq!(state(&breaker), CircuitState::Closed);
    // Closed, it counts anew.
    breaker.pass().unwrap().judge(false, slow);
    assert_eq!(state(&breaker), CircuitState::Closed);
}

#[test]
fn a_hundred_failures_at_once_open_it_once() {
    let breaker = Breaker::new(BreakerConfig {
        failures: 1,
        shares: None,
        pause: Duration::from_secs(3_600),
        trials: 1,
    });
    let (barrier, refused) = (Barrier::new(100), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut pass = breaker.pass().unwrap();
                barrier.wait();
                pass.judge(true, None);
                refused.fetch_add(usize::from(breaker.pass().is_err()), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(breaker.circuit().opened, 1);
    assert_eq!(refused.load(Ordering::Relaxed), 100);
    assert_eq!(breaker.circuit().refused, 100);
}
