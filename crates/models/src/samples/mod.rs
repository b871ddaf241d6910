//! Samples of what a model is asked: some requests, those inputs of them that its manifest names, redacted.
//!
//! Owns: which requests (drawn by chance that no caller can know), what is taken out of them ([`redaction`], and elements
//! that the manifest names), and how much waits here until control fetches it. Only what a caller asked and got an answer
//! to. Nothing of who asked is here.
//!
//! A request waits for none of it: inputs are held, not copied, and looked at on a thread for that once the answer is made.
//! What there is no room for is left out and counted. Where a text becomes tokens, tokens are made anew of what is left of
//! it; tokens that came as such cannot be read here, so none are taken.
//!
//! Must not: let anything out of this process that was not redacted; or write.

pub mod redaction;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::config::{Datatype, Served};
use crate::media::spec::Input;
use crate::media::{Feed, Until};
use crate::runtime::{Data, texts};

/// Bytes of the inputs of a sample; one with more is left out.
const MOST_SAMPLE: usize = 8 << 20;
/// Bytes of texts in a sample; looking through them takes longest.
const MOST_TEXT: usize = 256 << 10;
/// Bytes of all that wait, redacted or not.
const MOST_WAITING: usize = 32 << 20;
/// For the tokens of one, which nobody waits for.
const LONGEST_READING: Duration = Duration::from_secs(10);
/// Samples that wait.
const MOST_SAMPLES: usize = 256;
/// In place of a text that is none, and of one whose place is redacted.
const NO_TEXT: &str = "[bytes]";

/// The part of a `ServedSamples` (`vedette.config.served_samples`) that a worker uses.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    per_million: u64,
    inputs: Vec<String>,
    #[serde(default)]
    redact: Vec<Places>,
}

#[derive(Debug, Clone, Deserialize)]
struct Places {
    input: String,
    places: Vec<usize>,
}

/// An input that is kept.
#[derive(Debug)]
struct Kept {
    /// Among those of the model.
    place: usize,
    name: String,
    /// Of its last dimension.
    redacted: Vec<usize>,
}

/// What of a request is to be redacted.
pub enum Caught {
    /// The inputs that are kept.
    Tensors(Vec<Data>),
    /// A text that becomes all of them.
    Text(Bytes, Arc<Feed>),
}

/// A sample as control fetches it: a request of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The JSON of it, without elements.
    pub json: Bytes,
    /// What follows that.
    pub elements: Vec<Bytes>,
}

impl Sample {
    fn size(&self) -> usize {
        self.json.len() + self.elements.iter().map(Bytes::len).sum::<usize>()
    }
}

#[derive(Default)]
struct Waiting {
    samples: VecDeque<Sample>,
    /// To be redacted, with the bytes of each request.
    caught: VecDeque<(Caught, usize)>,
    /// Of both.
    bytes: usize,
    is_redacting: bool,
    /// Drawn, and not there, since somebody was told.
    left_out: u64,
}

/// Draws samples, and holds them until they are fetched.
pub struct Sampler {
    share: u64,
    kept: Vec<Kept>,
    /// Whether its inputs are made of texts.
    reads_texts: bool,
    /// Its keys are what the kernel drew.
    chance: RandomState,
    seen: AtomicU64,
    waiting: Mutex<Waiting>,
}

impl Sampler {
    /// For a model whose manifest asks for it.
    pub fn of(model: &Served) -> Option<Arc<Self>> {
        let declared = model.samples.as_ref()?;
        let kept = declared.inputs.iter().filter_map(|name| {
            let place = model.inputs.iter().position(|it| it.name == *name)?;
            let redacted = declared.redact.iter().filter(|it| it.input == *name);
            Some(Kept {
                place,
                name: name.clone(),
                redacted: redacted.flat_map(|it| it.places.iter().copied()).collect(),
            })
        });
        Some(Arc::new(Self {
            share: declared.per_million,
            kept: kept.collect(),
            reads_texts: matches!(model.input, Some(Input::Text(_))),
            chance: RandomState::new(),
            seen: AtomicU64::new(0),
            waiting: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked has at most counted wrong.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is one of them.
    pub fn draw(&self) -> bool {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        self.chance.hash_one(number) % 1_000_000 < self.share
    }

    /// What is kept of a request with these inputs, of which `text` was read with `feed` where it came as one; `None`:
    /// nothing can be.
    pub fn caught(&self, inputs: &[Data], text: Option<(Bytes, Arc<Feed>)>) -> Option<Caught> {
        match text {
            Some((text, feed)) => Some(Caught::Text(text, feed)),
            None if self.reads_texts => None,
            None => {
                let of = |it: &Kept| inputs.get(it.place).cloned();
                self.kept
                    .iter()
                    .map(of)
                    .collect::<Option<_>>()
                    .map(Caught::Tensors)
            }
        }
    }

    /// Redacts what was answered, on a thread for it, one after the other. `held`: bytes of the request that this holds.
    pub fn keep(self: &Arc<Self>, caught: Caught, held: usize) {
        let mut waiting = self.lock();
        let has_room = waiting.samples.len() + waiting.caught.len() < MOST_SAMPLES
            && waiting.bytes.saturating_add(held) <= MOST_WAITING;
        if !has_room || !is_small(&caught) {
            waiting.left_out += 1;
            return;
        }
        waiting.bytes += held;
        waiting.caught.push_back((caught, held));
        if !waiting.is_redacting {
            waiting.is_redacting = true;
            let sampler = Arc::clone(self);
            spawn_blocking(move || while sampler.redact() {});
        }
    }

    /// Redacts what has waited longest; whether there was something.
    fn redact(&self) -> bool {
        let next = {
            let mut waiting = self.lock();
            let next = waiting.caught.pop_front();
            waiting.is_redacting = next.is_some();
            next
        };
        let Some((caught, held)) = next else {
            return false;
        };
        // A tokenizer that panics costs this sample and no other.
        let sample = catch_unwind(AssertUnwindSafe(|| self.sample(caught)));
        let mut waiting = self.lock();
        waiting.bytes -= held;
        match sample.ok().flatten() {
            Some(sample) => {
                waiting.bytes += sample.size();
                waiting.samples.push_back(sample);
            }
            None => waiting.left_out += 1,
        }
        true
    }

    /// The next sample, which is then no longer here; and how many were left out since the last one was asked for.
    pub fn fetch(&self) -> (Option<Sample>, u64) {
        let mut waiting = self.lock();
        let sample = waiting.samples.pop_front();
        waiting.bytes -= sample.as_ref().map_or(0, Sample::size);
        (sample, std::mem::take(&mut waiting.left_out))
    }

    fn sample(&self, caught: Caught) -> Option<Sample> {
        let inputs: Vec<Data> = match caught {
            Caught::Tensors(inputs) => inputs,
            Caught::Text(text, feed) => {
                let text = std::str::from_utf8(&text).ok()?;
                let until = Until::new(Instant::now() + LONGEST_READING);
                let text = redaction::redacted(text);
                let fed = feed.read(&until, text.as_bytes()).ok()?.inputs;
                let of = |it: &Kept| fed.get(it.place).cloned();
                self.kept.iter().map(of).collect::<Option<_>>()?
            }
        };
        let (mut heads, mut elements) = (vec![], vec![]);
        for (kept, data) in self.kept.iter().zip(inputs) {
            let bytes = redacted(&data, &kept.redacted);
            heads.push(json!({
                "name": kept.name, "datatype": data.datatype, "shape": data.shape,
                "parameters": {"binary_data_size": bytes.len()},
            }));
            elements.push(bytes);
        }
        let json = json!({"inputs": heads}).to_string().into();
        let sample = Sample { json, elements };
        (sample.size() <= MOST_SAMPLE).then_some(sample)
    }
}

fn is_small(caught: &Caught) -> bool {
    match caught {
        Caught::Text(text, _) => text.len() <= MOST_TEXT,
        Caught::Tensors(inputs) => {
            let size = |it: &Data| it.elements.len();
            let texts = inputs.iter().filter(|it| it.datatype == Datatype::Bytes);
            inputs.iter().map(size).sum::<usize>() <= MOST_SAMPLE
                && texts.map(size).sum::<usize>() <= MOST_TEXT
        }
    }
}

/// The elements of a tensor, without those of these places in its last dimension, and without what texts are not to say.
fn redacted(data: &Data, places: &[usize]) -> Bytes {
    let width = data.shape.last().copied().unwrap_or(1).max(1);
    let width = usize::try_from(width).unwrap_or(1);
    let Some(size) = data.datatype.size() else {
        let mut out = vec![];
        for (at, text) in texts(&data.elements).enumerate() {
            let text = match std::str::from_utf8(text) {
                _ if places.contains(&(at % width)) => "".into(),
                Ok(text) => redaction::redacted(text),
                Err(_) => NO_TEXT.into(),
            };
            // No longer than eight times what it was, which is at most `MOST_TEXT`.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        return out.into();
    };
    // A copy: what is handed on must not hold the request's body.
    let mut out = data.elements.to_vec();
    if !places.is_empty() {
        for row in out.chunks_mut(width.saturating_mul(size).max(1)) {
            for place in places {
                if let Some(element) = row.chunks_exact_mut(size).nth(*place) {
                    element.fill(0);
                }
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests;
