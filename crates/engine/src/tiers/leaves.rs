//! What of a request leaves the node, and what of an answer is believed.
//!
//! Owns: both messages, written anew: nothing is in them that this file did not put there. Must not: send one.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NoWord;
use serde_json::json;

use super::elements::{self, Found};
use super::message::{Answer, Data, Question, Tensor};
use crate::snapshot::{self, ServedModel, ServedModelOutput, TensorDatatype};

/// A body of the protocol, and how much of it is JSON where tensors follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// All of it.
    pub body: Bytes,
    /// `Inference-Header-Content-Length`.
    pub json_length: Option<usize>,
}

/// Why a request does not leave: it holds an input that nobody knows, or lacks one that was to leave.
pub const INPUTS_DIFFER: &str = "inputs_differ";
/// Why an answer is not believed.
pub const INVALID: &str = "tier_invalid";

/// The request that a tier gets: of the inputs those that may leave, and which outputs are asked for.
///
/// # Errors
/// [`INPUTS_DIFFER`].
pub fn request(
    tier: &snapshot::Tier,
    model: &ServedModel,
    question: &Question<'_>,
) -> Result<Message, &'static str> {
    if let Some(medium) = question.medium {
        return match tier.all_inputs {
            true => Ok(medium_request(question, medium)),
            false => Err(INPUTS_DIFFER),
        };
    }
    let is_known = |it: &&Tensor<'_>| model.inputs.iter().any(|known| known.name == it.name);
    let mut names = HashSet::new();
    let is_once = question.inputs.iter().all(|it| names.insert(&it.name));
    let are_there = tier.inputs.iter().all(|name| names.contains(name));
    if !is_once || !are_there || !question.inputs.iter().all(|it| is_known(&it)) {
        return Err(INPUTS_DIFFER);
    }
    let mut out = Writer::default();
    let inputs = question.inputs.iter().filter(|it| may_leave(tier, it));
    out.tensors("inputs", inputs).ok_or(INPUTS_DIFFER)?;
    out.wanted(question);
    Ok(out.finish())
}

/// The same for a picture, a sound or a text.
fn medium_request(question: &Question<'_>, medium: &[u8]) -> Message {
    let mut out = Writer::default();
    out.wanted(question);
    if out.json.is_empty() {
        return Message {
            body: Bytes::copy_from_slice(medium),
            json_length: None,
        };
    }
    out.binary.extend_from_slice(medium);
    out.has_binary = true;
    out.finish()
}

/// The answer that the caller gets of what a tier said: outputs that `model` declares and that were asked for, with
/// as many rows as were asked, and elements that are ones and finite.
///
/// # Errors
/// [`INVALID`].
pub fn answer(
    tier: &snapshot::Tier,
    model: &ServedModel,
    question: &Question<'_>,
    said: &Answer<'_>,
) -> Result<Message, &'static str> {
    let read = read_outputs(model);
    let wanted: HashSet<&str> = match question.outputs.as_slice() {
        [] if question.medium.is_some() && !read.is_empty() => {
            read.iter().map(|(name, ..)| *name).collect()
        }
        [] => model.outputs.iter().map(|it| it.name.as_str()).collect(),
        named => named.iter().map(|it| it.name.as_str()).collect(),
    };
    let given: HashSet<&str> = said.outputs.iter().map(|it| it.name.as_str()).collect();
    let is_once = given.len() == said.outputs.len();
    let rows = rows_asked(tier, model, question);
    let is_believed = |it: &Tensor<'_>| fits(model, question, it) && has_rows(model, rows, it);
    if said.model != tier.model
        || given != wanted
        || !is_once
        || !said.outputs.iter().all(is_believed)
    {
        return Err(INVALID);
    }
    let mut out = Writer::default();
    out.member("model_name", &json!(model.name).to_string());
    if let Some(version) = &said.version {
        out.member("model_version", &json!(version).to_string());
    }
    if let Some(id) = &question.id {
        out.member("id", &json!(id).to_string());
    }
    out.tensors("outputs", said.outputs.iter()).ok_or(INVALID)?;
    Ok(out.finish())
}

/// Whether an output is as the model declares it, and comes as it was asked for.
fn fits(model: &ServedModel, question: &Question<'_>, output: &Tensor<'_>) -> bool {
    let Some((declared, shape)) = declared(model, &output.name) else {
        return false;
    };
    let is_unasked = matches!(output.data, Data::Binary(_)) && !question.wants_binary(&output.name);
    if datatype(&output.datatype) != Some(declared) || !agrees(shape, &output.shape) || is_unasked {
        return false;
    }
    elements_of(declared, output).is_some_and(|it| it.is_finite)
}

/// Whether dimensions are the declared ones; 0: any.
pub fn agrees(declared: &[u64], given: &[u64]) -> bool {
    let mut dimensions = declared.iter().zip(given);
    declared.len() == given.len()
        && dimensions.all(|(wanted, given)| *wanted == 0 || wanted == given)
}

/// The elements of a tensor, where they are of this datatype and as many as its shape says.
pub fn elements_of(datatype: TensorDatatype, tensor: &Tensor<'_>) -> Option<Found> {
    let mut size = tensor.shape.iter();
    let size = size.try_fold(1u64, |all, one| all.checked_mul(*one));
    let found = elements::read(datatype, tensor.data)?;
    (Some(found.count) == size).then_some(found)
}

/// How many rows an answer has to have: as many as all inputs that leave have, where the first dimension of the model's
/// inputs and outputs is free, so that it counts what is asked together. None: there is no such number.
fn rows_asked(tier: &snapshot::Tier, model: &ServedModel, question: &Question<'_>) -> Option<u64> {
    let is_free = |it: &snapshot::Tensor| it.shape.first() == Some(&0);
    let leave = question.inputs.iter().filter(|it| may_leave(tier, it));
    let mut rows = leave.map(|it| {
        let declared = model.inputs.iter().find(|known| known.name == it.name)?;
        is_free(declared).then_some(*it.shape.first()?)
    });
    let first = rows.next()??;
    let is_same = rows.all(|it| it == Some(first)) && model.outputs.iter().all(is_free);
    is_same.then_some(first)
}

/// Whether an output of the model has as many rows as were asked for.
fn has_rows(model: &ServedModel, rows: Option<u64>, output: &Tensor<'_>) -> bool {
    let is_of_file = model.outputs.iter().any(|it| it.name == output.name);
    rows.is_none_or(|rows| !is_of_file || output.shape.first() == Some(&rows))
}

fn may_leave(tier: &snapshot::Tier, input: &Tensor<'_>) -> bool {
    tier.all_inputs || tier.inputs.contains(&input.name)
}

/// Datatype and dimensions of an output of the file, or of what is read of them; 0: any.
fn declared<'m>(model: &'m ServedModel, name: &str) -> Option<(TensorDatatype, &'m [u64])> {
    if let Some(own) = model.outputs.iter().find(|it| it.name == name) {
        return Some((own.datatype, own.shape.as_slice()));
    }
    let read = read_outputs(model).iter().find(|it| it.0 == name)?;
    Some((read.1, read.2))
}

/// What is read of a model's outputs, as its process names it.
fn read_outputs(model: &ServedModel) -> &'static [(&'static str, TensorDatatype, &'static [u64])] {
    use TensorDatatype::{Bytes, FP32};
    match &model.output {
        None => &[],
        Some(ServedModelOutput::Labels(_)) => {
            &[("label", Bytes, &[0, 0]), ("score", FP32, &[0, 0])]
        }
        Some(ServedModelOutput::Embedding(_)) => &[("embedding", FP32, &[0, 0])],
        Some(ServedModelOutput::Boxes(_)) => &[
            ("box", FP32, &[0, 4]),
            ("label", Bytes, &[0]),
            ("score", FP32, &[0]),
        ],
    }
}

/// The greatest element of an output; none: there is no such output of numbers. One without elements, or with none but
/// what is no number, is as unsure as can be.
pub fn greatest(answer: &Answer<'_>, output: &str) -> Option<f64> {
    let output = answer.outputs.iter().find(|it| it.name == output)?;
    let datatype = datatype(&output.datatype).filter(|it| *it != TensorDatatype::Bytes)?;
    let found = elements::read(datatype, output.data)?;
    Some(found.greatest.unwrap_or(f64::NEG_INFINITY))
}

/// A datatype by its word in the protocol.
pub fn datatype(word: &str) -> Option<TensorDatatype> {
    let word: serde::de::value::StrDeserializer<'_, NoWord> = word.into_deserializer();
    TensorDatatype::deserialize(word).ok()
}

/// A message in the making.
#[derive(Default)]
struct Writer {
    json: String,
    binary: Vec<u8>,
    has_binary: bool,
}

impl Writer {
    /// Adds a member whose value is JSON already.
    fn member(&mut self, name: &str, value: &str) {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        self.json.push('"');
        self.json.push_str(name);
        self.json.push_str("\":");
        self.json.push_str(value);
    }

    /// Adds which outputs are asked for, and whether as bytes.
    fn wanted(&mut self, question: &Question<'_>) {
        let outputs = question.outputs.iter().map(|it| match it.is_binary {
            None => json!({"name": it.name}),
            Some(is_binary) => json!({"name": it.name, "parameters": {"binary_data": is_binary}}),
        });
        let outputs: Vec<_> = outputs.collect();
        if !outputs.is_empty() {
            self.member("outputs", &json!(outputs).to_string());
        }
        if question.is_binary {
            self.member("parameters", r#"{"binary_data_output":true}"#);
        }
    }

    /// Adds a list of tensors, whose elements stay as they were written. None: there are none.
    fn tensors<'t, 'd: 't>(
        &mut self,
        name: &str,
        tensors: impl Iterator<Item = &'t Tensor<'d>>,
    ) -> Option<()> {
        let mut list = String::new();
        for tensor in tensors {
            list.push(if list.is_empty() { '[' } else { ',' });
            let head = json!({
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
            });
            let head = head.to_string();
            list.push_str(head.strip_suffix('}')?);
            match tensor.data {
                Data::Json(elements) => {
                    list.push_str(",\"data\":");
                    list.push_str(elements);
                }
                Data::Binary(bytes) => {
                    let size = json!({"binary_data_size": bytes.len()});
                    list.push_str(",\"parameters\":");
                    list.push_str(&size.to_string());
                    self.binary.extend_from_slice(bytes);
                    self.has_binary = true;
                }
            }
            list.push('}');
        }
        (!list.is_empty()).then_some(())?;
        list.push(']');
        self.member(name, &list);
        Some(())
    }

    fn finish(self) -> Message {
        let Self {
            mut json,
            binary,
            has_binary,
        } = self;
        json.push('}');
        let length = json.len();
        let mut body = json.into_bytes();
        body.extend_from_slice(&binary);
        Message {
            body: body.into(),
            json_length: has_binary.then_some(length),
        }
    }
}

#[cfg(test)]
#[path = "leaves_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
