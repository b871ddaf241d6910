//! A session of ONNX Runtime: made by `ort`, run through the C interface that it loads.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ort::AsPointer;
use ort::session::{RunOptions, Session as OrtSession};
use ort::sys::{ONNXTensorElementDataType, OrtValue};
use ort::value::{Outlet, ValueType};

use super::library::{is_out_of_memory, one_line};
use super::value::{Value, done};
use super::{Data, RunError, Session, Stop};
use crate::config::{Datatype, Tensor};

/// A session with what each run of it needs.
pub(super) struct Opened {
    // Before the session: fields are dropped in this order, and the runtime wants nothing of either any more.
    options: Arc<Options>,
    session: OrtSession,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

struct Options(RunOptions);

impl Stop for Options {
    fn stop(&self) {
        let _ = self.0.terminate();
    }

    fn clear(&self) {
        let _ = self.0.unterminate();
    }
}

fn names(outlets: &[Outlet]) -> ort::Result<Vec<CString>> {
    let names = outlets.iter().map(|it| CString::new(it.name()));
    names.collect::<Result<_, _>>().map_err(ort::Error::wrap)
}

fn tensors(outlets: &[Outlet]) -> Vec<Tensor> {
    let tensor = |it: &Outlet| {
        let ValueType::Tensor { ty, shape, .. } = it.dtype() else {
            return None;
        };
        let number = ONNXTensorElementDataType::from(*ty) as i64;
        Some(Tensor {
            name: it.name().into(),
            datatype: Datatype::of_onnx(number)?,
            shape: shape
                .iter()
                .map(|size| u64::try_from(*size).unwrap_or(0))
                .collect(),
        })
    };
    outlets.iter().filter_map(tensor).collect()
}

impl Opened {
    /// Names and options, once for all runs.
    pub(super) fn new(session: OrtSession) -> ort::Result<Self> {
        Ok(Self {
            options: Arc::new(Options(RunOptions::new()?)),
            inputs: names(session.inputs())?,
            outputs: names(session.outputs())?,
            session,
        })
    }

    fn call(&self, inputs: &[Value], outputs: &[usize]) -> ort::Result<Vec<Value>> {
        let takes: Vec<*const c_char> = self.inputs.iter().map(|it| it.as_ptr()).collect();
        let values: Vec<*const OrtValue> = inputs.iter().map(Value::pointer).collect();
        let gives: Vec<*const c_char> = outputs
            .iter()
            .filter_map(|place| self.outputs.get(*place))
            .map(|it| it.as_ptr())
            .collect();
        if values.len() != takes.len() || gives.len() != outputs.len() {
            return Err(ort::Error::new("not the model's inputs and outputs"));
        }
        let mut made: Vec<*mut OrtValue> = vec![ptr::null_mut(); gives.len()];
        // SAFETY: session and options live as long as `self`. Each array has as many entries as is said, of C strings
        // and tensors that outlive the call; the runtime fills `made` with tensors that are then ours.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                self.options.0.ptr(),
                takes.as_ptr(),
                values.as_ptr(),
                values.len(),
                gives.as_ptr(),
                gives.len(),
                made.as_mut_ptr(),
            )
        };
        // Taken over before the status is looked at: what was made is released in either case.
        let made: Vec<_> = made.into_iter().map(Value::made).collect();
        done(status)?;
        made.into_iter().collect()
    }
}

impl Session for Opened {
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        let run = || -> ort::Result<Vec<Data>> {
            let values = inputs
                .iter()
                .map(Value::of)
                .collect::<ort::Result<Vec<_>>>()?;
            let made = self.call(&values, outputs)?;
            made.into_iter().map(|it| it.read(inputs)).collect()
        };
        run().map_err(|error| match error.message() {
            message if is_out_of_memory(message) => RunError::OutOfMemory,
            message if message.contains("terminate flag") => RunError::Stopped,
            message => RunError::Failed(one_line(message)),
        })
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::clone(&self.options) as Arc<dyn Stop>
    }

    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        (
            tensors(self.session.inputs()),
            tensors(self.session.outputs()),
        )
    }
}
