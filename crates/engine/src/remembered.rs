//! Remembered: answers of a model that are given again to the same request.
//!
//! Owns: what the same request is, how long and how many are kept. Must not: know who may ask, which was decided before;
//! remember what came of elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};

use crate::snapshot::{ResultCache, ResultCacheScope, ServedModel};
use crate::stages::predict::INFERENCE_HEADER;

/// SHA-256 of all that an answer depends on.
pub type Key = [u8; 32];

/// Fields of a request that change its answer.
const ASKED: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, INFERENCE_HEADER, ACCEPT];
/// Fields of an answer that say how to read it.
const SAID: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_LENGTH, INFERENCE_HEADER];
/// What an answer costs besides its body: its places in both tables, its fields.
const OVERHEAD: usize = 512;
/// One answer is no more than so much of the memory for all.
const SHARE: usize = 8;
const LARGEST: usize = 1 << 20;

/// What one route remembers, for all workers; the lock is held for a look into a table.
pub struct Remembered {
    declared: ResultCache,
    /// What answers are of: name, version, file, and how it is run.
    model: ServedModel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// By when they were used, the one unused longest first.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    whole: Whole,
    kept: Instant,
    used: u64,
}

/// An answer: its body and how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// How to read it.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl Whole {
    /// The answer with these fields and this body.
    pub fn new(headers: &HeaderMap, body: Bytes) -> Self {
        let known = SAID.into_iter().filter_map(|name| {
            let value = headers.get(&name)?.clone();
            Some((name, value))
        });
        Self {
            headers: known.collect(),
            body,
        }
    }

    fn size(&self) -> usize {
        self.body.len().saturating_add(OVERHEAD)
    }
}

impl Remembered {
    /// What a route remembers of this model. Of `previous` it stays if both are as they were: answers of another version
    /// or file are forgotten with it.
    pub fn of(
        declared: Option<&ResultCache>,
        model: &ServedModel,
        previous: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let declared = declared?;
        let same = previous.filter(|it| it.declared == *declared && it.model == *model);
        Some(match same {
            Some(same) => Arc::clone(same),
            None => Arc::new(Self {
                declared: declared.clone(),
                model: model.clone(),
                state: Mutex::default(),
            }),
        })
    }

    /// Under which key a request is known: the model's file and version, who asks where that counts, which version was
    /// asked for, and what came.
    pub fn key(
        &self,
        principal: Option<&str>,
        below: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Key {
        let mut context = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            // With its length before it: no two lists of parts are one text.
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        part(self.model.blob.as_bytes());
        part(&self.model.version.to_le_bytes());
        match (self.declared.scope, principal) {
            (ResultCacheScope::Route, _) => part(b"route"),
            (ResultCacheScope::Caller, None) => part(b"nobody"),
            (ResultCacheScope::Caller, Some(principal)) => {
                part(b"caller");
                part(principal.as_bytes());
            }
        }
        part(below.as_bytes());
        for name in ASKED {
            match headers.get(&name) {
                None => part(b""),
                Some(value) => {
                    part(b"is");
                    part(value.as_bytes());
                }
            }
        }
        part(body);
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// What is remembered under a key, and for how long it has been.
    pub fn find(&self, key: &Key, now: Instant) -> Option<(Whole, Duration)> {
        let mut state = self.state();
        let age = now.saturating_duration_since(state.entries.get(key)?.kept);
        if age >= Duration::from_millis(self.declared.ttl_millis) {
            state.forget(key);
            return None;
        }
        Some((state.touch(key)?, age))
    }

    /// Whether an answer with these fields may be one that is remembered: its length is known, and not too large.
    pub fn takes(&self, headers: &HeaderMap) -> bool {
        let declared = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
        let declared = declared.and_then(|it| it.parse::<usize>().ok());
        declared.is_some_and(|length| length <= self.largest())
    }

    /// The largest body that is remembered.
    pub fn largest(&self) -> usize {
        self.most_bytes()
            .checked_div(SHARE)
            .unwrap_or(0)
            .min(LARGEST)
    }

    /// Remembers an answer; those unused longest make room.
    pub fn keep(&self, key: Key, whole: Whole, now: Instant) {
        let most = usize::try_from(self.declared.entries).unwrap_or(usize::MAX);
        let size = whole.size();
        let mut state = self.state();
        state.forget(&key);
        while state.entries.len() >= most || state.bytes.saturating_add(size) > self.most_bytes() {
            let Some((_, oldest)) = state.order.first_key_value() else {
                return;
            };
            let oldest = *oldest;
            state.forget(&oldest);
        }
        state.uses += 1;
        let used = state.uses;
        state.order.insert(used, key);
        state.bytes += size;
        let entry = Entry {
            whole,
            kept: now,
            used,
        };
        state.entries.insert(key, entry);
    }

    fn most_bytes(&self) -> usize {
        usize::try_from(self.declared.bytes).unwrap_or(usize::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes = self.bytes.saturating_sub(entry.whole.size());
        }
    }

    /// What is there, as used now.
    fn touch(&mut self, key: &Key) -> Option<Whole> {
        self.uses += 1;
        let used = self.uses;
        let entry = self.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.used, used);
        let whole = entry.whole.clone();
        self.order.remove(&before);
        self.order.insert(used, *key);
        Some(whole)
    }
}

#[cfg(test)]
#[path = "remembered_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
