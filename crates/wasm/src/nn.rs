//! `wasi:nn@0.2.0-rc-2024-10-28`: guests ask models of the node by name.
//!
//! A graph is a name and no more: each `compute` is a call to `http://NAME.model` through [`crate::outbound`], with
//! its limits, its permission and its record. `load` is refused, since what a guest brings along is no model that
//! somebody has signed for. What tensors hold on this side counts as the guest's memory.
//!
//! Must not: run anything, or keep an answer.

mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi_http::Error as HttpError;

use crate::guest::{Guest, MemoryLimit};
use crate::outbound::{Hooks, Interface, OutboundAnswer, OutboundTimeouts, Spawned};
use bindings::wasi::nn::{errors, graph, inference, tensor};
use errors::ErrorCode;
use wire::Parts;

#[allow(missing_docs, clippy::pedantic)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/wasi-nn.wit",
        world: "ml",
        imports: {
            "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:nn/errors.error": super::Error,
            "wasi:nn/graph.graph": super::Graph,
            "wasi:nn/inference.graph-execution-context": super::Execution,
            "wasi:nn/tensor.tensor": super::Tensor,
        },
        require_store_data_send: true,
    });
}

/// `Inference-Header-Content-Length` of the binary tensor data extension.
const JSON_LENGTH: &str = "inference-header-content-length";

/// The most bytes of an answer that is an error.
const MAX_MESSAGE: u64 = 64 << 10;

/// A model, by the name that it had when it was loaded.
pub struct Graph(Arc<str>);

/// What a graph is asked with; it holds nothing of its own.
pub struct Execution(Arc<str>);

/// Elements, with their type and shape.
#[derive(Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<u32>,
    kind: tensor::TensorType,
    data: Bytes,
}

impl Tensor {
    fn held(&self) -> u64 {
        (self.data.len() + self.shape.len() * size_of::<u32>()) as u64
    }
}

/// An error as the guest sees it.
#[derive(Debug)]
pub struct Error {
    code: ErrorCode,
    text: String,
}

impl Error {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}

/// Why a call of the interface gives no result: an error for the guest, or the end of it.
#[derive(Debug)]
pub enum Failed {
    /// The guest is told.
    Told(Error),
    /// The guest ends.
    Trap(wasmtime::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<ResourceTableError> for Failed {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

/// What of a guest this interface uses.
pub(crate) struct Nn<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) memory: &'a mut MemoryLimit,
    pub(crate) hooks: &'a mut Hooks,
}

struct HasNn;

impl HasData for HasNn {
    type Data<'a> = Nn<'a>;
}

/// Lets guests import it.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    tensor::add_to_linker::<_, HasNn>(linker, Guest::nn)?;
    errors::add_to_linker::<_, HasNn>(linker, Guest::nn)?;
    inference::add_to_linker::<_, HasNn>(linker, Guest::nn)?;
    graph::add_to_linker::<_, HasNn>(linker, Guest::nn)
}

impl Nn<'_> {
    /// Takes a tensor in, if the guest may have as much more memory.
    fn put(&mut self, tensor: Tensor) -> wasmtime::Result<Resource<Tensor>> {
        if !self.memory.hold(tensor.held()) {
            return Err(wasmtime::Error::msg("a tensor beyond the guest's memory"));
        }
        Ok(self.table.push(tensor)?)
    }

    fn take(&mut self, tensor: Resource<Tensor>) -> Result<Tensor, ResourceTableError> {
        let tensor = self.table.delete(tensor)?;
        self.memory.release(tensor.held());
        Ok(tensor)
    }
}

impl tensor::Host for Nn<'_> {}

impl tensor::HostTensor for Nn<'_> {
    fn new(
        &mut self,
        shape: Vec<u32>,
        kind: tensor::TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let data = data.into();
        self.put(Tensor { shape, kind, data })
    }

    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.shape.clone())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<tensor::TensorType> {
        Ok(self.table.get(&tensor)?.kind)
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.to_vec())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.take(tensor)?;
        Ok(())
    }
}

impl errors::Host for Nn<'_> {}

impl errors::HostError for Nn<'_> {
    fn code(&mut self, error: Resource<Error>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<Error>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<Error>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl graph::Host for Nn<'_> {
    fn load(
        &mut self,
        _: Vec<graph::GraphBuilder>,
        _: graph::GraphEncoding,
        _: graph::ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<Error>>> {
        let text = "models are asked by the name they have on the node: use load-by-name";
        let refused = Error::new(ErrorCode::UnsupportedOperation, text);
        self.tell(Err(refused.into()))
    }

    fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<Error>>> {
        let found = self.find(name);
        self.tell(found)
    }
}

impl graph::HostGraph for Nn<'_> {
    fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> wasmtime::Result<Result<Resource<Execution>, Resource<Error>>> {
        let name = Arc::clone(&self.table.get(&graph)?.0);
        Ok(Ok(self.table.push(Execution(name))?))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for Nn<'_> {}

impl inference::HostGraphExecutionContext for Nn<'_> {
    async fn compute(
        &mut self,
        execution: Resource<Execution>,
        inputs: Vec<Named>,
    ) -> wasmtime::Result<Result<Vec<Named>, Resource<Error>>> {
        let name = Arc::clone(&self.table.get(&execution)?.0);
        let outputs = self.run(&name, inputs).await;
        self.tell(outputs)
    }

    fn drop(&mut self, execution: Resource<Execution>) -> wasmtime::Result<()> {
        self.table.delete(execution)?;
        Ok(())
    }
}

type Named = (String, Resource<Tensor>);

impl Nn<'_> {
    /// What the guest is given of a result. The text of an error is short, and errors are as few as handles.
    fn tell<T>(
        &mut self,
        result: Result<T, Failed>,
    ) -> wasmtime::Result<Result<T, Resource<Error>>> {
        match result {
            Ok(given) => Ok(Ok(given)),
            Err(Failed::Told(error)) => Ok(Err(self.table.push(error)?)),
            Err(Failed::Trap(trap)) => Err(trap),
        }
    }

    fn find(&mut self, name: String) -> Result<Resource<Graph>, Failed> {
        let asked = self.hooks.may_ask(&name);
        asked.map_err(|error| of_call(&error))?;
        Ok(self.table.push(Graph(name.into()))?)
    }

    async fn run(&mut self, model: &str, named: Vec<Named>) -> Result<Vec<Named>, Failed> {
        // They are the host's from here on, whatever comes of the call.
        let mut inputs = Vec::with_capacity(named.len());
        for (name, tensor) in named {
            inputs.push((name, self.take(tensor)?));
        }
        let most = self.memory.left();
        let answered = self.ask(model, &inputs)?;
        let answered = Spawned::new(answer(answered, most)).await;
        drop(inputs);
        let outputs = answered.map_err(|error| of_call(&error))?.outputs()?;
        let outputs = outputs.into_iter();
        outputs
            .map(|(name, tensor)| Ok((name, self.put(tensor).map_err(Failed::Trap)?)))
            .collect()
    }

    /// Sends a model what the Open Inference Protocol makes of these tensors.
    fn ask(&mut self, model: &str, inputs: &[(String, Tensor)]) -> Result<OutboundAnswer, Error> {
        let (json, tensors) = wire::request(inputs)?;
        let request = http::Request::post(format!("http://{model}.model/v2/models/{model}/infer"))
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(JSON_LENGTH, json.len())
            .body(Parts::new(json, tensors).boxed_unsync());
        // The name was found among those of models.
        let request =
            request.map_err(|error| Error::new(ErrorCode::NotFound, error.to_string()))?;
        let waits = OutboundTimeouts::default();
        Ok(self.hooks.call(request, waits, Interface::Nn))
    }
}

/// A whole answer.
struct Answered {
    status: http::StatusCode,
    json_length: Option<usize>,
    body: Bytes,
}

/// Reads an answer of `most` bytes. In a task of its own: none of it is time of the guest's.
async fn answer(answering: OutboundAnswer, most: u64) -> Result<Answered, HttpError> {
    let (parts, mut body) = answering.await?.into_parts();
    let is_good = parts.status == http::StatusCode::OK;
    let most = if is_good { most } else { MAX_MESSAGE };
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let size = (read.len() + data.len()) as u64;
        if size > most {
            return Err(HttpError::HttpResponseBodySize(Some(size)));
        }
        read.extend_from_slice(&data);
    }
    let length = parts.headers.get(JSON_LENGTH);
    Ok(Answered {
        status: parts.status,
        json_length: length.and_then(|it| it.to_str().ok()?.parse().ok()),
        body: read.into(),
    })
}

impl Answered {
    /// The tensors of an answer, or the error that it is.
    fn outputs(&self) -> Result<Vec<(String, Tensor)>, Error> {
        if self.status == http::StatusCode::OK {
            return wire::outputs(&self.body, self.json_length);
        }
        let code = match self.status.as_u16() {
            400 | 422 => ErrorCode::InvalidArgument,
            403 => ErrorCode::Security,
            404 => ErrorCode::NotFound,
            413 => ErrorCode::TooLarge,
            504 => ErrorCode::Timeout,
            _ => ErrorCode::RuntimeError,
        };
        Err(Error::new(code, wire::message(&self.body, self.status)))
    }
}

/// What the guest is told of a call that has no answer.
fn of_call(error: &HttpError) -> Error {
    let (code, text) = match error {
        HttpError::HttpRequestDenied => (
            ErrorCode::Security,
            "the function may not ask this model now; its log says why",
        ),
        HttpError::DestinationNotFound => (ErrorCode::NotFound, "there is no model of this name"),
        HttpError::HttpRequestBodySize(_) => (ErrorCode::TooLarge, "the inputs are too large"),
        HttpError::HttpResponseBodySize(_) => (
            ErrorCode::TooLarge,
            "the outputs are larger than the function may take",
        ),
        HttpError::HttpResponseTimeout
        | HttpError::ConnectionTimeout
        | HttpError::ConnectionReadTimeout => {
            (ErrorCode::Timeout, "the model did not answer in time")
        }
        _ => (ErrorCode::RuntimeError, "the model is not available"),
    };
    Error::new(code, text)
}

#[cfg(test)]
#[path = "nn_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
