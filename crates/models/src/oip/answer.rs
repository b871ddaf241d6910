//! What is answered: a JSON object, and behind it the elements of outputs that were asked for as binary data.

use bytes::Bytes;
use serde_json::json;

use super::request::Wanted;
use super::{Refusal, elements};
use crate::config::{Format, Served, Tensor};
use crate::runtime::Data;

/// Bytes of elements that are written as JSON at most.
const MOST_AS_TEXT: usize = 16 << 20;
/// Outputs up to this size go into one piece with the JSON: one write of the kernel, and nothing kept.
const TOGETHER: usize = 16 * 1024;

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// One after the other.
    pub parts: Vec<Bytes>,
    /// `Inference-Header-Content-Length`; `None`: all of it is JSON.
    pub json_length: Option<usize>,
}

/// Encodes what a run gave, `outputs` being as `wanted`.
///
/// # Errors
/// 400: an output has no form in JSON and was not asked for as binary data.
pub fn encode(
    model: &Served,
    id: Option<&str>,
    wanted: &[Wanted],
    outputs: Vec<Data>,
) -> Result<Answer, Refusal> {
    let mut json = Vec::with_capacity(256);
    text(&mut json, b"{\"model_name\":", &model.name)?;
    json.extend_from_slice(b",\"model_version\":\"");
    json.extend_from_slice(model.version.to_string().as_bytes());
    json.push(b'"');
    if let Some(id) = id {
        text(&mut json, b",\"id\":", id)?;
    }
    require_little_text(wanted, &outputs)?;
    json.extend_from_slice(b",\"outputs\":[");
    let mut binary = vec![];
    for (place, (wanted, data)) in wanted.iter().zip(outputs).enumerate() {
        if place > 0 {
            json.push(b',');
        }
        let name = model.answers().nth(wanted.place);
        let name = name.map_or("", |it| it.name.as_str());
        output(&mut json, name, wanted.is_binary, &data)?;
        if wanted.is_binary {
            binary.push(data.elements);
        }
    }
    json.extend_from_slice(b"]}");
    let json_length = wanted.iter().any(|it| it.is_binary).then_some(json.len());
    Ok(Answer {
        parts: together(json, binary),
        json_length,
    })
}

/// An answer in JSON is many times its elements, and all of it is in memory at once.
fn require_little_text(wanted: &[Wanted], outputs: &[Data]) -> Result<(), Refusal> {
    let texts = wanted.iter().zip(outputs).filter(|(it, _)| !it.is_binary);
    let bytes: usize = texts.map(|(_, data)| data.elements.len()).sum();
    if bytes <= MOST_AS_TEXT {
        return Ok(());
    }
    Err(Refusal::bad(format_args!(
        "the outputs are {bytes} bytes, which is too much for JSON (at most {MOST_AS_TEXT}); ask for them with binary_data"
    )))
}

fn output(json: &mut Vec<u8>, name: &str, is_binary: bool, data: &Data) -> Result<(), Refusal> {
    text(json, b"{\"name\":", name)?;
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(data.datatype.as_str().as_bytes());
    json.extend_from_slice(b"\",\"shape\":");
    serde_json::to_writer(&mut *json, &data.shape).map_err(|error| Refusal::new(500, error))?;
    if is_binary {
        let length = data.elements.len().to_string();
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        json.extend_from_slice(length.as_bytes());
        json.extend_from_slice(b"}}");
        return Ok(());
    }
    json.extend_from_slice(b",\"data\":");
    elements::write(json, name, data.datatype, &data.elements)?;
    json.push(b'}');
    Ok(())
}

fn text(json: &mut Vec<u8>, before: &[u8], text: &str) -> Result<(), Refusal> {
    json.extend_from_slice(before);
    serde_json::to_writer(json, text).map_err(|error| Refusal::new(500, error))
}

fn together(mut json: Vec<u8>, binary: Vec<Bytes>) -> Vec<Bytes> {
    if binary.iter().map(Bytes::len).sum::<usize>() <= TOGETHER {
        for part in binary {
            json.extend_from_slice(&part);
        }
        return vec![json.into()];
    }
    std::iter::once(Bytes::from(json)).chain(binary).collect()
}

/// Metadata of the model.
pub fn metadata(model: &Served) -> Bytes {
    let tensors = |tensors: &mut dyn Iterator<Item = &Tensor>| {
        let tensor = |it: &Tensor| {
            let shape = it.shape.iter().map(|size| match size {
                0 => -1,
                size => i64::try_from(*size).unwrap_or(-1),
            });
            json!({"name": it.name, "datatype": it.datatype, "shape": shape.collect::<Vec<_>>()})
        };
        tensors.map(tensor).collect::<Vec<_>>()
    };
    let mut metadata = json!({
        "name": model.name,
        "versions": [model.version.to_string()],
        "platform": platform(model.format),
        "inputs": tensors(&mut model.inputs.iter()),
        "outputs": tensors(&mut model.answers()),
    });
    if let (false, Some(said)) = (model.media.is_empty(), metadata.as_object_mut()) {
        let types = json!({"content_types": model.media});
        said.insert("parameters".into(), types);
    }
    metadata.to_string().into()
}

fn platform(format: Format) -> &'static str {
    match format {
        Format::Onnx => "onnxruntime_onnx",
        Format::Tflite => "litert_tflite",
        Format::Detector => "vedette_detector",
    }
}
