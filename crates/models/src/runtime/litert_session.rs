//! A session of `LiteRT`: one model, compiled, with buffers for what goes in and comes out.
//!
//! Owns: what is made anew and when. Buffers stay from run to run; another shape of an input makes the model plan anew and
//! takes other ones. What failed, or keeps variables, is compiled anew before the next run: an answer depends on its
//! question only, never on who asked before.
//!
//! The interface gives an output back only where its size was known before the run: where it was not, a run succeeds and
//! writes nothing. Outputs are therefore filled with a mark; one that has it still after the run, and another mark after a
//! second one, was not written, and the run counts as failed. What was written may have another shape than was planned, and
//! is asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::litert::{Loaded, Status, words};
use super::litert_buffer::{Buffer, length};
use super::litert_model::{Compiled, Filled, Model, Options, Port, invalid};
use super::{Data, RunError, Session, Stop, Wanted};
use crate::config::Tensor;
use crate::error::Error;

const UNGIVEN: &str =
    "the size of an output is known only within a run, and LiteRT cannot give such back";
/// How the library says the same where it knows it before the run (`subgraph.cc`).
const UNGIVEN_SAID: [&str; 2] = [
    "Custom allocation is too small for tensor",
    "allocation_type == kTfLiteCustom",
];
/// What outputs hold before a run, the first time and the second.
const MARKS: [u8; 2] = [0xa5, 0x5a];

/// A model with what each run of it needs.
pub(super) struct Opened {
    // What is made of the model goes before it, and the model before its file: fields are dropped in this order.
    buffers: Option<Buffers>,
    compiled: Option<Compiled>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    model: Model,
    cancelled: Arc<Cancelled>,
    wanted: Wanted,
    _file: Bytes,
}

struct Cancelled(AtomicBool);

impl Stop for Cancelled {
    fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Buffers for the shapes of one request.
struct Buffers {
    inputs: Vec<Filled>,
    outputs: Vec<Filled>,
}

// SAFETY: the handles are this session's alone, which one thread at a time uses; the library keeps nothing by thread.
unsafe impl Send for Opened {}

impl Opened {
    /// Compiles the model once, so that what it lacks is known before it serves.
    pub(super) fn new(loaded: &Arc<Loaded>, file: Bytes, wanted: Wanted) -> Result<Self, Error> {
        let failed = |status| invalid(words(status));
        let model = Model::of(loaded, &file).map_err(failed)?;
        let (inputs, outputs) = model.ports()?;
        let mut session = Self {
            buffers: None,
            compiled: None,
            inputs,
            outputs,
            model,
            cancelled: Arc::new(Cancelled(AtomicBool::new(false))),
            wanted,
            _file: file,
        };
        let compiled = session.compile().map_err(failed)?;
        if wanted.has_one_shape {
            let shapes = session.initial(&compiled).map_err(failed)?;
            let planned = session.plan(&compiled, &shapes);
            let buffers = planned.map_err(|error| match error {
                RunError::OutOfMemory => {
                    let message = "loading it takes more memory than it may have";
                    Error::new("model_out_of_memory", message)
                }
                RunError::Unfit(message) | RunError::Failed(message) => invalid(message),
                RunError::Stopped => invalid("it was stopped while it was loaded"),
            })?;
            session.buffers = Some(buffers);
        }
        session.compiled = Some(compiled);
        Ok(session)
    }

    fn compile(&self) -> Result<Compiled, Status> {
        let options = Options::of(&self.model.loaded, self.wanted.threads)?;
        Compiled::of(&self.model, &options, &self.cancelled.0)
    }

    /// The shapes that the inputs have before they are given others.
    fn initial(&self, compiled: &Compiled) -> Result<Vec<Vec<i32>>, Status> {
        let shape = |index| compiled.input_shape(index).ok_or(3);
        (0..self.inputs.len()).map(shape).collect()
    }

    /// Gives the inputs these shapes, has the model plan for them, and makes buffers.
    fn plan(&self, compiled: &Compiled, shapes: &[Vec<i32>]) -> Result<Buffers, RunError> {
        for (index, shape) in shapes.iter().enumerate() {
            if compiled.input_shape(index).as_ref() != Some(shape) {
                let resized = compiled.resize(index, shape);
                resized.map_err(|status| compiled.unplanned(status))?;
            }
        }
        let layouts = compiled.output_shapes(self.outputs.len(), true);
        let layouts = layouts.map_err(|status| compiled.unplanned(status))?;
        let buffer = |(port, shape): (&Port, &Vec<i32>)| {
            let buffer = Buffer::of(&self.model.loaded, port, shape)?;
            Ok((shape.clone(), buffer))
        };
        Ok(Buffers {
            inputs: self
                .inputs
                .iter()
                .zip(shapes)
                .map(buffer)
                .collect::<Result<_, _>>()?,
            outputs: self
                .outputs
                .iter()
                .zip(&layouts)
                .map(buffer)
                .collect::<Result<_, _>>()?,
        })
    }

    /// What runs requests of these shapes. It is taken out of the session, so that what fails is gone.
    fn prepared(&mut self, shapes: &[Vec<i32>]) -> Result<(Compiled, Buffers), RunError> {
        if self.wanted.keeps_state {
            (self.buffers, self.compiled) = (None, None);
        }
        let compiled = self.compiled.take().map_or_else(|| self.compile(), Ok);
        let compiled = compiled.map_err(|status| RunError::Failed(words(status)))?;
        let fits = |it: &Buffers| it.inputs.iter().map(|it| &it.0).eq(shapes);
        let buffers = match self.buffers.take().filter(fits) {
            Some(buffers) => buffers,
            None => self.plan(&compiled, shapes)?,
        };
        Ok((compiled, buffers))
    }

    fn call(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        let shapes = inputs.iter().map(shape_of).collect::<Result<Vec<_>, _>>()?;
        if shapes.len() != self.inputs.len() {
            return Err(RunError::Failed("not the model's inputs".into()));
        }
        for mark in MARKS {
            let (compiled, buffers) = self.prepared(&shapes)?;
            for (data, (_, buffer)) in inputs.iter().zip(&buffers.inputs) {
                buffer.write(&data.elements)?;
            }
            for (_, buffer) in &buffers.outputs {
                buffer.mark(mark)?;
            }
            if let Err(status) = compiled.run(&buffers.inputs, &buffers.outputs) {
                let is_cancelled = self.cancelled.0.load(Ordering::Relaxed);
                return Err(match is_cancelled {
                    true => RunError::Stopped,
                    false => failed(compiled.words(status)),
                });
            }
            let given = self.given(&compiled, &buffers, mark)?;
            if let Some(given) = given {
                (self.buffers, self.compiled) = (Some(buffers), Some(compiled));
                let chosen = outputs.iter().map(|place| given.get(*place).cloned());
                let chosen: Option<_> = chosen.collect();
                return chosen
                    .ok_or_else(|| RunError::Failed("not one of the model's outputs".into()));
            }
        }
        Err(RunError::Failed(UNGIVEN.into()))
    }

    /// All outputs, in the shapes that they have after the run; `None`: one was not written.
    fn given(
        &self,
        compiled: &Compiled,
        buffers: &Buffers,
        mark: u8,
    ) -> Result<Option<Vec<Data>>, RunError> {
        let shapes = compiled.output_shapes(self.outputs.len(), false);
        let shapes = shapes.map_err(|status| failed(compiled.words(status)))?;
        let mut given = vec![];
        for ((port, shape), (_, buffer)) in self.outputs.iter().zip(shapes).zip(&buffers.outputs) {
            let length = length(port.datatype, &shape).unwrap_or(usize::MAX);
            let Some(elements) = buffer.written(mark, length)? else {
                return Ok(None);
            };
            given.push(Data {
                datatype: port.datatype,
                shape: shape.into_iter().map(i64::from).collect(),
                elements,
            });
        }
        Ok(Some(given))
    }
}

impl Session for Opened {
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        self.call(inputs, outputs)
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::clone(&self.cancelled) as Arc<dyn Stop>
    }

    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        let tensor = |it: &Port| Tensor {
            name: it.name.clone(),
            datatype: it.datatype,
            shape: it.shape.clone(),
        };
        (
            self.inputs.iter().map(tensor).collect(),
            self.outputs.iter().map(tensor).collect(),
        )
    }
}

fn failed(words: String) -> RunError {
    let is_ungiven = UNGIVEN_SAID.iter().any(|it| words.contains(it));
    RunError::Failed(if is_ungiven { UNGIVEN.into() } else { words })
}

/// The dimensions of an input as the library counts them: at least one of each.
fn shape_of(data: &Data) -> Result<Vec<i32>, RunError> {
    let dimension = |it: &i64| i32::try_from(*it).ok().filter(|it| *it > 0);
    let shape: Option<Vec<i32>> = data.shape.iter().map(dimension).collect();
    shape.ok_or_else(|| {
        RunError::Unfit(format!(
            "an input has the shape {:?}; TensorFlow Lite takes dimensions of 1 to {}",
            data.shape,
            i32::MAX
        ))
    })
}
