//! What a worker is told when it starts, and the words of the Open Inference Protocol for tensors.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::media::spec::Input;
use crate::reading::spec::Output;
use crate::samples;
use crate::streams::recurrent::Declared;

/// `VEDETTE_MODEL` of a worker.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerConfig {
    /// Which model.
    pub model: Served,
    /// Its blob.
    pub file: PathBuf,
    /// Blobs that it needs beside that, by what they are for.
    #[serde(default)]
    pub files: HashMap<String, PathBuf>,
    /// The listening Unix socket.
    pub listen_fd: RawFd,
    /// Where it says once whether it is ready.
    pub ready_fd: RawFd,
    /// The library of the runtime.
    pub library: PathBuf,
}

/// `VEDETTE_MODEL` of an inspection.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectConfig {
    /// The file to look at.
    pub file: PathBuf,
    /// What it is said to be.
    pub format: Format,
    /// The library of the runtime.
    pub library: PathBuf,
    /// Memory that loading it may take, in bytes.
    pub memory_bytes: u64,
    /// Time that loading it may take, in milliseconds.
    pub run_millis: u64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// ONNX, as one protobuf message.
    Onnx,
    /// TensorFlow Lite.
    Tflite,
    /// A detector of anomalies: JSON, run by this crate itself.
    Detector,
}

/// The parts of a `ServedModel` (`vedette.config.served`) that a worker uses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What its file is.
    pub format: Format,
    /// What it takes, in the file's order.
    pub inputs: Vec<Tensor>,
    /// What it gives, in the file's order.
    pub outputs: Vec<Tensor>,
    /// What it takes beside tensors.
    #[serde(default)]
    pub input: Option<Input>,
    /// How what it gives is read.
    #[serde(default)]
    pub output: Option<Output>,
    /// How it answers events of a stream, remembering.
    #[serde(default)]
    pub stream: Option<Declared>,
    /// What is read, as further outputs; set by [`crate::media::prepare`].
    #[serde(skip)]
    pub read: Vec<Tensor>,
    /// Types of content that it takes beside tensors; set likewise.
    #[serde(skip)]
    pub media: &'static [&'static str],
    /// Sessions, each of which runs one request at a time.
    pub sessions: usize,
    /// Threads of each session.
    pub threads: usize,
    /// What it may use.
    pub limits: Limits,
    /// What is kept of what it is asked; none: nothing.
    #[serde(default)]
    pub samples: Option<samples::Declared>,
    /// The process ends when nobody asks for so many milliseconds; none: it stays.
    #[serde(default)]
    pub idle_millis: Option<u64>,
}

impl Served {
    /// What can be asked for: its outputs, and what is read of them.
    pub fn answers(&self) -> impl Iterator<Item = &Tensor> {
        self.outputs.iter().chain(&self.read)
    }
}

/// What a model may use, and how much may wait for it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Memory of its process, in bytes.
    pub memory_bytes: u64,
    /// Longest run, in milliseconds.
    pub run_millis: u64,
    /// Requests that may wait for a session.
    pub queue: usize,
    /// Requests that may run together; 1: each alone.
    #[serde(default = "one")]
    pub batch: usize,
    /// Largest request body, in bytes.
    pub request_bytes: usize,
    /// Streams of which it keeps what they have seen.
    #[serde(default = "default_streams")]
    pub streams: usize,
}

fn default_streams() -> usize {
    1000
}

fn one() -> usize {
    1
}

impl Limits {
    /// The longest run.
    pub fn run_time(&self) -> Duration {
        Duration::from_millis(self.run_millis)
    }
}

/// One input or output: its name, type and dimensions (0: any).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name in the model's file.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its dimensions; 0: any.
    pub shape: Vec<u64>,
}

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 16;

/// Element types of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    const ALL: [Self; 13] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// Bytes of one element; `None`: each has its own length.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// `TensorProto.DataType` of `onnx.proto`.
    pub fn in_onnx(self) -> i32 {
        match self {
            Self::Fp32 => 1,
            Self::Uint8 => 2,
            Self::Int8 => 3,
            Self::Uint16 => 4,
            Self::Int16 => 5,
            Self::Int32 => 6,
            Self::Int64 => 7,
            Self::Bytes => 8,
            Self::Bool => 9,
            Self::Fp16 => 10,
            Self::Fp64 => 11,
            Self::Uint32 => 12,
            Self::Uint64 => 13,
        }
    }

    /// The type with this number in TensorFlow Lite's `schema.fbs` (`TensorType`), if the runtime's interface gives such.
    pub fn of_tflite(number: u8) -> Option<Self> {
        let datatype = match number {
            0 => Self::Fp32,
            1 => Self::Fp16,
            2 => Self::Int32,
            3 => Self::Uint8,
            4 => Self::Int64,
            6 => Self::Bool,
            7 => Self::Int16,
            9 => Self::Int8,
            10 => Self::Fp64,
            12 => Self::Uint64,
            15 => Self::Uint32,
            16 => Self::Uint16,
            _ => return None,
        };
        Some(datatype)
    }

    /// The type with this number in `onnx.proto`, if the protocol has it.
    pub fn of_onnx(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|it| i64::from(it.in_onnx()) == number)
    }
}

/// Reads a configuration.
pub fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::new("config_invalid", format_args!("VEDETTE_MODEL: {error}")))
}
