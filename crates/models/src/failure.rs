//! What a caller is told of a run that failed.
//!
//! Owns: whose fault it is. A model says what it takes: datatypes and shapes. Where that leaves something open, which the
//! model then does not take (a free dimension; whole numbers or texts, which may be places, lengths and forms), the
//! request has to be another one: 400. Where it leaves nothing open, a model that fails has a fault of its own: 500.
//!
//! Must not: say where on this machine, or on that which built the runtime, anything lies.

use std::time::Duration;

use crate::config::{Datatype, Tensor};
use crate::oip::Refusal;
use crate::runtime::RunError;

/// Whether requests that fit `inputs` may differ in more than the values of real numbers.
pub fn leaves_open(inputs: &[Tensor]) -> bool {
    let is_real = |it: &Tensor| {
        use Datatype::{Fp16, Fp32, Fp64};
        matches!(it.datatype, Fp16 | Fp32 | Fp64)
    };
    inputs
        .iter()
        .any(|it| !is_real(it) || it.shape.contains(&0))
}

/// The refusal that a failed run amounts to.
pub fn refusal(error: RunError, leaves_open: bool) -> Refusal {
    match error {
        RunError::Stopped => Refusal::new(504, "the model ran for too long, and was stopped"),
        RunError::OutOfMemory => busy(
            "the model needs more memory for this than it may have (limits.memory)",
            Duration::ZERO,
        ),
        RunError::Unfit(message) => Refusal::bad(message),
        RunError::Failed(message) if leaves_open => Refusal::bad(format_args!(
            "the model does not take these inputs: {}",
            without_places(&message)
        )),
        RunError::Failed(message) => Refusal::new(
            500,
            format_args!("the run failed: {}", without_places(&message)),
        ),
    }
}

/// 503, and when to try again.
pub fn busy(message: &str, wait: Duration) -> Refusal {
    Refusal {
        status: 503,
        message: message.into(),
        retry_after: Some(wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64),
    }
}

/// Not to be done by the deadline.
pub fn late(takes: Duration) -> Refusal {
    let message = format!(
        "waiting and running would take about {} ms, which is longer than the deadline",
        takes.as_millis().max(1)
    );
    busy(&message, takes)
}

/// What the runtime says, without files, lines and functions of its sources. ONNX Runtime writes `Non-zero status code
/// returned while running Add node. Name:'…' Status Message: FILE:LINE FUNCTION CONDITION was false. SENTENCE`.
fn without_places(message: &str) -> String {
    let operator = message
        .split_once("while running ")
        .and_then(|(_, rest)| rest.split_once(" node."))
        .map(|(operator, _)| operator)
        .filter(|it| it.chars().all(char::is_alphanumeric));
    let said = message
        .rsplit_once("Status Message: ")
        .map_or(message, |it| it.1);
    let said = said
        .rsplit_once(" was false. ")
        .map(|it| it.1)
        .filter(|it| !it.is_empty())
        .unwrap_or(said);
    let words: Vec<_> = said.split_whitespace().filter(|it| !is_place(it)).collect();
    let said = words.join(" ");
    match operator {
        Some(operator) => format!("{operator}: {said}"),
        None => said,
    }
}

fn is_place(word: &str) -> bool {
    let word = word.trim_start_matches(['(', '\'', '"', '[']);
    let is_path = word.starts_with('/') && word.len() > 1;
    let is_line = [".h:", ".cc:", ".cpp:", ".hpp:", ".cxx:"];
    is_path || is_line.iter().any(|it| word.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: Datatype, shape: &[u64]) -> Tensor {
        Tensor {
            name: "x".into(),
            datatype,
            shape: shape.into(),
        }
    }

    #[test]
    fn what_the_runtime_says_of_its_sources_is_left_out() {
        for (message, said) in [
            (
                "Non-zero status code returned while running Add node. Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:563 void onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
                "Add: Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
            ),
            (
                "Non-zero status code returned while running MatMul node. Name:'' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
                "MatMul: Compute MatMul dimension mismatch",
            ),
            ("cannot open /opt/models/x.bin ('/root/y')", "cannot open"),
        ] {
            assert_eq!(without_places(message), said);
        }
    }

    #[test]
    fn only_a_model_that_leaves_nothing_open_has_faults_of_its_own() {
        let failed = || RunError::Failed("no".into());
        for (inputs, status) in [
            (vec![input(Datatype::Fp32, &[1, 4])], 500),
            (vec![input(Datatype::Fp32, &[0, 4])], 400),
            (vec![input(Datatype::Int64, &[1])], 400),
            (vec![input(Datatype::Bytes, &[1])], 400),
        ] {
            assert_eq!(refusal(failed(), leaves_open(&inputs)).status, status);
        }
    }
}
