//! The boundary that a media type names.

use memchr::{memchr, memmem};

use super::{Flag, Flags, Read, is_space};

const MEDIA_TYPE: &[u8] = b"multipart/form-data";
const PARAMETER: &[u8] = b"boundary";
/// Longer media types are refused, as libmodsecurity does.
const LONGEST: usize = 1024;

const NO_MEDIA_TYPE: &str = "Content-Type header not available.";
const WRONG_MEDIA_TYPE: &str = "Invalid MIME type.";
const TOO_LONG: &str = "Invalid boundary in C-T (length).";
const SEVERAL: &str = "Multiple boundary parameters in C-T.";
const MALFORMED: &str = "Invalid boundary in C-T (malformed).";
const PARAMETER_NAME: &str = "Invalid boundary in C-T (parameter name).";
const HALF_QUOTED: &str = "Invalid boundary in C-T (quote).";
const CHARACTERS: &str = "Invalid boundary in C-T (characters).";
const EMPTY: &str = "Invalid boundary in C-T (empty).";
const CASE: &str = "Invalid boundary in C-T (case sensitivity).";
const ABSENT: &str = "Boundary not found in C-T.";

/// Read the boundary. Whatever two servers could read in two ways is an error or a flag.
pub(super) fn of<'a>(content_type: &'a [u8], flags: &mut Flags) -> Read<&'a [u8]> {
    if content_type.is_empty() {
        return Err(NO_MEDIA_TYPE);
    }
    if content_type.len() > LONGEST {
        return Err(TOO_LONG);
    }
    let (media_type, parameters) = content_type
        .split_at_checked(MEDIA_TYPE.len())
        .ok_or(WRONG_MEDIA_TYPE)?;
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(WRONG_MEDIA_TYPE);
    }
    if count(parameters) > 1 {
        return Err(SEVERAL);
    }
    let Some(at) = memmem::find(parameters, PARAMETER) else {
        return Err(if count(parameters) > 0 { CASE } else { ABSENT });
    };
    let (before, named) = parameters.split_at(at);
    check_before(before, flags)?;
    let named = named.get(PARAMETER.len()..).unwrap_or_default();
    let (between, value) = named.split_at(memchr(b'=', named).ok_or(MALFORMED)?);
    if !between.iter().copied().all(is_space) {
        return Err(PARAMETER_NAME);
    }
    let value = value.get(1..).unwrap_or_default();
    if !between.is_empty() || value.first().copied().is_some_and(is_space) {
        flags.set(Flag::BoundaryWhitespace);
    }
    checked(unquoted(value, flags)?)
}

/// How often the word occurs with an equals sign somewhere behind it, in any case.
fn count(text: &[u8]) -> usize {
    let lower = text.to_ascii_lowercase();
    memmem::find_iter(&lower, PARAMETER)
        .filter(|at| {
            lower
                .get(*at..)
                .is_some_and(|behind| memchr(b'=', behind).is_some())
        })
        .count()
}

/// Between the media type and the parameter stand one semicolon and space.
fn check_before(before: &[u8], flags: &mut Flags) -> Read<()> {
    let mut marks = before.iter().filter(|byte| !is_space(**byte));
    match (marks.next(), marks.next()) {
        (None, _) => flags.set(Flag::MissingSemicolon),
        (Some(b';'), None) => {}
        _ => return Err(MALFORMED),
    }
    Ok(())
}

fn unquoted<'a>(value: &'a [u8], flags: &mut Flags) -> Read<&'a [u8]> {
    match value {
        [b'"', inside @ .., b'"'] => {
            flags.set(Flag::BoundaryQuoted);
            Ok(inside)
        }
        [b'"', ..] | [_, .., b'"'] => Err(HALF_QUOTED),
        _ => Ok(value),
    }
}

fn checked(boundary: &[u8]) -> Read<&[u8]> {
    // A `charset=` behind the boundary is against the RFC, and common.
    let boundary = match memchr(b';', boundary) {
        Some(semicolon) if !is_valid(boundary) => boundary.get(..semicolon).unwrap_or_default(),
        _ => boundary,
    };
    match boundary {
        [] => Err(EMPTY),
        _ if is_valid(boundary) => Ok(boundary),
        _ => Err(CHARACTERS),
    }
}

/// RFC 2046, 5.1.1: a blank is no last character.
fn is_valid(boundary: &[u8]) -> bool {
    boundary.last() != Some(&b' ')
        && boundary
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b" '()+_,-./:=?".contains(byte))
}
