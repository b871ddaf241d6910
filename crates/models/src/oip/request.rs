//! What is asked: a JSON object, and behind it the elements of binary tensors.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::{Refusal, elements};
use crate::config::{Datatype, MAX_RANK, Served, Tensor};
use crate::json::{Fault, Reader};
use crate::runtime::Data;

/// Longest `id` that is given back, in bytes.
pub const MAX_ID: usize = 1024;

/// A request that fits the model.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Given back in the answer.
    pub id: Option<String>,
    /// In the model's order.
    pub inputs: Vec<Data>,
    /// In the order of the request.
    pub outputs: Vec<Wanted>,
    /// How long its caller waits, as its parameters say.
    pub timeout: Option<Duration>,
}

/// An output that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in the model.
    pub place: usize,
    /// Whether its elements follow the JSON.
    pub is_binary: bool,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::bad(format_args!(
            "the JSON of the request, at byte {}: {} is expected there",
            fault.at, fault.expected
        ))
    }
}

/// Decodes a request. `json_length`: `Inference-Header-Content-Length`; without it all of the body is JSON.
///
/// # Errors
/// 400 with a sentence that names what does not fit.
pub fn decode(model: &Served, body: &Bytes, json_length: Option<usize>) -> Result<Asked, Refusal> {
    let length = json_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(Refusal::bad(format_args!(
            "inference-header-content-length is {length}, and the body has {} bytes",
            body.len()
        )));
    }
    let binary = Binary {
        bytes: body.slice(length..),
        is_allowed: json_length.is_some(),
    };
    let mut reading = Reading::new(model, binary);
    reading.object(&mut Reader::new(body.get(..length).unwrap_or_default()))?;
    reading.finish()
}

/// Decodes what stands before bytes that are no tensors, if anything does, and gives those bytes; inputs are for whoever
/// reads them.
///
/// # Errors
/// 400 with a sentence that names what does not fit.
pub fn decode_beside(
    model: &Served,
    body: &Bytes,
    length: usize,
) -> Result<(Asked, Bytes), Refusal> {
    let Some((json, _)) = body.split_at_checked(length) else {
        return Err(Refusal::bad(format_args!(
            "inference-header-content-length is {length}, and the body has {} bytes",
            body.len()
        )));
    };
    let nothing = Binary {
        bytes: Bytes::new(),
        is_allowed: false,
    };
    let mut reading = Reading::new(model, nothing);
    reading.is_beside = true;
    if length > 0 {
        reading.object(&mut Reader::new(json))?;
    }
    Ok((reading.asked(), body.slice(length..)))
}

/// The bytes behind the JSON, which inputs take in the order in which they are named.
struct Binary {
    bytes: Bytes,
    is_allowed: bool,
}

impl Binary {
    fn take(&mut self, name: &str, length: usize) -> Result<Bytes, Refusal> {
        if !self.is_allowed {
            return Err(Refusal::bad(format_args!(
                "input {name:?} is binary, which needs the header inference-header-content-length"
            )));
        }
        if length > self.bytes.len() {
            return Err(Refusal::bad(format_args!(
                "input {name:?} is to have {length} bytes, and {} are left of the body",
                self.bytes.len()
            )));
        }
        Ok(self.bytes.split_to(length))
    }
}

struct Reading<'a> {
    model: &'a Served,
    given: Vec<Option<Data>>,
    binary: Binary,
    /// Place, and what its parameters say.
    outputs: Option<Vec<(usize, Option<bool>)>>,
    is_binary: bool,
    id: Option<String>,
    timeout: Option<Duration>,
    /// Whether inputs are what follows.
    is_beside: bool,
}

impl<'a> Reading<'a> {
    fn new(model: &'a Served, binary: Binary) -> Self {
        Self {
            model,
            given: model.inputs.iter().map(|_| None).collect(),
            binary,
            outputs: None,
            is_binary: false,
            id: None,
            timeout: None,
            is_beside: false,
        }
    }

    fn object(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        reader.need(b'{', "an object")?;
        let (mut is_first, mut has_inputs) = (true, false);
        while let Some(key) = reader.next_key(&mut is_first)? {
            match &*key {
                "id" => self.id = Some(id(reader)?),
                "parameters" => {
                    let parameters = parameters(reader, true)?;
                    if let Some(is_binary) = parameters.binary_data_output {
                        self.is_binary = is_binary;
                    }
                    self.timeout = parameters.timeout.or(self.timeout);
                }
                "inputs" if self.is_beside => {
                    return Err(Refusal::bad("the input is what follows the JSON"));
                }
                "inputs" if !has_inputs => {
                    has_inputs = true;
                    self.inputs(reader)?;
                }
                "outputs" if self.outputs.is_none() => self.outputs(reader)?,
                "inputs" | "outputs" => {
                    return Err(Refusal::bad(format_args!("{key:?} is there twice")));
                }
                _ => reader.skip()?,
            }
        }
        Ok(reader.end()?)
    }

    fn inputs(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        reader.need(b'[', "a list of inputs")?;
        let mut is_first = true;
        while reader.next_item(&mut is_first, b']')? {
            let input = Input::read(reader, self.model)?;
            let (place, data) = input.data(reader, self.model, &mut self.binary)?;
            let Some(slot) = self.given.get_mut(place) else {
                continue;
            };
            if slot.is_some() {
                let name = self.model.inputs.get(place).map(|it| &it.name);
                return Err(Refusal::bad(format_args!(
                    "input {:?} is there twice",
                    name.map_or("", |it| it)
                )));
            }
            *slot = Some(data);
        }
        Ok(())
    }

    fn outputs(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        reader.need(b'[', "a list of outputs")?;
        let mut outputs: Vec<(usize, Option<bool>)> = vec![];
        let mut is_first = true;
        while reader.next_item(&mut is_first, b']')? {
            let (name, is_binary) = output(reader)?;
            let place = self.model.answers().position(|it| it.name == name);
            let Some(place) = place else {
                return Err(Refusal::bad(format_args!(
                    "the model has no output {:?}; it has {}",
                    cut(&name),
                    names(self.model.answers())
                )));
            };
            if outputs.iter().any(|(other, _)| *other == place) {
                return Err(Refusal::bad(format_args!("output {name:?} is there twice")));
            }
            outputs.push((place, is_binary));
        }
        self.outputs = Some(outputs);
        Ok(())
    }

    fn finish(self) -> Result<Asked, Refusal> {
        let missing = self.model.inputs.iter().zip(&self.given);
        if let Some((spec, _)) = missing.into_iter().find(|(_, given)| given.is_none()) {
            return Err(Refusal::bad(format_args!(
                "input {:?} is missing; the model takes {}",
                spec.name,
                names(self.model.inputs.iter())
            )));
        }
        if !self.binary.bytes.is_empty() {
            return Err(Refusal::bad(format_args!(
                "{} bytes behind the JSON belong to no input (binary_data_size)",
                self.binary.bytes.len()
            )));
        }
        Ok(self.asked())
    }

    /// Where no output is named: the file's own; of what came as no tensors what is read, if anything is.
    fn asked(self) -> Asked {
        let (own, read) = (self.model.outputs.len(), self.model.read.len());
        let usual = match self.is_beside && read > 0 {
            true => own..own + read,
            false => 0..own,
        };
        let outputs = match self.outputs {
            Some(outputs) if !outputs.is_empty() => outputs,
            _ => usual.map(|place| (place, None)).collect(),
        };
        let wanted = outputs.into_iter().map(|(place, is_binary)| Wanted {
            place,
            is_binary: is_binary.unwrap_or(self.is_binary),
        });
        Asked {
            id: self.id,
            inputs: self.given.into_iter().flatten().collect(),
            outputs: wanted.collect(),
            timeout: self.timeout,
        }
    }
}

/// One input as it is written down.
#[derive(Default)]
pub struct Input<'a> {
    /// Its name.
    pub name: Option<Cow<'a, str>>,
    /// Its type, as it is written.
    pub datatype: Option<Cow<'a, str>>,
    /// Its dimensions.
    pub shape: Option<Vec<i64>>,
    binary_size: Option<usize>,
    /// Where its elements begin.
    data: Option<usize>,
    /// Those, where all that they are read by was said before them.
    elements: Option<Bytes>,
}

impl<'a> Input<'a> {
    fn read(reader: &mut Reader<'a>, model: &Served) -> Result<Self, Refusal> {
        reader.need(b'{', "an input")?;
        let (mut input, mut is_first) = (Self::default(), true);
        let mut has_parameters = false;
        while let Some(key) = reader.next_key(&mut is_first)? {
            // Elements are read by what was said before them: another word after them would be about other ones.
            let is_twice = match &*key {
                "name" => input.name.is_some(),
                "datatype" => input.datatype.is_some(),
                "shape" => input.shape.is_some(),
                "data" => input.data.is_some(),
                "parameters" => std::mem::replace(&mut has_parameters, true),
                _ => false,
            };
            if is_twice {
                return Err(Refusal::bad(format_args!(
                    "{key:?} of an input is there twice"
                )));
            }
            match &*key {
                "name" => input.name = Some(reader.text()?),
                "datatype" => input.datatype = Some(reader.text()?),
                "shape" => input.shape = Some(shape(reader)?),
                "parameters" => {
                    let parameters = parameters(reader, false)?;
                    input.binary_size = parameters.binary_data_size.or(input.binary_size);
                }
                "data" => {
                    input.data = Some(reader.at());
                    match input.is_said() {
                        true => {
                            let (_, datatype, shape, _) = input.check(model)?;
                            let most = reader.length();
                            input.elements = Some(elements::read(reader, datatype, shape, most)?);
                        }
                        false => reader.skip()?,
                    }
                }
                _ => reader.skip()?,
            }
        }
        Ok(input)
    }

    fn is_said(&self) -> bool {
        self.name.is_some() && self.datatype.is_some() && self.shape.is_some()
    }

    /// Its place in the model, its type, its shape and how many elements that makes.
    ///
    /// # Errors
    /// 400: the model takes no such input.
    pub fn check(&self, model: &Served) -> Result<(usize, Datatype, &[i64], usize), Refusal> {
        let Some(name) = &self.name else {
            return Err(Refusal::bad("an input has no name"));
        };
        let specs = &model.inputs;
        let Some((place, spec)) = specs.iter().enumerate().find(|it| it.1.name == **name) else {
            return Err(Refusal::bad(format_args!(
                "the model takes no input {:?}; it takes {}",
                cut(name),
                names(specs.iter())
            )));
        };
        let said = self.datatype.as_deref().unwrap_or("no datatype");
        if Datatype::named(said) != Some(spec.datatype) {
            return Err(Refusal::bad(format_args!(
                "input {name:?} is {}, and the model takes {}",
                cut(said),
                spec.datatype.as_str()
            )));
        }
        let shape = self.shape.as_deref();
        let fits = |shape: &&[i64]| {
            let mut both = shape.iter().zip(&spec.shape);
            shape.len() == spec.shape.len()
                && both.all(|(size, wanted)| *wanted == 0 || u64::try_from(*size) == Ok(*wanted))
        };
        let Some(shape) = shape.filter(fits) else {
            return Err(Refusal::bad(format_args!(
                "input {name:?} has the shape {:?}, and the model takes {:?} (-1: any)",
                shape.unwrap_or_default(),
                signed(&spec.shape)
            )));
        };
        match elements::count(shape) {
            Some(count) => Ok((place, spec.datatype, shape, count)),
            None => Err(Refusal::bad(format_args!(
                "input {name:?}: its shape has more elements than there can be"
            ))),
        }
    }

    fn data(
        self,
        reader: &Reader<'_>,
        model: &Served,
        binary: &mut Binary,
    ) -> Result<(usize, Data), Refusal> {
        let (place, datatype, shape, count) = self.check(model)?;
        let name = self.name.as_deref().unwrap_or_default();
        let elements = match (self.elements.as_ref(), self.data, self.binary_size) {
            (_, Some(_), Some(_)) => {
                return Err(Refusal::bad(format_args!(
                    "input {name:?} has both data and binary_data_size"
                )));
            }
            (Some(elements), ..) => elements.clone(),
            (None, Some(at), None) => {
                elements::read(&mut reader.jump(at), datatype, shape, reader.length())?
            }
            (None, None, Some(length)) => {
                let bytes = binary.take(name, length)?;
                elements::check(name, datatype, count, &bytes)?;
                bytes
            }
            (None, None, None) => {
                return Err(Refusal::bad(format_args!("input {name:?} has no data")));
            }
        };
        let shape = shape.to_vec();
        let data = Data {
            datatype,
            shape,
            elements,
        };
        Ok((place, data))
    }
}

/// What `parameters` may say here.
#[derive(Default)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    timeout: Option<Duration>,
}

/// What `timeout` and `priority` of Triton's schedule policy extension say, in its numbers: microseconds, 0 for none; and 0
/// for the usual priority, which is all that a caller may ask for: whose turn is first the route says.
///
/// # Errors
/// 400: another priority.
pub fn schedule(key: &str, number: u64) -> Result<Option<Duration>, Refusal> {
    match (key, number) {
        (_, 0) => Ok(None),
        ("timeout", micros) => Ok(Some(Duration::from_micros(micros))),
        _ => Err(Refusal::bad(
            "priority is not supported: whose turn is first is said by the route (criticality)",
        )),
    }
}

/// Reads parameters. Those that ask for something that is not here are refused, not left out.
fn parameters(reader: &mut Reader<'_>, is_of_request: bool) -> Result<Parameters, Refusal> {
    reader.need(b'{', "parameters")?;
    let (mut parameters, mut is_first) = (Parameters::default(), true);
    while let Some(key) = reader.next_key(&mut is_first)? {
        match &*key {
            "binary_data_size" => {
                let length = reader.number()?.parse();
                parameters.binary_data_size = Some(
                    length.map_err(|_| Refusal::bad("binary_data_size is no number of bytes"))?,
                );
            }
            "binary_data" => parameters.binary_data = Some(reader.boolean()?),
            "binary_data_output" => parameters.binary_data_output = Some(reader.boolean()?),
            "timeout" | "priority" if is_of_request => {
                let number = reader.number()?.parse();
                let number = number.map_err(|_| not_whole(&key))?;
                let timeout = schedule(&key, number)?;
                parameters.timeout = timeout.or(parameters.timeout);
            }
            "classification" | "sequence_id" => {
                return Err(Refusal::bad(format_args!("{key} is not supported")));
            }
            key if key.starts_with("shared_memory_") => {
                return Err(Refusal::bad("shared memory is not supported"));
            }
            _ => reader.skip()?,
        }
    }
    Ok(parameters)
}

/// A parameter that is to be a number, and is none.
pub fn not_whole(key: &str) -> Refusal {
    Refusal::bad(format_args!("{key} is no whole number from 0 on"))
}

fn output(reader: &mut Reader<'_>) -> Result<(String, Option<bool>), Refusal> {
    reader.need(b'{', "an output")?;
    let (mut name, mut is_binary, mut is_first) = (None, None, true);
    while let Some(key) = reader.next_key(&mut is_first)? {
        match &*key {
            "name" => name = Some(reader.text()?.into_owned()),
            "parameters" => is_binary = parameters(reader, false)?.binary_data,
            _ => reader.skip()?,
        }
    }
    match name {
        Some(name) => Ok((name, is_binary)),
        None => Err(Refusal::bad("an output has no name")),
    }
}

fn id(reader: &mut Reader<'_>) -> Result<String, Refusal> {
    let id = reader.text()?;
    match id.len() <= MAX_ID {
        true => Ok(id.into_owned()),
        false => Err(Refusal::bad(format_args!(
            "id is longer than {MAX_ID} bytes"
        ))),
    }
}

fn shape(reader: &mut Reader<'_>) -> Result<Vec<i64>, Refusal> {
    reader.need(b'[', "a shape")?;
    let (mut shape, mut is_first) = (vec![], true);
    while reader.next_item(&mut is_first, b']')? {
        let size = reader.number()?.parse::<i64>().ok();
        match size.filter(|it| *it >= 0) {
            Some(size) if shape.len() < MAX_RANK => shape.push(size),
            Some(_) => {
                let message = format_args!("a shape has more than {MAX_RANK} dimensions");
                return Err(Refusal::bad(message));
            }
            None => return Err(Refusal::bad("a shape has a dimension that cannot be")),
        }
    }
    Ok(shape)
}

fn signed(shape: &[u64]) -> Vec<i64> {
    shape
        .iter()
        .map(|it| i64::try_from(*it).ok().filter(|it| *it > 0).unwrap_or(-1))
        .collect()
}

/// The names of tensors, for a sentence.
pub fn names<'a>(mut tensors: impl Iterator<Item = &'a Tensor>) -> String {
    const MOST: usize = 8;
    let named = tensors.by_ref().take(MOST);
    let mut names: Vec<_> = named.map(|it| format!("{:?}", it.name)).collect();
    if tensors.next().is_some() {
        names.push("…".into());
    }
    names.join(", ")
}

/// What a caller wrote, for a sentence.
pub fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}
