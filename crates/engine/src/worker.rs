//! What each worker thread has for itself: its spool, its counters, what it remembers.
//!
//! A runtime per core means that none of this needs a lock on the path. The tables are bounded and
//! belong to one plan: another plan empties them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vedette_waf::Workbench;

use crate::caller::Caller;
use crate::clock;
use crate::metrics::Shard;
use crate::policy::Decision;
use crate::record::Record;
use crate::refusal::Cause;
use crate::spool::Spool;
use crate::waf::{Known, collections};

/// The most tokens remembered by one worker.
const MAX_TOKENS: usize = 16 * 1024;
/// The most client certificates remembered by one worker.
const MAX_CERTIFICATES: usize = 4 * 1024;
/// The most decisions remembered by one worker.
const MAX_DECISIONS: usize = 32 * 1024;
/// The most rule sets that one worker has what it takes for at hand.
const MAX_WORKBENCHES: usize = 4;
/// The longest key of a decision that is remembered, in bytes.
const MAX_DECISION_KEY: usize = 256;

/// SHA-256 of a proof: the token itself is not kept.
pub type ProofDigest = [u8; 32];

/// Callers by what proved them, `MOST` of them at most.
#[derive(Default)]
pub struct Callers<const MOST: usize>(HashMap<ProofDigest, Arc<Caller>>);

impl<const MOST: usize> Callers<MOST> {
    /// The caller whose proof has this digest, while the proof lives.
    pub fn find(&mut self, digest: &ProofDigest) -> Option<Arc<Caller>> {
        let caller = self.0.get(digest)?;
        if caller.expires_at > clock::onward_seconds() {
            return Some(Arc::clone(caller));
        }
        self.0.remove(digest);
        None
    }

    /// Remembers who proved themselves with the proof of this digest.
    pub fn remember(&mut self, digest: ProofDigest, caller: &Arc<Caller>) {
        if self.0.len() >= MOST {
            let now = clock::onward_seconds();
            self.0.retain(|_, caller| caller.expires_at > now);
        }
        if self.0.len() >= MOST {
            // All alive: forget them all, which costs one verification each.
            self.0.clear();
        }
        self.0.insert(digest, Arc::clone(caller));
    }
}

/// State of one worker thread.
pub struct Worker {
    spool: Spool,
    line: Vec<u8>,
    shard: Arc<Shard>,
    memory: Memory,
    /// Connections that were turned away, as far as they are recorded.
    told: Sampled,
    /// By the address of the rule set that each is for, oldest first.
    workbenches: Vec<(usize, Workbench)>,
}

/// At most so many of something in a second: a flood must not fill the disk with records.
#[derive(Default)]
struct Sampled {
    second: u64,
    taken: u32,
}

impl Sampled {
    const MOST: u32 = 10;

    fn has_room(&mut self) -> bool {
        let second = clock::unix_seconds();
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= Self::MOST
    }
}

/// What was found out under one plan.
#[derive(Default)]
pub struct Memory {
    plan: u64,
    /// By the SHA-256 of the token.
    pub tokens: Callers<MAX_TOKENS>,
    /// By the SHA-256 of the chain.
    pub certificates: Callers<MAX_CERTIFICATES>,
    decisions: HashMap<Box<[u8]>, Decision>,
    /// Requests in which nothing was found.
    pub known: Known,
    /// Where the key of a decision is put together.
    pub key: Vec<u8>,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Makes this thread a worker.
pub fn install(spool: Spool, shard: Arc<Shard>) {
    let worker = Worker {
        spool,
        line: Vec::with_capacity(2048),
        shard,
        memory: Memory::default(),
        told: Sampled::default(),
        workbenches: Vec::new(),
    };
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
}

/// Stops this thread being a worker; its spool is closed.
pub fn uninstall() {
    WORKER.with(|slot| slot.borrow_mut().take());
}

/// Hands this thread's worker to `work`; `None` on a thread that is no worker.
pub fn with<T>(work: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    WORKER
        .try_with(|slot| slot.try_borrow_mut().ok()?.as_mut().map(work))
        .ok()
        .flatten()
}

impl Worker {
    /// Whether one more request can be recorded.
    pub fn has_room(&mut self) -> bool {
        self.spool.has_room()
    }

    /// Keeps the record that `write` puts down.
    pub fn keep(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.line.clear();
        write(&mut self.line);
        self.spool.append(&self.line);
        self.shard.set_records_dropped(self.spool.dropped());
    }

    /// Counts a request that has ended.
    pub fn count(&self, record: &Record, total: Duration) {
        self.shard.count(record, total);
    }

    /// Has `work` done with what this worker judges with by the rule set at this address. A workbench
    /// fits itself to another set that came to be there.
    pub fn judge<T>(&mut self, set: usize, work: impl FnOnce(&mut Workbench) -> T) -> T {
        let mut benches = self.workbenches.iter_mut();
        if let Some((_, bench)) = benches.find(|(of, _)| *of == set) {
            return work(bench);
        }
        if self.workbenches.len() >= MAX_WORKBENCHES {
            self.workbenches.remove(0);
        }
        let mut bench = Workbench::default().with_store(collections());
        let done = work(&mut bench);
        self.workbenches.push((set, bench));
        done
    }

    /// Counts a connection that was closed before its first request; whether it is to be recorded.
    pub fn turned_away(&mut self, cause: Cause) -> bool {
        self.shard.count_turned_away(cause);
        self.told.has_room()
    }

    /// Counts a call of a function to a version of a model, with how long it waited and ran.
    pub fn count_prediction(&self, model: (&str, u64), queue_micros: u64, run_micros: u64) {
        self.shard.count_prediction(model, queue_micros, run_micros);
    }

    /// Counts a pass that was given for the work of a challenge.
    pub fn count_pass(&self) {
        self.shard.count_pass();
    }

    /// What this worker remembers of the plan with this serial number.
    pub fn memory(&mut self, plan: u64) -> &mut Memory {
        if self.memory.plan != plan {
            self.memory = Memory {
                plan,
                key: std::mem::take(&mut self.memory.key),
                ..Memory::default()
            };
        }
        &mut self.memory
    }
}

impl Memory {
    /// The decision remembered under [`Memory::key`], or the one that `decide` makes.
    pub fn decision(&mut self, decide: impl FnOnce() -> Decision) -> Decision {
        if let Some(decision) = self.decisions.get(self.key.as_slice())
            && !decision.is_over()
        {
            return decision.clone();
        }
        let decision = decide();
        if self.key.len() <= MAX_DECISION_KEY {
            if self.decisions.len() >= MAX_DECISIONS {
                self.decisions.clear();
            }
            self.decisions
                .insert(self.key.as_slice().into(), decision.clone());
        }
        decision
    }
}
