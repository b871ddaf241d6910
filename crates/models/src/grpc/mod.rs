//! The messages of the Open Inference Protocol over gRPC, to and from the same requests that come as JSON.
//!
//! Follows `GRPCInferenceService` of <https://github.com/kserve/open-inference-protocol> (`open_inference_grpc.proto`),
//! message by message; the engine does the framing of gRPC, and knows who asks. Elements come in `raw_input_contents`, or
//! typed in `contents`, as proto3 writes them, packed or not. An answer is typed where the request was, unless an output is
//! FP16, which has no typed form, or large; else it is raw. Which of the two a client reads, both say.
//!
//! Written by hand, on the reader of ONNX's files ([`crate::onnx::wire`]): nothing is made of a message but what fits the
//! model, so that a message of millions of empty inputs costs what it is long, and tensors stay where they came (ADR 0053).
//!
//! Must not: run anything, or know a connection.

pub mod answer;
mod contents;
pub mod request;

#[cfg(test)]
mod tests;

use crate::oip::Refusal;
use crate::onnx::wire::Broken;

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        Self::bad(match broken {
            Broken::Truncated => "the message ends within a field",
            Broken::Malformed => "the message is no protocol buffer",
        })
    }
}
