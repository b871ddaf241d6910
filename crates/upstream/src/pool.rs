//! A worker's connections: HTTP/1.1 ones that are idle, HTTP/2 ones that are shared.
//!
//! Each thread has its own, so that taking one and giving it back is a look into a map, without a
//! lock. A connection is driven by one task; a request starts none. Idle ones are taken last in,
//! first out, so that those not needed grow old and go.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::body::OutBody;
use crate::connect::{Need, STREAMS, connect};
use crate::error::SendError;
use crate::target::Target;
use crate::wire::Wire;

/// How often a worker looks for connections that are too old.
const SWEEP: Duration = Duration::from_millis(500);

/// A connection of one request at a time. Dropped, it closes once the request under way is done.
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<OutBody>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) task: AbortHandle,
    pub(crate) opened: Instant,
}

/// A connection of many requests at a time.
#[derive(Clone)]
pub(crate) struct Http2 {
    pub(crate) sender: http2::SendRequest<OutBody>,
    streams: Arc<Streams>,
    allowed: Arc<AtomicUsize>,
    opened: Instant,
}

/// The streams under way on a connection.
#[derive(Default)]
struct Streams {
    count: AtomicUsize,
    ended: Arc<Notify>,
}

impl Http2 {
    /// `allowed` holds how many streams the service takes at once.
    pub(crate) fn new(sender: http2::SendRequest<OutBody>, allowed: Arc<AtomicUsize>) -> Self {
        Self {
            sender,
            streams: Arc::default(),
            allowed,
            opened: Instant::now(),
        }
    }

    /// Told whenever a stream has ended.
    pub(crate) fn stream_ended(&self) -> Arc<Notify> {
        Arc::clone(&self.streams.ended)
    }

    /// Takes a stream, when the service allows one more.
    fn take_stream(&self) -> Option<StreamPlace> {
        let allowed = self.allowed.load(Ordering::Relaxed).min(STREAMS);
        if self.streams.count.load(Ordering::Relaxed) >= allowed {
            return None;
        }
        self.streams.count.fetch_add(1, Ordering::Relaxed);
        Some(StreamPlace(Arc::clone(&self.streams)))
    }
}

/// A stream that counts while this lives.
pub(crate) struct StreamPlace(Arc<Streams>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

/// A connection as it is made.
pub(crate) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// A connection with room for one request.
pub(crate) enum Place {
    Http1(Http1),
    Http2(Http2, StreamPlace),
}

struct Shelf {
    target: Weak<Target>,
    idle: Vec<(Http1, Instant)>,
    shared: Vec<(Http2, Instant)>,
    /// Held while a connection is made that many may share.
    gate: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Pool {
    shelves: HashMap<u64, Shelf, BuildHasherDefault<AsItIs>>,
    is_swept: bool,
}

/// Serial numbers need no mixing by a keyed hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

fn with<T>(work: impl FnOnce(&mut Pool) -> T) -> Option<T> {
    let got = POOL.try_with(|pool| pool.try_borrow_mut().ok().map(|mut it| work(&mut it)));
    got.ok().flatten()
}

/// A connection that is there.
pub(crate) fn take(target: &Target, need: Need) -> Option<Place> {
    let mut dead = Vec::new();
    let place = with(|pool| {
        let shelf = pool.shelves.get_mut(&target.id)?;
        shelf.take(target, need, &mut dead)
    });
    // Dropped outside of the pool: what ends with it may want the pool.
    drop(dead);
    place.flatten()
}

impl Shelf {
    fn new(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::downgrade(target),
            idle: Vec::new(),
            shared: Vec::new(),
            gate: Arc::default(),
        }
    }

    fn take(&mut self, target: &Target, need: Need, dead: &mut Vec<Http1>) -> Option<Place> {
        if need == Need::Any && !self.shared.is_empty() {
            // One that is too old ends with the streams that it has.
            self.shared
                .retain(|(it, _)| !it.sender.is_closed() && target.uses(it.opened));
            for (connection, used) in &mut self.shared {
                if let Some(stream) = connection.take_stream() {
                    *used = Instant::now();
                    return Some(Place::Http2(connection.clone(), stream));
                }
            }
        }
        while let Some((connection, since)) = self.idle.pop() {
            let is_fresh = since.elapsed() < target.idle_timeout && target.uses(connection.opened);
            if connection.sender.is_ready() && is_fresh {
                return Some(Place::Http1(connection));
            }
            dead.push(connection);
        }
        None
    }
}

/// A connection that was just made. Connections that many may share are made one at a time: a
/// burst of requests waits for the first and shares it.
pub(crate) async fn make(
    target: &Arc<Target>,
    need: Need,
    deadline: Instant,
) -> Result<Place, SendError> {
    if need == Need::Http1 || target.is_http2() == Some(false) {
        return make_now(target, need, deadline).await;
    }
    let gate = with(|pool| Arc::clone(&pool.shelf(target).gate));
    let Some(gate) = gate else {
        return make_now(target, need, deadline).await;
    };
    let held = tokio::time::timeout_at(deadline, gate.lock_owned()).await;
    let held = held.map_err(|_| SendError::TimeoutConnect)?;
    if let Some(place) = take(target, need) {
        return Ok(place);
    }
    // What the one before us learnt: these are not shared, so nobody need wait.
    let held = (target.is_http2() != Some(false)).then_some(held);
    let made = make_now(target, need, deadline).await;
    drop(held);
    made
}

async fn make_now(target: &Arc<Target>, need: Need, deadline: Instant) -> Result<Place, SendError> {
    match connect(target, need, deadline).await? {
        Connection::Http1(connection) => Ok(Place::Http1(connection)),
        Connection::Http2(connection) => {
            let stream = connection.take_stream().ok_or(SendError::Overloaded)?;
            let shared = (connection.clone(), Instant::now());
            with(|pool| pool.shelf(target).shared.push(shared));
            sweep_from_now_on();
            Ok(Place::Http2(connection, stream))
        }
    }
}

/// Gives an HTTP/1.1 connection back, ready for its next request.
pub(crate) fn give_back(target: &Arc<Target>, connection: Http1) {
    if target.take_pressure() {
        return;
    }
    let mut connection = Some(connection);
    with(|pool| {
        if let Some(connection) = connection.take() {
            let shelf = pool.shelf(target);
            shelf.idle.push((connection, Instant::now()));
        }
    });
    sweep_from_now_on();
}

impl Pool {
    fn shelf(&mut self, target: &Arc<Target>) -> &mut Shelf {
        let shelf = self.shelves.entry(target.id);
        shelf.or_insert_with(|| Shelf::new(target))
    }

    /// Takes out what is too old, and all of targets that are no more.
    fn sweep(&mut self, old: &mut Vec<Http1>) {
        self.shelves.retain(|_, shelf| {
            let target = shelf.target.upgrade();
            let age = target.as_ref().map_or(Duration::ZERO, |it| it.idle_timeout);
            let is_pressed = target.as_ref().is_some_and(|it| it.take_pressure());
            let gone = shelf.idle.extract_if(.., |(it, since)| {
                is_pressed || since.elapsed() >= age || it.sender.is_closed()
            });
            old.extend(gone.map(|(it, _)| it));
            shelf.shared.retain(|(it, used)| {
                let is_idle = it.streams.count.load(Ordering::Relaxed) == 0;
                !it.sender.is_closed() && !(is_idle && (is_pressed || used.elapsed() >= age))
            });
            target.is_some() || !shelf.shared.is_empty()
        });
    }
}

/// Starts the sweeper of this thread, unless it runs.
fn sweep_from_now_on() {
    if with(|pool| std::mem::replace(&mut pool.is_swept, true)) != Some(false) {
        return;
    }
    let ending = Ending;
    tokio::spawn(async move {
        let _ending = ending;
        loop {
            sleep(SWEEP).await;
            let mut old = Vec::new();
            let is_empty = with(|pool| {
                pool.sweep(&mut old);
                let mut shelves = pool.shelves.values();
                shelves.all(|it| it.idle.is_empty() && it.shared.is_empty())
            });
            drop(old);
            if is_empty != Some(false) {
                return;
            }
        }
    });
}

/// When the sweeper ends, with its runtime at the latest, nothing of that runtime stays behind.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        let left = with(std::mem::take);
        drop(left);
    }
}
