//! `ModelInferResponse`: what is answered.

use bytes::Bytes;

use super::contents::{bytes, head, varint, write};
use crate::config::Served;
use crate::oip::request::Wanted;
use crate::runtime::Data;

/// Bytes of elements that are written into typed fields at most: they are copied, and may be longer there.
const MOST_TYPED: usize = 16 << 20;
/// Outputs up to this size go into one piece with the rest of the message.
const TOGETHER: usize = 16 * 1024;

/// Encodes what a run gave, `outputs` being as `wanted`: the message, in pieces.
pub fn encode(
    model: &Served,
    id: Option<&str>,
    wanted: &[Wanted],
    outputs: Vec<Data>,
    is_typed: bool,
) -> Vec<Bytes> {
    let mut message = Vec::with_capacity(256);
    bytes(&mut message, 1, model.name.as_bytes());
    bytes(&mut message, 2, model.version.to_string().as_bytes());
    if let Some(id) = id {
        bytes(&mut message, 3, id.as_bytes());
    }
    let typed = typed(&outputs, is_typed);
    for (place, (wanted, data)) in wanted.iter().zip(&outputs).enumerate() {
        let name = model.answers().nth(wanted.place);
        let mut output = vec![];
        bytes(&mut output, 1, name.map_or("", |it| &it.name).as_bytes());
        bytes(&mut output, 2, data.datatype.as_str().as_bytes());
        bytes(&mut output, 3, &packed(&data.shape));
        if let Some(contents) = typed.as_ref().and_then(|it| it.get(place)) {
            bytes(&mut output, 5, contents);
        }
        bytes(&mut message, 5, &output);
    }
    match typed {
        Some(_) => vec![message.into()],
        None => with_raw(message, outputs),
    }
}

/// The typed contents of all outputs, or of none: a client reads either those or the raw ones.
fn typed(outputs: &[Data], is_typed: bool) -> Option<Vec<Vec<u8>>> {
    let length: usize = outputs.iter().map(|it| it.elements.len()).sum();
    let contents = outputs.iter().map(|it| write(it.datatype, &it.elements));
    (is_typed && length <= MOST_TYPED)
        .then(|| contents.collect())
        .flatten()
}

fn packed(shape: &[i64]) -> Vec<u8> {
    let mut out = vec![];
    for size in shape {
        varint(&mut out, size.cast_unsigned());
    }
    out
}

/// Large outputs are sent from where they lie.
fn with_raw(mut message: Vec<u8>, outputs: Vec<Data>) -> Vec<Bytes> {
    let mut pieces = vec![];
    for data in outputs {
        head(&mut message, 6, data.elements.len());
        if data.elements.len() <= TOGETHER {
            message.extend_from_slice(&data.elements);
            continue;
        }
        pieces.push(std::mem::take(&mut message).into());
        pieces.push(data.elements);
    }
    if !message.is_empty() || pieces.is_empty() {
        pieces.push(message.into());
    }
    pieces
}
