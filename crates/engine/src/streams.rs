//! The requests of one HTTP/2 connection: how many are under way, and whether their answers are taken.
//!
//! A client that opens no window holds an answer, its service and its place among the requests for
//! as long as it likes, and hyper waits with it. Each request therefore runs under a watch that knows
//! whether a part of the answer waits for the client; when it waits too long the request ends, and
//! its stream with CANCEL.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;

use crate::clock::monotonic_nanos;
use crate::pace::{Pace, Patience};

/// What of an answer the client has, as the answer's body tells it.
#[derive(Default)]
pub struct Handing {
    waits: AtomicBool,
    bytes: AtomicU64,
    is_lost: AtomicBool,
}

impl Handing {
    /// A part of so many bytes was handed over, and waits for the client.
    pub fn handed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.waits.store(true, Ordering::Relaxed);
    }

    /// The next part is asked for: the client takes what it gets.
    pub fn asked(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Whether the client took too long.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }
}

/// Runs the requests of one connection.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    patience: Patience,
    /// The request that hyper hands over next. It calls the service and then the executor, so that
    /// there is never more than one.
    next: Mutex<Option<Arc<Handing>>>,
    under_way: AtomicUsize,
    /// When the last one ended.
    ended: AtomicU64,
}

impl Streams {
    /// Of a connection whose client gets this much patience.
    pub fn new(patience: Patience) -> Self {
        Self(Arc::new(Shared {
            patience,
            next: Mutex::default(),
            under_way: AtomicUsize::new(0),
            ended: AtomicU64::new(monotonic_nanos()),
        }))
    }

    /// The request whose work comes next.
    pub fn expect(&self) -> Arc<Handing> {
        let handing = Arc::<Handing>::default();
        *self.next() = Some(Arc::clone(&handing));
        handing
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Arc<Handing>>> {
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once nothing was under way for that long.
    pub async fn idle(&self, patience: Duration) {
        let mut left = patience;
        while !left.is_zero() {
            tokio::time::sleep(left).await;
            let ended = self.0.ended.load(Ordering::Acquire);
            left = if self.0.under_way.load(Ordering::Acquire) > 0 {
                patience
            } else {
                patience.saturating_sub(Duration::from_nanos(
                    monotonic_nanos().saturating_sub(ended),
                ))
            };
        }
    }
}

/// One piece of work under way.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.store(monotonic_nanos(), Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        let handing = self.next().take();
        self.0.under_way.fetch_add(1, Ordering::AcqRel);
        let under_way = UnderWay(Arc::clone(&self.0));
        tokio::spawn(async move {
            match handing {
                Some(handing) => watched(work, &handing, under_way.0.patience).await,
                // The client's side of a tunnel, which has a timer of its own.
                None => work.await,
            }
            drop(under_way);
        });
    }
}

async fn watched(work: impl Future<Output = ()>, handing: &Handing, patience: Patience) {
    let mut work = pin!(work);
    let mut pace = Pace::new(patience);
    poll_fn(|cx| {
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !handing.waits.load(Ordering::Relaxed) {
            pace.moved();
            return Poll::Pending;
        }
        let bytes = handing.bytes.load(Ordering::Relaxed);
        pace.poll_lost(bytes, cx)
            .map(|()| handing.is_lost.store(true, Ordering::Relaxed))
    })
    .await;
}
