//! Case, space, length and parity.

use crate::bytes::is_space;

pub(super) fn lowercase(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().map(u8::to_ascii_lowercase));
}

pub(super) fn uppercase(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().map(u8::to_ascii_uppercase));
}

pub(super) fn length(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(input.len().to_string().as_bytes());
}

pub(super) fn remove_nulls(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().filter(|&&byte| byte != 0));
}

pub(super) fn replace_nulls(input: &[u8], out: &mut Vec<u8>) {
    out.extend(
        input
            .iter()
            .map(|&byte| if byte == 0 { b' ' } else { byte }),
    );
}

/// The no-break space goes too, by its Latin-1 byte and by both bytes of its UTF-8.
pub(super) fn remove_whitespace(input: &[u8], out: &mut Vec<u8>) {
    out.extend(
        input
            .iter()
            .filter(|&&byte| !is_space(byte) && byte != 0xa0 && byte != 0xc2),
    );
}

pub(super) fn compress_whitespace(input: &[u8], out: &mut Vec<u8>) {
    let mut after_space = false;
    for &byte in input {
        let space = is_space(byte);
        if !space {
            out.push(byte);
        } else if !after_space {
            out.push(b' ');
        }
        after_space = space;
    }
}

pub(super) fn trim(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(without_right(without_left(input)));
}

pub(super) fn trim_left(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(without_left(input));
}

pub(super) fn trim_right(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(without_right(input));
}

fn without_left(input: &[u8]) -> &[u8] {
    let start = input
        .iter()
        .position(|&byte| !is_space(byte))
        .unwrap_or(input.len());
    input.get(start..).unwrap_or_default()
}

fn without_right(input: &[u8]) -> &[u8] {
    let end = input
        .iter()
        .rposition(|&byte| !is_space(byte))
        .map_or(0, |last| last + 1);
    input.get(..end).unwrap_or_default()
}

/// What a shell makes of a command: quotes and carets gone, separators one space, none before a
/// slash or a bracket, in lower case.
pub(super) fn command_line(input: &[u8], out: &mut Vec<u8>) {
    let mut after_space = false;
    for &byte in input {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if !after_space {
                    out.push(b' ');
                }
                after_space = true;
            }
            b'/' | b'(' => {
                if after_space {
                    out.pop();
                }
                after_space = false;
                out.push(byte);
            }
            _ => {
                out.push(byte.to_ascii_lowercase());
                after_space = false;
            }
        }
    }
}

pub(super) fn parity_zero(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().map(|byte| byte & 0x7f));
}

pub(super) fn parity_even(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().map(|&byte| with_parity(byte, 0)));
}

pub(super) fn parity_odd(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().map(|&byte| with_parity(byte, 1)));
}

fn with_parity(byte: u8, wanted: u32) -> u8 {
    let low = byte & 0x7f;
    if low.count_ones() % 2 == wanted {
        low
    } else {
        low | 0x80
    }
}
