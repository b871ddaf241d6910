//! How the outputs of a model are read: the parts of `vedette.config.served_media` that a worker uses.

use serde::Deserialize;

use crate::config::{Datatype, Tensor};

/// What is read of the outputs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum Output {
    /// The highest scores with their names.
    Labels(Labels),
    /// One vector for each input.
    Embedding(Embedding),
    /// What was found in a picture, and where.
    Boxes(Boxes),
}

/// The highest scores with their names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Labels {
    /// The output with a score for each class.
    pub tensor: String,
    /// Names of the classes; none: a file, or their numbers.
    pub names: Vec<String>,
    /// Whether scores are made to sum to 1 first.
    pub softmax: bool,
    /// How many.
    pub top: usize,
}

/// One vector for each input.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Embedding {
    /// The output that it is made of.
    pub tensor: String,
    /// How.
    pub pool: Pool,
    /// The input that says which tokens count.
    pub mask: Option<String>,
    /// Whether its length is made 1.
    pub normalize: bool,
}

/// How the vectors of tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Their mean.
    Mean,
    /// The first.
    Cls,
    /// There is one already.
    None,
}

/// What was found in a picture.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Boxes {
    /// How the outputs say it.
    pub decode: Decode,
    /// Names of the classes; none: a file, or their numbers.
    pub names: Vec<String>,
    /// The least score that counts.
    pub score: f32,
    /// Of two boxes of a class that overlap more than this the lower goes.
    pub overlap: f32,
    /// How many.
    pub top: usize,
}

/// How outputs say boxes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum Decode {
    /// A row for each.
    Rows(Rows),
    /// Cells of grids.
    Grid(Grid),
}

/// Each row is a box and its scores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "models differ in each")]
pub struct Rows {
    /// The output.
    pub tensor: String,
    /// Whether rows are columns.
    pub transposed: bool,
    /// What the first four numbers are.
    pub coordinates: Coordinates,
    /// Whether 1 is a whole side.
    pub relative: bool,
    /// Whether the fifth number is how sure it is of anything.
    pub objectness: bool,
    /// Whether scores still are to be put between 0 and 1.
    pub sigmoid: bool,
}

/// What four numbers say of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coordinates {
    /// Its middle and its sides.
    Cxcywh,
    /// Two corners.
    Xyxy,
}

/// Cells of grids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Grid {
    /// The grids.
    pub heads: Vec<Head>,
    /// Whether scores still are to be put between 0 and 1.
    pub sigmoid: bool,
}

/// A grid of cells over the picture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// Pixels from one cell to the next.
    pub stride: u32,
    /// The output with scores.
    pub scores: String,
    /// The output with distances.
    pub distances: String,
}

impl Output {
    /// What it adds to a model's outputs; 0: any.
    pub fn tensors(&self) -> Vec<Tensor> {
        let tensor = |name: &str, datatype, shape: &[u64]| Tensor {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        match self {
            Self::Labels(_) => vec![
                tensor("label", Datatype::Bytes, &[0, 0]),
                tensor("score", Datatype::Fp32, &[0, 0]),
            ],
            Self::Embedding(_) => vec![tensor("embedding", Datatype::Fp32, &[0, 0])],
            Self::Boxes(_) => vec![
                tensor("box", Datatype::Fp32, &[0, 4]),
                tensor("label", Datatype::Bytes, &[0]),
                tensor("score", Datatype::Fp32, &[0]),
            ],
        }
    }

    /// The outputs of the file that it is made of.
    pub fn sources(&self) -> Vec<&str> {
        match self {
            Self::Labels(labels) => vec![&labels.tensor],
            Self::Embedding(embedding) => vec![&embedding.tensor],
            Self::Boxes(boxes) => match &boxes.decode {
                Decode::Rows(rows) => vec![&rows.tensor],
                Decode::Grid(grid) => {
                    let heads = grid.heads.iter();
                    heads
                        .flat_map(|it| [it.scores.as_str(), it.distances.as_str()])
                        .collect()
                }
            },
        }
    }
}
