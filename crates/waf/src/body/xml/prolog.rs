//! What stands before the document's element: the encoding and the document type.

use std::borrow::Cow;

use memchr::memmem;

use super::Read;

const NOT_UTF8: &str = "the document is not UTF-8.";
const CONTROL: &str = "a character is not allowed in XML.";
const ENCODING: &str = "the document's encoding is none that is read.";
const BAD_DECLARATION: &str = "the XML declaration is malformed.";
const BAD_TYPE: &str = "the document type is malformed.";
const DECLARES: &str = "the document type has declarations of its own.";

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The document in UTF-8, and where it begins behind the XML declaration.
///
/// Of other encodings Latin 1 is read and no more: an encoding that the rules cannot read is a way around them.
pub(super) fn utf8(body: &[u8]) -> Read<(Cow<'_, [u8]>, usize)> {
    let mark = if body.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    let document = body.get(mark..).unwrap_or_default();
    let (encoding, length) = declaration(document)?;
    let is = |names: &[&str]| {
        names
            .iter()
            .any(|name| encoding.eq_ignore_ascii_case(name.as_bytes()))
    };
    let text = if is(&["", "utf-8", "utf8", "us-ascii", "ascii"]) {
        std::str::from_utf8(document).map_err(|_| NOT_UTF8)?;
        Cow::Borrowed(document)
    } else if mark == 0 && is(&["iso-8859-1", "latin1", "latin-1"]) {
        Cow::Owned(
            document
                .iter()
                .map(|byte| char::from(*byte))
                .collect::<String>()
                .into_bytes(),
        )
    } else {
        return Err(ENCODING);
    };
    if text.iter().any(|byte| *byte < b' ' && !is_space(*byte)) {
        return Err(CONTROL);
    }
    Ok((text, length))
}

/// The encoding that a document names, and the length of its declaration.
fn declaration(document: &[u8]) -> Read<(&[u8], usize)> {
    let Some(inside) = document.strip_prefix(b"<?xml") else {
        return Ok((&[], 0));
    };
    if !inside.first().copied().is_some_and(is_space) {
        return Ok((&[], 0)); // an instruction whose name only begins so
    }
    let end = memmem::find(inside, b"?>").ok_or(BAD_DECLARATION)?;
    let mut rest = inside.get(..end).unwrap_or_default();
    let version = pair(&mut rest, b"version")?.ok_or(BAD_DECLARATION)?;
    let encoding = pair(&mut rest, b"encoding")?.unwrap_or_default();
    let standalone = pair(&mut rest, b"standalone")?.unwrap_or(b"yes");
    let is_version = matches!(version, [b'1', b'.', minor @ ..] if is_number(minor));
    let is_well_formed = is_version && matches!(standalone, b"yes" | b"no");
    if is_well_formed && rest.iter().copied().all(is_space) {
        Ok((encoding, end + 7))
    } else {
        Err(BAD_DECLARATION)
    }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// The value of `name` where `rest` goes on with it; `rest` is what is behind then.
fn pair<'a>(rest: &mut &'a [u8], name: &[u8]) -> Read<Option<&'a [u8]>> {
    let text = skip_space(rest);
    let Some(behind) = text.strip_prefix(name) else {
        return Ok(None);
    };
    if text.len() == rest.len() {
        return Err(BAD_DECLARATION);
    }
    let behind = skip_space(behind)
        .strip_prefix(b"=")
        .ok_or(BAD_DECLARATION)?;
    let (quote, inside) = skip_space(behind).split_first().ok_or(BAD_DECLARATION)?;
    let end = inside
        .iter()
        .position(|byte| byte == quote)
        .ok_or(BAD_DECLARATION)?;
    if !matches!(quote, b'"' | b'\'') {
        return Err(BAD_DECLARATION);
    }
    let (value, behind) = inside.split_at(end);
    *rest = behind.get(1..).unwrap_or_default();
    Ok(Some(value))
}

fn skip_space(text: &[u8]) -> &[u8] {
    let space = text.iter().take_while(|byte| is_space(**byte)).count();
    text.get(space..).unwrap_or_default()
}

/// The length of the document type at the start of `text`.
pub(super) fn document_type(text: &[u8]) -> Read<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'[') => return Err(DECLARES),
            (None, b'>') => return Ok(at + 1),
            (None, b'<') if at > 0 => return Err(BAD_TYPE),
            _ => {}
        }
    }
    Err(BAD_TYPE)
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
