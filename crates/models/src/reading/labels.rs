//! The highest scores with their names.

use super::names::Names;
use super::spec::Labels;
use super::{floats, numbers, odd, side, texts};
use crate::oip::Refusal;
use crate::runtime::Data;

/// `label` and `score`, each [n, k], of scores [n, classes] or [n, classes, 1, …]; of one dimension: n is 1.
pub fn read(spec: &Labels, names: &Names, given: &[Data]) -> Result<Vec<Data>, Refusal> {
    let [data] = given else {
        return Err(odd("there are none"));
    };
    let scores = numbers(data)?;
    let rows = match data.shape.len() {
        0 | 1 => 1,
        _ => side(data, 0),
    };
    let classes = scores.len().checked_div(rows).unwrap_or(0);
    let most = spec.top.min(classes);
    let (mut labels, mut highest) = (vec![], vec![]);
    if classes > 0 {
        for row in scores.chunks_exact(classes).take(rows) {
            let row = match spec.softmax {
                true => softmax(row),
                false => row.to_vec(),
            };
            for (class, score) in top(&row, most) {
                labels.push(names.of(class));
                highest.push(score);
            }
        }
    }
    let shape = [rows, most];
    Ok(vec![
        texts(&shape, labels.iter().map(|it| &**it)),
        floats(&shape, highest.into_iter()),
    ])
}

/// Scores that sum to 1.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|it| (it - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|it| it / sum).collect()
}

/// The highest scores with their places, highest first; of equal ones the first. NaN is below all.
fn top(scores: &[f32], most: usize) -> Vec<(usize, f32)> {
    let key = |score: f32| match score.is_nan() {
        true => f32::NEG_INFINITY,
        false => score,
    };
    let mut places: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let order = |left: &(usize, f32), right: &(usize, f32)| {
        key(right.1)
            .total_cmp(&key(left.1))
            .then(left.0.cmp(&right.0))
    };
    if most > 0 && most < places.len() {
        places.select_nth_unstable_by(most - 1, order);
        places.truncate(most);
    }
    places.sort_unstable_by(order);
    places
}
