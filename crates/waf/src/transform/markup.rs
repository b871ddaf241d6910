//! Entities and comments.

use crate::bytes::hex_digit;

/// The entities that hide a byte; others stay as they are.
pub(super) fn entity_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some(at) = memchr::memchr(b'&', rest) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some((decoded, length)) = entity(after) {
            out.push(decoded);
            rest = after.get(length..).unwrap_or_default();
            rest = rest.strip_prefix(b";").unwrap_or(rest);
        } else {
            out.push(b'&');
            rest = after;
        }
    }
    out.extend_from_slice(rest);
}

/// The byte and the length of the entity whose `&` came before.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    match *text {
        [b'#', b'x' | b'X', ref digits @ ..] => {
            number(digits, 16).map(|(byte, length)| (byte, length + 2))
        }
        [b'#', ref digits @ ..] => number(digits, 10).map(|(byte, length)| (byte, length + 1)),
        _ => {
            let length = text
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric())
                .count();
            let name = text.get(..length)?;
            let known: [(&[u8], u8); 5] = [
                (b"quot", b'"'),
                (b"amp", b'&'),
                (b"lt", b'<'),
                (b"gt", b'>'),
                (b"nbsp", 0xa0),
            ];
            let starts = |wanted: &[u8]| {
                name.get(..wanted.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(wanted))
            };
            known
                .into_iter()
                .find(|(wanted, _)| starts(wanted))
                .map(|(_, byte)| (byte, length))
        }
    }
}

/// Digits of any number, of which the low byte is what counts.
fn number(digits: &[u8], base: u32) -> Option<(u8, usize)> {
    let mut value = 0u32;
    let mut length = 0;
    for &byte in digits {
        let Some(digit) = hex_digit(byte).filter(|&digit| u32::from(digit) < base) else {
            break;
        };
        value = value.saturating_mul(base).saturating_add(u32::from(digit));
        length += 1;
    }
    (length > 0).then_some((value.to_le_bytes().into_iter().next()?, length))
}

/// Each `/* … */` becomes one space, an open one too.
pub(super) fn replace_comments(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some(start) = crate::bytes::find(rest, b"/*") {
        out.extend_from_slice(rest.get(..start).unwrap_or_default());
        out.push(b' ');
        let inside = rest.get(start + 2..).unwrap_or_default();
        let Some(end) = crate::bytes::find(inside, b"*/") else {
            return;
        };
        rest = inside.get(end + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Comments go; one that begins with `--` or `#` ends the text with a space.
pub(super) fn remove_comments(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        let opened = match rest {
            [b'/', b'*', inside @ ..] | [b'<', b'!', b'-', b'-', inside @ ..] => inside,
            [b'-', b'-', ..] | [b'#', ..] => {
                out.push(b' ');
                return;
            }
            _ => {
                out.push(byte);
                rest = after;
                continue;
            }
        };
        let ends = [
            crate::bytes::find(opened, b"*/").map(|at| at + 2),
            crate::bytes::find(opened, b"-->").map(|at| at + 3),
        ];
        let Some(end) = ends.into_iter().flatten().min() else {
            out.push(b' ');
            return;
        };
        rest = opened.get(end..).unwrap_or_default();
    }
}

/// Only the marks of comments go; what they hold stays.
pub(super) fn remove_comment_marks(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match rest {
            [b'/', b'*', next @ ..]
            | [b'*', b'/', next @ ..]
            | [b'<', b'!', b'-', b'-', next @ ..]
            | [b'-', b'-', b'>', next @ ..]
            | [b'-', b'-', next @ ..]
            | [b'#', next @ ..] => next,
            _ => {
                out.push(byte);
                after
            }
        };
    }
}
