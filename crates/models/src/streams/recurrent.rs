//! A model that remembers: each event is a run of a session, with what the run before gave.
//!
//! Owns: what a run takes (the event with what of the one before goes in before it, what is remembered, what is always the
//! same), and what of it is kept. Runs wait in the model's own queue, behind and before requests; of all streams together
//! no more than two for each session are there at once, and streams take turns: neither one stream among others nor all of
//! them can fill it. A run that gave nothing changes nothing: the stream goes on from the event before.
//!
//! Must not: keep memory of the runtime. An output may lie within that of an input, and so on back to the first event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use half::f16;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::config::{Datatype, Served, Tensor};
use crate::error::Error;
use crate::oip::Refusal;
use crate::oip::elements;
use crate::pool::Pool;
use crate::queue::{Ask, Criticality};
use crate::runtime::Data;

/// How long a run waits before it asks for a place in a full queue again.
const AGAIN: Duration = Duration::from_millis(5);

/// How a model answers a stream (`vedette.config.served_stream`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Declared {
    /// The input that an event becomes.
    tensor: String,
    /// Its dimensions, with `context`.
    shape: Vec<i64>,
    /// Elements of the event before that go in before its own.
    #[serde(default)]
    context: usize,
    state: Vec<Remembered>,
    #[serde(default)]
    constants: Vec<Constant>,
    /// The output with the score.
    score: String,
    /// Which of its elements; none: the greatest.
    #[serde(default)]
    place: Option<usize>,
    #[serde(default)]
    threshold: Option<f64>,
}

/// What a run gives the next.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Remembered {
    input: String,
    output: String,
    shape: Vec<i64>,
}

/// An input that is always the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Constant {
    input: String,
    value: f64,
}

/// What all streams share.
pub struct Recurrent {
    pool: Arc<Pool>,
    /// Runs of streams that are in the pool's queue, or run.
    turns: Semaphore,
    /// How long a run waits for a place in the queue.
    patience: Duration,
    event: Event,
    inputs: Vec<Source>,
    /// Places of outputs: the score, and what is remembered.
    outputs: Vec<usize>,
    /// What a stream begins with.
    first: Vec<Data>,
    place: Option<usize>,
    threshold: Option<f64>,
}

/// What an event is.
pub struct Event {
    /// Its key in an object.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Elements of its own.
    pub count: usize,
    /// Bytes of those of the event before.
    context: usize,
    shape: Vec<i64>,
}

/// What an input takes.
enum Source {
    Event,
    Remembered(usize),
    Constant(Data),
}

/// What one stream has seen.
pub struct State {
    /// Events so far.
    pub n: u64,
    remembered: Vec<Data>,
    context: Bytes,
}

fn unfit(what: impl std::fmt::Display) -> Error {
    Error::new("config_invalid", format_args!("stream: {what}"))
}

fn zeros(datatype: Datatype, shape: &[i64]) -> Result<Data, Error> {
    let size = datatype.size().ok_or_else(|| unfit("texts are no state"))?;
    let bytes = elements::count(shape).and_then(|it| it.checked_mul(size));
    let bytes = bytes.ok_or_else(|| unfit("a tensor is larger than memory"))?;
    Ok(Data {
        datatype,
        shape: shape.into(),
        elements: vec![0; bytes].into(),
    })
}

/// `value` as each element of an input; a dimension that may be any is 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `config` has looked
fn constant(tensor: &Tensor, value: f64) -> Result<Data, Error> {
    let shape: Vec<i64> = tensor
        .shape
        .iter()
        .map(|it| i64::try_from(*it).unwrap_or(i64::MAX).max(1))
        .collect();
    let mut data = zeros(tensor.datatype, &shape)?;
    let one: &[u8] = match tensor.datatype {
        Datatype::Uint8 => &(value as u8).to_le_bytes(),
        Datatype::Uint16 => &(value as u16).to_le_bytes(),
        Datatype::Uint32 => &(value as u32).to_le_bytes(),
        Datatype::Uint64 => &(value as u64).to_le_bytes(),
        Datatype::Int8 => &(value as i8).to_le_bytes(),
        Datatype::Int16 => &(value as i16).to_le_bytes(),
        Datatype::Int32 => &(value as i32).to_le_bytes(),
        Datatype::Int64 => &(value as i64).to_le_bytes(),
        Datatype::Fp32 => &(value as f32).to_le_bytes(),
        Datatype::Fp64 => &value.to_le_bytes(),
        Datatype::Bool | Datatype::Fp16 | Datatype::Bytes => {
            return Err(unfit("a constant is a number"));
        }
    };
    let count = data.elements.len() / one.len();
    data.elements = one.repeat(count).into();
    Ok(data)
}

fn place_of(tensors: &[Tensor], name: &str) -> Result<usize, Error> {
    let found = tensors.iter().position(|it| it.name == name);
    found.ok_or_else(|| unfit(format_args!("the model has no {name:?}")))
}

impl Recurrent {
    /// Of a model that was registered with how it answers a stream, and of its sessions.
    ///
    /// # Errors
    /// `config_invalid`: that does not fit its tensors.
    pub fn new(model: &Served, declared: &Declared, pool: Arc<Pool>) -> Result<Self, Error> {
        let source = |tensor: &Tensor| {
            if tensor.name == declared.tensor {
                return Ok(Source::Event);
            }
            let is_it = |it: &Remembered| it.input == tensor.name;
            if let Some(at) = declared.state.iter().position(is_it) {
                return Ok(Source::Remembered(at));
            }
            let mut constants = declared.constants.iter();
            let said = constants.find(|it| it.input == tensor.name);
            let said = said.ok_or_else(|| unfit(format_args!("{:?} has none", tensor.name)))?;
            constant(tensor, said.value).map(Source::Constant)
        };
        let first = |it: &Remembered| {
            let tensor = model.inputs.get(place_of(&model.inputs, &it.input)?);
            let tensor = tensor.ok_or_else(|| unfit("an input is missing"))?;
            zeros(tensor.datatype, &it.shape)
        };
        let names = declared.state.iter().map(|it| it.output.as_str());
        let names = std::iter::once(declared.score.as_str()).chain(names);
        let queued = model.sessions + model.limits.queue / 2;
        Ok(Self {
            pool,
            turns: Semaphore::new(queued.min(2 * model.sessions).max(1)),
            patience: model.limits.run_time(),
            event: Event::new(model, declared)?,
            inputs: model.inputs.iter().map(source).collect::<Result<_, _>>()?,
            outputs: names
                .map(|it| place_of(&model.outputs, it))
                .collect::<Result<_, _>>()?,
            first: declared.state.iter().map(first).collect::<Result<_, _>>()?,
            place: declared.place,
            threshold: declared.threshold,
        })
    }

    /// What an event is.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Bytes that a stream takes.
    pub fn stream_bytes(&self) -> u64 {
        let each = |it: &Data| size_of::<Data>() + size_of_val(&*it.shape) + it.elements.len();
        let all: usize = self.first.iter().map(each).sum();
        (all + self.event.context + size_of::<State>()) as u64
    }

    /// A stream that begins.
    pub fn begin(&self) -> State {
        State {
            n: 0,
            remembered: self.first.clone(),
            context: vec![0; self.event.context].into(),
        }
    }

    /// Takes an event, whose elements these are. Its score, and whether that is as much as the threshold.
    ///
    /// # Errors
    /// What the model or its queue said; `state` is as it was.
    pub async fn observe(&self, state: &mut State, event: &[u8]) -> Result<(f64, bool), Refusal> {
        let mut whole = BytesMut::with_capacity(state.context.len() + event.len());
        whole.extend_from_slice(&state.context);
        whole.extend_from_slice(event);
        let whole = whole.freeze();
        let input = |source: &Source| match source {
            Source::Event => Some(Data {
                datatype: self.event.datatype,
                shape: self.event.shape.clone(),
                elements: whole.clone(),
            }),
            Source::Remembered(at) => state.remembered.get(*at).cloned(),
            Source::Constant(data) => Some(data.clone()),
        };
        let inputs: Vec<_> = self.inputs.iter().filter_map(input).collect();
        let outputs = self.run(&inputs).await?;
        let (score, rest) = outputs
            .split_first()
            .ok_or_else(|| odd("it gave no score"))?;
        let score = self.score(score)?;
        state.remembered = self.remembered(rest)?;
        let context = whole.len().saturating_sub(self.event.context);
        state.context = Bytes::copy_from_slice(whole.get(context..).unwrap_or_default());
        Ok((score, self.threshold.is_some_and(|it| score >= it)))
    }

    /// A run, when it is this stream's turn.
    async fn run(&self, inputs: &[Data]) -> Result<Vec<Data>, Refusal> {
        let gone = || Refusal::new(500, "the run ended without an answer");
        let _turn = self.turns.acquire().await.map_err(|_| gone())?;
        let asked = Instant::now();
        let mut waiting = loop {
            let ask = Ask {
                inputs: inputs.into(),
                outputs: self.outputs.clone(),
                deadline: None,
                // Alone: what a stream remembers is not to depend on who else is there.
                tenant: None,
                criticality: Criticality::Standard,
            };
            match self.pool.submit(ask) {
                Ok(waiting) => break waiting,
                Err(refusal) if refusal.status == 503 && asked.elapsed() < self.patience => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(refusal) => return Err(refusal),
            }
        };
        let ran = waiting.outcome().await.ok_or_else(gone)??;
        Ok(ran.outputs)
    }

    fn score(&self, data: &Data) -> Result<f64, Refusal> {
        let mut scores = numbers(data.datatype, &data.elements);
        let score = match self.place {
            Some(place) => scores.nth(place),
            None => scores.reduce(|one, other| match one.is_nan() || one > other {
                true => one,
                false => other,
            }),
        };
        let score = score.ok_or_else(|| odd("its score has no such element"))?;
        match score.is_finite() {
            true => Ok(score),
            false => Err(odd("its score is no finite number")),
        }
    }

    /// What the next run takes of this one, copied.
    fn remembered(&self, outputs: &[Data]) -> Result<Vec<Data>, Refusal> {
        if outputs.len() != self.first.len() {
            return Err(odd("it gave less than it has to remember"));
        }
        let each = |(found, wanted): (&Data, &Data)| {
            if found.datatype != wanted.datatype || found.shape != wanted.shape {
                return Err(odd(format_args!(
                    "what it remembers has the shape {:?}, and takes {:?}",
                    found.shape, wanted.shape
                )));
            }
            if numbers(found.datatype, &found.elements).any(f64::is_nan) {
                return Err(odd("what it remembers is no number any more"));
            }
            Ok(Data {
                elements: Bytes::copy_from_slice(&found.elements),
                ..found.clone()
            })
        };
        outputs.iter().zip(&self.first).map(each).collect()
    }
}

fn odd(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(500, format_args!("the model failed at this event: {what}"))
}

impl Event {
    fn new(model: &Served, declared: &Declared) -> Result<Self, Error> {
        let tensor = model
            .inputs
            .get(place_of(&model.inputs, &declared.tensor)?)
            .ok_or_else(|| unfit("an input is missing"))?;
        let size = tensor.datatype.size().ok_or_else(|| unfit("a text"))?;
        let whole = elements::count(&declared.shape);
        let count = whole.and_then(|it| it.checked_sub(declared.context));
        let count = count.filter(|it| *it > 0 && it.saturating_mul(size) <= super::event::MAX_LINE);
        Ok(Self {
            name: tensor.name.clone(),
            datatype: tensor.datatype,
            count: count.ok_or_else(|| unfit("an event has no size that it can have"))?,
            context: declared.context.saturating_mul(size),
            shape: declared.shape.clone(),
        })
    }

    /// One without a model.
    #[cfg(any(test, fuzzing))]
    pub fn plain(name: &str, datatype: Datatype, count: usize) -> Self {
        Self {
            name: name.into(),
            datatype,
            count,
            context: 0,
            shape: vec![],
        }
    }

    /// The elements in a message as they came.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn require(&self, bytes: &[u8]) -> Result<(), String> {
        let size = self.datatype.size().unwrap_or(1);
        if bytes.len() != self.count.saturating_mul(size) {
            return Err(format!("{}, {} bytes", self.said(), self.count * size));
        }
        match numbers(self.datatype, bytes).all(f64::is_finite) {
            true => Ok(()),
            false => Err("an event has finite numbers only".into()),
        }
    }

    /// Such as `an event has 512 elements of FP32`.
    pub fn said(&self) -> String {
        let (count, datatype) = (self.count, self.datatype.as_str());
        format!("an event has {count} elements of {datatype}")
    }
}

/// Elements that may be no number, as numbers; none of other types, which are always.
fn numbers(datatype: Datatype, bytes: &[u8]) -> Box<dyn Iterator<Item = f64> + '_> {
    match datatype {
        Datatype::Fp16 => {
            let all = bytes.as_chunks().0.iter();
            Box::new(all.map(|it| f16::from_le_bytes(*it).to_f64()))
        }
        Datatype::Fp32 => {
            let all = bytes.as_chunks().0.iter();
            Box::new(all.map(|it| f64::from(f32::from_le_bytes(*it))))
        }
        Datatype::Fp64 => {
            let all = bytes.as_chunks().0.iter();
            Box::new(all.map(|it| f64::from_le_bytes(*it)))
        }
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
#[path = "recurrent_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::float_cmp)]
// sums of small whole numbers
mod tests;
