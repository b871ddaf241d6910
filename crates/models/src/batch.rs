//! Requests that run together: who, and how their rows become one input and their answers several.
//!
//! Owns: that no row goes astray. Rows are whole in an input and whole in an output, in the order of the requests, whatever
//! their type; requests of several tenants, or that ask for other outputs, are never in one run. Only what already waits
//! is taken, none waits for it; and none is made to miss its deadline: neither those that run together, nor those that
//! they pass by.
//!
//! Must not: run anything.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::Datatype;
use crate::oip::elements;
use crate::pool::Terms;
use crate::queue::{Ask, Order, Outcome, State, key};
use crate::runtime::{Data, texts};

/// How far into the queue is looked for others.
const LOOKED_AT: usize = 64;
/// Rows of nobody's in a trial, made of the first one's.
const STRANGERS: i64 = 2;

/// What runs in one turn.
pub(crate) struct Together {
    pub(crate) orders: Vec<Order>,
    pub(crate) outcomes: Vec<Option<oneshot::Sender<Outcome>>>,
    /// What it is predicted to take.
    pub(crate) takes: Duration,
    pub(crate) is_trial: bool,
}

impl State {
    /// The first of the queue, which was taken out and is predicted to take `takes`, and those that run with it.
    pub(crate) fn together(
        &mut self,
        terms: &Terms,
        (first, outcome): (Order, oneshot::Sender<Outcome>),
        takes: Duration,
        now: Instant,
    ) -> Together {
        let mut found = Together {
            orders: vec![first],
            outcomes: vec![Some(outcome)],
            takes,
            is_trial: false,
        };
        // Sessions that are idle are about to take what waits.
        let most = terms.batch.min(1 + self.waiting.len() / self.idle().max(1));
        if most > 1 {
            self.add_others(terms, &mut found, most, now);
        }
        found
    }

    fn add_others(&mut self, terms: &Terms, found: &mut Together, most: usize, now: Instant) {
        let Some(first) = found.orders.first() else {
            return;
        };
        let Some(mut rows) = rows(&first.ask.inputs).filter(|_| first.ask.tenant.is_some()) else {
            return;
        };
        let rest = key(&first.ask.inputs, Some(0));
        let most_rows = self.paces.most_rows(rest, rows);
        let is_trial = !self.paces.is_proved(rest);
        let mut alone = found.takes;
        // When all that runs together must be over, for those in it and those that are passed by.
        let mut until = first.ask.deadline;
        let mut at = 0;
        while at < self.waiting.len().min(LOOKED_AT) && found.orders.len() < most {
            let Some(job) = self.waiting.get(at) else {
                break;
            };
            let ask = &job.order.ask;
            let added = fitting_rows(&found.orders, ask).filter(|it| rows + it <= most_rows);
            let others = alone + self.estimates.of(job.order.key);
            let joined = added.map(|it| key(&ask.inputs, i64::try_from(rows + it).ok()));
            let takes = match joined.and_then(|it| self.estimates.known(it)) {
                Some(known) if !is_trial => known,
                // Each alone as well, and rows of nobody's.
                _ if is_trial => others * 3,
                _ => others,
            };
            let is_in_time = |it: Option<Instant>| it.is_none_or(|until| now + takes <= until);
            let may = is_in_time(until) && is_in_time(ask.deadline) && takes <= terms.run_time / 2;
            match added.filter(|_| may && !job.outcome.is_closed()) {
                None => {
                    let latest = ask.deadline.and_then(|it| it.checked_sub(job.predicted));
                    until = earlier(until, latest);
                    at += 1;
                }
                Some(added) => {
                    until = earlier(until, ask.deadline);
                    let Some(job) = self.waiting.remove(at) else {
                        break;
                    };
                    rows += added;
                    alone = others;
                    found.takes = takes;
                    found.is_trial = is_trial;
                    found.orders.push(job.order);
                    found.outcomes.push(Some(job.outcome));
                }
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Rows of a request: the first dimension of all that goes in; `None`: there is none, or not one.
pub(crate) fn rows(inputs: &[Data]) -> Option<usize> {
    let first = *inputs.first()?.shape.first()?;
    let is_one = inputs.iter().all(|it| it.shape.first() == Some(&first));
    usize::try_from(first).ok().filter(|it| *it > 0 && is_one)
}

/// Rows of a request that may run with `others`: of the same tenant, as critical, for the same outputs, all but the rows
/// alike.
fn fitting_rows(others: &[Order], ask: &Ask) -> Option<usize> {
    let first = &others.first()?.ask;
    let is_like = |(one, other): (&Data, &Data)| {
        one.datatype == other.datatype && one.shape.get(1..) == other.shape.get(1..)
    };
    let fits = ask.tenant.is_some()
        && ask.tenant == first.tenant
        && ask.criticality == first.criticality
        && ask.outputs == first.outputs
        && ask.inputs.len() == first.inputs.len()
        && ask.inputs.iter().zip(&first.inputs).all(is_like);
    rows(&ask.inputs).filter(|_| fits)
}

/// Several requests as one.
pub(crate) struct Joined {
    pub(crate) inputs: Vec<Data>,
    /// Of each request, in their order; of nobody, last, in a trial.
    pub(crate) rows: Vec<usize>,
}

/// Joins requests that fit; `None`: they do not, or there is no memory for it. In a trial there are rows of nobody's, too:
/// even where all requests are alike, a model that looks across rows then gives them something else.
pub(crate) fn join(asks: &[&Ask], is_trial: bool) -> Option<Joined> {
    let own: Vec<usize> = asks
        .iter()
        .map(|it| rows(&it.inputs))
        .collect::<Option<_>>()?;
    let more = if is_trial { STRANGERS } else { 0 };
    let total = i64::try_from(own.iter().sum::<usize>()).ok()? + more;
    let count = asks.first()?.inputs.len();
    let inputs = (0..count).map(|place| {
        let parts = asks.iter().map(|it| it.inputs.get(place));
        let parts = parts.collect::<Option<Vec<_>>>()?;
        join_one(&parts, total, more)
    });
    let inputs = inputs.collect::<Option<Vec<_>>>()?;
    let mut rows = own;
    if more > 0 {
        rows.push(usize::try_from(more).ok()?);
    }
    Some(Joined { inputs, rows })
}

fn join_one(parts: &[&Data], total: i64, strangers: i64) -> Option<Data> {
    let first = parts.first()?;
    let mut shape = first.shape.clone();
    *shape.first_mut()? = total;
    let strangers = (1..=strangers).map(|it| stranger(first, usize::try_from(it).ok()?));
    let strangers = strangers.collect::<Option<Vec<_>>>()?;
    let own = parts.iter().map(|it| it.elements.as_ref());
    let pieces = own.chain(strangers.iter().map(Vec::as_slice));
    let mut elements = Vec::new();
    let length = pieces.clone().map(<[u8]>::len).sum();
    elements.try_reserve_exact(length).ok()?;
    pieces.for_each(|it| elements.extend_from_slice(it));
    Some(Data {
        datatype: first.datatype,
        shape,
        elements: elements.into(),
    })
}

/// A row that is nobody's, but like one: the first one with its elements in another order, so that each is one that the
/// model takes; real numbers are also stretched and turned about.
fn stranger(data: &Data, number: usize) -> Option<Vec<u8>> {
    let mut ends = ends(data, &[1])?;
    let row = data.elements.get(..ends.pop()?)?;
    let Some(size) = data.datatype.size() else {
        let mut row: Vec<&[u8]> = texts(row).collect();
        let by = number.checked_rem(row.len()).unwrap_or(0);
        row.rotate_left(by);
        let text = |it: &&[u8]| {
            let length = u32::try_from(it.len()).unwrap_or(0).to_le_bytes();
            length
                .into_iter()
                .chain(it.iter().copied())
                .collect::<Vec<_>>()
        };
        return Some(row.iter().flat_map(text).collect());
    };
    let mut row = row.to_vec();
    let by = (number * size).checked_rem(row.len()).unwrap_or(0);
    row.rotate_left(by);
    #[allow(clippy::cast_precision_loss)]
    let factor = if number == 1 { -2.0 } else { 3.0 };
    match data.datatype {
        Datatype::Fp32 => row.as_chunks_mut().0.iter_mut().for_each(|it| {
            *it = (f32::from_le_bytes(*it) * factor).to_le_bytes();
        }),
        Datatype::Fp64 => row.as_chunks_mut().0.iter_mut().for_each(|it| {
            *it = (f64::from_le_bytes(*it) * f64::from(factor)).to_le_bytes();
        }),
        // The sign is the highest bit of the second byte.
        Datatype::Fp16 if number == 1 => {
            row.as_chunks_mut()
                .0
                .iter_mut()
                .for_each(|it: &mut [u8; 2]| {
                    it[1] ^= 0x80;
                });
        }
        _ => {}
    }
    Some(row)
}

/// Where the elements of the first, the first two, … parts of `rows` end; `None`: they are not there.
fn ends(data: &Data, rows: &[usize]) -> Option<Vec<usize>> {
    let of_row = elements::count(data.shape.get(1..)?)?;
    if let Some(size) = data.datatype.size() {
        let mut end = 0_usize;
        return rows
            .iter()
            .map(|rows| {
                end = end.checked_add(rows.checked_mul(of_row)?.checked_mul(size)?)?;
                Some(end).filter(|it| *it <= data.elements.len())
            })
            .collect();
    }
    let mut texts = texts(&data.elements);
    let mut end = 0;
    rows.iter()
        .map(|rows| {
            for _ in 0..rows.checked_mul(of_row)? {
                end += 4 + texts.next()?.len();
            }
            Some(end)
        })
        .collect()
}

/// Parts what came of a run into what belongs to each of `rows`; what is beyond the last is nobody's. `None`: an output has
/// not as many rows as went in.
pub(crate) fn split(outputs: Vec<Data>, rows: &[usize]) -> Option<Vec<Vec<Data>>> {
    let total = i64::try_from(rows.iter().sum::<usize>()).ok()?;
    let mut parts: Vec<Vec<Data>> = rows.iter().map(|_| vec![]).collect();
    for output in outputs {
        if output.shape.first() != Some(&total) {
            return None;
        }
        let mut start = 0;
        let ends = ends(&output, rows)?;
        if ends.last() != Some(&output.elements.len()) {
            return None;
        }
        for ((part, rows), end) in parts.iter_mut().zip(rows).zip(ends) {
            let mut shape = output.shape.clone();
            *shape.first_mut()? = i64::try_from(*rows).ok()?;
            let elements: Bytes = output.elements.slice(start..end);
            start = end;
            part.push(Data {
                datatype: output.datatype,
                shape,
                elements,
            });
        }
    }
    Some(parts)
}

/// Whether both are the same answer: bit for bit, and real numbers within what the order of a sum may change: a part of
/// the largest one of the tensor (1e-4 in FP32, 1e-10 in FP64, 1e-2 in FP16). A product of matrices adds up in another
/// order when it has other rows.
pub(crate) fn is_same(some: &[Data], others: &[Data]) -> bool {
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| {
            one.datatype == other.datatype
                && one.shape == other.shape
                && has_same_elements(one, other)
        })
}

fn has_same_elements(one: &Data, other: &Data) -> bool {
    let tolerance = match one.datatype {
        _ if one.elements == other.elements => return true,
        Datatype::Fp32 => 1e-4,
        Datatype::Fp64 => 1e-10,
        Datatype::Fp16 => 1e-2,
        _ => return false,
    };
    let (some, others) = (numbers(one), numbers(other));
    let finite = others.iter().filter(|it| it.is_finite());
    let largest = finite.fold(0.0_f64, |largest, it| largest.max(it.abs()));
    some.len() == others.len()
        && some.iter().zip(&others).all(|(one, other)| {
            let are_no_numbers = one.is_nan() && other.is_nan();
            #[allow(clippy::float_cmp)] // infinities
            let is_equal = one == other || are_no_numbers;
            is_equal || (one - other).abs() <= largest * tolerance
        })
}

/// Real numbers of a tensor.
fn numbers(data: &Data) -> Vec<f64> {
    let bytes = &data.elements;
    match data.datatype {
        Datatype::Fp32 => {
            let elements = bytes.as_chunks().0.iter();
            elements
                .map(|it| f64::from(f32::from_le_bytes(*it)))
                .collect()
        }
        Datatype::Fp64 => {
            let elements = bytes.as_chunks().0.iter();
            elements.map(|it| f64::from_le_bytes(*it)).collect()
        }
        Datatype::Fp16 => {
            let elements = bytes.as_chunks().0.iter();
            elements.map(|it| half(u16::from_le_bytes(*it))).collect()
        }
        _ => vec![],
    }
}

/// IEEE 754 binary16.
pub(crate) fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
