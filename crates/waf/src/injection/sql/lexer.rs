//! The tokens of SQL, in the words of no server and of all: `MySQL`, `PostgreSQL`, Oracle and SQL Server.

use memchr::{memchr, memmem};

use super::strings::{delimited, quoted};
use super::token::{Kind, Token};
use super::words;
use crate::bytes::ByteSet;

/// How `#` and `--` are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Ansi,
    MySql,
}

/// Reads a value token by token.
pub(super) struct Lexer<'a> {
    value: &'a [u8],
    at: usize,
    dialect: Dialect,
    /// A quote that the value is taken to stand behind.
    quote: Option<u8>,
    /// How many tokens there were.
    pub(super) read: usize,
    /// Whether something was a comment that the other dialect reads in another way.
    pub(super) differs_in_mysql: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(value: &'a [u8], quote: Option<u8>, dialect: Dialect) -> Self {
        Self {
            value,
            at: 0,
            dialect,
            quote,
            read: 0,
            differs_in_mysql: false,
        }
    }

    /// The next token, or nothing at the end.
    pub(super) fn next(&mut self) -> Option<Token> {
        if let Some(quote) = self.quote.take() {
            let (token, at) = quoted(self.value, 0, quote, 0);
            return Some(self.took(token, at));
        }
        while let Some(byte) = self.byte(0) {
            if is_blank(byte) {
                self.at += 1;
            } else {
                let (token, at) = self.token(byte);
                return Some(self.took(token, at));
            }
        }
        None
    }

    fn took(&mut self, token: Token, at: usize) -> Token {
        self.at = at;
        self.read += 1;
        token
    }

    fn token(&mut self, byte: u8) -> (Token, usize) {
        match byte {
            b'\'' | b'"' => quoted(self.value, self.at + 1, byte, byte),
            b'`' => self.backtick(self.at),
            b'#' => self.hash(),
            b'-' => self.dash(),
            b'/' => self.slash(),
            b'$' => self.dollar(),
            b'@' => self.variable(),
            b'\\' => self.backslash(),
            b'[' => self.bracket(),
            b'.' | b'0'..=b'9' => self.number(),
            b'!' | b'&' | b'*' | b':' | b'<' | b'=' | b'>' | b'|' => self.operator(),
            b'%' | b'+' | b'^' | b'~' => self.one(Kind::Operator),
            b'(' => self.one(Kind::LeftParenthesis),
            b')' => self.one(Kind::RightParenthesis),
            b'{' => self.one(Kind::LeftBrace),
            b'}' => self.one(Kind::RightBrace),
            b',' => self.one(Kind::Comma),
            b';' => self.one(Kind::Semicolon),
            b'?' | b']' => self.one(Kind::Unknown),
            _ => self.prefixed(byte).unwrap_or_else(|| self.word()),
        }
    }

    /// A string or number that begins with a letter: `b'01'`, `x'ff'`, `e'a'`, `n'a'`, `q'(a)'`, `u&'a'`.
    fn prefixed(&self, byte: u8) -> Option<(Token, usize)> {
        match byte.to_ascii_uppercase() {
            b'B' => self.quoted_number(b"01\0"),
            b'X' => self.quoted_number(b"0123456789ABCDEFabcdef\0"),
            b'E' => self.escape_string(),
            b'N' => self.escape_string().or_else(|| self.oracle_string(1)),
            b'Q' => self.oracle_string(0),
            b'U' if self.byte(1)? == b'&' && self.byte(2)? == b'\'' => {
                let (token, at) = quoted(self.value, self.at + 3, b'\'', b'u');
                let close = if token.close == 0 { 0 } else { b'u' };
                Some((Token { close, ..token }, at))
            }
            _ => None,
        }
    }

    fn escape_string(&self) -> Option<(Token, usize)> {
        let has_more = self.byte(2).is_some();
        (self.byte(1)? == b'\'' && has_more).then(|| quoted(self.value, self.at + 2, b'\'', b'\''))
    }

    fn quoted_number(&self, digits: &[u8]) -> Option<(Token, usize)> {
        let inside = self.from(2);
        let count = span(inside, digits);
        (self.byte(1)? == b'\'' && inside.get(count) == Some(&b'\''))
            .then(|| self.take(Kind::Number, count + 3))
    }

    fn oracle_string(&self, offset: usize) -> Option<(Token, usize)> {
        let letter = self.byte(offset)?.to_ascii_uppercase();
        if letter != b'Q' || self.byte(offset + 1)? != b'\'' {
            return None;
        }
        let end = match self.byte(offset + 2)? {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            byte @ 33..=127 => byte,
            _ => return None,
        };
        Some(delimited(
            self.value,
            self.at + offset + 3,
            &[end, b'\''],
            b'q',
        ))
    }

    fn word(&self) -> (Token, usize) {
        let rest = self.rest();
        let length = rest
            .iter()
            .position(|byte| ends_word(*byte))
            .unwrap_or(rest.len());
        let (mut token, at) = self.take(Kind::Bareword, length);
        // `SELECT.1` and SELECT`a` are two tokens.
        for (place, byte) in token.text().iter().enumerate() {
            if matches!(byte, b'.' | b'`') {
                let before = token.text().get(..place).unwrap_or_default();
                if let Some(kind) = words::kind(before).filter(|kind| *kind != Kind::Bareword) {
                    return self.take(kind, place);
                }
            }
        }
        if length == token.text().len() {
            token.kind = words::kind(token.text()).unwrap_or(Kind::Bareword);
        }
        (token, at)
    }

    /// `MySQL` takes what is between backticks for a name, and for a function that has that name.
    fn backtick(&self, at: usize) -> (Token, usize) {
        let (mut token, next) = quoted(self.value, at + 1, b'`', b'`');
        let is_function = words::kind(token.text()) == Some(Kind::Function);
        token.kind = if is_function {
            Kind::Function
        } else {
            Kind::Bareword
        };
        (token, next)
    }

    fn hash(&mut self) -> (Token, usize) {
        self.differs_in_mysql = true;
        match self.dialect {
            Dialect::MySql => self.line_comment(),
            Dialect::Ansi => self.one(Kind::Operator),
        }
    }

    /// `--` is a comment before a blank and at the end; before anything else it is for all but `MySQL`.
    fn dash(&mut self) -> (Token, usize) {
        match (self.byte(1), self.byte(2)) {
            (Some(b'-'), None) => self.line_comment(),
            (Some(b'-'), Some(byte)) if is_white(byte) => self.line_comment(),
            (Some(b'-'), Some(_)) if self.dialect == Dialect::Ansi => {
                self.differs_in_mysql = true;
                self.line_comment()
            }
            _ => self.one(Kind::Operator),
        }
    }

    fn line_comment(&self) -> (Token, usize) {
        match memchr(b'\n', self.rest()) {
            Some(end) => (self.take(Kind::Comment, end).0, self.at + end + 1),
            None => self.take(Kind::Comment, self.rest().len()),
        }
    }

    fn slash(&self) -> (Token, usize) {
        if self.byte(1) != Some(b'*') {
            return self.one(Kind::Operator);
        }
        let inside = self.from(2);
        let end = memmem::find(inside, b"*/");
        // PostgreSQL nests comments and others do not; what is in `/*!` is none for MySQL.
        let nests = end.is_some_and(|end| {
            memmem::find(inside.get(..=end).unwrap_or_default(), b"/*").is_some()
        });
        let kind = if nests || inside.starts_with(b"!") {
            Kind::Evil
        } else {
            Kind::Comment
        };
        self.take(kind, end.map_or(self.rest().len(), |end| end + 4))
    }

    fn backslash(&self) -> (Token, usize) {
        if self.byte(1) == Some(b'N') {
            self.take(Kind::Number, 2)
        } else {
            self.one(Kind::Backslash)
        }
    }

    fn operator(&self) -> (Token, usize) {
        let rest = self.rest();
        if rest.starts_with(b"<=>") {
            return self.take(Kind::Operator, 3);
        }
        if let Some(kind) = rest.get(..2).and_then(words::kind) {
            return self.take(kind, 2);
        }
        let is_colon = rest.len() > 1 && rest.starts_with(b":");
        self.one(if is_colon {
            Kind::Colon
        } else {
            Kind::Operator
        })
    }

    fn bracket(&self) -> (Token, usize) {
        let length = memchr(b']', self.rest()).map_or(self.rest().len(), |end| end + 1);
        self.take(Kind::Bareword, length)
    }

    fn variable(&self) -> (Token, usize) {
        let start = self.at + if self.byte(1) == Some(b'@') { 2 } else { 1 };
        let rest = self.value.get(start..).unwrap_or_default();
        let (token, at) = match rest.first() {
            Some(b'`') => self.backtick(start),
            Some(quote @ (b'\'' | b'"')) => quoted(self.value, start + 1, *quote, *quote),
            _ => {
                let end = rest
                    .iter()
                    .position(|byte| ends_variable(*byte))
                    .unwrap_or(rest.len());
                (
                    Token::new(Kind::Variable, rest.get(..end).unwrap_or_default()),
                    start + end,
                )
            }
        };
        (
            Token {
                kind: Kind::Variable,
                ..token
            },
            at,
        )
    }

    /// Money, or `PostgreSQL`'s strings between dollar signs.
    fn dollar(&self) -> (Token, usize) {
        let behind = self.from(1);
        let digits = span(behind, b"0123456789.,\0");
        if behind.is_empty() {
            return self.one(Kind::Bareword);
        }
        if digits == 1 && behind.starts_with(b".") {
            return self.word();
        }
        if digits > 0 {
            return self.take(Kind::Number, digits + 1);
        }
        if behind.starts_with(b"$") {
            return delimited(self.value, self.at + 2, b"$$", b'$');
        }
        // An alphabet and NUL, which C counts among the letters of any set.
        let letters = behind
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic() || **byte == 0)
            .count();
        if letters == 0 || behind.get(letters) != Some(&b'$') {
            return self.one(Kind::Bareword);
        }
        let tag = self.rest().get(..letters + 2).unwrap_or_default();
        delimited(self.value, self.at + letters + 2, tag, b'$')
    }

    fn number(&self) -> (Token, usize) {
        let rest = self.rest();
        let digits: &[u8] = match rest {
            [b'0', b'x' | b'X', ..] => b"0123456789ABCDEFabcdef\0",
            [b'0', b'b' | b'B', ..] => b"01\0",
            _ => return self.decimal(),
        };
        let count = span(self.from(2), digits);
        self.take(
            if count == 0 {
                Kind::Bareword
            } else {
                Kind::Number
            },
            count + 2,
        )
    }

    fn decimal(&self) -> (Token, usize) {
        let rest = self.rest();
        let digits = |from: usize| {
            let tail = rest.get(from..).unwrap_or_default();
            tail.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        let mut length = digits(0);
        if rest.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
            if length == 1 {
                return self.one(Kind::Dot);
            }
        }
        let mut kind = Kind::Number;
        if matches!(rest.get(length), Some(b'e' | b'E')) {
            length += 1;
            length += usize::from(matches!(rest.get(length), Some(b'+' | b'-')));
            let exponent = digits(length);
            length += exponent;
            if exponent == 0 {
                kind = Kind::Bareword;
            }
        }
        // Oracle's suffix of floating numbers; `1fUNION` is two tokens.
        let has_suffix = matches!(rest.get(length), Some(b'd' | b'D' | b'f' | b'F'))
            && rest
                .get(length + 1)
                .is_none_or(|byte| is_white(*byte) || matches!(byte, b';' | b'u' | b'U'));
        self.take(kind, length + usize::from(has_suffix))
    }

    fn one(&self, kind: Kind) -> (Token, usize) {
        self.take(kind, 1)
    }

    fn take(&self, kind: Kind, length: usize) -> (Token, usize) {
        (
            Token::new(kind, self.rest().get(..length).unwrap_or_default()),
            self.at + length,
        )
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.value.get(self.at + offset).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.from(0)
    }

    fn from(&self, offset: usize) -> &'a [u8] {
        self.value.get(self.at + offset..).unwrap_or_default()
    }
}

fn span(text: &[u8], set: &[u8]) -> usize {
    text.iter().take_while(|byte| set.contains(byte)).count()
}

/// Between tokens.
fn is_blank(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7F || byte == 0xA0
}

/// Behind `--` and numbers.
fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xA0 | 0)
}

fn ends_word(byte: u8) -> bool {
    WORD_ENDS.contains(byte)
}

fn ends_variable(byte: u8) -> bool {
    VARIABLE_ENDS.contains(byte)
}

const MARKS: &[u8] = b"\0\t\n\x0b\x0c\r <>:\\?=@!#~+-*/&|^%(),';\"";
const VARIABLE_ENDS: ByteSet = ByteSet::of(MARKS).union(&ByteSet::of(b"`"));
const WORD_ENDS: ByteSet = ByteSet::of(MARKS).union(&ByteSet::of(b"[]{}\xa0"));
