//! `InferTensorContents`: elements in typed fields, in and out.

use bytes::Bytes;

use crate::config::Datatype;
use crate::oip::Refusal;
use crate::onnx::wire::{Broken, Fields, Value};
use crate::runtime::texts;

/// The field that holds elements of a type; `None`: it has none, and comes raw.
fn field_of(datatype: Datatype) -> Option<u64> {
    Some(match datatype {
        Datatype::Bool => 1,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 2,
        Datatype::Int64 => 3,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 4,
        Datatype::Uint64 => 5,
        Datatype::Fp32 => 6,
        Datatype::Fp64 => 7,
        Datatype::Bytes => 8,
        Datatype::Fp16 => return None,
    })
}

/// Reads `count` elements.
///
/// # Errors
/// 400: more or fewer, in another field, or with a value that the type does not have.
pub fn read(
    name: &str,
    datatype: Datatype,
    count: usize,
    contents: &[u8],
) -> Result<Bytes, Refusal> {
    let Some(field) = field_of(datatype) else {
        return Err(Refusal::bad(format_args!(
            "input {name:?} is {}, which has no typed contents; send it in raw_input_contents",
            datatype.as_str()
        )));
    };
    let mut sink = Sink {
        datatype,
        bytes: vec![],
        count: 0,
        most: count,
    };
    for each in Fields::of(contents) {
        let (number, value) = each?;
        if number == field {
            sink.take(name, value)?;
        } else if (1..=8).contains(&number) && value != Value::Bytes(b"") {
            return Err(Refusal::bad(format_args!(
                "input {name:?} has contents of another type than {}",
                datatype.as_str()
            )));
        }
    }
    match sink.count == count {
        true => Ok(sink.bytes.into()),
        false => Err(too_few(name, sink.count, count)),
    }
}

fn too_few(name: &str, count: usize, wanted: usize) -> Refusal {
    Refusal::bad(format_args!(
        "input {name:?} has {count} elements in its contents, and its shape makes {wanted}"
    ))
}

/// Where elements go; room is made for what is there, never for what was said.
struct Sink {
    datatype: Datatype,
    bytes: Vec<u8>,
    count: usize,
    most: usize,
}

impl Sink {
    fn take(&mut self, name: &str, value: Value<'_>) -> Result<(), Refusal> {
        match self.datatype {
            Datatype::Fp32 => self.fixed::<4>(name, value),
            Datatype::Fp64 => self.fixed::<8>(name, value),
            Datatype::Bytes => {
                let text = value.bytes()?;
                let length = u32::try_from(text.len());
                let length = length.map_err(|_| Refusal::bad("a text is too long"))?;
                self.count(name, 1)?;
                self.bytes.extend_from_slice(&length.to_le_bytes());
                self.bytes.extend_from_slice(text);
                Ok(())
            }
            _ => numbers(value, |number| {
                self.count(name, 1)?;
                self.whole(name, number)
            }),
        }
    }

    fn count(&mut self, name: &str, more: usize) -> Result<(), Refusal> {
        self.count += more;
        match self.count <= self.most {
            true => Ok(()),
            false => Err(Refusal::bad(format_args!(
                "input {name:?} has more elements in its contents than its shape makes, {}",
                self.most
            ))),
        }
    }

    /// Floats: little-endian, as they are kept.
    fn fixed<const SIZE: usize>(&mut self, name: &str, value: Value<'_>) -> Result<(), Refusal> {
        let bytes = match value {
            Value::Fixed(bytes) if bytes.len() == SIZE => bytes,
            Value::Bytes(bytes) if bytes.len().is_multiple_of(SIZE) => bytes,
            _ => return Err(Broken::Malformed.into()),
        };
        self.count(name, bytes.len() / SIZE)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// A number, as its varint says it: `int32` and `int64` are two's complement of 64 bits.
    fn whole(&mut self, name: &str, number: u64) -> Result<(), Refusal> {
        #[allow(clippy::cast_possible_wrap)]
        let signed = number as i64;
        macro_rules! put {
            ($type:ty, $number:expr) => {
                match <$type>::try_from($number) {
                    Ok(number) => self.bytes.extend_from_slice(&number.to_le_bytes()),
                    Err(_) => {
                        return Err(Refusal::bad(format_args!(
                            "input {name:?} has a number in its contents that {} does not have",
                            self.datatype.as_str()
                        )));
                    }
                }
            };
        }
        match self.datatype {
            Datatype::Bool => self.bytes.push(u8::from(number != 0)),
            Datatype::Uint8 => put!(u8, number),
            Datatype::Uint16 => put!(u16, number),
            Datatype::Uint32 => put!(u32, number),
            Datatype::Uint64 => put!(u64, number),
            Datatype::Int8 => put!(i8, signed),
            Datatype::Int16 => put!(i16, signed),
            Datatype::Int32 => put!(i32, signed),
            Datatype::Int64 => put!(i64, signed),
            // Their own fields are not numbers.
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes => {}
        }
        Ok(())
    }
}

/// Gives each number of a repeated field, packed or one, to `each`.
pub fn numbers(
    value: Value<'_>,
    mut each: impl FnMut(u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    match value {
        Value::Number(number) => each(number),
        Value::Bytes(packed) => {
            let mut rest = Fields::of(packed);
            while !rest.is_over() {
                each(rest.number()?)?;
            }
            Ok(())
        }
        Value::Fixed(_) => Err(Broken::Malformed.into()),
    }
}

/// Writes elements as `InferTensorContents`; `None`: the type has no field.
pub fn write(datatype: Datatype, elements: &[u8]) -> Option<Vec<u8>> {
    let field = field_of(datatype)?;
    let mut out = vec![];
    if datatype == Datatype::Bytes {
        for text in texts(elements) {
            bytes(&mut out, field, text);
        }
        return Some(out);
    }
    let mut packed = vec![];
    macro_rules! varints {
        ($type:ty) => {
            for element in elements.as_chunks().0 {
                let number = i64::from(<$type>::from_le_bytes(*element));
                varint(&mut packed, number.cast_unsigned());
            }
        };
    }
    match datatype {
        Datatype::Fp32 | Datatype::Fp64 => packed.extend_from_slice(elements),
        Datatype::Bool | Datatype::Uint8 => varints!(u8),
        Datatype::Uint16 => varints!(u16),
        Datatype::Uint32 => varints!(u32),
        Datatype::Int8 => varints!(i8),
        Datatype::Int16 => varints!(i16),
        Datatype::Int32 => varints!(i32),
        Datatype::Int64 => varints!(i64),
        Datatype::Uint64 => {
            for element in elements.as_chunks().0 {
                varint(&mut packed, u64::from_le_bytes(*element));
            }
        }
        Datatype::Fp16 | Datatype::Bytes => {}
    }
    bytes(&mut out, field, &packed);
    Some(out)
}

/// Writes a number.
pub fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        #[allow(clippy::cast_possible_truncation)]
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(number as u8);
}

/// Writes a field of bytes: a message, a text, packed numbers.
pub fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes what comes before the bytes of such a field.
pub fn head(out: &mut Vec<u8>, field: u64, length: usize) {
    varint(out, field << 3 | 2);
    varint(out, length as u64);
}
