#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::config::{Datatype, Tensor};
use crate::queue::{MOST_PASSED, Ran};
use crate::runtime::{Data, RunError};
use crate::watchdog;

/// Ends each run when it is told to, or stopped.
struct Scripted {
    runs: mpsc::Receiver<Result<(), RunError>>,
    stopped: Arc<Stopped>,
}

struct Stopped(Mutex<Option<mpsc::Sender<Result<(), RunError>>>>);

impl Stop for Stopped {
    fn stop(&self) {
        let sender = self.0.lock().unwrap().clone();
        sender.unwrap().send(Err(RunError::Stopped)).unwrap();
    }

    fn clear(&self) {}
}

impl Session for Scripted {
    fn run(&mut self, inputs: &[Data], _: &[usize]) -> Result<Vec<Data>, RunError> {
        self.runs.recv().unwrap()?;
        Ok(inputs.to_vec())
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::clone(&self.stopped) as Arc<dyn Stop>
    }

    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        (vec![], vec![])
    }
}

type End = mpsc::Sender<Result<(), RunError>>;

fn pool(queue: usize, run_time: Duration) -> (Arc<Pool>, End) {
    let (end, runs) = mpsc::channel();
    let stopped = Arc::new(Stopped(Mutex::new(Some(end.clone()))));
    let session = Box::new(Scripted { runs, stopped });
    let terms = Terms {
        queue,
        run_time,
        batch: 1,
        leaves_open: false,
        here: Duration::ZERO,
        is_one_core: false,
    };
    (Pool::start(vec![session], terms).unwrap(), end)
}

fn ask(marker: i64, deadline: Option<Instant>) -> Ask {
    Ask {
        inputs: input(marker),
        outputs: vec![],
        deadline,
        tenant: None,
        criticality: Criticality::Standard,
    }
}

fn input(marker: i64) -> Vec<Data> {
    vec![Data {
        datatype: Datatype::Uint8,
        shape: vec![marker],
        elements: Bytes::new(),
    }]
}

const LONG: Duration = Duration::from_secs(3600);

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

fn is_running(pool: &Pool) -> bool {
    pool.lock().running.iter().any(Option::is_some)
}

/// Lets one run teach the pool that this shape takes a while.
fn teach(pool: &Pool, marker: i64, takes: Duration) {
    pool.lock()
        .estimates
        .learn(key(&input(marker), None), takes);
}

fn over(mut waiting: Waiting<'_>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(waiting.outcome()).unwrap()
}

fn ran(waiting: Waiting<'_>) -> Ran {
    over(waiting).unwrap_or_else(|it| panic!("{}", it.message))
}

fn refused(waiting: Waiting<'_>) -> Refusal {
    over(waiting).err().unwrap()
}

#[test]
fn requests_run_in_the_order_in_which_they_came_and_get_their_own_answer() {
    let (pool, end) = pool(8, LONG);
    let outcomes: Vec<_> = (1..=3)
        .map(|it| pool.submit(ask(it, None)).unwrap())
        .collect();
    for _ in 0..3 {
        end.send(Ok(())).unwrap();
    }
    for (marker, outcome) in (1..=3).zip(outcomes) {
        assert_eq!(ran(outcome).outputs, input(marker));
    }
}

#[test]
fn one_more_than_the_queue_holds_is_refused_at_once() {
    let (pool, end) = pool(2, LONG);
    let first = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    let others: Vec<_> = (0..2).map(|_| pool.submit(ask(1, None)).unwrap()).collect();
    let refusal = pool.submit(ask(1, None)).err().unwrap();
    assert_eq!((refusal.status, refusal.retry_after), (503, Some(1)));
    assert_eq!(
        pool.require_room(Criticality::Standard)
            .err()
            .unwrap()
            .status,
        503
    );
    for _ in 0..3 {
        end.send(Ok(())).unwrap();
    }
    ran(first);
    others.into_iter().map(ran).for_each(drop);
    pool.submit(ask(1, None)).unwrap();
}

#[test]
fn without_a_queue_an_idle_session_still_takes_one() {
    let (pool, end) = pool(0, LONG);
    let outcome = pool.submit(ask(1, None)).unwrap();
    assert!(pool.submit(ask(1, None)).is_err());
    end.send(Ok(())).unwrap();
    ran(outcome);
}

#[test]
fn a_deadline_that_the_prediction_does_not_keep_is_refused_with_when_to_come_again() {
    let (pool, end) = pool(8, LONG);
    let deadline = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
    let first = pool.submit(ask(1, deadline(1))).unwrap(); // nothing is known yet
    end.send(Ok(())).unwrap();
    ran(first);
    teach(&pool, 7, Duration::from_secs(60));
    let refusal = pool.submit(ask(7, deadline(30))).err().unwrap();
    assert_eq!(refusal.status, 503);
    assert!(refusal.retry_after.unwrap() >= 60, "{refusal:?}");
    // One run is no proof: the next is let in, to find out.
    let outcome = pool.submit(ask(7, deadline(30))).unwrap();
    end.send(Ok(())).unwrap();
    ran(outcome);
    teach(&pool, 7, Duration::from_secs(60));
    let runs = pool.submit(ask(7, deadline(600))).unwrap();
    wait_until(|| is_running(&pool));
    // One that is quick itself waits for the slow one.
    teach(&pool, 1, Duration::from_millis(1));
    let refusal = pool.submit(ask(1, deadline(30))).err().unwrap();
    assert!(
        refusal.message.contains("longer than the deadline"),
        "{refusal:?}"
    );
    end.send(Ok(())).unwrap();
    ran(runs);
}

#[test]
fn what_waited_past_its_deadline_is_not_run() {
    let (pool, end) = pool(8, LONG);
    let first = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    let soon = Instant::now() + Duration::from_millis(20);
    let late = pool.submit(ask(2, Some(soon))).unwrap();
    wait_until(|| Instant::now() > soon);
    end.send(Ok(())).unwrap();
    ran(first);
    assert_eq!(refused(late).status, 503);
    assert!(!is_running(&pool));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_run() {
    let (pool, end) = pool(8, LONG);
    let first = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    drop(pool.submit(ask(2, None)).unwrap());
    let third = pool.submit(ask(3, None)).unwrap();
    end.send(Ok(())).unwrap();
    end.send(Ok(())).unwrap();
    ran(first);
    assert_eq!(ran(third).outputs, input(3));
}

#[test]
fn those_who_went_away_leave_their_places_in_the_queue() {
    let (pool, end) = pool(1, LONG);
    let first = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    for _ in 0..3 {
        drop(pool.submit(ask(2, None)).unwrap());
    }
    let second = pool.submit(ask(3, None)).unwrap();
    assert!(pool.submit(ask(4, None)).is_err());
    end.send(Ok(())).unwrap();
    end.send(Ok(())).unwrap();
    ran(first);
    assert_eq!(ran(second).outputs, input(3));
}

#[test]
fn a_run_that_takes_too_long_is_answered_and_told_to_stop_and_the_next_one_runs() {
    let (pool, end) = pool(8, Duration::from_millis(50));
    watchdog::start(&pool).unwrap();
    let outcome = pool.submit(ask(1, None)).unwrap();
    let refusal = refused(outcome);
    assert_eq!(refusal.status, 504);
    wait_until(|| !is_running(&pool));
    let next = pool.submit(ask(2, None)).unwrap();
    end.send(Ok(())).unwrap();
    assert_eq!(ran(next).outputs, input(2));
}

#[test]
fn a_run_whose_caller_has_left_is_told_to_stop_and_the_next_one_runs() {
    let (pool, end) = pool(8, LONG);
    let gone = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    let next = pool.submit(ask(2, None)).unwrap();
    drop(gone); // nobody but its stop ends the run
    end.send(Ok(())).unwrap();
    assert_eq!(ran(next).outputs, input(2));
}

#[test]
fn what_a_run_took_until_it_was_stopped_makes_no_prediction_shorter() {
    let (pool, end) = pool(8, LONG);
    teach(&pool, 1, Duration::from_secs(60));
    let gone = pool.submit(ask(1, None)).unwrap();
    wait_until(|| is_running(&pool));
    drop(gone);
    let next = pool.submit(ask(2, None)).unwrap();
    end.send(Ok(())).unwrap();
    ran(next);
    let known = pool.lock().estimates.of(key(&input(1), None));
    assert!(known >= Duration::from_secs(60), "{known:?}");
}

#[test]
fn a_failed_run_says_so_and_lack_of_memory_is_for_later() {
    let (pool, end) = pool(8, LONG);
    for (error, status) in [
        (RunError::Failed("no".into()), 500),
        (RunError::OutOfMemory, 503),
        (RunError::Stopped, 504),
    ] {
        let outcome = pool.submit(ask(1, None)).unwrap();
        end.send(Err(error)).unwrap();
        assert_eq!(refused(outcome).status, status);
    }
}

#[test]
fn a_pool_that_leaves_runs_what_it_has_and_takes_no_more() {
    let (pool, end) = pool(8, LONG);
    let first = pool.submit(ask(1, None)).unwrap();
    let second = pool.submit(ask(2, None)).unwrap();
    pool.leave();
    assert_eq!(pool.submit(ask(3, None)).err().unwrap().status, 503);
    end.send(Ok(())).unwrap();
    end.send(Ok(())).unwrap();
    ran(first);
    ran(second);
}

fn as_critical(marker: i64, criticality: Criticality) -> Ask {
    Ask {
        criticality,
        ..ask(marker, None)
    }
}

/// What waits, by its marker, in the order in which it will run.
fn order(pool: &Pool) -> Vec<i64> {
    let state = pool.lock();
    let shapes = state.waiting.iter().map(|it| &it.order.ask.inputs);
    let marker = |it: &Vec<Data>| *it.first().unwrap().shape.first().unwrap();
    shapes.map(marker).collect()
}

#[test]
fn what_is_more_critical_runs_before_what_is_less_and_each_kind_in_its_order() {
    use Criticality::{Critical, Sheddable, Standard};
    let (pool, end) = pool(8, LONG);
    let first = pool.submit(ask(9, None)).unwrap();
    wait_until(|| is_running(&pool));
    let asks = [
        (1, Sheddable),
        (2, Standard),
        (3, Critical),
        (4, Standard),
        (5, Sheddable),
        (6, Critical),
    ];
    let waiting = asks.map(|(marker, it)| (marker, pool.submit(as_critical(marker, it)).unwrap()));
    assert_eq!(order(&pool), [3, 6, 2, 4, 1, 5]);
    for _ in 0..=waiting.len() {
        end.send(Ok(())).unwrap();
    }
    ran(first);
    for (marker, waiting) in waiting {
        assert_eq!(ran(waiting).outputs, input(marker));
    }
}

#[test]
fn where_no_more_may_wait_what_is_least_critical_goes_and_is_told() {
    use Criticality::{Critical, Sheddable, Standard};
    let (pool, end) = pool(2, LONG);
    let first = pool.submit(ask(9, None)).unwrap();
    wait_until(|| is_running(&pool));
    let submit = |marker, it| pool.submit(as_critical(marker, it));
    let stays = submit(1, Standard).unwrap();
    let goes = submit(2, Sheddable).unwrap();
    assert!(pool.require_room(Sheddable).is_err());
    assert!(pool.require_room(Standard).is_ok());
    let comes = submit(3, Critical).unwrap();
    let told = refused(goes);
    assert_eq!((told.status, told.retry_after), (503, Some(1)));
    assert!(told.message.contains("as many requests wait"));
    assert_eq!(order(&pool), [3, 1]);
    assert!(submit(4, Standard).is_err(), "nobody goes for one like it");
    let second = submit(5, Critical).unwrap();
    assert_eq!(refused(stays).status, 503);
    assert!(submit(6, Critical).is_err());
    for _ in 0..3 {
        end.send(Ok(())).unwrap();
    }
    for waiting in [first, comes, second] {
        ran(waiting);
    }
}

#[test]
fn one_whom_a_deadline_keeps_out_takes_nobodys_place() {
    let (pool, end) = pool(1, LONG);
    let first = pool.submit(ask(9, None)).unwrap();
    wait_until(|| is_running(&pool));
    let stays = pool.submit(as_critical(1, Criticality::Sheddable)).unwrap();
    teach(&pool, 7, Duration::from_secs(60));
    let hasty = Ask {
        deadline: Some(Instant::now() + Duration::from_secs(30)),
        ..as_critical(7, Criticality::Critical)
    };
    assert!(pool.submit(hasty).is_err());
    assert_eq!(order(&pool), [1]);
    for _ in 0..2 {
        end.send(Ok(())).unwrap();
    }
    ran(first);
    ran(stays);
}

#[test]
fn whoever_was_overtaken_often_enough_is_not_any_more() {
    use Criticality::{Critical, Sheddable};
    let most = usize::from(MOST_PASSED);
    let (pool, end) = pool(most + 2, LONG);
    let first = pool.submit(ask(9, None)).unwrap();
    wait_until(|| is_running(&pool));
    let submit = |marker, it| pool.submit(as_critical(marker, it)).unwrap();
    let mut waiting = vec![first, submit(1, Sheddable)];
    waiting.extend((0..=most).map(|_| submit(2, Critical)));
    let order = order(&pool);
    assert_eq!(order.iter().position(|it| *it == 1), Some(most));
    assert_eq!(order.len(), most + 2);
    for _ in 0..waiting.len() {
        end.send(Ok(())).unwrap();
    }
    waiting.into_iter().map(ran).for_each(drop);
}

#[test]
fn one_that_overtakes_waits_only_for_what_runs_before_it() {
    let (pool, end) = pool(8, LONG);
    teach(&pool, 9, Duration::from_millis(1));
    teach(&pool, 7, Duration::from_secs(60));
    let first = pool.submit(ask(9, None)).unwrap();
    wait_until(|| is_running(&pool));
    let long = pool.submit(ask(7, None)).unwrap();
    let soon = |criticality| Ask {
        deadline: Some(Instant::now() + Duration::from_secs(30)),
        ..as_critical(1, criticality)
    };
    assert_eq!(
        pool.submit(soon(Criticality::Standard))
            .err()
            .unwrap()
            .status,
        503
    );
    let overtakes = pool.submit(soon(Criticality::Critical)).unwrap();
    for _ in 0..3 {
        end.send(Ok(())).unwrap();
    }
    for waiting in [first, long, overtakes] {
        ran(waiting);
    }
}

const SHORT: Duration = Duration::from_millis(1);

/// A pool that has what is short run by whoever asks, and no threads.
fn alone(is_one_core: bool) -> (Pool, End) {
    let (end, runs) = mpsc::channel();
    let stopped = Arc::new(Stopped(Mutex::new(Some(end.clone()))));
    let session = Box::new(Scripted { runs, stopped });
    (Pool::new(vec![session], short(is_one_core)), end)
}

fn short(is_one_core: bool) -> Terms {
    Terms {
        queue: 8,
        run_time: LONG,
        batch: 1,
        leaves_open: false,
        here: SHORT,
        is_one_core,
    }
}

#[test]
fn a_run_that_is_known_to_be_short_is_done_by_the_thread_that_asks() {
    let (pool, end) = alone(false);
    teach(&pool, 1, SHORT / 2);
    let waiting = pool.submit(ask(1, None)).unwrap();
    end.send(Ok(())).unwrap();
    assert_eq!(ran(waiting).outputs, input(1));
    assert_eq!(pool.lock().taken, [false]);
}

#[test]
fn a_run_that_is_new_or_long_is_left_to_the_thread_of_its_session() {
    let (pool, _end) = alone(true);
    teach(&pool, 2, SHORT * 4);
    for marker in [1, 2] {
        assert!(!pool.submit(ask(marker, None)).unwrap().is_here);
    }
}

#[test]
fn who_waits_behind_another_is_left_to_the_thread_where_there_is_a_processor_for_it() {
    for is_one_core in [false, true] {
        let (pool, _end) = alone(is_one_core);
        teach(&pool, 1, SHORT / 2);
        let first = pool.submit(ask(1, None)).unwrap();
        let second = pool.submit(ask(1, None)).unwrap();
        assert!(first.is_here);
        assert_eq!(second.is_here, is_one_core);
    }
}

#[test]
fn what_is_more_critical_goes_first_whoever_runs_it() {
    let (pool, end) = alone(true);
    for marker in [1, 2] {
        teach(&pool, marker, SHORT / 2);
    }
    let mut usual = pool.submit(ask(1, None)).unwrap();
    let critical = Ask {
        criticality: Criticality::Critical,
        ..ask(2, None)
    };
    let mut critical = pool.submit(critical).unwrap();
    end.send(Ok(())).unwrap();
    pool.run_here();
    assert!(critical.answer.try_recv().is_ok());
    assert!(usual.answer.try_recv().is_err());
    end.send(Ok(())).unwrap();
    assert_eq!(ran(usual).outputs, input(1));
}

#[test]
fn one_whose_caller_left_before_it_ran_holds_up_nobody() {
    let (pool, end) = alone(true);
    teach(&pool, 1, SHORT / 2);
    drop(pool.submit(ask(1, None)).unwrap());
    let next = pool.submit(ask(1, None)).unwrap();
    end.send(Ok(())).unwrap();
    assert_eq!(ran(next).outputs, input(1));
    assert_eq!(pool.lock().waiting.len(), 0);
}

#[test]
fn who_is_told_while_another_thread_runs_is_served_when_that_one_is_done() {
    let (pool, end) = alone(false);
    let pool = Arc::new(pool);
    teach(&pool, 1, SHORT / 2);
    let short = pool.submit(ask(1, None)).unwrap();
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| ran(short));
        wait_until(|| is_running(&pool));
        let session = Arc::clone(&pool);
        std::thread::spawn(move || session.work(0));
        // Its session's thread is told of it, and finds the session taken.
        let long = pool.submit(ask(2, None)).unwrap();
        assert!(!long.is_here);
        for _ in 0..2 {
            end.send(Ok(())).unwrap();
        }
        assert_eq!(ran(long).outputs, input(2));
        assert_eq!(asks.join().unwrap().outputs, input(1));
    });
}
