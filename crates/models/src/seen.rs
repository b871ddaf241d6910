//! What a model is asked and what it answers, beside how that was: a column for each input, and one for its score.
//!
//! Owns: which values are looked at (at most [`VALUES`] of a tensor, of a prediction that somebody asked for), when
//! learning ends, and what is told of it. Memory is fixed: [`COLUMNS`] columns, each with a sample while it learns, and
//! with three histograms after. Must not: keep a value that could be read out again once it has learnt; or wait.
//!
//! Predictions are counted, not values: elements of one picture say little of the next one. With 1,000 to learn from and
//! 500 to 1,000 to compare, the index of 32 bins is about 0.06 (at most 0.1) by chance, even where all values of a
//! prediction are one; a shift is told from 0.25.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::batch::half;
use crate::config::{Datatype, Served, Tensor};
use crate::drift::{Kept, Learner, Watch};
use crate::runtime::Data;

/// Columns of a model; further inputs are not watched.
const COLUMNS: usize = 16;
/// Values of a tensor that are looked at.
const VALUES: usize = 16;
/// Elements that are read to find the highest of rows.
const READ: usize = 1024;
/// Predictions to learn from.
const LEARNS: u32 = 1000;
/// Predictions of a window.
const WINDOW: u32 = 500;
/// Predictions after which distances are measured again.
const MEASURES: u32 = 50;
/// The index from which on it is a shift.
const SHIFT: f64 = 0.25;
/// Bytes of what is handed on: 16 columns with 4 × 32 numbers.
pub const MOST_KEPT: usize = 64 << 10;

/// How what comes is, beside what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not known yet how it was.
    Learning,
    /// As it was.
    Steady,
    /// Not so.
    Drifted,
}

impl State {
    const ALL: [Self; 3] = [Self::Learning, Self::Steady, Self::Drifted];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Steady => "steady",
            Self::Drifted => "drifted",
        }
    }
}

/// Which side of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Input,
    Score,
}

enum Known {
    Learning(Learner),
    Learnt(Box<Watch>),
}

struct Column {
    name: String,
    side: Side,
    /// Of the tensor among inputs or outputs.
    place: usize,
    known: Known,
    /// Predictions that it has learnt from, or those of the window.
    runs: u32,
    distance: Option<(f64, f64)>,
}

/// Values that were looked at, and whose they are.
#[derive(Debug, Default)]
pub struct Glimpse {
    values: Vec<f32>,
    /// A column, and where its values end.
    ends: Vec<(usize, usize)>,
}

/// What is told of a column.
#[derive(Debug, Serialize)]
pub struct ColumnReport {
    name: String,
    side: Side,
    state: State,
    runs: u32,
    psi: Option<f64>,
    ks: Option<f64>,
    kept: Option<Kept>,
}

/// What is told; `None` where nothing is watched.
#[derive(Debug, Serialize)]
pub struct Report {
    state: Option<State>,
    columns: Vec<ColumnReport>,
}

/// A column that an earlier process knew; further fields are of the report that it was.
#[derive(Debug, Deserialize)]
struct KeptColumn {
    name: String,
    side: Side,
    runs: u32,
    kept: Option<Kept>,
}

/// What an earlier process knew.
#[derive(Debug, Deserialize)]
pub struct KeptReport {
    columns: Vec<KeptColumn>,
}

/// What a model was asked and has answered. It may be asked from any thread.
pub struct Seen {
    columns: Mutex<Vec<Column>>,
    /// Inputs and output that have a column, by column.
    places: Vec<(Side, usize)>,
    /// Place in [`State::ALL`].
    state: AtomicU8,
    /// Moves on which elements are looked at.
    turn: AtomicUsize,
}

impl Seen {
    /// Nothing has been seen of `model`.
    pub fn of(model: &Served) -> Self {
        let inputs = model.inputs.iter().enumerate();
        let inputs = inputs.filter(|(_, it)| is_number(it.datatype));
        let inputs = inputs.take(COLUMNS - 1);
        let inputs = inputs.map(|(place, it)| Column::new(it, Side::Input, place));
        let score = score(&model.outputs).map(|(place, it)| Column::new(it, Side::Score, place));
        let columns: Vec<_> = inputs.chain(score).collect();
        Self {
            places: columns.iter().map(|it| (it.side, it.place)).collect(),
            columns: Mutex::new(columns),
            state: AtomicU8::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Column>> {
        // Counts are whole whoever panicked.
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is; `None`: nothing is watched.
    pub fn state(&self) -> Option<State> {
        let state = State::ALL.get(usize::from(self.state.load(Ordering::Relaxed)));
        state.copied().filter(|_| !self.places.is_empty())
    }

    /// Looks at what is asked; it counts once it has [`Seen::ran`].
    pub fn glimpse(&self, inputs: &[Data]) -> Glimpse {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut glimpse = Glimpse::default();
        for (column, (side, place)) in self.places.iter().enumerate() {
            if *side == Side::Input
                && let Some(data) = inputs.get(*place)
            {
                look(data, turn, &mut glimpse.values);
                glimpse.ends.push((column, glimpse.values.len()));
            }
        }
        glimpse
    }

    /// Has it count, with what was answered: `outputs`, which have these `places` in the model.
    pub fn ran(&self, mut glimpse: Glimpse, places: &[usize], outputs: &[Data]) {
        let score = self.places.iter().enumerate().next_back();
        if let Some((column, (Side::Score, place))) = score
            && let Some(at) = places.iter().position(|it| it == place)
            && let Some(data) = outputs.get(at)
        {
            look_at_score(data, &mut glimpse.values);
            glimpse.ends.push((column, glimpse.values.len()));
        }
        let mut columns = self.lock();
        let (mut start, mut is_news) = (0, false);
        for (column, end) in glimpse.ends {
            let values = glimpse.values.get(start..end).unwrap_or_default();
            start = end;
            if let Some(column) = columns.get_mut(column) {
                is_news |= column.add(values);
            }
        }
        if is_news {
            self.note(&columns);
        }
    }

    fn note(&self, columns: &[Column]) {
        // An input that nobody sends keeps none of the others waiting.
        let mut asked = columns.iter().filter(|it| it.is_known() || it.runs > 0);
        let state = match columns {
            _ if columns.iter().any(|it| it.state() == State::Drifted) => State::Drifted,
            _ if asked.clone().next().is_some() && asked.all(Column::is_known) => State::Steady,
            _ => State::Learning,
        };
        let place = State::ALL.iter().position(|it| *it == state);
        let place = place.and_then(|it| u8::try_from(it).ok());
        self.state.store(place.unwrap_or(0), Ordering::Relaxed);
    }

    /// All that is known, as of now.
    pub fn report(&self) -> Report {
        let mut columns = self.lock();
        columns.iter_mut().for_each(Column::measure);
        self.note(&columns);
        Report {
            state: self.state(),
            columns: columns.iter().map(Column::report).collect(),
        }
    }

    /// Goes on where an earlier process ended, in columns that have not learnt themselves. What is not of this model, or
    /// is no such thing, is left out.
    pub fn go_on(&self, kept: KeptReport) {
        let mut columns = self.lock();
        for earlier in kept.columns {
            let is_it = |it: &&mut Column| it.name == earlier.name && it.side == earlier.side;
            let found = columns.iter_mut().find(is_it).filter(|it| !it.is_known());
            let watch = earlier.kept.as_ref().and_then(Watch::of);
            if let (Some(column), Some(watch)) = (found, watch) {
                column.known = Known::Learnt(Box::new(watch));
                column.runs = earlier.runs.min(WINDOW);
                column.measure();
            }
        }
        self.note(&columns);
    }
}

impl Column {
    fn new(tensor: &Tensor, side: Side, place: usize) -> Self {
        Self {
            name: tensor.name.clone(),
            side,
            place,
            // A hasher of its own begins with what the kernel drew.
            known: Known::Learning(Learner::new(RandomState::new().build_hasher().finish())),
            runs: 0,
            distance: None,
        }
    }

    fn is_known(&self) -> bool {
        matches!(self.known, Known::Learnt(_))
    }

    fn state(&self) -> State {
        match self.distance {
            _ if !self.is_known() => State::Learning,
            Some((psi, _)) if psi >= SHIFT => State::Drifted,
            _ => State::Steady,
        }
    }

    /// Sees a prediction; whether that is worth a look at the state.
    fn add(&mut self, values: &[f32]) -> bool {
        if values.is_empty() {
            return false;
        }
        self.runs = self.runs.saturating_add(1);
        match &mut self.known {
            Known::Learning(learner) => {
                for value in values {
                    learner.add(*value);
                }
                self.runs >= LEARNS && self.learn()
            }
            Known::Learnt(watch) => {
                for value in values {
                    watch.add(*value);
                }
                if self.runs >= WINDOW {
                    watch.turn();
                    self.runs = 0;
                }
                let is_due = self.runs.is_multiple_of(MEASURES);
                if is_due {
                    self.measure();
                }
                is_due
            }
        }
    }

    /// Ends learning; whether there was something to learn.
    fn learn(&mut self) -> bool {
        self.runs = 0;
        let Known::Learning(learner) = &mut self.known else {
            return false;
        };
        let learnt = std::mem::replace(learner, Learner::new(0)).reference();
        let Some(reference) = learnt else {
            return false;
        };
        self.known = Known::Learnt(Box::new(Watch::new(reference)));
        true
    }

    fn measure(&mut self) {
        if let Known::Learnt(watch) = &self.known {
            self.distance = watch.distance().map(|it| (it.psi, it.ks.min(1.0)));
        }
    }

    fn report(&self) -> ColumnReport {
        ColumnReport {
            name: self.name.clone(),
            side: self.side,
            state: self.state(),
            runs: self.runs,
            psi: self.distance.map(|it| it.0),
            ks: self.distance.map(|it| it.1),
            kept: match &self.known {
                Known::Learning(_) => None,
                Known::Learnt(watch) => Some(watch.keep()),
            },
        }
    }
}

fn is_number(datatype: Datatype) -> bool {
    !matches!(datatype, Datatype::Bytes | Datatype::Bool)
}

fn is_real(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64)
}

/// The output that is watched: the first of real numbers, else the first of numbers.
fn score(outputs: &[Tensor]) -> Option<(usize, &Tensor)> {
    let first = |is_it: fn(Datatype) -> bool| {
        let mut outputs = outputs.iter().enumerate();
        outputs.find(|(_, it)| is_it(it.datatype))
    };
    first(is_real).or_else(|| first(is_number))
}

/// Every n-th element, others each time.
fn look(data: &Data, turn: usize, into: &mut Vec<f32>) {
    let Some(size) = data.datatype.size() else {
        return;
    };
    let count = data.elements.len() / size;
    let step = count.div_ceil(VALUES).max(1);
    let places = (turn % step..count).step_by(step);
    into.extend(places.filter_map(|place| element(data.datatype, &data.elements, place)));
}

/// The highest of each row of scores, as far as rows are that and few elements have to be read for it; else as an input.
fn look_at_score(data: &Data, into: &mut Vec<f32>) {
    let width = match data.shape.as_slice() {
        [_, width] => usize::try_from(*width).unwrap_or(0),
        _ => 0,
    };
    let Some(size) = data.datatype.size().filter(|_| (2..=READ).contains(&width)) else {
        return look(data, 0, into);
    };
    let rows = (READ / width).min(VALUES);
    let rows = data.elements.chunks_exact(width * size).take(rows);
    into.extend(rows.filter_map(|row| highest(data.datatype, row, width)));
}

fn highest(datatype: Datatype, row: &[u8], width: usize) -> Option<f32> {
    if datatype != Datatype::Fp32 {
        let elements = (0..width).filter_map(|place| element(datatype, row, place));
        return elements.reduce(f32::max);
    }
    // Eight at a time: a thousand in a row would wait for one another.
    let (chunks, rest) = row.as_chunks().0.as_chunks::<8>();
    let mut lanes = [f32::NEG_INFINITY; 8];
    for chunk in chunks {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(f32::from_le_bytes(*it));
        }
    }
    let rest = rest.iter().map(|it| f32::from_le_bytes(*it));
    let found = lanes.into_iter().chain(rest);
    Some(found.fold(f32::MIN, f32::max).min(f32::MAX))
}

/// An element as a number, never infinite: that has no form in JSON.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn element(datatype: Datatype, bytes: &[u8], place: usize) -> Option<f32> {
    let bytes = bytes.get(place * datatype.size()?..)?;
    let value = match datatype {
        Datatype::Fp32 => f32::from_le_bytes(*bytes.first_chunk()?),
        Datatype::Fp64 => f64::from_le_bytes(*bytes.first_chunk()?) as f32,
        Datatype::Fp16 => half(u16::from_le_bytes(*bytes.first_chunk()?)) as f32,
        Datatype::Uint8 => f32::from(*bytes.first()?),
        Datatype::Int8 => f32::from(i8::from_le_bytes(*bytes.first_chunk()?)),
        Datatype::Uint16 => f32::from(u16::from_le_bytes(*bytes.first_chunk()?)),
        Datatype::Int16 => f32::from(i16::from_le_bytes(*bytes.first_chunk()?)),
        Datatype::Uint32 => u32::from_le_bytes(*bytes.first_chunk()?) as f32,
        Datatype::Int32 => i32::from_le_bytes(*bytes.first_chunk()?) as f32,
        Datatype::Uint64 => u64::from_le_bytes(*bytes.first_chunk()?) as f32,
        Datatype::Int64 => i64::from_le_bytes(*bytes.first_chunk()?) as f32,
        Datatype::Bool | Datatype::Bytes => return None,
    };
    Some(value.clamp(f32::MIN, f32::MAX))
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
