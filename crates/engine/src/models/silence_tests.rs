//! How long somebody waits for a process that answers nobody.

use std::future::{pending, ready};

use futures_body::{body_of, never};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn hearing(most: Duration) -> Hearing {
    Hearing {
        at: AtomicU64::new(0),
        most,
    }
}

fn turn(is_callers: bool, since: u64) -> Turn {
    Turn {
        is_callers: AtomicBool::new(is_callers),
        since: AtomicU64::new(since),
    }
}

mod futures_body {
    //! Bodies that move, and one that does not.

    use super::*;
    use http_body_util::Full;

    pub fn body_of(bytes: &'static [u8]) -> RequestBody {
        let body = Full::new(Bytes::from_static(bytes));
        body.map_err(|never| match never {}).boxed_unsync()
    }

    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Pending
        }
    }

    pub fn never() -> RequestBody {
        Never.boxed_unsync()
    }
}

#[test]
fn a_process_may_be_silent_for_two_of_its_runs_and_the_margin() {
    let hearing = Hearing::new(Duration::from_millis(700));
    assert_eq!(hearing.most(), Duration::from_millis(1400) + MARGIN);
}

#[test]
fn silence_counts_from_what_was_heard_last_and_not_while_the_caller_sends() {
    let hearing = hearing(HOUR);
    let now = monotonic_nanos() + 7_200_000_000_000;
    // As if the request had waited for hours.
    assert_eq!(hearing.left(&turn(false, now)), HOUR);
    let quiet = self::hearing(Duration::from_nanos(1));
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(quiet.left(&turn(false, 0)), Duration::ZERO);
    assert_eq!(quiet.left(&turn(true, 0)), Duration::from_nanos(1));
    quiet.at.store(now, Ordering::Relaxed);
    assert_eq!(quiet.left(&turn(false, 0)), Duration::from_nanos(1));
}

#[tokio::test]
async fn who_asks_a_process_that_answers_nobody_is_told_and_who_is_answered_is_not() {
    let hearing = hearing(Duration::from_millis(20));
    let body = || body_of(b"tensors");
    assert!(hearing.attend(body(), |_| pending::<()>()).await.is_none());
    let answered = self::hearing(HOUR).attend(body(), |_| ready(7)).await;
    assert_eq!(answered, Some(7));
}

#[tokio::test]
async fn a_body_is_passed_on_and_tells_whose_turn_it_is() {
    let turn = Arc::new(turn(false, 0));
    let whole = told(body_of(b"tensors"), &turn).collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "tensors");
    assert!(turn.since.load(Ordering::Relaxed) > 0);
    let mut waiting = told(never(), &turn);
    let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut waiting).poll_frame(cx)));
    assert!(polled.await.is_pending());
    assert!(turn.is_callers.load(Ordering::Relaxed));
}
