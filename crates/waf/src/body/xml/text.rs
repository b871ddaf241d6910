//! Text with references to characters.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

use super::Read;

const BAD_REFERENCE: &str = "a reference is malformed.";
const UNDECLARED: &str = "a reference is to an entity that is not declared.";
const NO_CHARACTER: &str = "a reference is to no character.";
/// No reference that is known is longer: `&#x10FFFF;` with zeros before it.
const LONGEST: usize = 32;

/// What text between tags stands for.
pub(super) fn content(text: &[u8]) -> Read<Cow<'_, [u8]>> {
    match memchr(b'\r', text) {
        None => decoded(text),
        Some(_) => Ok(Cow::Owned(decoded(&one_line_end(text))?.into_owned())),
    }
}

/// What an attribute's value stands for: its white space is blanks (XML 1.0, 3.3.3).
pub(super) fn attribute(text: &[u8]) -> Read<Cow<'_, [u8]>> {
    if memchr3(b'\t', b'\n', b'\r', text).is_none() {
        return decoded(text);
    }
    let mut blank = one_line_end(text);
    for byte in &mut blank {
        if matches!(byte, b'\t' | b'\n') {
            *byte = b' ';
        }
    }
    Ok(Cow::Owned(decoded(&blank)?.into_owned()))
}

/// Every end of a line is a line feed (XML 1.0, 2.11).
pub(super) fn one_line_end(text: &[u8]) -> Vec<u8> {
    let mut one = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\r' if text.get(at + 1) == Some(&b'\n') => {}
            b'\r' => one.push(b'\n'),
            _ => one.push(*byte),
        }
    }
    one
}

/// What the references in a text stand for.
fn decoded(text: &[u8]) -> Read<Cow<'_, [u8]>> {
    let Some(first) = memchr(b'&', text) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(text.len());
    let (plain, mut rest) = text.split_at(first);
    decoded.extend_from_slice(plain);
    while let Some(behind) = rest.strip_prefix(b"&") {
        let end = behind
            .iter()
            .take(LONGEST)
            .position(|byte| *byte == b';')
            .ok_or(BAD_REFERENCE)?;
        let (name, behind) = behind.split_at(end);
        let character = character(name)?;
        decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        let behind = behind.get(1..).unwrap_or_default();
        let (plain, next) = behind.split_at(memchr(b'&', behind).unwrap_or(behind.len()));
        decoded.extend_from_slice(plain);
        rest = next;
    }
    Ok(Cow::Owned(decoded))
}

fn character(name: &[u8]) -> Read<char> {
    let number = match name {
        b"lt" => return Ok('<'),
        b"gt" => return Ok('>'),
        b"amp" => return Ok('&'),
        b"quot" => return Ok('"'),
        b"apos" => return Ok('\''),
        [b'#', b'x', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        [] => return Err(BAD_REFERENCE),
        _ => return Err(UNDECLARED),
    };
    let character = number.and_then(char::from_u32).ok_or(NO_CHARACTER)?;
    let is_allowed = character >= ' ' || matches!(character, '\t' | '\n' | '\r');
    if is_allowed {
        Ok(character)
    } else {
        Err(NO_CHARACTER)
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let value = |number: u32, byte: &u8| {
        number
            .checked_mul(radix)?
            .checked_add(char::from(*byte).to_digit(radix)?)
    };
    if digits.is_empty() {
        None
    } else {
        digits.iter().try_fold(0, value)
    }
}
