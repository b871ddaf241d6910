//! Escapes of programming languages, hexadecimal and Base64.

use super::url::{four_digits, lower_digit, narrow};
use crate::bytes::{hex_digit, hex_pair, is_space};

/// The byte that a letter after a backslash means in C and JavaScript.
const fn control(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        _ => return None,
    })
}

/// Up to three octal digits of a byte: its value and their number.
fn octal(text: &[u8]) -> (u8, usize) {
    let mut digits = text
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count()
        .min(3);
    if digits == 3 && text.first().is_some_and(|&first| first > b'3') {
        digits = 2;
    }
    let value = text
        .iter()
        .take(digits)
        .fold(0u8, |value, digit| value << 3 | (digit - b'0'));
    (value, digits)
}

pub(super) fn js_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (decoded, length) = js_escape(after);
        out.push(decoded);
        rest = after.get(length..).unwrap_or_default();
    }
}

/// The byte and the length of the escape whose backslash came before.
fn js_escape(text: &[u8]) -> (u8, usize) {
    match *text {
        [b'u', ref digits @ ..] if four_digits(digits).is_some() => {
            let (high, low) = four_digits(digits).unwrap_or_default();
            (narrow(high, low), 5)
        }
        [b'x', ref digits @ ..] if hex_pair(digits).is_some() => {
            (hex_pair(digits).unwrap_or_default(), 3)
        }
        [b'0'..=b'7', ..] => octal(text),
        [letter, ..] => (control(letter).unwrap_or(letter), 1),
        [] => (b'\\', 0),
    }
}

pub(super) fn escape_sequence_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        let decoded = if byte == b'\\' { c_escape(after) } else { None };
        match (decoded, after) {
            (Some((decoded, length)), _) => {
                out.push(decoded);
                rest = after.get(length..).unwrap_or_default();
            }
            // An unknown escape stays whole, so that what follows is not read as another.
            (None, [letter, next @ ..]) if byte == b'\\' => {
                out.extend([byte, *letter]);
                rest = next;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
}

fn c_escape(text: &[u8]) -> Option<(u8, usize)> {
    match *text {
        [b'x' | b'X', ref digits @ ..] => hex_pair(digits).map(|decoded| (decoded, 3)),
        [b'0'..=b'7', ..] => Some(octal_c(text)),
        [letter @ (b'\\' | b'?' | b'\'' | b'"'), ..] => Some((letter, 1)),
        [letter, ..] => control(letter).map(|decoded| (decoded, 1)),
        [] => None,
    }
}

/// As C reads it: three digits always, of which the low byte counts.
fn octal_c(text: &[u8]) -> (u8, usize) {
    let digits = text
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count()
        .min(3);
    let value = text
        .iter()
        .take(digits)
        .fold(0u8, |value, digit| value << 3 | (digit - b'0'));
    (value, digits)
}

pub(super) fn css_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digits = after
            .iter()
            .take_while(|&&digit| hex_digit(digit).is_some())
            .count()
            .min(6);
        if digits > 0 {
            out.push(css_byte(after.get(..digits).unwrap_or_default()));
            rest = after.get(digits..).unwrap_or_default();
            // One space belongs to the escape.
            if rest.first().is_some_and(|&next| is_space(next)) {
                rest = rest.get(1..).unwrap_or_default();
            }
        } else if let Some((&next, following)) = after.split_first() {
            // An escaped newline is nothing; any other byte stands for itself.
            if next != b'\n' {
                out.push(next);
            }
            rest = following;
        }
    }
}

fn css_byte(digits: &[u8]) -> u8 {
    let value = digits.iter().fold(0u32, |value, &digit| {
        value << 4 | u32::from(hex_digit(digit).unwrap_or_default())
    });
    let [low, high, above, _] = value.to_le_bytes();
    if above == 0 && digits.len() >= 4 {
        narrow(high, low)
    } else {
        low
    }
}

pub(super) fn hex_decode(input: &[u8], out: &mut Vec<u8>) {
    for pair in input.chunks_exact(2) {
        if let &[high, low] = pair {
            out.push(hex_digit(high).unwrap_or_default() << 4 | hex_digit(low).unwrap_or_default());
        }
    }
}

pub(super) fn hex_encode(input: &[u8], out: &mut Vec<u8>) {
    for byte in input {
        out.extend([byte >> 4, byte & 15].map(lower_digit));
    }
}

/// `0x414243` of SQL.
pub(super) fn sql_hex_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let mut digits = match rest {
            [b'x' | b'X', digits @ ..] if byte == b'0' && hex_pair(digits).is_some() => digits,
            _ => {
                out.push(byte);
                continue;
            }
        };
        while let Some(decoded) = hex_pair(digits) {
            out.push(decoded);
            digits = digits.get(2..).unwrap_or_default();
        }
        rest = digits;
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// What is Base64 up to the first byte that is not.
pub(super) fn base64_decode(input: &[u8], out: &mut Vec<u8>) {
    let breaks = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    push_sextets(
        input
            .iter()
            .filter(|byte| !breaks(byte))
            .map_while(|&byte| sextet(byte)),
        out,
    );
}

/// As `base64_decode`, but over whatever is no Base64.
pub(super) fn base64_decode_lenient(input: &[u8], out: &mut Vec<u8>) {
    push_sextets(input.iter().filter_map(|&byte| sextet(byte)), out);
}

fn push_sextets(sextets: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u32, 0);
    for sextet in sextets {
        bits = bits << 6 | u32::from(sextet);
        held += 6;
        if held >= 8 {
            held -= 8;
            let [low, ..] = (bits >> held).to_le_bytes();
            out.push(low);
        }
    }
}

pub(super) fn base64_encode(input: &[u8], out: &mut Vec<u8>) {
    for chunk in input.chunks(3) {
        let bits = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        for place in 0..4u32 {
            let index = (bits >> (18 - place * 6) & 63) as usize;
            let letter = ALPHABET.get(index).copied().unwrap_or(b'=');
            out.push(if place as usize <= chunk.len() {
                letter
            } else {
                b'='
            });
        }
    }
}
