//! The border to a runtime: a model loaded, and one request run.
//!
//! Owns: what of a runtime the rest may know. `library`, `onnx` and `value` are ONNX Runtime, and `litert`
//! with what follows it is `LiteRT`, which runs files of TensorFlow Lite.
//!
//! Must not: know HTTP, queues or the protocol's texts.

#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
mod litert;
#[allow(unsafe_code)]
mod litert_buffer;
#[allow(unsafe_code)]
mod litert_model;
#[allow(unsafe_code)]
mod litert_session;
#[allow(unsafe_code)]
mod onnx;
#[allow(unsafe_code)]
mod value;

use std::path::Path;

use bytes::Bytes;

use crate::config::{Datatype, Format, Tensor};
use crate::error::Error;

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
    /// The model cannot take what was asked; says what is wrong with it.
    Unfit(String),
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

/// How a session is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Threads of each run.
    pub threads: usize,
    /// Whether the file gives every input one shape.
    pub has_one_shape: bool,
    /// Whether a run changes what the next one answers.
    pub keeps_state: bool,
}

/// The library of a runtime, loaded and silent.
pub enum Library {
    /// ONNX Runtime.
    Onnx(library::Library),
    /// `LiteRT`.
    LiteRt(litert::Library),
}

impl Library {
    /// Such as `onnxruntime 1.31.1`.
    pub fn version(&self) -> &str {
        match self {
            Self::Onnx(library) => library.version(),
            Self::LiteRt(library) => library.version(),
        }
    }

    /// Makes a session of a file that was checked.
    ///
    /// # Errors
    /// `model_invalid`, `model_out_of_memory`.
    pub fn session(&self, file: &Bytes, wanted: Wanted) -> Result<Box<dyn Session>, Error> {
        match self {
            Self::Onnx(library) => library.session(file, wanted.threads, wanted.has_one_shape),
            Self::LiteRt(library) => library.session(file, wanted),
        }
    }
}

/// Which library is to be loaded, found out while its folder could be read.
pub struct Chosen<'a> {
    path: &'a Path,
    format: Format,
    version: Option<String>,
}

impl<'a> Chosen<'a> {
    /// The library at `path`, which runs files of this format.
    pub fn of(path: &'a Path, format: Format) -> Self {
        let version = match format {
            // which the library says itself, or needs none
            Format::Onnx | Format::Detector => None,
            Format::Tflite => litert::version_beside(path),
        };
        Self {
            path,
            format,
            version,
        }
    }

    /// Loads it.
    ///
    /// # Errors
    /// `runtime_missing`: there is no such file. `runtime_invalid`: it is not that library, or of an unknown version.
    /// `runtime_too_old`.
    pub fn load(&self) -> Result<Library, Error> {
        match self.format {
            Format::Onnx => library::Library::load(self.path).map(Library::Onnx),
            Format::Tflite => {
                let version = self.version.as_deref();
                litert::Library::load(self.path, version).map(Library::LiteRt)
            }
            Format::Detector => Err(Error::new("model_invalid", "a detector needs no runtime")),
        }
    }
}
