//! Tensors of `wasi:nn` in the Open Inference Protocol and its binary tensor data extension, both ways.
//!
//! Types that only one of the two has are refused by name. An answer is the word of a process that runs somebody's
//! model: nothing of it is believed without a look at the bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde::{Deserialize, Serialize};
use wasmtime_wasi_http::Error as HttpError;

use super::bindings::wasi::nn::errors::ErrorCode;
use super::bindings::wasi::nn::tensor::TensorType;
use super::{Error, Tensor};

/// The most inputs of a call, dimensions of a tensor, and bytes of a name.
const MAX_INPUTS: usize = 256;
const MAX_RANK: usize = 32;
const MAX_NAME: usize = 1024;
/// The most bytes of JSON in an answer.
const MAX_JSON: usize = 1 << 20;
/// The most characters of what a model's process says is wrong.
const MAX_SENTENCE: usize = 512;

#[derive(Serialize)]
struct Asked<'a> {
    parameters: Wanted,
    inputs: Vec<Given<'a>>,
}

#[derive(Serialize)]
struct Wanted {
    binary_data_output: bool,
}

#[derive(Serialize)]
struct Given<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [u32],
    parameters: Binary,
}

#[derive(Serialize, Deserialize)]
struct Binary {
    binary_data_size: usize,
}

#[derive(Deserialize)]
struct Said {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: String,
    shape: Vec<u32>,
    parameters: Option<Binary>,
}

#[derive(Deserialize)]
struct Sentence {
    error: String,
}

/// The JSON of a request, and the bytes that follow it.
///
/// # Errors
/// invalid-argument: bytes that are not as many as shape and type say, or more of anything than a model has;
/// unsupported-operation: BF16, which the protocol does not have.
pub(super) fn request(inputs: &[(String, Tensor)]) -> Result<(Bytes, Vec<Bytes>), Error> {
    let invalid = |text: String| Error::new(ErrorCode::InvalidArgument, text);
    if inputs.len() > MAX_INPUTS {
        return Err(invalid(format!("more than {MAX_INPUTS} inputs")));
    }
    let given = inputs.iter().map(|(name, tensor)| {
        if name.len() > MAX_NAME || tensor.shape.len() > MAX_RANK {
            let text = format!("an input's name has {MAX_NAME} bytes and its shape {MAX_RANK} dimensions at most");
            return Err(invalid(text));
        }
        let Some((datatype, size)) = datatype_of(tensor.kind) else {
            let text = format!("input {name:?} is BF16, which models of this node do not take");
            return Err(Error::new(ErrorCode::UnsupportedOperation, text));
        };
        let bytes = tensor.data.len();
        if length(&tensor.shape, size) != Some(bytes) {
            let text = format!("input {name:?} has {bytes} bytes, which are not elements of {datatype} in its shape");
            return Err(invalid(text));
        }
        Ok(Given {
            name,
            datatype,
            shape: &tensor.shape,
            parameters: Binary {
                binary_data_size: bytes,
            },
        })
    });
    let asked = Asked {
        parameters: Wanted {
            binary_data_output: true,
        },
        inputs: given.collect::<Result<_, _>>()?,
    };
    let json = serde_json::to_vec(&asked).map_err(|error| invalid(error.to_string()))?;
    let tensors = inputs.iter().map(|(_, tensor)| tensor.data.clone());
    Ok((json.into(), tensors.collect()))
}

/// The tensors of an answer; `json_length`: `Inference-Header-Content-Length`.
///
/// # Errors
/// unsupported-operation: an output of a type that `wasi:nn` does not have; runtime-error: no answer of the protocol.
pub(super) fn outputs(
    body: &Bytes,
    json_length: Option<usize>,
) -> Result<Vec<(String, Tensor)>, Error> {
    let broken = || {
        let text = "the model's answer is none of the Open Inference Protocol";
        Error::new(ErrorCode::RuntimeError, text)
    };
    let until = json_length.unwrap_or(body.len());
    let (json, mut elements) = body.split_at_checked(until).ok_or_else(broken)?;
    if json.len() > MAX_JSON {
        return Err(broken());
    }
    let said: Said = serde_json::from_slice(json).map_err(|_| broken())?;
    let mut outputs = Vec::with_capacity(said.outputs.len());
    for output in said.outputs {
        let Some((kind, size)) = type_of(&output.datatype) else {
            let (name, datatype) = (&output.name, &output.datatype);
            let text =
                format!("output {name:?} is of type {datatype:?}, which wasi:nn does not have");
            return Err(Error::new(ErrorCode::UnsupportedOperation, text));
        };
        let said = output.parameters.map(|it| it.binary_data_size);
        let bytes = said.filter(|it| length(&output.shape, size) == Some(*it));
        let (data, rest) = bytes
            .and_then(|it| elements.split_at_checked(it))
            .ok_or_else(broken)?;
        elements = rest;
        // A copy: a part would keep the whole answer in memory.
        let data = Bytes::copy_from_slice(data);
        let shape = output.shape;
        outputs.push((output.name, Tensor { shape, kind, data }));
    }
    if !elements.is_empty() {
        return Err(broken());
    }
    Ok(outputs)
}

/// What a process says is wrong, for the guest.
pub(super) fn message(body: &[u8], status: http::StatusCode) -> String {
    match serde_json::from_slice::<Sentence>(body) {
        Ok(Sentence { error }) => error.chars().take(MAX_SENTENCE).collect(),
        Err(_) => format!("the model answered {status}"),
    }
}

fn length(shape: &[u32], size: usize) -> Option<usize> {
    shape.iter().try_fold(size, |bytes, dimension| {
        bytes.checked_mul(usize::try_from(*dimension).ok()?)
    })
}

/// The protocol's name of a type, and the bytes of an element.
fn datatype_of(kind: TensorType) -> Option<(&'static str, usize)> {
    Some(match kind {
        TensorType::Fp16 => ("FP16", 2),
        TensorType::Fp32 => ("FP32", 4),
        TensorType::Fp64 => ("FP64", 8),
        TensorType::U8 => ("UINT8", 1),
        TensorType::I32 => ("INT32", 4),
        TensorType::I64 => ("INT64", 8),
        TensorType::Bf16 => return None,
    })
}

fn type_of(datatype: &str) -> Option<(TensorType, usize)> {
    use TensorType::{Fp16, Fp32, Fp64, I32, I64, U8};
    let all = [Fp16, Fp32, Fp64, U8, I32, I64].into_iter();
    let mut all = all.filter_map(|kind| Some((kind, datatype_of(kind)?)));
    let (kind, (_, size)) = all.find(|(_, (name, _))| *name == datatype)?;
    Some((kind, size))
}

/// A body in parts, of which the length is known.
pub(super) struct Parts(VecDeque<Bytes>);

impl Parts {
    pub(super) fn new(json: Bytes, tensors: Vec<Bytes>) -> Self {
        let all = std::iter::once(json).chain(tensors);
        Self(all.filter(|it| !it.is_empty()).collect())
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}
