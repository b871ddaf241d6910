//! Fuzz targets of models: see `vedette_engine::fuzz`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

use bytes::Bytes;

use crate::config::{Datatype, Served};
use crate::grpc;
use crate::oip::answer::encode;
use crate::oip::elements::count;
use crate::oip::request::decode;
use crate::onnx::wire::Fields;
use crate::runtime::{Data, texts};
use crate::samples::redaction::redacted;
use crate::streams::event::{self, Lines, MAX_LINE, Next};
use crate::streams::recurrent::Event;
use crate::streams::spec::Spec;
use crate::{media, onnx, reading, tflite};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("onnx", file),
    ("tflite", tflite_file),
    ("infer", infer),
    ("message", message),
    ("media", media),
    ("detector", detector),
    ("events", events),
    ("redaction", redaction),
];

/// A model's file: refused with a sentence, or with inputs and outputs that have names and ranks.
fn file(data: &[u8]) {
    match onnx::check(data) {
        Err(error) => assert!(!error.message.is_empty(), "no sentence"),
        Ok(outline) => {
            assert!(!outline.inputs.is_empty() && !outline.outputs.is_empty());
            for tensor in outline.inputs.iter().chain(&outline.outputs) {
                assert!(!tensor.name.is_empty() && tensor.shape.len() <= 16);
            }
        }
    }
}

/// The same of TensorFlow Lite; a file that is rewritten for the runtime still says the same.
fn tflite_file(data: &[u8]) {
    match tflite::check(data) {
        Err(error) => assert!(!error.message.is_empty(), "no sentence"),
        Ok(outline) => {
            assert!(!outline.inputs.is_empty() && !outline.outputs.is_empty());
            for tensor in outline.inputs.iter().chain(&outline.outputs) {
                assert!(!tensor.name.is_empty() && tensor.shape.len() <= 8);
            }
            if let Some(folded) = tflite::fold(data) {
                assert!(folded.len() > data.len());
                assert_eq!(tflite::check(&folded), Ok(outline));
            }
        }
    }
}

const MODEL: &str = r#"{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[0,2]},{"name":"n","datatype":"INT64","shape":[0]},
        {"name":"t","datatype":"BYTES","shape":[0]},{"name":"b","datatype":"BOOL","shape":[]}],
    "outputs":[{"name":"x","datatype":"FP32","shape":[0]},{"name":"n","datatype":"INT64","shape":[0]},
        {"name":"t","datatype":"BYTES","shape":[0]},{"name":"b","datatype":"BOOL","shape":[]}],
    "limits":{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}"#;

/// A request, the length of its JSON before it in two bytes (0: all of it). What is taken fits the model, and is the
/// same when it is given back and read again.
fn infer(data: &[u8]) {
    let Some((length, body)) = data.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let model: Served = serde_json::from_str(MODEL).unwrap();
    let body = Bytes::copy_from_slice(body);
    let asked = match decode(&model, &body, (length > 0).then_some(length)) {
        Ok(asked) => asked,
        Err(refusal) => {
            assert_eq!(refusal.status, 400);
            assert!(!refusal.message.is_empty(), "no sentence");
            return;
        }
    };
    assert_eq!(asked.inputs.len(), model.inputs.len());
    for (input, spec) in asked.inputs.iter().zip(&model.inputs) {
        fits(input, spec.datatype);
        assert_eq!(input.shape.len(), spec.shape.len());
    }
    let chosen: Vec<Data> = asked
        .outputs
        .iter()
        .map(|it| asked.inputs[it.place].clone())
        .collect();
    let Ok(answer) = encode(&model, asked.id.as_deref(), &asked.outputs, chosen) else {
        return; // NaN, or a text that is no UTF-8
    };
    let whole = answer.parts.concat();
    let length = answer.json_length.unwrap_or(whole.len());
    let json: serde_json::Value = serde_json::from_slice(&whole[..length]).expect("JSON");
    assert_eq!(
        json["outputs"].as_array().map(Vec::len),
        Some(asked.outputs.len())
    );
    let binary: usize = asked
        .outputs
        .iter()
        .filter(|it| it.is_binary)
        .map(|it| asked.inputs[it.place].elements.len())
        .sum();
    assert_eq!(whole.len() - length, binary, "as many bytes as were said");
}

/// A `ModelInferRequest`: refused with a sentence, or what is taken fits the model, and given back is read again as the
/// same elements.
fn message(data: &[u8]) {
    let model: Served = serde_json::from_str(MODEL).unwrap();
    let called = match grpc::request::decode(&model, &Bytes::copy_from_slice(data)) {
        Ok(called) => called,
        Err(refusal) => {
            assert!(matches!(refusal.status, 400 | 404));
            assert!(!refusal.message.is_empty(), "no sentence");
            return;
        }
    };
    let asked = called.asked;
    assert_eq!(asked.inputs.len(), model.inputs.len());
    for (input, spec) in asked.inputs.iter().zip(&model.inputs) {
        fits(input, spec.datatype);
        assert_eq!(input.shape.len(), spec.shape.len());
    }
    let chosen: Vec<Data> = asked
        .outputs
        .iter()
        .map(|it| asked.inputs[it.place].clone())
        .collect();
    let id = asked.id.as_deref();
    let answer = grpc::answer::encode(&model, id, &asked.outputs, chosen.clone(), called.is_typed);
    // Name, version, outputs and elements of an answer have the numbers of name, version, inputs and elements of a request,
    // but for the raw ones.
    let mut again = answer.concat();
    if !called.is_typed {
        again = raw_again(&again);
    }
    if asked.outputs.len() == model.outputs.len() {
        let read = grpc::request::decode(&model, &again.into()).expect("its own answer");
        assert_eq!(read.asked.id, asked.id);
        assert_eq!(read.asked.inputs, asked.inputs);
    }
}

/// An answer with its `raw_output_contents` (6) as `raw_input_contents` (7).
fn raw_again(answer: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    for field in Fields::of(answer) {
        let (number, value) = field.expect("a field");
        let number = if number == 6 { 7 } else { number };
        let value = value.bytes().expect("bytes");
        out.extend(varint(number << 3 | 2));
        out.extend(varint(value.len() as u64));
        out.extend_from_slice(value);
    }
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = vec![];
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
    out
}

/// A detector's file: refused with a sentence, or within its bounds.
fn detector(data: &[u8]) {
    match Spec::read(data) {
        Err(error) => assert!(!error.message.is_empty(), "no sentence"),
        Ok(spec) => {
            assert_eq!(spec.inputs().len(), spec.features.len());
            assert!(spec.trees <= 100 && spec.depth <= 15 && spec.window <= 65_535);
        }
    }
}

/// A body of events, the size of its pieces before it in one byte: the lines are the same in one piece, none is too long,
/// and what is read of one is numbers, and an `id` that is JSON.
fn events(data: &[u8]) {
    let Some((size, body)) = data.split_first() else {
        return;
    };
    let lines = lines_of(body.chunks(usize::from(*size).max(1)));
    assert_eq!(lines, lines_of(std::iter::once(body)));
    let spec = br#"{"detector":"half-space-trees","features":[{"name":"a"},{"name":"b"}]}"#;
    let features = Spec::read(spec).unwrap().features;
    let elements = Event::plain("a", Datatype::Fp32, 2);
    let mut values = vec![];
    for line in &lines {
        let Next::Line(line) = line else { continue };
        assert!(line.len() <= MAX_LINE);
        match event::read_elements(line, &elements) {
            Err(why) => assert!(!why.is_empty(), "no sentence"),
            Ok((found, _)) => assert_eq!(elements.require(&found), Ok(()), "what was read is none"),
        }
        if elements.require(line).is_ok() {
            assert_eq!(line.len(), 8);
        }
        match event::read(line, &features, &mut values) {
            Err(why) => assert!(!why.is_empty(), "no sentence"),
            Ok(id) => {
                assert_eq!(values.len(), 2);
                assert!(values.iter().all(|it| it.is_finite()));
                if let Some(id) = id {
                    serde_json::from_slice::<serde_json::Value>(&line[id]).expect("JSON");
                }
            }
        }
    }
}

/// A text: what is left of it has no address of mail and no six digits in a row, and is not much longer.
fn redaction(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let left = redacted(text);
    assert!(left.len() <= 8 * text.len(), "each is replaced by a word");
    let mut run = 0;
    for sign in left.chars() {
        run = if sign.is_ascii_digit() { run + 1 } else { 0 };
        assert!(run < 6, "six digits in a row: {left}");
    }
    let mails: Vec<&str> = left.split('@').collect();
    for pair in mails.windows(2) {
        let is_name = pair[0].ends_with(|it: char| it.is_ascii_alphanumeric());
        let end = pair[1].find(|it: char| !it.is_ascii_alphanumeric() && it != '-' && it != '.');
        let host = &pair[1][..end.unwrap_or(pair[1].len())];
        let parts: Vec<_> = host.split('.').take(2).collect();
        let is_host = parts.len() == 2 && parts.iter().all(|it| !it.is_empty());
        assert!(!is_name || !is_host, "a mail address: {left}");
    }
}

fn lines_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Next> {
    let (mut lines, mut found) = (Lines::default(), vec![]);
    let mut take = |lines: &mut Lines| {
        loop {
            match lines.take() {
                Next::More | Next::End => return,
                next => found.push(next),
            }
        }
    };
    for piece in pieces {
        lines.add(piece);
        take(&mut lines);
    }
    lines.end();
    take(&mut lines);
    found
}

/// A body that is no tensors: which kind in the first byte, then its bytes. What is taken is as many elements as its shape
/// says, and what is read of those has names and shapes of its own.
fn media(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let inputs = media::fuzz::read(*kind, body);
    let inputs = match inputs {
        Ok(inputs) => inputs,
        Err(refusal) => {
            assert_eq!(refusal.status, 400, "{}", refusal.message);
            assert!(!refusal.message.is_empty(), "no sentence");
            return;
        }
    };
    for input in &inputs {
        fits(input, input.datatype);
    }
    reading::fuzz::read(*kind, &inputs);
}

fn fits(input: &Data, datatype: Datatype) {
    assert_eq!(input.datatype, datatype);
    let count = count(&input.shape).expect("a shape that can be");
    match datatype.size() {
        Some(size) => assert_eq!(input.elements.len(), count * size),
        None => assert_eq!(texts(&input.elements).count(), count),
    }
    if datatype == Datatype::Bool {
        assert!(input.elements.iter().all(|it| *it <= 1));
    }
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn every_seed_of_models_passes_its_target() {
    replay::all(TARGETS);
}
