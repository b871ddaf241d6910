//! What a model's outputs mean: names with scores, boxes in a picture, a vector.
//!
//! Owns: further outputs that are made of those of the file. They are asked for by name as any other, and told in the
//! metadata. Must not: know how a request came, or run a model.

mod boxes;
mod embedding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod labels;
mod names;
pub mod spec;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use half::f16;

use crate::config::{Datatype, Served};
use crate::error::Error;
use crate::media::Frame;
use crate::oip::Refusal;
use crate::runtime::Data;

use names::Names;
use spec::Output;

/// Reads outputs.
pub struct Reader {
    spec: Output,
    names: Names,
    /// Places of what it is made of, in the file's outputs.
    pub sources: Vec<usize>,
    /// Place of the input that says which tokens count.
    pub mask: Option<usize>,
}

/// What of a request the outputs are read by.
pub struct Context {
    /// Where the picture lies in the tensor.
    pub frame: Option<Frame>,
    /// Which tokens count.
    pub mask: Option<Data>,
}

impl Reader {
    /// For a model; `names`: the file with them.
    ///
    /// # Errors
    /// `model_mismatch`: it has no such output. `names_invalid`.
    pub fn new(served: &Served, names: Option<&[u8]>) -> Result<Option<Self>, Error> {
        let Some(spec) = served.output.clone() else {
            return Ok(None);
        };
        let place = |name: &str| served.outputs.iter().position(|it| it.name == name);
        let sources: Option<Vec<_>> = spec.sources().into_iter().map(place).collect();
        let Some(sources) = sources else {
            let message = "an output that is to be read is not there";
            return Err(Error::new("model_mismatch", message));
        };
        let mask = match &spec {
            Output::Embedding(it) => it.mask.as_ref(),
            _ => None,
        };
        let mask = mask.and_then(|name| served.inputs.iter().position(|it| it.name == *name));
        let listed = match &spec {
            Output::Labels(it) => it.names.clone(),
            Output::Boxes(it) => it.names.clone(),
            Output::Embedding(_) => vec![],
        };
        Ok(Some(Self {
            names: Names::new(listed, names)?,
            sources,
            mask,
            spec,
        }))
    }

    /// Reads what a run gave (as [`Self::sources`]), in the order of [`Output::tensors`].
    ///
    /// # Errors
    /// 400: more than one picture. 500: the outputs are not as they were said to be.
    pub fn read(&self, given: &[Data], context: &Context) -> Result<Vec<Data>, Refusal> {
        match &self.spec {
            Output::Labels(spec) => labels::read(spec, &self.names, given),
            Output::Embedding(spec) => embedding::read(spec, given, context.mask.as_ref()),
            Output::Boxes(spec) => boxes::read(spec, &self.names, given, context.frame),
        }
    }
}

/// The model gave something else than it said.
fn odd(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        500,
        format_args!("the model's outputs cannot be read: {what}"),
    )
}

/// The elements as numbers.
#[allow(clippy::cast_possible_truncation, reason = "what is read is FP32")]
fn numbers(data: &Data) -> Result<Vec<f32>, Refusal> {
    let bytes = &data.elements;
    match data.datatype {
        Datatype::Fp32 => Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|it| f32::from_le_bytes(*it))
            .collect()),
        Datatype::Fp16 => {
            let halves = bytes.as_chunks().0.iter().map(|it| f16::from_le_bytes(*it));
            Ok(halves.map(f16::to_f32).collect())
        }
        Datatype::Fp64 => {
            let doubles = bytes.as_chunks().0.iter().map(|it| f64::from_le_bytes(*it));
            Ok(doubles.map(|it| it as f32).collect())
        }
        other => Err(odd(format_args!("they are {}", other.as_str()))),
    }
}

/// A dimension.
fn side(data: &Data, place: usize) -> usize {
    let size = data.shape.get(place).copied().unwrap_or(1);
    usize::try_from(size).unwrap_or(0)
}

fn floats(shape: &[usize], numbers: impl Iterator<Item = f32>) -> Data {
    Data {
        datatype: Datatype::Fp32,
        shape: signed(shape),
        elements: Bytes::from(numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()),
    }
}

fn texts<'a>(shape: &[usize], texts: impl Iterator<Item = &'a str>) -> Data {
    let mut elements = vec![];
    for text in texts {
        let length = u32::try_from(text.len()).unwrap_or(0);
        elements.extend_from_slice(&length.to_le_bytes());
        elements.extend_from_slice(text.as_bytes());
    }
    Data {
        datatype: Datatype::Bytes,
        shape: signed(shape),
        elements: Bytes::from(elements),
    }
}

fn signed(shape: &[usize]) -> Vec<i64> {
    shape
        .iter()
        .map(|it| i64::try_from(*it).unwrap_or(i64::MAX))
        .collect()
}
