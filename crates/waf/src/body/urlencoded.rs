//! Names and values with `&` between them: forms, and the query of a URI.
//!
//! Owns percent decoding as servers do it: a percent sign that starts no byte stays as it is, and is told.
//! Must not: decode twice, or judge what a byte means.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{Error, Fields, Limits, Outcome, Processor};

const TOO_MANY: &str = "more arguments than the limit";

/// Read a form.
pub(super) fn process(body: &[u8], limits: &Limits, fields: &mut dyn Fields) -> Outcome {
    arguments(body, b'&', limits, &mut |name, value| {
        fields.argument(name, value);
    })
}

/// Read names and values, decoded, up to the limit of arguments.
///
/// Empty pairs count, as they do for libmodsecurity: `a&&b` has three.
pub fn arguments(
    text: &[u8],
    separator: u8,
    limits: &Limits,
    push: &mut dyn FnMut(&[u8], &[u8]),
) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut rest, mut at, mut count) = (text, 0, 0);
    while !rest.is_empty() {
        let end = memchr(separator, rest).unwrap_or(rest.len());
        let (pair, after) = rest.split_at(end);
        if count == limits.arguments {
            outcome.error = Some(Error {
                processor: Processor::UrlEncoded,
                what: TOO_MANY,
                at,
            });
            break;
        }
        let (name, value) = pair.split_at(memchr(b'=', pair).unwrap_or(pair.len()));
        let (name, bad_name) = decode(name);
        let (value, bad_value) = decode(value.get(1..).unwrap_or_default());
        outcome.has_bad_escape |= bad_name | bad_value;
        push(&name, &value);
        count += 1;
        at += end + 1;
        rest = after.get(1..).unwrap_or_default();
    }
    outcome
}

/// The bytes that `text` stands for, and whether a percent sign in it starts no byte.
fn decode(text: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let Some(first) = memchr2(b'+', b'%', text) else {
        return (Cow::Borrowed(text), false);
    };
    let (plain, mut rest) = text.split_at(first);
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    let mut is_bad = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', &[high, low, ref beyond @ ..]) if let Some(byte) = hex(high, low) => {
                decoded.push(byte);
                rest = beyond;
            }
            (b'%', _) => {
                decoded.push(byte);
                is_bad = true;
            }
            _ => decoded.push(byte),
        }
    }
    (Cow::Owned(decoded), is_bad)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
#[path = "urlencoded_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
