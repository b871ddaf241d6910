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
        return Ok((&[], 0));
    }
    let end = memmem::find(inside, b"?>").ok_or(BAD_DECLARATION)?;
    let length = end + 7;
    let inside = inside.get(..end).unwrap_or_default();
    let Some(at) = memmem::find(inside, b"encoding") else {
        return Ok((&[], length));
    };
    let value = inside.get(at + 8..).unwrap_or_default().trim_ascii();
    let value = value
        .strip_prefix(b"=")
        .ok_or(BAD_DECLARATION)?
        .trim_ascii_start();
    let (quote, value) = value.split_first().ok_or(BAD_DECLARATION)?;
    if !matches!(quote, b'"' | b'\'') {
        return Err(BAD_DECLARATION);
    }
    let end = value
        .iter()
        .position(|byte| byte == quote)
        .ok_or(BAD_DECLARATION)?;
    Ok((value.get(..end).unwrap_or_default(), length))
}

/// The length of the document type at the start of `text`.
pub(super) fn document_type(text: &[u8]) -> Read<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'[') => return Err(DECLARES),
            (None, b'>') => return Ok(at + 1),
            (None, b'<') if at > 0 => return Err(BAD_TYPE),
            (None, _) => {}
        }
    }
    Err(BAD_TYPE)
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
