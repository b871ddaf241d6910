//! The elements of tensors that somebody else wrote: how many there are, whether each is one, and the greatest.
//!
//! Owns: reading them, bounded by what is there. Must not: copy them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::message::Data;
use crate::snapshot::TensorDatatype;

/// Deepest nesting of elements in JSON: as deep as a shape is long.
const DEEPEST: usize = 16;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// How many elements there are.
    pub count: u64,
    /// The greatest number among them; none: there is none.
    pub greatest: Option<f64>,
    /// Whether all of them are finite.
    pub is_finite: bool,
}

impl Found {
    const NOTHING: Self = Self {
        count: 0,
        greatest: None,
        is_finite: true,
    };

    fn number(&mut self, number: f64) {
        self.count += 1;
        self.is_finite &= number.is_finite();
        if !number.is_nan() {
            self.greatest = Some(self.greatest.map_or(number, |it| it.max(number)));
        }
    }
}

/// Reads all elements; none: they are not of this datatype.
pub fn read(datatype: TensorDatatype, data: Data<'_>) -> Option<Found> {
    match data {
        Data::Json(json) => {
            let mut found = Found::NOTHING;
            let mut reader = serde_json::Deserializer::from_str(json);
            let elements = Elements {
                datatype,
                found: &mut found,
                depth: 0,
            };
            elements.deserialize(&mut reader).ok()?;
            reader.end().ok()?;
            Some(found)
        }
        Data::Binary(bytes) => binary(datatype, bytes),
    }
}

/// The bytes of an element; none: they differ.
fn width(datatype: TensorDatatype) -> Option<usize> {
    use TensorDatatype as T;
    match datatype {
        T::Bool | T::UINT8 | T::INT8 => Some(1),
        T::UINT16 | T::INT16 | T::FP16 => Some(2),
        T::UINT32 | T::INT32 | T::FP32 => Some(4),
        T::UINT64 | T::INT64 | T::FP64 => Some(8),
        T::Bytes => None,
    }
}

fn binary(datatype: TensorDatatype, bytes: &[u8]) -> Option<Found> {
    let mut found = Found::NOTHING;
    let Some(width) = width(datatype) else {
        found.count = texts(bytes)?;
        return Some(found);
    };
    let elements = bytes.chunks_exact(width);
    elements.remainder().is_empty().then_some(())?;
    for element in elements {
        found.number(number(datatype, element)?);
    }
    Some(found)
}

/// How many texts there are, each behind its length (binary tensor data extension).
fn texts(mut bytes: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        bytes = rest.get(length..)?;
        count += 1;
    }
    Some(count)
}

/// An element as a number; of a large whole number the nearest.
#[allow(clippy::cast_precision_loss)]
fn number(datatype: TensorDatatype, bytes: &[u8]) -> Option<f64> {
    use TensorDatatype as T;
    let number = match datatype {
        T::Bool => match bytes {
            [flag @ (0 | 1)] => f64::from(*flag),
            _ => return None,
        },
        T::UINT8 => f64::from(u8::from_le_bytes(bytes.try_into().ok()?)),
        T::INT8 => f64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
        T::UINT16 => f64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        T::INT16 => f64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        T::FP16 => half(u16::from_le_bytes(bytes.try_into().ok()?)),
        T::UINT32 => f64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        T::INT32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        T::FP32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        T::UINT64 => u64::from_le_bytes(bytes.try_into().ok()?) as f64,
        T::INT64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        T::FP64 => f64::from_le_bytes(bytes.try_into().ok()?),
        T::Bytes => return None,
    };
    Some(number)
}

/// A number of IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from((bits >> 10) & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// Elements in JSON: flat, or in lists of lists.
struct Elements<'f> {
    datatype: TensorDatatype,
    found: &'f mut Found,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Elements<'_> {
    fn whole<E: Error>(&mut self, number: i128) -> Result<(), E> {
        use TensorDatatype as T;
        let (least, most): (i128, i128) = match self.datatype {
            T::UINT8 => (0, u8::MAX.into()),
            T::UINT16 => (0, u16::MAX.into()),
            T::UINT32 => (0, u32::MAX.into()),
            T::UINT64 => (0, u64::MAX.into()),
            T::INT8 => (i8::MIN.into(), i8::MAX.into()),
            T::INT16 => (i16::MIN.into(), i16::MAX.into()),
            T::INT32 => (i32::MIN.into(), i32::MAX.into()),
            T::INT64 => (i64::MIN.into(), i64::MAX.into()),
            T::FP32 | T::FP64 => (i128::MIN, i128::MAX),
            T::Bool | T::FP16 | T::Bytes => return Err(E::custom("a number")),
        };
        if !(least..=most).contains(&number) {
            return Err(E::custom("a number out of range"));
        }
        #[allow(clippy::cast_precision_loss)]
        self.found.number(number as f64);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("elements of a tensor")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        if self.datatype != TensorDatatype::Bool {
            return Err(E::custom("a boolean"));
        }
        self.found.number(f64::from(u8::from(flag)));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, number: u64) -> Result<(), E> {
        self.whole(number.into())
    }

    fn visit_i64<E: Error>(mut self, number: i64) -> Result<(), E> {
        self.whole(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let most = match self.datatype {
            TensorDatatype::FP32 => f64::from(f32::MAX),
            TensorDatatype::FP64 => f64::MAX,
            _ => return Err(E::custom("a fraction")),
        };
        if number.is_nan() || number.abs() > most {
            return Err(E::custom("a number out of range"));
        }
        self.found.number(number);
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        if self.datatype != TensorDatatype::Bytes {
            return Err(E::custom("a text"));
        }
        self.found.count += 1;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.depth > DEEPEST {
            return Err(A::Error::custom("lists that are too deep"));
        }
        loop {
            let next = Elements {
                datatype: self.datatype,
                found: &mut *self.found,
                depth: self.depth + 1,
            };
            if items.next_element_seed(next)?.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
#[path = "elements_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
