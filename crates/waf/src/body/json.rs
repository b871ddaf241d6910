//! JSON, flattened: `{"a":[1,{"b":true}]}` is `json.a.array_0` = `1` and `json.a.array_1.b` = `true`.
//!
//! Owns RFC 8259 as libmodsecurity's parser (yajl) reads it: UTF-8 only, one value, nothing behind it. Names that occur
//! twice are two arguments, because servers differ in which of them they take.
//! Must not: build a tree, recurse, or turn a number into one.

use std::borrow::Cow;
use std::io::Write;

use memchr::memchr2;

use super::{Error, Fields, Limits, Outcome, Processor};

const TOO_DEEP: &str = "Parsing depth limit exceeded";
const TOO_MANY: &str = "more arguments than the limit";
const NAME_TOO_LONG: &str = "the path to a value is longer than the limit";
const PREMATURE_END: &str = "premature EOF";
const UNEXPECTED: &str = "unallowed token at this point in JSON text";
const TRAILING: &str = "trailing garbage";
const NO_KEY: &str = "object key must be a string";
const NO_COLON: &str = "object key and value must be separated by a colon (':')";
const NO_COMMA_IN_OBJECT: &str = "after key and value, inside map, I expect ',' or '}'";
const NO_COMMA_IN_ARRAY: &str = "after array element, I expect ',' or ']'";
const CONTROL: &str = "invalid character inside string.";
const NOT_UTF8: &str = "invalid bytes in UTF8 string.";
const BAD_ESCAPE: &str = "inside a string, '\\' occurs before a character which it may not.";
const BAD_HEX: &str = "invalid (non-hex) character occurs after '\\u' inside string.";
const BAD_NUMBER: &str = "malformed number";

/// Read a document. An empty body is none, and no error.
pub(super) fn process(body: &[u8], limits: &Limits, fields: &mut dyn Fields) -> Outcome {
    let mut reader = Reader {
        body,
        at: 0,
        limits,
        fields,
        open: Vec::new(),
        path: Vec::new(),
        arguments: 0,
    };
    let read = if body.is_empty() {
        Ok(())
    } else {
        reader.document()
    };
    let at = reader.at;
    Outcome {
        error: read.err().map(|what| Error {
            processor: Processor::Json,
            what,
            at,
        }),
        ..Outcome::default()
    }
}

type Read<T> = Result<T, &'static str>;

/// An object or array that is not closed yet. What is inside begins its name with the first `base` bytes of the path.
struct Open {
    base: usize,
    /// How many elements an array has so far; an object has names instead.
    elements: Option<usize>,
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    limits: &'a Limits,
    fields: &'a mut dyn Fields,
    open: Vec<Open>,
    path: Vec<u8>,
    arguments: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Read<()> {
        self.path.extend_from_slice(b"json");
        loop {
            let opens = self.value()?;
            if opens && self.first_member()? {
                continue;
            }
            if !self.next_member()? {
                self.skip_space();
                return if self.at == self.body.len() {
                    Ok(())
                } else {
                    Err(TRAILING)
                };
            }
        }
    }

    /// Read a value, whose name is the path. True when it is an object or array that is now open.
    fn value(&mut self) -> Read<bool> {
        self.skip_space();
        match self.peek().ok_or(PREMATURE_END)? {
            b'{' => {
                self.path.push(b'.');
                self.enter(None)?;
                return Ok(true);
            }
            b'[' => {
                self.enter(Some(0))?;
                return Ok(true);
            }
            b'"' => {
                let text = self.string()?;
                self.argument(&text)?;
            }
            b'-' | b'0'..=b'9' => {
                let number = self.number()?;
                self.argument(number)?;
            }
            b't' => self.word(b"true", b"true")?,
            b'f' => self.word(b"false", b"false")?,
            b'n' => self.word(b"null", b"")?,
            _ => return Err(UNEXPECTED),
        }
        Ok(false)
    }

    fn enter(&mut self, elements: Option<usize>) -> Read<()> {
        if self.open.len() == self.limits.depth {
            return Err(TOO_DEEP);
        }
        self.at += 1;
        self.open.push(Open {
            base: self.path.len(),
            elements,
        });
        Ok(())
    }

    /// Name the first member of what was just opened. False when there is none: it is closed then.
    fn first_member(&mut self) -> Read<bool> {
        self.skip_space();
        let is_array = self.open.last().is_some_and(|open| open.elements.is_some());
        let close = if is_array { b']' } else { b'}' };
        if self.peek().ok_or(PREMATURE_END)? == close {
            self.at += 1;
            self.open.pop();
            return Ok(false);
        }
        if is_array {
            self.name_element()?;
        } else {
            self.name_member()?;
        }
        Ok(true)
    }

    /// Go on behind a value: name the next one, closing what ends before it. False when the document's value has ended.
    fn next_member(&mut self) -> Read<bool> {
        while let Some(open) = self.open.last_mut() {
            let is_array = open.elements.is_some();
            if let Some(elements) = &mut open.elements {
                *elements += 1;
            }
            self.skip_space();
            let byte = self.peek().ok_or(PREMATURE_END)?;
            match (byte, is_array) {
                (b',', true) => {
                    self.at += 1;
                    self.name_element()?;
                    return Ok(true);
                }
                (b',', false) => {
                    self.at += 1;
                    self.name_member()?;
                    return Ok(true);
                }
                (b']', true) | (b'}', false) => {
                    self.at += 1;
                    self.open.pop();
                }
                (_, true) => return Err(NO_COMMA_IN_ARRAY),
                (_, false) => return Err(NO_COMMA_IN_OBJECT),
            }
        }
        Ok(false)
    }

    fn name_element(&mut self) -> Read<()> {
        let (base, element) = self
            .open
            .last()
            .map_or((0, 0), |open| (open.base, open.elements.unwrap_or(0)));
        self.path.truncate(base);
        // Writing to memory does not fail.
        let _ = write!(self.path, ".array_{element}");
        self.check_name()
    }

    fn name_member(&mut self) -> Read<()> {
        self.skip_space();
        if self.peek().ok_or(PREMATURE_END)? != b'"' {
            return Err(NO_KEY);
        }
        let key = self.string()?;
        let base = self.open.last().map_or(0, |open| open.base);
        self.name(base, if key.is_empty() { b"empty-key" } else { &key })?;
        self.skip_space();
        if self.peek().ok_or(PREMATURE_END)? != b':' {
            return Err(NO_COLON);
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self, base: usize, key: &[u8]) -> Read<()> {
        self.path.truncate(base);
        self.path.extend_from_slice(key);
        self.check_name()
    }

    fn check_name(&self) -> Read<()> {
        if self.path.len() > self.limits.name {
            Err(NAME_TOO_LONG)
        } else {
            Ok(())
        }
    }

    fn argument(&mut self, value: &[u8]) -> Read<()> {
        if self.arguments == self.limits.arguments {
            return Err(TOO_MANY);
        }
        self.arguments += 1;
        self.fields.argument(&self.path, value);
        Ok(())
    }

    fn word(&mut self, word: &[u8], value: &[u8]) -> Read<()> {
        if !self.rest().starts_with(word) {
            return Err(UNEXPECTED);
        }
        self.at += word.len();
        self.argument(value)
    }

    fn number(&mut self) -> Read<&'a [u8]> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.digits()? > 1 && self.body.get(self.at_of_digits(start)) == Some(&b'0') {
            return Err(BAD_NUMBER);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(self.body.get(start..self.at).unwrap_or_default())
    }

    fn at_of_digits(&self, start: usize) -> usize {
        start + usize::from(self.body.get(start) == Some(&b'-'))
    }

    fn digits(&mut self) -> Read<usize> {
        let count = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += count;
        if count == 0 {
            Err(BAD_NUMBER)
        } else {
            Ok(count)
        }
    }

    /// Read a string, at whose opening quote the reader is.
    fn string(&mut self) -> Read<Cow<'a, [u8]>> {
        self.at += 1;
        let run = self.run()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(run));
        }
        let mut text = run.to_vec();
        while self.peek() == Some(b'\\') {
            self.at += 1;
            self.escape(&mut text)?;
            text.extend_from_slice(self.run()?);
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    /// What stands for itself, up to a quote or a backslash.
    fn run(&mut self) -> Read<&'a [u8]> {
        let rest = self.rest();
        let end = memchr2(b'"', b'\\', rest).ok_or(PREMATURE_END)?;
        let run = rest.get(..end).unwrap_or_default();
        // The least of all bytes is what the compiler finds fast; the search is for the error.
        if run.iter().min().is_some_and(|least| *least < b' ') {
            self.at += run.iter().take_while(|byte| **byte >= b' ').count();
            return Err(CONTROL);
        }
        if let Err(error) = std::str::from_utf8(run) {
            self.at += error.valid_up_to();
            return Err(NOT_UTF8);
        }
        self.at += end;
        Ok(run)
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Read<()> {
        let byte = self.peek().ok_or(PREMATURE_END)?;
        self.at += 1;
        text.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode_escape(text),
            _ => return Err(BAD_ESCAPE),
        });
        Ok(())
    }

    /// Half a pair is no character: a question mark, as yajl has it.
    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Read<()> {
        let first = self.four_hex()?;
        let mut code = first;
        if (0xD800..0xDC00).contains(&first) && self.rest().starts_with(b"\\u") {
            self.at += 2;
            let second = self.four_hex()?;
            code = 0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF);
        }
        let character = char::from_u32(code).unwrap_or('?');
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn four_hex(&mut self) -> Read<u32> {
        let digits = self.rest().get(..4).ok_or(PREMATURE_END)?;
        let code = digits.iter().try_fold(0, |code, &byte| {
            Some(code << 4 | char::from(byte).to_digit(16)?)
        });
        self.at += 4;
        code.ok_or(BAD_HEX)
    }

    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.rest().iter().take_while(space).count();
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
