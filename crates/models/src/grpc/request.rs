//! `ModelInferRequest`: what is asked.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::contents;
use crate::config::{MAX_RANK, Served};
use crate::oip::request::{Asked, Input, MAX_ID, Wanted, cut, names, not_whole, schedule};
use crate::oip::{Refusal, elements};
use crate::onnx::wire::{Broken, Fields, Value};
use crate::runtime::Data;

/// A request that fits the model, and how it is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Called {
    /// What is asked.
    pub asked: Asked,
    /// Whether elements came in typed fields, and so go.
    pub is_typed: bool,
}

/// An input: its head, and its typed contents.
struct Tensor<'a> {
    input: Input<'a>,
    contents: Option<&'a [u8]>,
}

/// Decodes a request.
///
/// # Errors
/// 400 with a sentence that names what does not fit; 404: it is for another model or version.
pub fn decode(model: &Served, body: &Bytes) -> Result<Called, Refusal> {
    let (mut id, mut timeout, mut outputs) = (None, None, vec![]);
    let (mut inputs, mut raw) = (vec![], vec![]);
    let (mut name, mut version): (&[u8], &[u8]) = (b"", b"");
    for field in Fields::of(body) {
        match field? {
            (1, value) => name = value.bytes()?,
            (2, value) => version = value.bytes()?,
            (3, value) => id = identifier(value)?,
            (4, value) => timeout = parameter(value, true)?.or(timeout),
            (5, value) => {
                require_few(&inputs, model.inputs.len(), "inputs")?;
                inputs.push(tensor(value.bytes()?)?);
            }
            (6, value) => {
                require_few(&outputs, model.answers().count(), "outputs")?;
                let wanted = output(model, value.bytes()?, &outputs)?;
                outputs.push(wanted);
            }
            (7, value) => {
                require_few(&raw, model.inputs.len(), "raw_input_contents")?;
                raw.push(value.bytes()?);
            }
            _ => {}
        }
    }
    require_this(model, name, version)?;
    let is_typed = raw.is_empty();
    let inputs = match is_typed {
        true => inputs
            .into_iter()
            .map(|it| typed(model, &it))
            .collect::<Result<Vec<_>, _>>()?,
        false => raws(model, body, inputs, &raw)?,
    };
    let asked = Asked {
        id,
        inputs: in_order(model, inputs)?,
        outputs: if outputs.is_empty() {
            all(model)
        } else {
            outputs
        },
        timeout,
    };
    Ok(Called { asked, is_typed })
}

/// Before room is made for one more.
fn require_few<T>(some: &[T], most: usize, what: &str) -> Result<(), Refusal> {
    match some.len() < most {
        true => Ok(()),
        false => Err(Refusal::bad(format_args!(
            "there are more {what} than the model has, which are {most}"
        ))),
    }
}

/// What the engine authorised is this model: a message that names another is not run.
fn require_this(model: &Served, name: &[u8], version: &[u8]) -> Result<(), Refusal> {
    let has_version = version.is_empty() || version == model.version.to_string().as_bytes();
    if name == model.name.as_bytes() && has_version {
        return Ok(());
    }
    Err(Refusal::new(
        404,
        format_args!(
            "the message is not for version {} of the model {:?}",
            model.version, model.name
        ),
    ))
}

fn identifier(value: Value<'_>) -> Result<Option<String>, Refusal> {
    let id = text(value)?;
    match id.len() {
        0 => Ok(None),
        length if length <= MAX_ID => Ok(Some(id.to_owned())),
        _ => Err(Refusal::bad(format_args!(
            "id is longer than {MAX_ID} bytes"
        ))),
    }
}

fn text(value: Value<'_>) -> Result<&str, Refusal> {
    std::str::from_utf8(value.bytes()?).map_err(|_| Refusal::bad("a text is no UTF-8"))
}

/// An entry of `map<string, InferParameter>`: how long its caller waits, where it says that. Those that ask for something
/// that is not here are refused, not left out.
fn parameter(entry: Value<'_>, is_of_request: bool) -> Result<Option<Duration>, Refusal> {
    let (mut key, mut said): (&str, &[u8]) = ("", &[]);
    for field in Fields::of(entry.bytes()?) {
        match field? {
            (1, value) => key = text(value)?,
            (2, value) => said = value.bytes()?,
            _ => {}
        }
    }
    match key {
        "timeout" | "priority" if is_of_request => schedule(key, whole(key, said)?),
        // A number that is 0, or a text without a character, is what clients send for nothing.
        "classification" | "sequence_id" if !is_nothing(said)? => {
            Err(Refusal::bad(format_args!("{key} is not supported")))
        }
        key if key.starts_with("shared_memory_") => {
            Err(Refusal::bad("shared memory is not supported"))
        }
        _ => Ok(None),
    }
}

fn is_nothing(parameter: &[u8]) -> Result<bool, Broken> {
    for field in Fields::of(parameter) {
        match field?.1 {
            Value::Number(0) | Value::Bytes(b"") => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The number that an `InferParameter` is: `int64_param` or `uint64_param`; 0 where it says nothing.
fn whole(key: &str, parameter: &[u8]) -> Result<u64, Refusal> {
    let mut number = 0;
    for field in Fields::of(parameter) {
        number = match field? {
            (2, Value::Number(it)) if i64::try_from(it).is_ok() => it,
            (5, Value::Number(it)) => it,
            _ => return Err(not_whole(key)),
        };
    }
    Ok(number)
}

/// `InferInputTensor`.
fn tensor(message: &[u8]) -> Result<Tensor<'_>, Refusal> {
    let mut tensor = Tensor {
        input: Input::default(),
        contents: None,
    };
    tensor.input.shape = Some(vec![]);
    for field in Fields::of(message) {
        match field? {
            (1, value) => tensor.input.name = Some(Cow::Borrowed(text(value)?)),
            (2, value) => tensor.input.datatype = Some(Cow::Borrowed(text(value)?)),
            (3, value) => sizes(value, tensor.input.shape.get_or_insert_default())?,
            (4, value) => drop(parameter(value, false)?),
            // Messages that come twice are one (proto3); nobody sends them so.
            (5, _) if tensor.contents.is_some() => {
                return Err(Refusal::bad("an input has its contents twice"));
            }
            (5, value) => tensor.contents = Some(value.bytes()?),
            _ => {}
        }
    }
    Ok(tensor)
}

/// `repeated int64 shape`, packed or one.
fn sizes(value: Value<'_>, shape: &mut Vec<i64>) -> Result<(), Refusal> {
    contents::numbers(value, |number| {
        let size = i64::try_from(number).ok();
        match size {
            Some(size) if shape.len() < MAX_RANK => shape.push(size),
            Some(_) => {
                let message = format_args!("a shape has more than {MAX_RANK} dimensions");
                return Err(Refusal::bad(message));
            }
            None => return Err(Refusal::bad("a shape has a dimension that cannot be")),
        }
        Ok(())
    })
}

/// `InferRequestedOutputTensor`.
fn output(model: &Served, message: &[u8], others: &[Wanted]) -> Result<Wanted, Refusal> {
    let mut name = "";
    for field in Fields::of(message) {
        match field? {
            (1, value) => name = text(value)?,
            (2, value) => drop(parameter(value, false)?),
            _ => {}
        }
    }
    let Some(place) = model.answers().position(|it| it.name == name) else {
        return Err(Refusal::bad(format_args!(
            "the model has no output {:?}; it has {}",
            cut(name),
            names(model.answers())
        )));
    };
    if others.iter().any(|it| it.place == place) {
        return Err(Refusal::bad(format_args!("output {name:?} is there twice")));
    }
    Ok(Wanted {
        place,
        is_binary: true,
    })
}

/// Where none is named: the file's own.
fn all(model: &Served) -> Vec<Wanted> {
    let places = 0..model.outputs.len();
    let wanted = places.map(|place| Wanted {
        place,
        is_binary: true,
    });
    wanted.collect()
}

fn typed(model: &Served, tensor: &Tensor<'_>) -> Result<(usize, Data), Refusal> {
    let (place, datatype, shape, count) = tensor.input.check(model)?;
    let name = tensor.input.name.as_deref().unwrap_or_default();
    let contents = tensor.contents.unwrap_or_default();
    let elements = contents::read(name, datatype, count, contents)?;
    let data = Data {
        datatype,
        shape: shape.to_vec(),
        elements,
    };
    Ok((place, data))
}

/// Elements that came raw: one after the other for the inputs, in their order.
fn raws(
    model: &Served,
    body: &Bytes,
    inputs: Vec<Tensor<'_>>,
    raw: &[&[u8]],
) -> Result<Vec<(usize, Data)>, Refusal> {
    if inputs.len() != raw.len() {
        return Err(Refusal::bad(format_args!(
            "there are {} inputs and {} raw_input_contents",
            inputs.len(),
            raw.len()
        )));
    }
    let given = inputs.into_iter().zip(raw).map(|(tensor, bytes)| {
        let (place, datatype, shape, count) = tensor.input.check(model)?;
        let name = tensor.input.name.as_deref().unwrap_or_default();
        if tensor.contents.is_some_and(|it| !it.is_empty()) {
            return Err(Refusal::bad(format_args!(
                "input {name:?} has both contents and raw_input_contents"
            )));
        }
        elements::check(name, datatype, count, bytes)?;
        let data = Data {
            datatype,
            shape: shape.to_vec(),
            elements: body.slice_ref(bytes),
        };
        Ok((place, data))
    });
    given.collect()
}

fn in_order(model: &Served, given: Vec<(usize, Data)>) -> Result<Vec<Data>, Refusal> {
    let mut places: Vec<Option<Data>> = model.inputs.iter().map(|_| None).collect();
    for (place, data) in given {
        let slot = places.get_mut(place);
        if slot.is_some_and(|slot| slot.replace(data).is_some()) {
            let name = model.inputs.get(place).map_or("", |it| &it.name);
            return Err(Refusal::bad(format_args!("input {name:?} is there twice")));
        }
    }
    let named = model.inputs.iter().zip(&places);
    if let Some((spec, _)) = named.into_iter().find(|(_, given)| given.is_none()) {
        return Err(Refusal::bad(format_args!(
            "input {:?} is missing; the model takes {}",
            spec.name,
            names(model.inputs.iter())
        )));
    }
    Ok(places.into_iter().flatten().collect())
}
