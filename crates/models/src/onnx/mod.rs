//! What an ONNX file may hold, looked at before the runtime sees it.
//!
//! Owns: which files are refused though they might load. A model is hostile until shown otherwise, and the runtime
//! would follow it out of its file: tensors that name another file or an address in memory (`external_data`; CVE-2022-25882,
//! CVE-2024-5187), operators that name a file (`EPContext`), domains whose operators come from a library. The runtime's other
//! format (`ORTM`, flatbuffers) is refused too, since none of that could be looked for.
//!
//! Must not: decide whether a graph is sound; the runtime does. Field numbers are those of `onnx.proto` (IR version 13).

pub mod wire;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::cell::Cell;
use std::collections::HashSet;

use self::wire::{Broken, Fields, Value};
use crate::config::{Datatype, MAX_RANK, Tensor};
use crate::error::Error;
use crate::outline::Outline;

/// Graphs within graphs: real models have two or three.
const MAX_DEPTH: usize = 24;
/// Functions that a file may define; exporters write some hundreds.
const MAX_FUNCTIONS: usize = 16 * 1024;
/// Inputs and outputs of a model.
const MAX_TENSORS: usize = 256;
/// Largest file, in bytes: protobuf's own limit.
pub const MAX_FILE: u64 = i32::MAX as u64;

/// Domains whose operators are within the runtime's library.
const DOMAINS: [&[u8]; 8] = [
    b"",
    b"ai.onnx",
    b"ai.onnx.ml",
    b"ai.onnx.preview",
    b"com.microsoft",
    b"com.microsoft.experimental",
    b"com.microsoft.nchwc",
    b"com.ms.internal.nhwc",
];
/// Operators of those domains that lead out of the file: to another file, or to code of the host.
const REACHING: [&[u8]; 4] = [b"EPContext", b"PyOp", b"ATen", b"PythonOp"];

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

fn reaches_out<T>(message: impl std::fmt::Display) -> Checked<T> {
    Err(Fault::Refused(Error::new("model_reaches_out", message)))
}

fn invalid<T>(message: impl std::fmt::Display) -> Checked<T> {
    Err(Fault::Refused(Error::new("model_invalid", message)))
}

/// Reads a file that may be hostile.
///
/// # Errors
/// `model_reaches_out`: it needs something that is not in it. `model_invalid`: it is no model, or one whose inputs or
/// outputs the protocol has no words for.
pub fn check(file: &[u8]) -> Result<Outline, Error> {
    if file.get(4..8) == Some(b"ORTM") {
        let message = "it is in the runtime's own format (.ort); give the ONNX file it was made of";
        return Err(Error::new("model_invalid", message));
    }
    read(file).map_err(|fault| match fault {
        Fault::Refused(error) => error,
        Fault::Broken(Broken::Truncated) => {
            Error::new("model_invalid", "the file ends early, or is no ONNX model")
        }
        Fault::Broken(Broken::Malformed) => {
            Error::new("model_invalid", "the file is no ONNX model")
        }
    })
}

fn read(file: &[u8]) -> Checked<Outline> {
    let functions = local_functions(file)?;
    let walk = Walk {
        functions: &functions,
        has_inner: Cell::new(false),
    };
    let mut graph = None;
    for field in Fields::of(file) {
        match field? {
            (7, value) if graph.is_some() => {
                value.bytes()?;
                return invalid("it has two graphs");
            }
            (7, value) => {
                let message = value.bytes()?;
                walk.graph(message, 0)?;
                graph = Some(message);
            }
            (25, value) => walk.function(value.bytes()?)?,
            _ => {}
        }
    }
    match graph {
        Some(graph) => Ok(Outline {
            is_straight: !walk.has_inner.get(),
            ..outline(graph)?
        }),
        None => invalid("it has no graph"),
    }
}

/// Domain and name of what the file itself defines (`ModelProto.functions`).
type Functions<'a> = HashSet<(&'a [u8], &'a [u8])>;

fn local_functions(file: &[u8]) -> Checked<Functions<'_>> {
    let mut functions = Functions::new();
    for field in Fields::of(file) {
        let (25, value) = field? else { continue };
        let (mut domain, mut name): (&[u8], &[u8]) = (b"", b"");
        for field in Fields::of(value.bytes()?) {
            match field? {
                (1, value) => name = value.bytes()?,
                (10, value) => domain = value.bytes()?,
                _ => {}
            }
        }
        functions.insert((domain, name));
        if functions.len() > MAX_FUNCTIONS {
            return invalid("it defines too many functions");
        }
    }
    Ok(functions)
}

struct Walk<'a> {
    functions: &'a Functions<'a>,
    /// Whether an operator has a graph of its own (`Loop`, `Scan`, `If`, the runtime's searches).
    has_inner: Cell<bool>,
}

impl Walk<'_> {
    fn graph(&self, message: &[u8], depth: usize) -> Checked<()> {
        if depth > MAX_DEPTH {
            return invalid("its graphs lie too deep in each other");
        }
        for field in Fields::of(message) {
            match field? {
                (1, value) => self.node(value.bytes()?, depth)?,
                (5, value) => tensor(value.bytes()?)?,
                (15, value) => sparse_tensor(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn function(&self, message: &[u8]) -> Checked<()> {
        for field in Fields::of(message) {
            match field? {
                (7, value) => self.node(value.bytes()?, 0)?,
                (11, value) => self.attribute(value.bytes()?, 0)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&self, message: &[u8], depth: usize) -> Checked<()> {
        let (mut operator, mut domain) = (Value::Bytes(b""), Value::Bytes(b""));
        for field in Fields::of(message) {
            match field? {
                (4, value) => operator = value,
                (5, value) => self.attribute(value.bytes()?, depth)?,
                (7, value) => domain = value,
                _ => {}
            }
        }
        let key = (domain.bytes()?, operator.bytes()?);
        let is_known = DOMAINS.contains(&key.0);
        if is_known && REACHING.contains(&key.1) {
            let operator = operator.text()?;
            return reaches_out(format_args!("operator {operator} leads out of the file"));
        }
        if !is_known && !self.functions.contains(&key) {
            let (operator, domain) = (operator.text()?, domain.text()?);
            return reaches_out(format_args!(
                "operator {operator} is of the domain {domain}, which is not in the runtime"
            ));
        }
        Ok(())
    }

    fn attribute(&self, message: &[u8], depth: usize) -> Checked<()> {
        for field in Fields::of(message) {
            match field? {
                (5 | 10, value) => tensor(value.bytes()?)?,
                (6 | 11, value) => {
                    self.has_inner.set(true);
                    self.graph(value.bytes()?, depth + 1)?;
                }
                (22 | 23, value) => sparse_tensor(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn sparse_tensor(message: &[u8]) -> Checked<()> {
    for field in Fields::of(message) {
        if let (1 | 2, value) = field? {
            tensor(value.bytes()?)?;
        }
    }
    Ok(())
}

/// Its values are in the file: `data_location` is not `EXTERNAL`, and `external_data` names nothing.
fn tensor(message: &[u8]) -> Checked<()> {
    let (mut name, mut place, mut is_external) = (String::new(), String::new(), false);
    for field in Fields::of(message) {
        match field? {
            (8, value) => name = value.text()?,
            (13, value) => {
                is_external = true;
                place = location(value.bytes()?)?.unwrap_or(place);
            }
            (14, value) => is_external |= value.number()? != 0,
            _ => {}
        }
    }
    if is_external {
        return reaches_out(format_args!(
            "tensor {name:?} has its values in another file ({place:?}); save the model as one file"
        ));
    }
    Ok(())
}

fn location(entry: &[u8]) -> Checked<Option<String>> {
    let (mut key, mut value): (&[u8], String) = (b"", String::new());
    for field in Fields::of(entry) {
        match field? {
            (1, text) => key = text.bytes()?,
            (2, text) => value = text.text()?,
            _ => {}
        }
    }
    Ok((key == b"location").then_some(value))
}

fn outline(graph: &[u8]) -> Checked<Outline> {
    let mut with_value = HashSet::new();
    let (mut inputs, mut outputs) = (vec![], vec![]);
    for field in Fields::of(graph) {
        match field? {
            (5, value) => {
                let named = Fields::of(value.bytes()?).filter_map(Result::ok);
                with_value.extend(named.filter(|it| it.0 == 8).map(|it| it.1));
            }
            (11, value) => inputs.push(value.bytes()?),
            (12, value) => outputs.push(value.bytes()?),
            _ => {}
        }
        if outputs.len() > MAX_TENSORS {
            return invalid(format_args!("it has more than {MAX_TENSORS} outputs"));
        }
    }
    let mut taken = vec![];
    for message in inputs {
        // Older exporters list every weight among the inputs, with its value: those need not be given.
        let name = Fields::of(message).filter_map(Result::ok);
        if name
            .filter(|it| it.0 == 1)
            .any(|it| with_value.contains(&it.1))
        {
            continue;
        }
        taken.push(port("input", message)?);
        if taken.len() > MAX_TENSORS {
            return invalid(format_args!("it takes more than {MAX_TENSORS} inputs"));
        }
    }
    let outputs: Checked<Vec<_>> = outputs.into_iter().map(|it| port("output", it)).collect();
    match (taken.is_empty(), outputs?) {
        (true, _) => invalid("it takes no input"),
        (_, outputs) if outputs.is_empty() => invalid("it gives no output"),
        (_, outputs) => Ok(Outline {
            inputs: taken,
            outputs,
            keeps_state: false,
            is_straight: true,
        }),
    }
}

/// `ValueInfoProto`: an input or output. An input needs a number of dimensions, since requests are checked by it.
fn port(what: &str, message: &[u8]) -> Checked<Tensor> {
    let (mut name, mut kind): (&[u8], Option<&[u8]>) = (b"", None);
    for field in Fields::of(message) {
        match field? {
            (1, value) => name = value.bytes()?,
            (2, value) => kind = Some(value.bytes()?),
            _ => {}
        }
    }
    let shown = Value::Bytes(name).text()?;
    let Ok(name) = std::str::from_utf8(name) else {
        return invalid(format_args!("{what} {shown:?} has a name that is no UTF-8"));
    };
    if name.is_empty() || name.len() > 256 || name.contains('\0') {
        return invalid(format_args!(
            "{what} {shown:?} has no name that can be used"
        ));
    }
    let mut tensor = None;
    for field in Fields::of(kind.unwrap_or_default()) {
        match field? {
            (1, value) => tensor = Some(value.bytes()?),
            (4 | 5 | 8 | 9, _) => {
                return invalid(format_args!("{what} {shown:?} is no plain tensor"));
            }
            _ => {}
        }
    }
    let Some(tensor) = tensor else {
        return invalid(format_args!("{what} {shown:?} has no type"));
    };
    let (datatype, shape) = tensor_type(tensor)?;
    let Some(datatype) = datatype else {
        return invalid(format_args!(
            "{what} {shown:?} has elements of a type that the protocol does not have"
        ));
    };
    let shape = match shape {
        Some(shape) if shape.len() > MAX_RANK => {
            return invalid(format_args!(
                "{what} {shown:?} has more than {MAX_RANK} dimensions"
            ));
        }
        None if what == "input" => {
            return invalid(format_args!(
                "{what} {shown:?} does not say how many dimensions it has"
            ));
        }
        shape => shape.unwrap_or_default(),
    };
    Ok(Tensor {
        name: name.into(),
        datatype,
        shape,
    })
}

fn tensor_type(message: &[u8]) -> Checked<(Option<Datatype>, Option<Vec<u64>>)> {
    let (mut datatype, mut shape) = (None, None);
    for field in Fields::of(message) {
        match field? {
            (1, value) => {
                let number = i64::try_from(value.number()?).unwrap_or(-1);
                datatype = Datatype::of_onnx(number);
            }
            (2, value) => shape = Some(dimensions(value.bytes()?)?),
            _ => {}
        }
    }
    Ok((datatype, shape))
}

/// `TensorShapeProto`: what is named, negative or not said is any (0).
fn dimensions(message: &[u8]) -> Checked<Vec<u64>> {
    let mut shape = vec![];
    for field in Fields::of(message) {
        let (1, value) = field? else { continue };
        let mut size = 0;
        for field in Fields::of(value.bytes()?) {
            if let (1, value) = field? {
                size = value.number()?;
            }
        }
        shape.push(if i64::try_from(size).is_ok() { size } else { 0 });
        if shape.len() > MAX_RANK {
            break; // refused by the caller
        }
    }
    Ok(shape)
}
