//! What a file of TensorFlow Lite may hold, looked at before the runtime sees it.
//!
//! Owns: which files are refused though they might load, what goes in and comes out, and how a file is rewritten for the
//! runtime ([`fold`]). A model is hostile until shown otherwise: weights in other files (`external_buffers`), places
//! beyond the file (`Buffer.offset`), operators of somebody else's code (`CUSTOM`).
//!
//! Must not: decide whether a graph is sound; the runtime does. Field numbers are those of `schema.fbs`, version 3.

mod buffer;
mod fold;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::collections::HashSet;
use std::fmt::Display;

use self::buffer::{Broken, Table, Tables, Visits};
use crate::config::{Datatype, Tensor};
use crate::error::Error;
use crate::outline::Outline;

pub use self::fold::fold;

/// Inputs and outputs of a model.
const MAX_TENSORS: usize = 256;
/// Dimensions of an input or output: what the runtime's interface has room for (`LITERT_TENSOR_MAX_RANK`).
const MAX_RANK: usize = 8;
/// Largest file, in bytes: offsets of `FlatBuffers` are signed where they lead backwards.
pub const MAX_FILE: u64 = i32::MAX as u64;
const VERSION: u32 = 3;

// `BuiltinOperator`.
const RESHAPE: i32 = 22;
const CUSTOM: i32 = 32;
const DELEGATE: i32 = 51;
const VAR_HANDLE: i32 = 142;
/// Operators that are custom by name and within the runtime's library (`BuiltinOpResolver`).
const KNOWN: [&[u8]; 3] = [
    b"TFLite_Detection_PostProcess",
    b"AudioSpectrogram",
    b"Mfcc",
];

/// Fields of `Model`.
mod model {
    pub const VERSION: usize = 0;
    pub const OPERATOR_CODES: usize = 1;
    pub const SUBGRAPHS: usize = 2;
    pub const BUFFERS: usize = 4;
    pub const SIGNATURES: usize = 7;
    pub const EXTERNAL_GROUPS: usize = 8;
    pub const EXTERNAL_BUFFERS: usize = 9;
}

/// Fields of `SubGraph`.
mod subgraph {
    pub const TENSORS: usize = 0;
    pub const INPUTS: usize = 1;
    pub const OUTPUTS: usize = 2;
    pub const OPERATORS: usize = 3;
}

/// Fields of `Tensor`.
mod tensor {
    pub const SHAPE: usize = 0;
    pub const TYPE: usize = 1;
    pub const BUFFER: usize = 2;
    pub const NAME: usize = 3;
    pub const IS_VARIABLE: usize = 5;
    pub const SHAPE_SIGNATURE: usize = 7;
    pub const EXTERNAL_BUFFER: usize = 10;
}

/// Fields of `Operator`.
mod operator {
    pub const CODE: usize = 0;
    pub const INPUTS: usize = 1;
    pub const OUTPUTS: usize = 2;
    pub const LARGE_OPTIONS_OFFSET: usize = 9;
    pub const LARGE_OPTIONS_SIZE: usize = 10;
}

enum Fault {
    Broken(Broken),
    Refused(Error),
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

type Checked<T> = Result<T, Fault>;

fn reaches_out<T>(message: impl Display) -> Checked<T> {
    Err(Fault::Refused(Error::new("model_reaches_out", message)))
}

fn invalid<T>(message: impl Display) -> Checked<T> {
    Err(Fault::Refused(Error::new("model_invalid", message)))
}

/// Reads a file that may be hostile.
///
/// # Errors
/// `model_reaches_out`: it needs something that is not in it. `model_invalid`: it is no model, or one whose inputs or
/// outputs the protocol has no words for.
pub fn check(file: &[u8]) -> Result<Outline, Error> {
    read(file).map_err(|fault| match fault {
        Fault::Refused(error) => error,
        Fault::Broken(Broken::Outside) => Error::new(
            "model_invalid",
            "the file ends early, or is no model of TensorFlow Lite",
        ),
        Fault::Broken(Broken::TooMany) => {
            Error::new("model_invalid", "it refers to the same parts over and over")
        }
    })
}

fn read(file: &[u8]) -> Checked<Outline> {
    if file.get(4..8) != Some(b"TFL3") {
        return invalid("the file is no model of TensorFlow Lite");
    }
    let model = Table::root(file)?;
    let version = model.uint(model::VERSION)?;
    if version != VERSION {
        return invalid(format_args!(
            "it is of version {version}; {VERSION} is known"
        ));
    }
    let mut walk = Walk {
        size: file.len() as u64,
        codes: codes(&model)?,
        buffers: model.tables(model::BUFFERS)?,
        keeps_state: false,
        visits: Visits::default(),
    };
    for field in [model::EXTERNAL_GROUPS, model::EXTERNAL_BUFFERS] {
        if model.tables(field)?.len() > 0 {
            return reaches_out("it has weights in other files; save the model as one file");
        }
    }
    walk.check_buffers()?;
    let graphs = model.tables(model::SUBGRAPHS)?;
    for graph in graphs.iter() {
        walk.graph(&graph?)?;
    }
    outline(&model, graphs, walk.keeps_state)
}

/// What operators are, by their index in the model: `CUSTOM` only where the runtime has it.
fn codes(model: &Table) -> Checked<Vec<i32>> {
    let mut codes = vec![];
    let mut visits = Visits::default();
    for code in model.tables(model::OPERATOR_CODES)?.iter() {
        visits.count()?;
        let code = code?;
        // The older field is one signed byte; whichever is larger counts.
        let older = i32::from(code.byte(0)?.cast_signed());
        let builtin = code.int(3)?.max(older);
        let name = code.bytes(1)?;
        if builtin == DELEGATE || (builtin == CUSTOM && !KNOWN.contains(&name)) {
            return reaches_out(format_args!(
                "operator {:?} is a custom one, whose code is not in the runtime",
                shown(name)
            ));
        }
        codes.push(builtin);
    }
    Ok(codes)
}

struct Walk<'a> {
    size: u64,
    codes: Vec<i32>,
    buffers: Tables<'a>,
    keeps_state: bool,
    visits: Visits,
}

impl Walk<'_> {
    /// Data that lies behind the `FlatBuffer`, as in files beyond 2 GiB, must lie within the file.
    fn check_place(&self, offset: u64, size: u64) -> Checked<()> {
        if offset > 1 && offset.checked_add(size).is_none_or(|end| end > self.size) {
            return reaches_out("it has data at a place beyond its end");
        }
        Ok(())
    }

    fn check_buffers(&mut self) -> Checked<()> {
        for buffer in self.buffers.iter() {
            self.visits.count()?;
            let buffer = buffer?;
            buffer.bytes(0)?;
            self.check_place(buffer.ulong(1)?, buffer.ulong(2)?)?;
        }
        Ok(())
    }

    fn graph(&mut self, graph: &Table) -> Checked<()> {
        self.visits.count()?;
        for tensor in graph.tables(subgraph::TENSORS)?.iter() {
            self.visits.count()?;
            let tensor = tensor?;
            if tensor.uint(tensor::EXTERNAL_BUFFER)? != 0 {
                let name = shown(tensor.bytes(tensor::NAME)?);
                return reaches_out(format_args!(
                    "tensor {name:?} has its values in another file; save the model as one file"
                ));
            }
            let buffer = usize::try_from(tensor.uint(tensor::BUFFER)?).unwrap_or(usize::MAX);
            if buffer >= self.buffers.len() {
                return invalid("a tensor has its values in a buffer that there is not");
            }
            self.keeps_state |= tensor.byte(tensor::IS_VARIABLE)? != 0;
        }
        for operator in graph.tables(subgraph::OPERATORS)?.iter() {
            self.visits.count()?;
            let operator = operator?;
            let Some(code) = code_of(&self.codes, &operator)? else {
                return invalid("an operator is of a kind that it does not say");
            };
            self.keeps_state |= code == VAR_HANDLE;
            let offset = operator.ulong(operator::LARGE_OPTIONS_OFFSET)?;
            self.check_place(offset, operator.ulong(operator::LARGE_OPTIONS_SIZE)?)?;
        }
        Ok(())
    }
}

/// What an operator is; `None`: the model does not say.
fn code_of(codes: &[i32], operator: &Table) -> Result<Option<i32>, Broken> {
    let index = usize::try_from(operator.uint(operator::CODE)?).unwrap_or(usize::MAX);
    Ok(codes.get(index).copied())
}

/// The first signature, as the runtime runs it; a model without one is its first graph, with its tensors' own names.
fn outline(model: &Table, graphs: Tables, keeps_state: bool) -> Checked<Outline> {
    let signatures = model.tables(model::SIGNATURES)?;
    let signature = match signatures.len() {
        0 => None,
        _ => Some(signatures.get(0)?),
    };
    let graph = signature.map_or(Ok(0), |it| it.uint(4))?;
    let graph = usize::try_from(graph).unwrap_or(usize::MAX);
    let graph = graphs.get(graph)?;
    let tensors = graph.tables(subgraph::TENSORS)?;
    let ports = |what: &str, field: usize, named: usize| -> Checked<(Vec<i32>, Vec<Tensor>)> {
        let places = graph.ints(field)?;
        if places.len() > MAX_TENSORS {
            return invalid(format_args!("it has more than {MAX_TENSORS} {what}s"));
        }
        let places: Vec<i32> = places.collect();
        if places.is_empty() {
            return invalid(format_args!("it has no {what}"));
        }
        if places.iter().collect::<HashSet<_>>().len() < places.len() {
            return invalid(format_args!("one tensor is two of its {what}s"));
        }
        let names = signature.map(|it| Names::of(&it, named, what, places.len()));
        let names = names.transpose()?;
        let port = |place: &i32| {
            let index = usize::try_from(*place).unwrap_or(usize::MAX);
            let tensor = tensors.get(index)?;
            let name = match &names {
                Some(names) => names.name(index, what)?,
                None => tensor.bytes(tensor::NAME)?,
            };
            port(what, name, &tensor)
        };
        let ports = places.iter().map(port).collect::<Checked<Vec<_>>>()?;
        let names: HashSet<_> = ports.iter().map(|it| &it.name).collect();
        match names.len() < ports.len() {
            true => invalid(format_args!("two {what}s have one name")),
            false => Ok((places, ports)),
        }
    };
    let (taken, inputs) = ports("input", subgraph::INPUTS, 0)?;
    let (given, outputs) = ports("output", subgraph::OUTPUTS, 1)?;
    if given.iter().any(|it| taken.contains(it)) {
        return invalid("an output is one of its inputs as it is");
    }
    Ok(Outline {
        inputs,
        outputs,
        keeps_state,
        is_straight: false, // not looked for
    })
}

/// The names that a signature gives (`TensorMap`).
struct Names<'a>(Vec<(usize, &'a [u8])>);

impl<'a> Names<'a> {
    fn of(signature: &Table<'a>, field: usize, what: &str, count: usize) -> Checked<Self> {
        let maps = signature.tables(field)?;
        if maps.len() != count {
            return invalid(format_args!(
                "its signature does not have each {what} of its graph once"
            ));
        }
        let name = |map: Result<Table<'a>, Broken>| -> Checked<_> {
            let map = map?;
            let index = usize::try_from(map.uint(1)?).unwrap_or(usize::MAX);
            Ok((index, map.bytes(0)?))
        };
        Ok(Self(maps.iter().map(name).collect::<Checked<_>>()?))
    }

    fn name(&self, index: usize, what: &str) -> Checked<&'a [u8]> {
        match self.0.iter().find(|it| it.0 == index) {
            Some((_, name)) => Ok(name),
            None => invalid(format_args!("its signature has no name for an {what}")),
        }
    }
}

fn port(what: &str, name: &[u8], tensor: &Table) -> Checked<Tensor> {
    let shown = shown(name);
    let Ok(name) = std::str::from_utf8(name) else {
        return invalid(format_args!("{what} {shown:?} has a name that is no UTF-8"));
    };
    if name.is_empty() || name.len() > 256 || name.contains('\0') {
        return invalid(format_args!(
            "{what} {shown:?} has no name that can be used"
        ));
    }
    let Some(datatype) = Datatype::of_tflite(tensor.byte(tensor::TYPE)?) else {
        return invalid(format_args!(
            "{what} {shown:?} has elements of a type that cannot be sent"
        ));
    };
    let shape = shape(tensor)?;
    if shape.len() > MAX_RANK {
        return invalid(format_args!(
            "{what} {shown:?} has more than {MAX_RANK} dimensions"
        ));
    }
    Ok(Tensor {
        name: name.into(),
        datatype,
        shape,
    })
}

/// The dimensions of a tensor; 0: any.
fn shape(tensor: &Table) -> Result<Vec<u64>, Broken> {
    let shape = tensor.ints(tensor::SHAPE)?;
    let signature = tensor.ints(tensor::SHAPE_SIGNATURE)?;
    let known = match signature.len() == shape.len() {
        true => signature,
        false => shape,
    };
    // One more than there may be, for the caller to refuse.
    let known = known.take(MAX_RANK + 1);
    Ok(known.map(|it| u64::try_from(it).unwrap_or(0)).collect())
}

/// A name as people see it: cut, and without what is no text.
fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(name.get(..MOST).unwrap_or(name));
    text.chars().filter(|it| !it.is_control()).collect()
}
