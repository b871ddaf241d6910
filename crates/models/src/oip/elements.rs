//! Elements of tensors: from JSON, from bytes, and to both.

use bytes::Bytes;

use super::Refusal;
use crate::config::Datatype;
use crate::json::{Fault, Reader};
use crate::runtime::texts;

/// Elements that a shape makes; `None`: more than there can be.
pub fn count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, dimension| {
        count.checked_mul(usize::try_from(*dimension).ok()?)
    })
}

/// Reads `data` of a tensor, flat or nested as its shape says. `most`: elements that there is room for.
pub fn read(
    reader: &mut Reader<'_>,
    datatype: Datatype,
    shape: &[i64],
    most: usize,
) -> Result<Bytes, Fault> {
    let count = count(shape).filter(|it| *it <= most);
    let Some(count) = count else {
        return reader.fault("a shape with as many elements as are given");
    };
    let mut sink = Sink::new(datatype, count);
    let flat = [i64::try_from(count).unwrap_or(i64::MAX)];
    match shape.len() > 1 && is_nested(reader) {
        true => levels(reader, shape, &mut sink)?,
        false => levels(reader, &flat, &mut sink)?,
    }
    Ok(sink.bytes.into())
}

fn is_nested(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.jump(reader.at());
    ahead.eat(b'[') && ahead.peek() == Some(b'[')
}

fn levels(reader: &mut Reader<'_>, shape: &[i64], sink: &mut Sink) -> Result<(), Fault> {
    let Some((size, inner)) = shape.split_first() else {
        return sink.take(reader);
    };
    reader.need(b'[', "a list of elements")?;
    let (mut is_first, mut seen) = (true, 0_i64);
    while reader.next_item(&mut is_first, b']')? {
        if seen == *size {
            return reader.fault("fewer elements, as the shape says");
        }
        levels(reader, inner, sink)?;
        seen += 1;
    }
    match seen == *size {
        true => Ok(()),
        false => reader.fault("more elements, as the shape says"),
    }
}

/// Room that is made before an element was seen: what a shape says costs nothing until it is there.
const ROOM_AT_FIRST: usize = 64 * 1024;

/// Where elements go.
struct Sink {
    datatype: Datatype,
    bytes: Vec<u8>,
}

impl Sink {
    fn new(datatype: Datatype, count: usize) -> Self {
        let room = count.saturating_mul(datatype.size().unwrap_or(16));
        Self {
            datatype,
            bytes: Vec::with_capacity(room.min(ROOM_AT_FIRST)),
        }
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        macro_rules! number {
            ($bytes:ident, $type:ty, $what:literal) => {{
                let at = reader.at();
                match reader.number()?.parse::<$type>() {
                    Ok(number) => $bytes.extend_from_slice(&number.to_le_bytes()),
                    Err(_) => return reader.jump(at).fault($what),
                }
            }};
        }
        macro_rules! float {
            ($bytes:ident, $type:ty, $what:literal) => {{
                let at = reader.at();
                match reader.number()?.parse::<$type>() {
                    Ok(number) if number.is_finite() => {
                        $bytes.extend_from_slice(&number.to_le_bytes());
                    }
                    _ => return reader.jump(at).fault($what),
                }
            }};
        }
        let bytes = &mut self.bytes;
        match self.datatype {
            Datatype::Bool => bytes.push(u8::from(reader.boolean()?)),
            Datatype::Uint8 => number!(bytes, u8, "a whole number that UINT8 has"),
            Datatype::Uint16 => number!(bytes, u16, "a whole number that UINT16 has"),
            Datatype::Uint32 => number!(bytes, u32, "a whole number that UINT32 has"),
            Datatype::Uint64 => number!(bytes, u64, "a whole number that UINT64 has"),
            Datatype::Int8 => number!(bytes, i8, "a whole number that INT8 has"),
            Datatype::Int16 => number!(bytes, i16, "a whole number that INT16 has"),
            Datatype::Int32 => number!(bytes, i32, "a whole number that INT32 has"),
            Datatype::Int64 => number!(bytes, i64, "a whole number that INT64 has"),
            Datatype::Fp32 => float!(bytes, f32, "a number that FP32 has"),
            Datatype::Fp64 => float!(bytes, f64, "a number that FP64 has"),
            Datatype::Fp16 => return reader.fault("binary data: FP16 has no form in JSON"),
            Datatype::Bytes => {
                let text = reader.text()?;
                let Ok(length) = u32::try_from(text.len()) else {
                    return reader.fault("a shorter text");
                };
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }
}

/// Checks a tensor's bytes as they came: as many as its elements take, and nothing that its type does not have.
pub fn check(name: &str, datatype: Datatype, count: usize, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(size) = datatype.size() else {
        let length: usize = texts(bytes).map(|it| it.len() + 4).sum();
        return match texts(bytes).count() == count && length == bytes.len() {
            true => Ok(()),
            false => Err(Refusal::bad(format_args!(
                "input {name:?}: its bytes are not {count} texts, each with its length before it (4 bytes)"
            ))),
        };
    };
    if count.checked_mul(size) != Some(bytes.len()) {
        return Err(Refusal::bad(format_args!(
            "input {name:?} has {} bytes, and {count} elements of {} are {}",
            bytes.len(),
            datatype.as_str(),
            count.saturating_mul(size),
        )));
    }
    // Some operators of the runtime would take another byte for a place in memory.
    if datatype == Datatype::Bool && bytes.iter().any(|it| *it > 1) {
        return Err(Refusal::bad(format_args!(
            "input {name:?} has a byte that is neither 0 nor 1, which BOOL does not have"
        )));
    }
    Ok(())
}

/// Writes elements as a flat JSON list.
pub fn write(
    out: &mut Vec<u8>,
    name: &str,
    datatype: Datatype,
    bytes: &[u8],
) -> Result<(), Refusal> {
    let unsayable = |what: &str| {
        Refusal::bad(format_args!(
            "output {name:?} has {what}, which JSON has no form for; ask for binary data \
             (\"parameters\": {{\"binary_data\": true}})"
        ))
    };
    macro_rules! list {
        ($type:ty) => {
            list(
                out,
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|it| <$type>::from_le_bytes(*it)),
            )
        };
        ($type:ty, finite) => {{
            let numbers = bytes
                .as_chunks()
                .0
                .iter()
                .map(|it| <$type>::from_le_bytes(*it));
            if numbers.clone().any(|it| !it.is_finite()) {
                return Err(unsayable("NaN or infinity"));
            }
            list(out, numbers)
        }};
    }
    let is_written = match datatype {
        Datatype::Bool => list(out, bytes.iter().map(|it| *it != 0)),
        Datatype::Uint8 => list(out, bytes.iter()),
        Datatype::Int8 => list!(i8),
        Datatype::Uint16 => list!(u16),
        Datatype::Int16 => list!(i16),
        Datatype::Uint32 => list!(u32),
        Datatype::Int32 => list!(i32),
        Datatype::Uint64 => list!(u64),
        Datatype::Int64 => list!(i64),
        Datatype::Fp32 => list!(f32, finite),
        Datatype::Fp64 => list!(f64, finite),
        Datatype::Fp16 => return Err(unsayable("elements of FP16")),
        Datatype::Bytes => {
            if texts(bytes).any(|it| std::str::from_utf8(it).is_err()) {
                return Err(unsayable("a text that is no UTF-8"));
            }
            list(out, texts(bytes).map(String::from_utf8_lossy))
        }
    };
    is_written.map_err(|error| Refusal::new(500, error))
}

fn list<T: serde::Serialize>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
) -> serde_json::Result<()> {
    out.push(b'[');
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &item)?;
    }
    out.push(b']');
    Ok(())
}
