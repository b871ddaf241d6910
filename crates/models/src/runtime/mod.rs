//! The border to a runtime: a model loaded, and one request run.
//!
//! Owns: what of a runtime the rest may know. `library`, `onnx` and `value` are ONNX Runtime. `LiteRT` would be a second
//! one behind [`Session`]; a file of TensorFlow Lite is refused until it is there.
//!
//! Must not: know HTTP, queues or the protocol's texts.

#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
mod onnx;
#[allow(unsafe_code)]
mod value;

use std::path::Path;

use bytes::Bytes;

use crate::config::{Datatype, Tensor};
use crate::error::Error;

pub use library::Library;

/// A tensor that goes in or came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// As many elements as those make, one after the other, at whatever place in memory: little-endian, and each text
    /// (`BYTES`) with its length before it in four bytes, as the protocol has them. Millions of short texts thus take
    /// what they took on the wire.
    pub elements: Bytes,
}

/// The texts in elements of `BYTES`; ends early where they are not sound.
pub fn texts(elements: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = elements;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, after) = after.split_at_checked(length)?;
        rest = after;
        Some(text)
    })
}

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError {
    /// It was told to stop.
    Stopped,
    /// The memory of the process did not suffice.
    OutOfMemory,
    /// The runtime says what went wrong.
    Failed(String),
}

/// Stops the run under way in one session, from another thread.
pub trait Stop: Send + Sync {
    /// Asks the run to end at the next operator.
    fn stop(&self);
    /// Lets the next run begin.
    fn clear(&self);
}

/// One session of a loaded model: runs one request at a time.
pub trait Session: Send {
    /// Runs inputs in the model's order, and gives these outputs (by their place in the model).
    ///
    /// # Errors
    /// See [`RunError`].
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError>;

    /// What stops its runs.
    fn stop(&self) -> std::sync::Arc<dyn Stop>;

    /// What it takes and gives, as the runtime says; 0: any.
    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>);
}

/// Loads the library of a runtime.
///
/// # Errors
/// `runtime_missing`: there is no such file. `runtime_invalid`: it is not that library. `runtime_too_old`.
pub fn load(library: &Path) -> Result<Library, Error> {
    Library::load(library)
}
