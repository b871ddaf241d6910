//! The normal form of a path: one spelling for each resource, so that policy cannot be walked round.
//!
//! RFC 3986 §6.2.2: unreserved characters are decoded, other escapes upper-cased, dot segments
//! removed; beyond it, empty segments are merged. What two servers could read in two ways is
//! refused: an escaped slash, backslash or control byte, a raw backslash, an escape that is none,
//! text that is not UTF-8 once decoded.

use std::borrow::Cow;

/// Why a path has no normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Does not begin with a slash.
    NotAbsolute,
    /// A `%` not followed by two hex digits.
    BadEscape,
    /// A slash, backslash, NUL or other control byte, raw or escaped.
    Forbidden,
    /// Not UTF-8 once decoded.
    NotUtf8,
}

impl PathError {
    /// The detail that the record keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::BadEscape => "the path has a % without two hex digits",
            Self::Forbidden => "the path has an escaped slash, a backslash or a control byte",
            Self::NotUtf8 => "the path is not UTF-8",
        }
    }
}

/// A path in normal form, and what it means once decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// The normal form as sent to a function: escaped where it must be.
    pub wire: Cow<'a, str>,
    /// The same with every escape decoded: what routes and policies see.
    pub decoded: Cow<'a, str>,
}

/// Brings `raw`, the path of a request target, into normal form.
pub fn normalize(raw: &str) -> Result<NormalPath<'_>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(raw) {
        return Ok(NormalPath {
            wire: Cow::Borrowed(raw),
            decoded: Cow::Borrowed(raw),
        });
    }
    let wire = remove_dots(&canonical_escapes(raw)?);
    let decoded = decode(&wire)?;
    Ok(NormalPath {
        wire: Cow::Owned(wire),
        decoded: Cow::Owned(decoded),
    })
}

/// The common case: nothing to decode, no dot at the start of a segment, no empty segment.
fn is_normal(raw: &str) -> bool {
    let mut before = b'x';
    for byte in raw.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_~!$&'()*+,;=:@".contains(&byte);
        let fits = match byte {
            b'/' | b'.' => before != b'/',
            _ => plain,
        };
        if !fits {
            return false;
        }
        before = byte;
    }
    true
}

fn canonical_escapes(raw: &str) -> Result<String, PathError> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
                let low = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
                push_escaped(high << 4 | low, &mut out)?;
            }
            b'\\' | 0..=0x1f | 0x7f => return Err(PathError::Forbidden),
            // A raw byte beyond ASCII: escaped, as RFC 3987 §3.1 does.
            0x80.. => out.extend_from_slice(&escape(byte)),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| PathError::NotUtf8)
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) -> Result<(), PathError> {
    if matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f) {
        return Err(PathError::Forbidden);
    }
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        out.push(byte);
    } else {
        out.extend_from_slice(&escape(byte));
    }
    Ok(())
}

fn escape(byte: u8) -> [u8; 3] {
    let digit = |nibble: u8| match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + nibble - 10,
    };
    [b'%', digit(byte >> 4), digit(byte & 0xf)]
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986 §5.2.4, on segments; a path that climbs past its root stays there.
fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split('/').skip(1) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_slash || out.is_empty() {
        out.push('/');
    }
    out
}

fn decode(wire: &str) -> Result<String, PathError> {
    let mut out = Vec::with_capacity(wire.len());
    let mut bytes = wire.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
            let low = bytes.next().and_then(hex).ok_or(PathError::BadEscape)?;
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| PathError::NotUtf8)
}

#[cfg(test)]
#[path = "path_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
