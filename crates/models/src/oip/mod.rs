//! The Open Inference Protocol (`KServe` V2) over HTTP: what is asked of a model, and what it answers.
//!
//! Follows <https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol> and the binary tensor
//! data extension (Triton, `extension_binary_data.md`): a JSON object, and behind it the elements of those tensors that
//! say so, in the order in which they are named. Where the two leave something open: elements in JSON are flat or nested
//! as the shape says, nothing between; FP16 has no JSON and is binary only; NaN and infinity have none either, so an
//! answer with them is 400 and says to ask for binary; texts that are no UTF-8 likewise.
//!
//! Must not: run anything, or know a connection.

pub mod answer;
pub mod elements;
pub mod request;

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
pub mod request_tests;

/// A request that is not answered, and what is said instead: `{"error": sentence}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: u16,
    /// For a person.
    pub message: String,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// One with this status.
    pub fn new(status: u16, message: impl std::fmt::Display) -> Self {
        Self {
            status,
            message: message.to_string(),
            retry_after: None,
        }
    }

    /// 400: the request has to be another one.
    pub fn bad(message: impl std::fmt::Display) -> Self {
        Self::new(400, message)
    }
}
