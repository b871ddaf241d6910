//! One vector for each input.

use super::spec::{Embedding, Pool};
use super::{floats, numbers, odd, side};
use crate::config::Datatype;
use crate::oip::Refusal;
use crate::runtime::Data;

/// `embedding` [n, d] of [n, tokens, d] or [n, d]; `mask`: [n, tokens], 0 for what does not count. As
/// sentence-transformers' `Pooling` and `Normalize`.
pub fn read(spec: &Embedding, given: &[Data], mask: Option<&Data>) -> Result<Vec<Data>, Refusal> {
    let [data] = given else {
        return Err(odd("there are none"));
    };
    let rank = data.shape.len();
    let (rows, width) = (side(data, 0), side(data, rank.saturating_sub(1)));
    let tokens = match (spec.pool, rank) {
        (Pool::None, 2) => 1,
        (Pool::Mean | Pool::Cls, 3) => side(data, 1),
        _ => return Err(odd(format_args!("they have {rank} dimensions"))),
    };
    let all = numbers(data)?;
    let counts = counts(spec, mask, rows, tokens)?;
    let mut vectors = Vec::with_capacity(rows.saturating_mul(width));
    if width > 0 && tokens > 0 {
        for (row, counts) in all
            .chunks_exact(tokens * width)
            .zip(counts.chunks_exact(tokens))
        {
            let mut vector = pooled(row, counts, width);
            if spec.normalize {
                normalize(&mut vector);
            }
            vectors.append(&mut vector);
        }
    }
    if vectors.len() != rows.saturating_mul(width) {
        return Err(odd("there are no tokens"));
    }
    Ok(vec![floats(&[rows, width], vectors.into_iter())])
}

/// How much each token counts, row after row.
fn counts(
    spec: &Embedding,
    mask: Option<&Data>,
    rows: usize,
    tokens: usize,
) -> Result<Vec<bool>, Refusal> {
    let count = rows.saturating_mul(tokens);
    let Some(mask) = mask.filter(|_| spec.pool == Pool::Mean) else {
        let is_first =
            |place: usize| spec.pool == Pool::Mean || place.is_multiple_of(tokens.max(1));
        return Ok((0..count).map(is_first).collect());
    };
    let counts: Vec<bool> = match mask.datatype.size() {
        Some(size) if mask.datatype != Datatype::Fp32 => {
            let elements = mask.elements.chunks_exact(size);
            elements
                .map(|it| it.iter().any(|byte| *byte != 0))
                .collect()
        }
        _ => vec![],
    };
    match counts.len() == count {
        true => Ok(counts),
        false => Err(odd("the mask has another shape")),
    }
}

/// The mean of the vectors that count.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "means of FP32"
)]
fn pooled(row: &[f32], counts: &[bool], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f64; width];
    for (vector, _) in row.chunks_exact(width).zip(counts).filter(|it| *it.1) {
        for (total, number) in sum.iter_mut().zip(vector) {
            *total += f64::from(*number);
        }
    }
    let seen = counts.iter().filter(|it| **it).count().max(1) as f64;
    sum.into_iter().map(|it| (it / seen) as f32).collect()
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "parts of a vector of length 1"
)]
fn normalize(vector: &mut [f32]) {
    let squares: f64 = vector
        .iter()
        .map(|it| f64::from(*it) * f64::from(*it))
        .sum();
    let length = squares.sqrt().max(1e-12);
    for number in vector {
        *number = (f64::from(*number) / length) as f32;
    }
}
