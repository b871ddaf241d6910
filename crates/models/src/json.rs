//! JSON as it is read here: one pass over the bytes, numbers as the text they are.
//!
//! Owns: the grammar (RFC 8259). A number goes from its text straight to the element type that is asked for: through a
//! 64-bit float, INT64 beyond 2^53 would change, and FP32 could be rounded twice. `serde_json` does that, unless
//! features are switched on that the whole workspace would have to pay for; it is asked for texts with escapes.
//!
//! Must not: build a tree, or go deeper than [`MAX_DEPTH`].

use std::borrow::Cow;

/// Arrays and objects within each other.
pub const MAX_DEPTH: usize = 32;

/// Where, in bytes, the text is no JSON, or not what is expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Byte at which it was seen.
    pub at: usize,
    /// What was expected.
    pub expected: &'static str,
}

type Read<T> = Result<T, Fault>;

/// A place in a text.
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// At `at` of the same text.
    pub fn jump(&self, at: usize) -> Self {
        Self {
            text: self.text,
            at,
        }
    }

    /// Where it is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes of the text, which has no more elements than that.
    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// A fault here.
    pub fn fault<T>(&self, expected: &'static str) -> Read<T> {
        Err(Fault {
            at: self.at,
            expected,
        })
    }

    /// The next byte that is no space, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte` if it is next.
    pub fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes `byte`, which must be next.
    pub fn need(&mut self, byte: u8, expected: &'static str) -> Read<()> {
        match self.eat(byte) {
            true => Ok(()),
            false => self.fault(expected),
        }
    }

    /// Nothing follows.
    pub fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fault("the end"),
        }
    }

    /// Goes to the next item of an array or object that was opened; `false`: it is closed.
    pub fn next_item(&mut self, is_first: &mut bool, close: u8) -> Read<bool> {
        if self.eat(close) {
            return Ok(false);
        }
        if !std::mem::take(is_first) {
            self.need(b',', "a comma or the end of the list")?;
            if self.peek() == Some(close) {
                return self.fault("an item");
            }
        }
        Ok(true)
    }

    /// The key of the next member of an object that was opened, its value being next.
    pub fn next_key(&mut self, is_first: &mut bool) -> Read<Option<Cow<'a, str>>> {
        if !self.next_item(is_first, b'}')? {
            return Ok(None);
        }
        let key = self.text()?;
        self.need(b':', "a colon")?;
        Ok(Some(key))
    }

    /// A text.
    pub fn text(&mut self) -> Read<Cow<'a, str>> {
        self.need(b'"', "a text")?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.text.get(self.at) {
                None => return self.fault("the end of a text"),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.at += 2;
                }
                Some(byte) if *byte < 0x20 => return self.fault("no control character"),
                Some(_) => self.at += 1,
            }
        }
        let inside = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        let text = match has_escapes {
            false => std::str::from_utf8(inside).ok().map(Cow::Borrowed),
            true => self
                .text
                .get(start - 1..self.at)
                .and_then(|it| serde_json::from_slice::<String>(it).ok())
                .map(Cow::Owned),
        };
        text.ok_or(Fault {
            at: start,
            expected: "a text in UTF-8",
        })
    }

    /// The text of a number (RFC 8259, section 6).
    pub fn number(&mut self) -> Read<&'a str> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.text.get(self.at) == Some(&b'-'));
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fault("a number"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        let number = self.text.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(number).or_else(|_| self.fault("a number"))
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => self.fault("a digit"),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self) -> Read<bool> {
        match self.peek() {
            Some(b't') => self.word(b"true").map(|()| true),
            Some(b'f') => self.word(b"false").map(|()| false),
            _ => self.fault("true or false"),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Read<()> {
        let is_there = self
            .text
            .get(self.at..)
            .is_some_and(|it| it.starts_with(word));
        if !is_there {
            return self.fault("a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over a value, which must be sound.
    pub fn skip(&mut self) -> Read<()> {
        self.skip_within(0)
    }

    fn skip_within(&mut self, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return self.fault("fewer lists within each other");
        }
        let mut is_first = true;
        match self.peek() {
            Some(b'"') => self.text().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.word(b"null"),
            Some(b'[') => {
                self.at += 1;
                while self.next_item(&mut is_first, b']')? {
                    self.skip_within(depth + 1)?;
                }
                Ok(())
            }
            Some(b'{') => {
                self.at += 1;
                while self.next_key(&mut is_first)?.is_some() {
                    self.skip_within(depth + 1)?;
                }
                Ok(())
            }
            _ => self.number().map(drop),
        }
    }
}
