//! What was found in a picture, and where.
//!
//! Owns: the two ways in which models say boxes, the choice among those that overlap (greedy non-maximum suppression, by
//! class), and the way back to the picture's own pixels. Must not: compare more boxes than [`MOST_CANDIDATES`].

use super::labels::softmax;
use super::names::Names;
use super::spec::{Boxes, Coordinates, Decode, Grid, Head, Rows};
use super::{floats, numbers, odd, side, texts};
use crate::media::Frame;
use crate::oip::Refusal;
use crate::runtime::Data;

/// Boxes that are compared with each other, the highest.
const MOST_CANDIDATES: usize = 4096;

/// A box in pixels of the tensor: x1, y1, x2, y2.
#[derive(Debug, Clone, Copy)]
struct Found {
    corners: [f32; 4],
    class: usize,
    score: f32,
}

/// `box` [n, 4], `label` [n] and `score` [n], highest first.
pub fn read(
    spec: &Boxes,
    names: &Names,
    given: &[Data],
    frame: Option<Frame>,
) -> Result<Vec<Data>, Refusal> {
    if given.iter().any(|it| side(it, 0) > 1 && it.shape.len() > 2) {
        return Err(Refusal::bad("boxes are read of one picture at a time"));
    }
    let frame = frame.ok_or_else(|| odd("nothing says how large the picture is"))?;
    // Both are pixels of the tensor, of which a side is at most 4096.
    #[allow(clippy::cast_precision_loss)]
    let (width, height) = (frame.tensor.0 as f32, frame.tensor.1 as f32);
    let found = match (&spec.decode, given) {
        (Decode::Rows(rows), [data]) => of_rows(rows, data, spec.score, (width, height))?,
        (Decode::Grid(grid), given) => of_grid(grid, given, spec.score, (width, height))?,
        _ => return Err(odd("there are none")),
    };
    let found = chosen(found, spec);
    let shape = [found.len()];
    let corners = found.iter().flat_map(|it| {
        let [x1, y1, x2, y2] = it.corners;
        let (left, top) = frame.back(x1.into(), y1.into());
        let (right, bottom) = frame.back(x2.into(), y2.into());
        #[allow(clippy::cast_possible_truncation)] // pixels of a picture
        [left, top, right, bottom].map(|it| it as f32)
    });
    let labels: Vec<_> = found.iter().map(|it| names.of(it.class)).collect();
    Ok(vec![
        floats(&[found.len(), 4], corners),
        texts(&shape, labels.iter().map(|it| &**it)),
        floats(&shape, found.iter().map(|it| it.score)),
    ])
}

fn sigmoid(score: f32, is_wanted: bool) -> f32 {
    match is_wanted {
        true => 1.0 / (1.0 + (-score).exp()),
        false => score,
    }
}

fn of_rows(
    spec: &Rows,
    data: &Data,
    least: f32,
    (width, height): (f32, f32),
) -> Result<Vec<Found>, Refusal> {
    let rank = data.shape.len();
    let (rows, columns) = match rank {
        2 => (side(data, 0), side(data, 1)),
        3 => (side(data, 1), side(data, 2)),
        _ => return Err(odd(format_args!("they have {rank} dimensions"))),
    };
    let (rows, columns, row_step, column_step) = match spec.transposed {
        false => (rows, columns, columns, 1),
        true => (columns, rows, 1, columns),
    };
    let before = 4 + usize::from(spec.objectness);
    if columns <= before {
        return Err(odd(format_args!("a box has {columns} numbers")));
    }
    let all = numbers(data)?;
    let at = |row: usize, column: usize| {
        let number = all.get(row * row_step + column * column_step);
        number.copied().unwrap_or(f32::NAN)
    };
    let (across, down) = match spec.relative {
        true => (width, height),
        false => (1.0, 1.0),
    };
    let mut found = vec![];
    for row in 0..rows {
        let sure = match spec.objectness {
            true => sigmoid(at(row, 4), spec.sigmoid),
            false => 1.0,
        };
        let scores = (before..columns).map(|column| at(row, column));
        let best = scores.enumerate().filter(|it| !it.1.is_nan());
        let Some((class, score)) =
            best.max_by(|left, right| left.1.total_cmp(&right.1).then(right.0.cmp(&left.0)))
        else {
            continue;
        };
        let score = sigmoid(score, spec.sigmoid) * sure;
        if score > least {
            let [a, b, c, d] = [0, 1, 2, 3].map(|column| at(row, column));
            let [a, b, c, d] = [a * across, b * down, c * across, d * down];
            let corners = match spec.coordinates {
                Coordinates::Xyxy => [a, b, c, d],
                Coordinates::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
            };
            found.push(Found {
                corners,
                class,
                score,
            });
        }
    }
    Ok(found)
}

fn of_grid(
    spec: &Grid,
    given: &[Data],
    least: f32,
    sides: (f32, f32),
) -> Result<Vec<Found>, Refusal> {
    let mut found = vec![];
    for (head, pair) in spec.heads.iter().zip(given.chunks_exact(2)) {
        if let [scores, distances] = pair {
            of_head(
                head,
                spec.sigmoid,
                (scores, distances),
                (least, sides),
                &mut found,
            )?;
        }
    }
    Ok(found)
}

/// The distances are those of Generalized Focal Loss: what is expected of a distribution over 0, 1, … steps.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cells and strides of a tensor, of which a side is at most 4096"
)]
fn of_head(
    head: &Head,
    is_raw: bool,
    (scores, distances): (&Data, &Data),
    (least, (width, height)): (f32, (f32, f32)),
    found: &mut Vec<Found>,
) -> Result<(), Refusal> {
    let stride = head.stride.max(1) as f32;
    let (across, down) = (
        (width / stride).ceil() as usize,
        (height / stride).ceil() as usize,
    );
    let (cells, classes) = (side(scores, 1), side(scores, 2));
    let numbers_of_cell = side(distances, 2);
    let (steps, rest) = (numbers_of_cell / 4, numbers_of_cell % 4);
    if cells != across * down
        || side(distances, 1) != cells
        || steps == 0
        || rest != 0
        || classes == 0
    {
        return Err(odd(format_args!(
            "a grid of {across} x {down} cells does not have {cells} scores and {numbers_of_cell} numbers for each"
        )));
    }
    let (scores, distances) = (numbers(scores)?, numbers(distances)?);
    let rows = scores
        .chunks_exact(classes)
        .zip(distances.chunks_exact(4 * steps));
    for (cell, (scores, distances)) in rows.enumerate() {
        let scores = scores.iter().map(|it| sigmoid(*it, is_raw)).enumerate();
        let mut scores = scores.filter(|it| it.1 > least).peekable();
        if scores.peek().is_none() {
            continue;
        }
        let mut to = distances.chunks_exact(steps).map(|it| {
            let likely = softmax(it).into_iter().enumerate();
            likely.map(|(step, share)| step as f32 * share).sum::<f32>() * stride
        });
        let mut next = || to.next().unwrap_or(0.0);
        let (left, top, right, bottom) = (next(), next(), next(), next());
        let x = ((cell % across) as f32 + 0.5) * stride;
        let y = ((cell / across) as f32 + 0.5) * stride;
        let corners = [x - left, y - top, x + right, y + bottom];
        found.extend(scores.map(|(class, score)| Found {
            corners,
            class,
            score,
        }));
    }
    Ok(())
}

/// The highest, without those that overlap a higher one of their class.
fn chosen(mut found: Vec<Found>, spec: &Boxes) -> Vec<Found> {
    found.retain(|it| it.corners.iter().all(|corner| corner.is_finite()));
    found.sort_by(|left, right| right.score.total_cmp(&left.score));
    found.truncate(MOST_CANDIDATES);
    let mut kept: Vec<Found> = vec![];
    for it in found {
        if kept.len() >= spec.top {
            break;
        }
        let mut same = kept.iter().filter(|other| other.class == it.class);
        if !same.any(|other| overlap(&other.corners, &it.corners) > spec.overlap) {
            kept.push(it);
        }
    }
    kept
}

/// Intersection over union.
fn overlap(left: &[f32; 4], right: &[f32; 4]) -> f32 {
    let area = |it: &[f32; 4]| (it[2] - it[0]).max(0.0) * (it[3] - it[1]).max(0.0);
    let both = [
        left[0].max(right[0]),
        left[1].max(right[1]),
        left[2].min(right[2]),
        left[3].min(right[3]),
    ];
    let shared = area(&both);
    shared / (area(left) + area(right) - shared).max(f32::MIN_POSITIVE)
}
