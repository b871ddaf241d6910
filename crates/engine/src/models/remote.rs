//! A model that only tiers have: what it is said to be, and what fits it.
//!
//! Owns: its metadata, and judging a request by what is declared before it leaves: nobody here runs it, so nobody else
//! would tell the caller what to mend. Must not: ask anybody.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Served;
use crate::snapshot::{ModelLimits, RemoteModel, ServedModel, ServedModelFormat, Tensor};
use crate::tiers::leaves;
use crate::tiers::message::{self, Question};

/// Characters of a caller's own words that it is told again.
const MOST_TOLD: usize = 64;

/// The same in the shape of a model that runs here; what is of a file or a process is nothing.
pub fn shape_of(model: RemoteModel) -> ServedModel {
    ServedModel {
        name: model.name,
        version: 0,
        blob: String::new(),
        size: 0,
        format: ServedModelFormat::Onnx,
        task: model.task,
        inputs: model.inputs,
        outputs: model.outputs,
        input: None,
        output: None,
        stream: None,
        samples: None,
        files: None,
        sessions: 0,
        threads: 0,
        limits: ModelLimits {
            memory_bytes: 0,
            run_millis: 0,
            queue: 0,
            batch: 1,
            request_bytes: model.request_bytes,
            streams: 0,
        },
        idle_millis: None,
        worker: String::new(),
    }
}

/// What the Open Inference Protocol says of it (`$metadata_model_response`). No version of it is here.
pub fn metadata(model: &Served) -> Value {
    let tensor = |it: &Tensor| {
        let size = |size: &u64| match size {
            0 => -1,
            size => i64::try_from(*size).unwrap_or(-1),
        };
        let shape: Vec<i64> = it.shape.iter().map(size).collect();
        json!({"name": it.name, "datatype": format!("{:?}", it.datatype).to_uppercase(), "shape": shape})
    };
    let tensors = |all: &[Tensor]| all.iter().map(tensor).collect::<Vec<_>>();
    json!({
        "name": model.declared.name,
        "versions": [],
        "platform": "vedette_tiers",
        "inputs": tensors(&model.declared.inputs),
        "outputs": tensors(&model.declared.outputs),
    })
}

/// Whether a request is one of what is declared; pictures, sounds and texts that came as such are not looked into.
///
/// # Errors
/// What the caller has to mend, as a sentence.
pub fn require_fitting(model: &ServedModel, question: &Question<'_>) -> Result<(), String> {
    let outputs = question.outputs.iter().map(|it| it.name.as_str());
    require_known("output", &model.outputs, outputs)?;
    if question.medium.is_some() {
        return Ok(());
    }
    let inputs = question.inputs.iter().map(|it| it.name.as_str());
    require_known("input", &model.inputs, inputs)?;
    for declared in &model.inputs {
        let given = question.inputs.iter().find(|it| it.name == declared.name);
        let given = given.ok_or_else(|| format!("the input {:?} is missing", declared.name))?;
        require_as_declared(declared, given)?;
    }
    Ok(())
}

/// That all of these names are declared, and none is there twice.
fn require_known<'n>(
    what: &str,
    declared: &[Tensor],
    given: impl Iterator<Item = &'n str>,
) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in given {
        let told: String = name.chars().take(MOST_TOLD).collect();
        if !declared.iter().any(|it| it.name == name) {
            return Err(format!("the model has no {what} {told:?}"));
        }
        if !seen.insert(name) {
            return Err(format!("the {what} {told:?} is there twice"));
        }
    }
    Ok(())
}

fn require_as_declared(declared: &Tensor, given: &message::Tensor<'_>) -> Result<(), String> {
    let name = &declared.name;
    if leaves::datatype(&given.datatype) != Some(declared.datatype) {
        return Err(format!("the input {name:?} has another datatype"));
    }
    if !leaves::agrees(&declared.shape, &given.shape) {
        return Err(format!("the input {name:?} has another shape"));
    }
    let is_whole = leaves::elements_of(declared.datatype, given).is_some();
    if !is_whole {
        return Err(format!(
            "the data of the input {name:?} are not the elements that its shape says"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "remote_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
