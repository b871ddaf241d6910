//! What a client sends into the variables that rules read.

use std::borrow::Cow;

use super::state::{Argument, State, Uploaded};
use super::tx::Content;
use crate::body::{self, Fields, File, Flag, Outcome, Processor};
use crate::bytes::{hex_pair, is_space};
use crate::rule::RuleSet;
use crate::seclang::Variable;

/// The request line.
pub(super) fn line(
    state: &mut State,
    set: &RuleSet,
    method: &[u8],
    target: &[u8],
    protocol: &[u8],
) {
    let whole = [method, b" ", target, b" ", protocol].concat();
    state.set_text(Variable::RequestLine, &whole);
    state.set_text(Variable::RequestMethod, method);
    state.set_text(Variable::RequestProtocol, protocol);
    state.set_text(Variable::RequestUriRaw, target);
    // A fragment never reaches an application.
    let sent = target
        .split(|&byte| byte == b'#')
        .next()
        .unwrap_or_default();
    let (raw_path, query) = match memchr::memchr(b'?', sent) {
        Some(at) => (
            sent.get(..at).unwrap_or_default(),
            sent.get(at + 1..).unwrap_or_default(),
        ),
        None => (sent, &[][..]),
    };
    let path = percent_decoded(raw_path);
    state.set_text(Variable::RequestUri, without_origin(&percent_decoded(sent)));
    state.set_text(Variable::RequestFilename, &path);
    state.set_text(Variable::PathInfo, &path);
    state.set_text(Variable::QueryString, query);
    let base = path
        .iter()
        .rposition(|&byte| byte == b'/' || byte == b'\\')
        .map_or(0, |at| at + 1);
    state.set_text(
        Variable::RequestBasename,
        if base > 0 {
            path.get(base..).unwrap_or_default()
        } else {
            b""
        },
    );
    let outcome = body::arguments(
        query,
        set.settings.argument_separator,
        &limits(set),
        &mut |name, value| {
            let pair = state.add_pair(name, value);
            state.arguments.push(Argument {
                pair,
                posted: false,
            });
        },
    );
    told_by_form(state, &outcome);
}

/// Percent escapes only: a `+` in a path is a plus.
fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match hex_pair(after) {
            Some(escaped) if byte == b'%' => {
                decoded.push(escaped);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(decoded)
}

/// An absolute URI without scheme and authority.
fn without_origin(uri: &[u8]) -> &[u8] {
    if uri.first() == Some(&b'/') {
        return uri;
    }
    let Some(scheme) = crate::bytes::find(uri, b"://") else {
        return uri;
    };
    let authority = uri.get(scheme + 3..).unwrap_or_default();
    match memchr::memchr(b'/', authority) {
        Some(path) => authority.get(path..).unwrap_or_default(),
        None => uri,
    }
}

fn told_by_form(state: &mut State, outcome: &Outcome) {
    if outcome.has_bad_escape {
        state.set_flag(Variable::UrlencodedError, true);
    }
    if outcome.error.is_some() {
        told_by_body(state, outcome);
    }
}

/// One header of the request.
pub(super) fn header(state: &mut State, name: &[u8], value: &[u8]) {
    let pair = state.add_pair(name, value);
    state.request_headers.push(pair);
    if name.eq_ignore_ascii_case(b"cookie") {
        cookies(state, value);
    } else if name.eq_ignore_ascii_case(b"content-type") {
        if let Some(processor) = Processor::of_content_type(value) {
            state.processor = Some(processor);
        }
    } else if name.eq_ignore_ascii_case(b"host") {
        let host = value.split(|&byte| byte == b':').next().unwrap_or_default();
        state.set_text(Variable::ServerName, host);
    } else if name.eq_ignore_ascii_case(b"authorization") {
        let scheme = value.split(|&byte| byte == b' ').next().unwrap_or_default();
        state.set_text(Variable::AuthType, scheme);
    }
}

fn cookies(state: &mut State, value: &[u8]) {
    for cookie in value.trim_ascii_end().split(|&byte| byte == b';') {
        let cookie = cookie.trim_ascii_start();
        let end = memchr::memchr(b'=', cookie).unwrap_or(cookie.len());
        let (name, value) = (
            cookie.get(..end).unwrap_or_default(),
            cookie.get(end + 1..).unwrap_or_default(),
        );
        if !name.is_empty() {
            let pair = state.add_pair(name, value);
            state.cookies.push(pair);
        }
    }
}

/// What is known when all headers are.
pub(super) fn headers_end(state: &mut State) {
    let name = state.processor.map_or("", Processor::name);
    let id = state.texts.add(name.as_bytes());
    state.set_single(Variable::ReqbodyProcessor, Content::Text(id));
}

/// The whole request body.
pub(super) fn body(state: &mut State, set: &RuleSet) {
    let bytes = std::mem::take(&mut state.body);
    state.set_flag(Variable::ReqbodyError, false);
    state.set_flag(Variable::ReqbodyProcessorError, false);
    let empty = bytes.is_empty();
    if !empty {
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        state.set_single(Variable::RequestBodyLength, Content::Number(length));
    }
    if let Some(processor) = state.processor.filter(|_| !empty) {
        let content_type = header_value(state, b"content-type");
        let outcome = match processor {
            Processor::UrlEncoded => body::arguments(
                &bytes,
                set.settings.argument_separator,
                &limits(set),
                &mut |name, value| {
                    posted(state, name, value);
                },
            ),
            _ => body::process(
                processor,
                &content_type,
                &bytes,
                &limits(set),
                &mut Collected(state),
            ),
        };
        // What ends in the middle is no error of the client's where it was cut there.
        if !state.body_is_cut_off || processor == Processor::UrlEncoded {
            told_by_body(state, &outcome);
            if processor == Processor::Multipart {
                told_by_multipart(state, &outcome);
            }
        }
    }
    // As ModSecurity 2 has it, for which CRS is written: the raw body of what is no form is looked
    // at only where a rule asks for it, since its processor has taken it apart.
    if !empty && (state.processor == Some(Processor::UrlEncoded) || state.forces_body) {
        let id = state.texts.add(&bytes);
        state.set_single(Variable::RequestBody, Content::Text(id));
    }
    state.body = bytes;
}

fn header_value(state: &State, wanted: &[u8]) -> Vec<u8> {
    let found = state
        .request_headers
        .iter()
        .find(|pair| state.texts.get(pair.name).eq_ignore_ascii_case(wanted));
    found
        .map(|pair| state.texts.get(pair.value).to_vec())
        .unwrap_or_default()
}

fn posted(state: &mut State, name: &[u8], value: &[u8]) {
    let pair = state.add_pair(name, value);
    state.arguments.push(Argument { pair, posted: true });
}

fn limits(set: &RuleSet) -> body::Limits {
    body::Limits {
        arguments: set.settings.arguments as usize,
        depth: set.settings.json_depth as usize,
        ..body::Limits::default()
    }
}

fn told_by_body(state: &mut State, outcome: &Outcome) {
    if outcome.has_bad_escape {
        state.set_flag(Variable::UrlencodedError, true);
    }
    let Some(error) = &outcome.error else { return };
    let message = error.to_string();
    for variable in [Variable::ReqbodyError, Variable::ReqbodyProcessorError] {
        state.set_flag(variable, true);
    }
    for variable in [
        Variable::ReqbodyErrorMsg,
        Variable::ReqbodyProcessorErrorMsg,
    ] {
        state.set_text(variable, message.as_bytes());
    }
}

fn told_by_multipart(state: &mut State, outcome: &Outcome) {
    let flags = &outcome.multipart;
    for (variable, flag) in [
        (Variable::MultipartBoundaryQuoted, Flag::BoundaryQuoted),
        (
            Variable::MultipartBoundaryWhitespace,
            Flag::BoundaryWhitespace,
        ),
        (Variable::MultipartDataBefore, Flag::DataBefore),
        (Variable::MultipartDataAfter, Flag::DataAfter),
        (Variable::MultipartHeaderFolding, Flag::HeaderFolding),
        (
            Variable::MultipartInvalidHeaderFolding,
            Flag::InvalidHeaderFolding,
        ),
        (Variable::MultipartLfLine, Flag::LfLine),
        (Variable::MultipartMissingSemicolon, Flag::MissingSemicolon),
        (Variable::MultipartInvalidQuoting, Flag::InvalidQuoting),
        (Variable::MultipartInvalidPart, Flag::InvalidPart),
        (
            Variable::MultipartFileLimitExceeded,
            Flag::FileLimitExceeded,
        ),
    ] {
        state.set_flag(variable, flags.has(flag));
    }
    state.set_flag(Variable::MultipartStrictError, flags.is_strict_error());
    state.set_flag(Variable::MultipartCrlfLfLines, flags.has_both_line_ends());
    let unmatched = Content::Number(i64::from(flags.unmatched_boundary));
    state.set_single(Variable::MultipartUnmatchedBoundary, unmatched);
}

/// One header of the response.
pub(super) fn response_header(state: &mut State, name: &[u8], value: &[u8]) {
    let pair = state.add_pair(name, value);
    state.response_headers.push(pair);
    if name.eq_ignore_ascii_case(b"content-type") {
        let end = value
            .iter()
            .position(|&byte| byte == b';' || is_space(byte))
            .unwrap_or(value.len());
        state.set_text(
            Variable::ResponseContentType,
            value.get(..end).unwrap_or_default(),
        );
    }
}

/// Takes what a body processor finds.
struct Collected<'a>(&'a mut State);

impl Fields for Collected<'_> {
    fn argument(&mut self, name: &[u8], value: &[u8]) {
        posted(self.0, name, value);
    }

    fn file(&mut self, file: &File<'_>) {
        let state = &mut *self.0;
        let (field, name) = (state.texts.add(file.field), state.texts.add(file.name));
        let content = Some(state.texts.add(file.content));
        let size = i64::try_from(file.content.len()).unwrap_or(i64::MAX);
        state.files.push(Uploaded {
            field,
            name,
            content,
            size,
        });
    }

    fn part_header(&mut self, part: &[u8], line: &[u8]) {
        let pair = self.0.add_pair(part, line);
        self.0.part_headers.push(pair);
    }

    fn xml_text(&mut self, text: &[u8]) {
        let id = self.0.texts.add(text);
        self.0.xml_text.push(id);
    }

    fn xml_attribute(&mut self, value: &[u8]) {
        let id = self.0.texts.add(value);
        self.0.xml_attributes.push(id);
    }
}
