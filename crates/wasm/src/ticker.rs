//! Advances the epoch while guests run; parks while none does, so that an idle node sleeps.
//!
//! One OS thread for all engines, never a task: a guest that loops would starve a task on its own
//! thread (wado #1146), and a ticker per request costs orders of magnitude (wasmtime #11817).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a guest runs before it must let others on its thread run.
const TICK: Duration = Duration::from_millis(2);
/// How many quiet ticks pass before the ticker parks.
const LINGER: u32 = 100;

/// Wakes the ticker when guests start to run.
pub(crate) struct Ticker {
    started: AtomicU64,
    parked: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    /// The engine that was made later, when there is one.
    second: std::sync::OnceLock<wasmtime::Engine>,
}

impl Ticker {
    /// Starts the ticker's thread for `engine`. It lives as long as the process.
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            started: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
            second: std::sync::OnceLock::new(),
        });
        let own = Arc::clone(&ticker);
        let handle = thread::Builder::new()
            .name("epoch".into())
            .spawn(move || own.run(&engine))?;
        let _ = ticker.thread.set(handle.thread().clone());
        Ok(ticker)
    }

    /// Advances the epoch of `engine` as well.
    pub(crate) fn add(&self, engine: wasmtime::Engine) {
        let _ = self.second.set(engine);
    }

    /// Says that a guest is about to run, or goes on running after a yield.
    pub(crate) fn guest_runs(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
        // SeqCst pairs with `run`: either we see it parked, or it sees our count.
        if self.parked.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self, engine: &wasmtime::Engine) {
        let mut seen = 0;
        let mut quiet = 0;
        loop {
            thread::sleep(TICK);
            engine.increment_epoch();
            if let Some(second) = self.second.get() {
                second.increment_epoch();
            }
            let started = self.started.load(Ordering::SeqCst);
            quiet = if started == seen { quiet + 1 } else { 0 };
            seen = started;
            if quiet >= LINGER {
                self.park_until_after(seen);
                quiet = 0;
            }
        }
    }

    fn park_until_after(&self, seen: u64) {
        self.parked.store(true, Ordering::SeqCst);
        while self.started.load(Ordering::SeqCst) == seen {
            // A missed wake costs at most this long of a guest's fairness, never its limits.
            thread::park_timeout(Duration::from_millis(50));
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}
