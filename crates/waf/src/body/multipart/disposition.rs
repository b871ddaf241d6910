//! `Content-Disposition: form-data; name="a"; filename="b"`.

use super::{Flag, Flags, Read, is_space};

const NOT_A_FORM: &str = "Invalid Content-Disposition header (form-data).";
const MALFORMED: &str = "Invalid Content-Disposition header (malformed).";
const UNKNOWN: &str = "Invalid Content-Disposition header (parameter name).";
const QUOTING: &str = "Invalid Content-Disposition header (quoting).";
const EXTENDED: &str = "Invalid Content-Disposition header (filename*).";
const TWICE: &str = "Invalid Content-Disposition header (duplicate parameter).";
const BLANK: &str = "Invalid Content-Disposition header (filename).";

/// What a part is called, empty where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    /// The field.
    pub(super) name: Vec<u8>,
    /// The file.
    pub(super) filename: Vec<u8>,
}

/// Read the header's value. Only the three parameters that forms have are known: a server may
/// take a fourth for one of them.
pub(super) fn parse(value: &[u8], flags: &mut Flags) -> Read<Disposition> {
    let mut rest = skip_blanks(value.strip_prefix(b"form-data").ok_or(NOT_A_FORM)?);
    let mut found = Disposition::default();
    let mut has_extended = false;
    if !rest.is_empty() {
        rest = rest.strip_prefix(b";").ok_or(MALFORMED)?;
    }
    while !rest.is_empty() {
        let (name, text) = parameter(rest)?;
        if name == b"filename*" {
            if std::mem::replace(&mut has_extended, true) {
                return Err(TWICE);
            }
            rest = next(extended(text)?, flags)?;
            continue;
        }
        let known = match name {
            b"name" => &mut found.name,
            b"filename" => &mut found.filename,
            _ => return Err(UNKNOWN),
        };
        if !known.is_empty() {
            return Err(TWICE);
        }
        let (value, behind) = self::value(text, flags)?;
        *known = value;
        rest = next(behind, flags)?;
    }
    if has_extended && found.filename.is_empty() {
        return Err(EXTENDED);
    }
    // Crude servers look for exactly this.
    if !found.filename.is_empty() && memchr::memmem::find(value, b"filename=").is_none() {
        return Err(BLANK);
    }
    Ok(found)
}

/// A parameter's name, and the text that begins with its value.
fn parameter(text: &[u8]) -> Read<(&[u8], &[u8])> {
    let text = skip_blanks(text);
    let end = text
        .iter()
        .position(|byte| matches!(byte, b'=' | b'\t' | b' '))
        .ok_or(MALFORMED)?;
    let (name, behind) = text.split_at(end);
    let value = skip_blanks(skip_blanks(behind).strip_prefix(b"=").ok_or(MALFORMED)?);
    if value.is_empty() {
        Err(MALFORMED)
    } else {
        Ok((name, value))
    }
}

/// A quoted or bare value, and what is behind it.
fn value<'a>(text: &'a [u8], flags: &mut Flags) -> Read<(Vec<u8>, &'a [u8])> {
    let (value, behind) = match text {
        [b'"', inside @ ..] => return quoted(inside, b'"'),
        // Against the RFC, and some servers take it.
        [b'\'', inside @ ..] => {
            flags.set(Flag::InvalidQuoting);
            quoted(inside, b'\'')?
        }
        _ => {
            let end = text
                .iter()
                .position(|byte| !is_token(*byte))
                .unwrap_or(text.len());
            let (value, behind) = text.split_at(end);
            (value.to_vec(), behind)
        }
    };
    if value.contains(&b'\'') {
        flags.set(Flag::InvalidQuoting);
    }
    Ok((value, behind))
}

/// A backslash escapes the quote and itself. Before anything else it is itself: browsers have sent whole Windows paths.
fn quoted(text: &[u8], quote: u8) -> Read<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [] | [b'\\'] => return Err(QUOTING),
            [b'\\', byte, behind @ ..] if *byte == quote || *byte == b'\\' => {
                value.push(*byte);
                rest = behind;
            }
            [byte, behind @ ..] if *byte == quote => return Ok((value, behind)),
            [byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
        }
    }
}

/// `charset'language'percent-encoded` (RFC 5987), checked and skipped: rules look at `filename`.
fn extended(text: &[u8]) -> Read<&[u8]> {
    let is_charset = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&+-^_`{}~".contains(byte);
    let charset = text.iter().take_while(|byte| is_charset(byte)).count();
    let behind = text
        .get(charset..)
        .and_then(|behind| behind.strip_prefix(b"'"))
        .ok_or(EXTENDED)?;
    let language = behind
        .iter()
        .position(|byte| *byte == b'\'')
        .ok_or(EXTENDED)?;
    let mut rest = behind.get(language + 1..).unwrap_or_default();
    if charset == 0 {
        return Err(EXTENDED);
    }
    loop {
        rest = match rest {
            [] | [b';', ..] => return Ok(rest),
            [b'%', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                behind
            }
            [byte, behind @ ..]
                if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`~".contains(byte) =>
            {
                behind
            }
            _ => return Err(EXTENDED),
        }
    }
}

/// Behind a value are space and a semicolon, or nothing.
fn next<'a>(behind: &'a [u8], flags: &mut Flags) -> Read<&'a [u8]> {
    match skip_blanks(behind) {
        [] => Ok(&[]),
        [b';', rest @ ..] => Ok(rest),
        _ => {
            flags.set(Flag::InvalidQuoting);
            Err(QUOTING)
        }
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    text.get(blanks..).unwrap_or_default()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !is_space(byte) && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}
