//! One instance: made for a request, and, where its function says so, kept for the next.
//!
//! Kept instances serve one request at a time, WASI 0.3 too, so that every limit is the request's
//! own and a trap ends nobody else's. Only an instance that ended its request in order and kept
//! nothing of it goes back; dropping a call drops its instance.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi_http::{p2, p3};

use crate::failure::CpuTimeExceeded;
use crate::guest::{Context, FunctionSpec, Guest, MAX_HANDLES, Reuse};
use crate::load::{Loaded, Pre};
use crate::meter;

/// The most bytes one call of a guest may have the host copy. A body is not copied whole.
const HOSTCALL_BYTES: usize = 8 << 20;
/// How many lists of kept instances a function has: one for each of so many threads.
const SHARDS: usize = 16;
/// The most instances a function keeps for one thread.
const MAX_KEPT: usize = 32;

/// What a component exports, bound to one instance.
pub(crate) enum Proxy {
    /// `wasi:http/incoming-handler@0.2`.
    P2(p2::bindings::Proxy),
    /// `wasi:http/handler@0.3`.
    P3(p3::bindings::Service),
}

/// An instance with its store.
pub(crate) struct Instance {
    pub(crate) store: Store<Guest>,
    pub(crate) proxy: Proxy,
    /// How long it may serve; none: one request.
    life: Option<Life>,
}

/// What is left of the life of an instance that serves more than one request.
struct Life {
    requests: u64,
    end: Instant,
}

impl Life {
    /// Up to an eighth less than `reuse` says, so that instances made together do not end together.
    fn begin(reuse: &Reuse) -> Self {
        let fewer = fastrand::u64(0..=reuse.max_requests / 8);
        let sooner = reuse.max_age.mul_f64(fastrand::f64() / 8.0);
        Self {
            requests: reuse.max_requests - fewer,
            end: Instant::now() + reuse.max_age.saturating_sub(sooner),
        }
    }

    fn goes_on(&self) -> bool {
        self.requests > 0 && Instant::now() < self.end
    }
}

impl Instance {
    /// An instance for one request: a kept one where the function keeps them, else a new one.
    pub(crate) async fn for_request(
        function: &Loaded,
        context: Context,
    ) -> Result<Self, (wasmtime::Error, bool)> {
        let reuse = function.spec.reuse.as_ref();
        if let Some(mut kept) = reuse.and_then(|_| function.kept.take()) {
            kept.begin(context);
            return Ok(kept);
        }
        Self::new(function, context).await
    }

    /// A new instance. The error says whether it was refused memory.
    async fn new(function: &Loaded, context: Context) -> Result<Self, (wasmtime::Error, bool)> {
        let spec = Arc::clone(&function.spec);
        let is_concurrent = matches!(function.pre, Pre::P3(_));
        let mut store = new_store(function.engine(), spec, context, is_concurrent);
        let proxy = match &function.pre {
            Pre::P2(pre) => pre.instantiate_async(&mut store).await.map(Proxy::P2),
            Pre::P3(pre) => pre.instantiate_async(&mut store).await.map(Proxy::P3),
        };
        match proxy {
            Ok(proxy) => Ok(Self {
                store,
                proxy,
                life: function.spec.reuse.as_ref().map(Life::begin),
            }),
            Err(error) => Err((error, store.data().memory.denied)),
        }
    }

    fn begin(&mut self, context: Context) {
        self.store.data_mut().begin(context);
        self.store.set_epoch_deadline(1);
    }

    /// Ends a request that went well: the instance is kept when its function keeps them and it has
    /// kept nothing of the request itself.
    pub(crate) fn end(mut self, function: &Arc<Loaded>) {
        let Some(reuse) = &function.spec.reuse else {
            return;
        };
        let Some(life) = &mut self.life else {
            return;
        };
        life.requests = life.requests.saturating_sub(1);
        let guest = self.store.data_mut();
        guest.end();
        if guest.memory.denied || guest.keeps_request() || !self.is_quiet() {
            return;
        }
        if self.is_good() {
            function.kept.put(self, function, reuse);
        }
    }

    /// Whether no stream, future or task of WASI 0.3 is left.
    fn is_quiet(&mut self) -> bool {
        self.store
            .concurrent_resource_table()
            .is_none_or(|table| table.is_empty())
    }

    fn is_good(&self) -> bool {
        self.life.as_ref().is_some_and(Life::goes_on)
    }
}

fn new_store(
    engine: &Engine,
    spec: Arc<FunctionSpec>,
    context: Context,
    is_concurrent: bool,
) -> Store<Guest> {
    let mut store = Store::new(engine, Guest::new(spec, context, is_concurrent));
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(MAX_HANDLES);
    }
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| yield_or_stop());
    store
}

/// What happens when a guest has run for a tick: let others run, or stop it for good.
///
/// The yield is tokio's own, which queues the task behind the others; a bare yield is polled again
/// first (wasmtime #10667).
fn yield_or_stop() -> wasmtime::Result<UpdateDeadline> {
    if meter::is_spent() {
        return Err(CpuTimeExceeded.into());
    }
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(tokio::task::yield_now()),
    ))
}

/// The kept instances of one function, a list for each thread. They go with the function: a plan
/// that no longer has it drops them.
pub(crate) struct Kept {
    shards: [Mutex<Shard>; SHARDS],
    /// Over all functions of the runtime.
    total: Arc<Total>,
}

#[derive(Default)]
struct Shard {
    idle: Vec<Instance>,
    /// Whether a task is waiting to drop what gets too old.
    is_watched: bool,
}

/// Counts the kept instances of a runtime; each holds a slot of the pool.
pub(crate) struct Total {
    count: AtomicUsize,
    limit: usize,
}

impl Total {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let count = AtomicUsize::new(0);
        Arc::new(Self { count, limit })
    }

    fn enter(&self) -> bool {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        if before >= self.limit {
            self.leave(1);
        }
        before < self.limit
    }

    fn leave(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Kept {
    pub(crate) fn new(total: Arc<Total>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, total }
    }

    fn take(&self) -> Option<Instance> {
        let mut shard = self.shard();
        // The last one put back is the one the caches know.
        while let Some(kept) = shard.idle.pop() {
            self.total.leave(1);
            if kept.is_good() {
                return Some(kept);
            }
        }
        None
    }

    fn put(&self, instance: Instance, function: &Arc<Loaded>, reuse: &Reuse) {
        let mut shard = self.shard();
        if shard.idle.len() >= MAX_KEPT || !self.total.enter() {
            return;
        }
        shard.idle.push(instance);
        if !shard.is_watched {
            shard.is_watched = true;
            watch(function, thread_number(), reuse.max_age);
        }
    }

    /// Drops what is too old; says whether anything is left.
    fn sweep(&self, number: usize) -> bool {
        let mut shard = self.lock(number);
        let before = shard.idle.len();
        shard.idle.retain(Instance::is_good);
        self.total.leave(before - shard.idle.len());
        shard.is_watched = !shard.idle.is_empty();
        shard.is_watched
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        self.lock(thread_number())
    }

    #[allow(clippy::indexing_slicing)]
    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for number in 0..SHARDS {
            let count = self.lock(number).idle.len();
            self.total.leave(count);
        }
    }
}

/// Drops kept instances once they are too old, also when no request comes that would.
fn watch(function: &Arc<Loaded>, number: usize, every: Duration) {
    let function = Arc::downgrade(function);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(function) = function.upgrade() else {
                return;
            };
            if !function.kept.sweep(number) {
                return;
            }
        }
    });
}

/// Which list a thread uses: threads are numbered as they come.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn instances_made_together_do_not_end_together() {
        let reuse = Reuse {
            max_requests: 1_000,
            max_age: Duration::from_secs(80),
        };
        let start = Instant::now();
        let lives: Vec<Life> = (0..100).map(|_| Life::begin(&reuse)).collect();
        for life in &lives {
            assert!((875..=1_000).contains(&life.requests), "{}", life.requests);
            let age = life.end.saturating_duration_since(start);
            assert!(
                age >= Duration::from_secs(70) && age <= Duration::from_secs(81),
                "{age:?}"
            );
        }
        assert!(lives.iter().any(|it| it.requests != lives[0].requests));
        assert!(lives.iter().any(|it| it.end != lives[0].end));
    }

    #[test]
    fn small_counts_are_exact() {
        let reuse = Reuse {
            max_requests: 3,
            max_age: Duration::from_secs(1),
        };
        assert_eq!(Life::begin(&reuse).requests, 3);
    }

    #[test]
    fn kept_instances_have_a_limit_over_all_functions() {
        let total = Total::new(2);
        assert_eq!([(); 3].map(|()| total.enter()), [true, true, false]);
        total.leave(1);
        assert!(total.enter());
        assert!(!total.enter());
    }
}
