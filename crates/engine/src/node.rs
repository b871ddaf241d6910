//! What all workers of an engine share: the plan, the runtime, the counters, the function log.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;
use vedette_admit::hello::Ja4;
use vedette_limit::{Now, Places};
use vedette_wasm::Runtime;

use crate::broker::Runs;
use crate::certificate::Presented;
use crate::clock;
use crate::lease::Lease;
use crate::load::{EngineDir, LoadError};
use crate::mesh::{Sidecar, Sidecars};
use crate::metrics::Shards;
use crate::offenders::Watch;
use crate::plan::{Before, Plan};
use crate::posture::Posture;
use crate::presence::Presence;
use crate::pressure::Pressure;
use crate::record::log::FunctionLog;
use crate::revoked::Ahead;
use crate::sources::Sources;
use crate::streams::Handing;
use crate::sys;
use crate::wire::Answering;

/// One engine.
pub struct Node {
    /// Where this node stands, as the operator named it.
    pub location: HeaderValue,
    /// What control wrote for the engine.
    pub dir: EngineDir,
    /// Runs functions.
    pub runtime: Runtime,
    /// Takes what functions print.
    pub log: FunctionLog,
    /// Per worker: counters that the metrics are made of.
    pub shards: Shards,
    /// Requests under way.
    pub in_flight: Counter,
    /// Connections open.
    pub connections: Counter,
    /// Who has how many of them.
    pub sources: Sources,
    /// How much it has to do.
    pub pressure: Pressure,
    /// Addresses that keep offending.
    pub offenders: Arc<Watch>,
    /// Bytes of bodies that are kept back to be inspected.
    pub kept_back: Budget,
    /// Programs that `vedette run` has started.
    pub runs: Runs,
    /// Sockets of sidecars.
    pub sidecars: Sidecars,
    /// What is revoked ahead of the snapshot that will hold it.
    pub ahead: Ahead,
    /// What is known of principals.
    pub posture: Posture,
    /// Whether control is there.
    pub presence: Presence,
    /// Since when.
    pub started: Instant,
    plan: ArcSwapOption<Plan>,
    /// Told of each plan that is served, by its serial number.
    plans: watch::Sender<u64>,
    /// What the engine before this one had counted.
    quotas: Mutex<Option<Vec<u8>>>,
    leaving: AtomicBool,
    generation: AtomicU64,
    refused: Mutex<Option<LoadError>>,
}

impl Node {
    /// An engine that serves nothing yet.
    pub fn new(location: HeaderValue, dir: EngineDir, runtime: Runtime, log: FunctionLog) -> Self {
        Self {
            location,
            dir,
            runtime,
            log,
            shards: Shards::default(),
            in_flight: Counter::default(),
            connections: Counter::default(),
            sources: Sources::default(),
            pressure: Pressure::default(),
            offenders: Arc::default(),
            kept_back: Budget::default(),
            runs: Runs::default(),
            sidecars: Sidecars::default(),
            ahead: Ahead::default(),
            posture: Posture::default(),
            presence: Presence::default(),
            started: Instant::now(),
            plan: ArcSwapOption::empty(),
            plans: watch::Sender::new(0),
            quotas: Mutex::new(None),
            leaving: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            refused: Mutex::new(None),
        }
    }

    /// The plan being served, if one was ever verified.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.load_full()
    }

    /// Says when another plan is served.
    pub fn plans(&self) -> watch::Receiver<u64> {
        self.plans.subscribe()
    }

    /// How many activations the node has seen, as control counts them.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The quotas used so far, for the engine after this one; none when there are none.
    pub fn quotas(&self) -> Option<Vec<u8>> {
        let plan = self.plan().filter(|plan| plan.limits.has_quotas())?;
        Some(plan.limits.export(now()))
    }

    /// Why the last snapshot was refused, while that is so.
    pub fn refused(&self) -> Option<LoadError> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves `plan`, wherever it is from.
    #[cfg(any(test, fuzzing))]
    pub fn serve(&self, plan: Plan) {
        self.swap(plan);
    }

    fn swap(&self, plan: Plan) {
        let plan = Arc::new(plan);
        self.plan.store(Some(Arc::clone(&plan)));
        self.plans.send_replace(plan.serial);
        // After the plan that refuses it: nobody may find it in neither.
        self.ahead.settle(|one| plan.refuses(one));
    }

    /// Whether the engine takes no more connections: those it has get one more answer.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The engine takes no more connections from now on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Loads the snapshot that `active.json` names, with the quotas that the engine before this one
    /// has counted. A node that cannot verify it serves nothing.
    pub fn start_with_active(&self, quotas: Option<Vec<u8>>) {
        if let Err(error) = self.posture.load(&self.dir) {
            crate::sys::say(&format_args!("nothing is known of principals: {error}"));
        }
        let loaded = self.dir.active().and_then(|active| {
            let before = Before::Quotas(quotas.as_deref());
            self.activate(&active.digest, active.generation, before)
        });
        *self.quotas.lock().unwrap_or_else(PoisonError::into_inner) = quotas;
        if let Err(error) = loaded {
            crate::sys::say(&format_args!("no snapshot is served: {error}"));
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// Begins anew where the engine that was in charge until now has left off, if anything has
    /// changed since this one was made ready.
    pub fn take_over(&self, quotas: Option<Vec<u8>>) {
        let counts = self.plan().is_some_and(|plan| plan.limits.has_quotas());
        if counts || !self.is_current() {
            self.start_with_active(quotas);
        }
    }

    /// Serves what `active.json` names, if that is another snapshot than the one served.
    ///
    /// # Errors
    /// When it is refused; what was served goes on being served.
    pub fn follow_active(&self) -> Result<(), LoadError> {
        if self.is_current() {
            return Ok(());
        }
        let active = self.dir.active()?;
        self.apply(&active.digest, active.generation)
    }

    fn is_current(&self) -> bool {
        let served = self.plan();
        let served = served.as_ref().map(|plan| plan.digest.as_ref());
        self.dir.active().is_ok_and(|active| {
            served == Some(active.digest.as_str()) && active.generation == self.generation()
        })
    }

    /// Loads the snapshot with `digest` and serves it from the next request on.
    ///
    /// # Errors
    /// When it is refused; what was served goes on being served.
    pub fn apply(&self, digest: &str, generation: u64) -> Result<(), LoadError> {
        if let Some(plan) = self.plan() {
            return self.activate(digest, generation, Before::Plan(&plan));
        }
        let quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        self.activate(digest, generation, Before::Quotas(quotas.as_deref()))
    }

    fn activate(&self, digest: &str, generation: u64, before: Before<'_>) -> Result<(), LoadError> {
        let plan = self.dir.load(digest, before)?;
        let limits = &plan.admit.limits;
        self.sources.follow(limits.source_connections.as_ref())?;
        self.offenders.follow(limits.offenders.as_ref());
        self.swap(plan);
        self.generation.store(generation, Ordering::Release);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        crate::waf::prepare();
        // Compiling rules takes several times what they are in the end.
        sys::give_back_memory();
        Ok(())
    }
}

/// The time, as limits count it.
pub fn now() -> Now {
    Now {
        nanos: clock::monotonic_nanos(),
        unix_seconds: clock::unix_seconds(),
    }
}

/// One connection, as its requests see it.
pub struct Connection {
    /// The name of the listener.
    pub listener: Arc<str>,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Address and port of the client.
    pub client: Box<str>,
    /// Address of the client.
    pub client_address: IpAddr,
    /// The same as text.
    pub client_ip: Box<str>,
    /// The name the TLS connection was opened for, lower case.
    pub sni: Option<Box<str>>,
    /// The certificate that the client came with.
    pub certificate: Option<Presented>,
    /// What its TLS client looks like.
    pub ja4: Option<Ja4>,
    /// The client's address as a header value.
    pub client_ip_value: HeaderValue,
    /// Where this node stands.
    pub location: HeaderValue,
    /// The sidecar that it is of; absent: it came to the node itself.
    pub sidecar: Option<Arc<Sidecar>>,
    /// Takes note of what its requests were.
    pub offenders: Arc<Watch>,
    /// Whether an HTTP/1.1 answer is under way, and why the connection was given up.
    pub answering: Answering,
}

impl Connection {
    /// Whether its client is a program that the engine speaks for.
    pub fn is_of_a_program(&self) -> bool {
        self.sidecar.as_ref().is_some_and(|it| it.is_outbound())
    }
}

/// What a request holds until the last byte of its answer.
#[derive(Default)]
pub struct Held {
    /// Its place among the requests under way.
    pub in_flight: Option<Place>,
    /// Its places of concurrency limits.
    pub places: Option<Places>,
    /// Its right to go on.
    pub lease: Lease,
    /// What of the answer the client has, over HTTP/2.
    pub handing: Option<Arc<Handing>>,
    /// `RateLimit` and `RateLimit-Policy` of the tightest limit.
    pub standing: Option<(HeaderValue, HeaderValue)>,
}

/// Counts things that come and go.
#[derive(Default)]
pub struct Counter(Arc<AtomicUsize>);

/// One of the things a [`Counter`] counts; gone when dropped.
pub struct Place(Arc<AtomicUsize>);

impl Counter {
    /// Takes one of `limit` places, if one is free.
    pub fn enter(&self, limit: u64) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        // Dropping the place gives it back.
        ((before as u64) < limit).then_some(place)
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Counts bytes that come and go.
#[derive(Default)]
pub struct Budget(Arc<AtomicUsize>);

/// Some of the bytes that a [`Budget`] counts; gone when dropped.
pub struct Room {
    budget: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// Room for nothing yet.
    pub fn room(&self) -> Room {
        Room {
            budget: Arc::clone(&self.0),
            bytes: 0,
        }
    }
}

impl Room {
    /// Takes room for so many bytes more; whether all rooms together are then within `limit`.
    pub fn grow(&mut self, bytes: usize, limit: usize) -> bool {
        self.bytes += bytes;
        self.budget.fetch_add(bytes, Ordering::AcqRel) + bytes <= limit
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
