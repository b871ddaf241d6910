//! A request or an answer of the Open Inference Protocol, taken apart without reading its elements.
//!
//! Owns: where each part lies. What is kept is copied from where it lies, so no number changes on its way. Must not:
//! say whether a message fits a model.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Most members of an object and most items of a list that are looked at.
const MOST: usize = 1024;
/// Most dimensions of a tensor, as the snapshot has them.
const MOST_DIMENSIONS: usize = 16;

/// The elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// As JSON.
    Json(&'a str),
    /// As bytes behind the JSON.
    Binary(&'a [u8]),
}

/// An input or an output.
#[derive(Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: String,
    /// Its datatype, as it is written.
    pub datatype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its elements.
    pub data: Data<'a>,
}

/// An output that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Whether it is wanted as bytes; none: as the request says for all.
    pub is_binary: Option<bool>,
}

/// What is asked of a model.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Question<'a> {
    /// Given back to who asks, and told nobody else.
    pub id: Option<String>,
    /// Inputs, as they came.
    pub inputs: Vec<Tensor<'a>>,
    /// Outputs that are asked for; none: those that the model gives by itself.
    pub outputs: Vec<Wanted>,
    /// Whether outputs are wanted as bytes that do not say.
    pub is_binary: bool,
    /// A picture, a sound or a text in place of inputs.
    pub medium: Option<&'a [u8]>,
}

/// What a model says.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The model's name, as it says.
    pub model: String,
    /// Its version, where it is a short word.
    pub version: Option<String>,
    /// Outputs, as they came.
    pub outputs: Vec<Tensor<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

impl<'a> Question<'a> {
    /// Takes a request apart; none: it is none. `json_length`: `Inference-Header-Content-Length`; without it all of
    /// the body is JSON.
    pub fn read(body: &'a [u8], json_length: Option<usize>) -> Option<Self> {
        let (json, mut binary) = halves(body, json_length)?;
        let mut question = Self::default();
        for (key, value) in members(json)? {
            match &*key {
                "id" => question.id = Some(serde_json::from_str(value).ok()?),
                "inputs" => question.inputs = tensors(value, &mut binary)?,
                "outputs" => question.outputs = wanted(value)?,
                "parameters" => {
                    let said: Parameters = serde_json::from_str(value).ok()?;
                    question.is_binary = said.binary_data_output.unwrap_or(false);
                }
                _ => {}
            }
        }
        binary.is_empty().then_some(question)
    }

    /// The same of a picture, a sound or a text, before which may stand what is wanted of it.
    pub fn of_medium(body: &'a [u8], json_length: Option<usize>) -> Option<Self> {
        let (json, medium) = body.split_at_checked(json_length.unwrap_or(0))?;
        let question = match json_length {
            None => Self::default(),
            Some(_) => Self::read(json, None).filter(|it| it.inputs.is_empty())?,
        };
        Some(Self {
            medium: Some(medium),
            ..question
        })
    }

    /// Whether an output is wanted as bytes.
    pub fn wants_binary(&self, name: &str) -> bool {
        let said = self.outputs.iter().find(|it| it.name == name);
        said.and_then(|it| it.is_binary).unwrap_or(self.is_binary)
    }
}

impl<'a> Answer<'a> {
    /// Takes an answer apart; none: it is none.
    pub fn read(body: &'a [u8], json_length: Option<usize>) -> Option<Self> {
        let (json, mut binary) = halves(body, json_length)?;
        let (mut model, mut version, mut outputs) = (None, None, None);
        for (key, value) in members(json)? {
            match &*key {
                "model_name" => model = Some(serde_json::from_str(value).ok()?),
                "model_version" => {
                    let said: Option<String> = serde_json::from_str(value).ok();
                    version = said.filter(|it| is_word(it));
                }
                "outputs" => outputs = Some(tensors(value, &mut binary)?),
                _ => {}
            }
        }
        binary.is_empty().then_some(())?;
        Some(Self {
            model: model?,
            version,
            outputs: outputs?,
        })
    }
}

fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

fn halves(body: &[u8], json_length: Option<usize>) -> Option<(&str, &[u8])> {
    let (json, binary) = body.split_at_checked(json_length.unwrap_or(body.len()))?;
    Some((std::str::from_utf8(json).ok()?, binary))
}

/// The tensors of a list. Binary ones take their bytes in the order in which they are named.
fn tensors<'a>(list: &'a str, binary: &mut &'a [u8]) -> Option<Vec<Tensor<'a>>> {
    let read = |item| tensor(item, binary);
    items(list)?.into_iter().map(read).collect()
}

fn tensor<'a>(object: &'a str, binary: &mut &'a [u8]) -> Option<Tensor<'a>> {
    let (mut name, mut datatype, mut shape, mut data) = (None, None, None, None);
    let mut size = None;
    for (key, value) in members(object)? {
        match &*key {
            "name" => name = Some(serde_json::from_str(value).ok()?),
            "datatype" => datatype = Some(serde_json::from_str(value).ok()?),
            "shape" => shape = Some(serde_json::from_str::<Vec<u64>>(value).ok()?),
            "data" => data = Some(value),
            "parameters" => {
                size = serde_json::from_str::<Parameters>(value)
                    .ok()?
                    .binary_data_size;
            }
            _ => {}
        }
    }
    let data = match (data, size) {
        (Some(json), None) => Data::Json(json),
        (None, Some(size)) => {
            let (own, rest) = binary.split_at_checked(size)?;
            *binary = rest;
            Data::Binary(own)
        }
        _ => return None,
    };
    Some(Tensor {
        name: name?,
        datatype: datatype?,
        shape: shape.filter(|it| it.len() <= MOST_DIMENSIONS)?,
        data,
    })
}

fn wanted(list: &str) -> Option<Vec<Wanted>> {
    let read = |item| {
        let (mut name, mut is_binary) = (None, None);
        for (key, value) in members(item)? {
            match &*key {
                "name" => name = Some(serde_json::from_str(value).ok()?),
                "parameters" => {
                    is_binary = serde_json::from_str::<Parameters>(value).ok()?.binary_data;
                }
                _ => {}
            }
        }
        Some(Wanted {
            name: name?,
            is_binary,
        })
    };
    items(list)?.into_iter().map(read).collect()
}

/// The members of an object, each with its value as it is written; none: it is no object, has too many, or one twice,
/// which two readers could read in two ways.
pub fn members(json: &str) -> Option<Vec<(String, &str)>> {
    let mut at = Cursor(json);
    at.take('{')?;
    let (mut found, mut names) = (Vec::new(), HashSet::new());
    while !at.ends('}', found.is_empty())? {
        let key: String = serde_json::from_str(at.value()?).ok()?;
        at.take(':')?;
        let value = at.value()?;
        let is_new = names.insert(key.clone());
        found.push((key, value));
        (is_new && found.len() <= MOST).then_some(())?;
    }
    at.0.trim_ascii().is_empty().then_some(found)
}

/// The items of a list, as they are written; none: it is no list, or has too many.
fn items(json: &str) -> Option<Vec<&str>> {
    let mut at = Cursor(json);
    at.take('[')?;
    let mut found = Vec::new();
    while !at.ends(']', found.is_empty())? {
        found.push(at.value()?);
        (found.len() <= MOST).then_some(())?;
    }
    at.0.trim_ascii().is_empty().then_some(found)
}

/// The rest of a text of JSON.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, wanted: char) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(wanted)?;
        Some(())
    }

    /// Whether the object or list ends here; else what comes is its next part.
    fn ends(&mut self, close: char, is_first: bool) -> Option<bool> {
        if self.take(close).is_some() {
            return Some(true);
        }
        if !is_first {
            self.take(',')?;
        }
        Some(false)
    }

    /// One value, as it is written.
    fn value(&mut self) -> Option<&'a str> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        let (value, rest) = self.0.split_at_checked(values.byte_offset())?;
        self.0 = rest;
        Some(value.trim_ascii())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
