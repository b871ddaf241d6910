//! The encodings of URLs.

use crate::bytes::{hex_digit, hex_pair};

pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => match hex_pair(after) {
                Some(decoded) => {
                    out.push(decoded);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => out.push(b'%'),
            },
            b'+' => out.push(b' '),
            _ => out.push(byte),
        }
    }
}

/// As `decode`, with `%uXXXX` of IIS besides.
pub(super) fn decode_unicode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some(at) = memchr::memchr2(b'%', b'+', rest) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        let (decoded, length) = unescaped(from);
        out.push(decoded);
        rest = from.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The byte and the length of what begins with a `%` or a `+`.
fn unescaped(text: &[u8]) -> (u8, usize) {
    match *text {
        [b'%', b'u' | b'U', ref digits @ ..] => match four_digits(digits) {
            Some((high, low)) => (narrow(high, low), 6),
            None => (b'%', 1),
        },
        [b'%', ref digits @ ..] => match hex_pair(digits) {
            Some(decoded) => (decoded, 3),
            None => (b'%', 1),
        },
        _ => (b' ', 1),
    }
}

/// The two bytes that four hexadecimal digits write.
pub(super) fn four_digits(digits: &[u8]) -> Option<(u8, u8)> {
    Some((hex_pair(digits)?, hex_pair(digits.get(2..)?)?))
}

/// The byte that a system without Unicode sees: the low one, and for full-width forms of ASCII the
/// ASCII that they look like.
pub(super) const fn narrow(high: u8, low: u8) -> u8 {
    if high == 0xff && low > 0 && low < 0x5f {
        low + 0x20
    } else {
        low
    }
}

pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    for &byte in input {
        match byte {
            b' ' => out.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(byte),
            _ => {
                out.push(b'%');
                out.extend([byte >> 4, byte & 15].map(lower_digit));
            }
        }
    }
}

pub(super) const fn lower_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

/// Characters above ASCII as `%uXXXX`; bytes that are no UTF-8 stay.
pub(super) fn utf8_to_unicode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&first, after)) = rest.split_first() {
        let Some((code, length)) = character(rest) else {
            out.push(first);
            rest = after;
            continue;
        };
        out.extend_from_slice(b"%u");
        let digits = if code > 0xffff { 5 } else { 4 };
        for place in (0..digits).rev() {
            let nibble = u8::try_from(code >> (place * 4) & 15).unwrap_or_default();
            out.push(lower_digit(nibble));
        }
        // What decoders differ on is kept as well as decoded: overlong forms and surrogates.
        if is_overlong(code, length) || (0xd800..=0xdfff).contains(&code) {
            out.push(first);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

const fn is_overlong(code: u32, length: usize) -> bool {
    matches!(
        (length, code),
        (2, 0..=0x7f) | (3, 0..=0x7ff) | (4, 0..=0xffff)
    )
}

/// The code and length of a character above ASCII, well formed or overlong.
fn character(text: &[u8]) -> Option<(u32, usize)> {
    let (&first, rest) = text.split_first()?;
    let (bits, more) = match first {
        0xc0..=0xdf => (first & 0x1f, 1),
        0xe0..=0xef => (first & 0x0f, 2),
        0xf0..=0xf7 => (first & 0x07, 3),
        _ => return None,
    };
    let mut code = u32::from(bits);
    for &byte in rest.get(..more)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    Some((code, more + 1))
}

/// Whether every `%` begins two hexadecimal digits.
pub(crate) fn is_well_encoded(input: &[u8]) -> bool {
    memchr::memchr_iter(b'%', input)
        .all(|at| matches!(input.get(at + 1..), Some(&[a, b, ..]) if hex_digit(a).is_some() && hex_digit(b).is_some()))
}
