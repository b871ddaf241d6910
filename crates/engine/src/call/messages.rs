//! The small messages of `open_inference_grpc.proto`, and the first fields of large ones.
//!
//! Follows <https://protobuf.dev/programming-guides/encoding/>. Must not: read what tensors are.

use bytes::Bytes;
use serde::Deserialize;

/// Longest name or version, in bytes: of what is deployed none is longer.
const LONGEST: u64 = 256;

/// A model, and the version that is asked for; none: an empty text.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// `model_name`, or `name`.
    pub model: Box<str>,
    /// `model_version`, or `version`.
    pub version: Box<str>,
}

/// What the beginning of a message says.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A model.
    Named(Named),
    /// Nothing yet: it goes on.
    More,
    /// No model, whatever follows.
    Nothing,
}

/// The fields 1 and 2 of a message, of which `head` is the beginning, or (`is_whole`) all. Of several the last counts, as in
/// proto3; fields that follow another one do not.
pub fn named(head: &[u8], is_whole: bool) -> Found {
    let (mut model, mut version): (&[u8], &[u8]) = (b"", b"");
    let mut rest = head;
    loop {
        if rest.is_empty() {
            return if is_whole {
                done(model, version)
            } else {
                Found::More
            };
        }
        let over = if is_whole {
            Found::Nothing
        } else {
            Found::More
        };
        let Some((tag, after)) = varint(rest) else {
            return if rest.len() < 10 {
                over
            } else {
                Found::Nothing
            };
        };
        // Bytes, in the fields 1 and 2.
        if tag != 0x0a && tag != 0x12 {
            return done(model, version);
        }
        let Some((length, after)) = varint(after) else {
            return if after.len() < 10 {
                over
            } else {
                Found::Nothing
            };
        };
        if length > LONGEST {
            return Found::Nothing;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((text, after)) = after.split_at_checked(length) else {
            return over;
        };
        match tag {
            0x0a => model = text,
            _ => version = text,
        }
        rest = after;
    }
}

fn done(model: &[u8], version: &[u8]) -> Found {
    let texts = (std::str::from_utf8(model), std::str::from_utf8(version));
    match texts {
        (Ok(model), Ok(version)) if !model.is_empty() => Found::Named(Named {
            model: model.into(),
            version: version.into(),
        }),
        _ => Found::Nothing,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (place * 7);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(place + 1..)?));
        }
    }
    None
}

/// A message whose one field says whether: `ServerLiveResponse`, `ServerReadyResponse`, `ModelReadyResponse`.
pub fn whether(is_so: bool) -> Bytes {
    // What is false is not written (proto3).
    Bytes::from_static(if is_so { &[0x08, 1] } else { &[] })
}

/// `ServerMetadataResponse`.
pub fn server(name: &str, version: &str, extensions: &[&str]) -> Bytes {
    let mut out = vec![];
    put(&mut out, 1, name.as_bytes());
    put(&mut out, 2, version.as_bytes());
    for extension in extensions {
        put(&mut out, 3, extension.as_bytes());
    }
    out.into()
}

/// What the process of a model says it is (`GET v2/models/NAME`).
#[derive(Deserialize)]
struct Model {
    name: String,
    versions: Vec<String>,
    platform: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// `ModelMetadataResponse`, of what a process says in JSON; `None`: it says something else.
pub fn model(json: &[u8]) -> Option<Bytes> {
    let model: Model = serde_json::from_slice(json).ok()?;
    let mut out = vec![];
    put(&mut out, 1, model.name.as_bytes());
    for version in &model.versions {
        put(&mut out, 2, version.as_bytes());
    }
    put(&mut out, 3, model.platform.as_bytes());
    for (field, tensors) in [(4, &model.inputs), (5, &model.outputs)] {
        for each in tensors {
            put(&mut out, field, &tensor(each));
        }
    }
    Some(out.into())
}

fn tensor(tensor: &Tensor) -> Vec<u8> {
    let (mut out, mut shape) = (vec![], vec![]);
    for size in &tensor.shape {
        number(&mut shape, size.cast_unsigned());
    }
    put(&mut out, 1, tensor.name.as_bytes());
    put(&mut out, 2, tensor.datatype.as_bytes());
    put(&mut out, 3, &shape);
    out
}

fn put(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    number(out, field << 3 | 2);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        #[allow(clippy::cast_possible_truncation)]
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(number as u8);
}
