//! The tokens of HTML as browsers read them, the old and lenient ones too (HTML, 13.2.5; its states by their names).

use memchr::{memchr, memmem};

/// Where a value ends up.
#[derive(Clone, Copy)]
pub(super) enum Context {
    Text,
    Unquoted,
    SingleQuoted,
    DoubleQuoted,
    BackQuoted,
}

impl Context {
    pub(super) const ALL: [Self; 5] = [
        Self::Text,
        Self::Unquoted,
        Self::SingleQuoted,
        Self::DoubleQuoted,
        Self::BackQuoted,
    ];
}

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Doctype,
    TagName,
    AttributeName,
    AttributeValue,
    Comment,
    /// Text and ends of tags: they run nothing.
    Other,
}

/// A token and its text.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a [u8],
}

/// What to read next.
#[derive(Clone, Copy)]
enum State {
    Data,
    TagOpen,
    TagEnd,
    BeforeName,
    SelfClosing,
    AfterName,
    BeforeValue,
    Quoted(u8),
    AfterQuoted,
    End,
}

/// Reads a value token by token.
pub(super) struct Lexer<'a> {
    value: &'a [u8],
    at: usize,
    state: State,
    is_end_tag: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(value: &'a [u8], context: Context) -> Self {
        let state = match context {
            Context::Text => State::Data,
            Context::Unquoted => State::BeforeName,
            Context::SingleQuoted => State::Quoted(b'\''),
            Context::DoubleQuoted => State::Quoted(b'"'),
            Context::BackQuoted => State::Quoted(b'`'),
        };
        Self {
            value,
            at: 0,
            state,
            is_end_tag: false,
        }
    }

    /// The next token, or nothing at the end.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        match self.state {
            State::Data => self.data(),
            State::TagOpen => self.tag_open(),
            State::TagEnd => Some(self.tag_end()),
            State::BeforeName => self.before_name(),
            State::SelfClosing => self.self_closing(),
            State::AfterName => self.after_name(),
            State::BeforeValue => self.before_value(),
            State::Quoted(quote) => Some(self.quoted(quote)),
            State::AfterQuoted => self.after_quoted(),
            State::End => None,
        }
    }

    fn data(&mut self) -> Option<Token<'a>> {
        match memchr(b'<', self.rest()) {
            None if self.rest().is_empty() => None,
            None => Some(self.the_rest(Kind::Other)),
            Some(0) => {
                self.at += 1;
                self.tag_open()
            }
            Some(length) => Some(self.token(Kind::Other, length, 1, State::TagOpen)),
        }
    }

    fn tag_open(&mut self) -> Option<Token<'a>> {
        match self.byte()? {
            b'!' => {
                self.at += 1;
                Some(self.declaration())
            }
            b'/' => {
                self.at += 1;
                self.is_end_tag = true;
                self.end_tag_open()
            }
            b'?' => {
                self.at += 1;
                Some(self.bogus_comment())
            }
            b'%' => {
                self.at += 1;
                Some(self.percent_comment())
            }
            // Old browsers leave NUL out.
            0 | b'a'..=b'z' | b'A'..=b'Z' => Some(self.tag_name()),
            _ => Some(self.token(Kind::Other, 0, 0, State::Data)),
        }
    }

    fn end_tag_open(&mut self) -> Option<Token<'a>> {
        match self.byte()? {
            b'>' => self.data(),
            byte if byte.is_ascii_alphabetic() => Some(self.tag_name()),
            _ => {
                self.is_end_tag = false;
                Some(self.bogus_comment())
            }
        }
    }

    fn tag_name(&mut self) -> Token<'a> {
        let ends = |byte: &u8| *byte != 0 && is_white(*byte) || matches!(byte, b'/' | b'>');
        let Some(length) = self.rest().iter().position(ends) else {
            return self.the_rest(Kind::TagName);
        };
        match self.rest().get(length) {
            Some(b'/') => self.token(Kind::TagName, length, 1, State::SelfClosing),
            Some(b'>') if self.is_end_tag => {
                self.is_end_tag = false;
                self.token(Kind::Other, length, 1, State::Data)
            }
            Some(b'>') => self.token(Kind::TagName, length, 0, State::TagEnd),
            _ => self.token(Kind::TagName, length, 1, State::BeforeName),
        }
    }

    fn tag_end(&mut self) -> Token<'a> {
        self.is_end_tag = false;
        self.token(Kind::Other, 0, 1, State::Data)
    }

    fn before_name(&mut self) -> Option<Token<'a>> {
        loop {
            match self.skip_white()? {
                b'/' => {
                    self.at += 1;
                    if self.byte()? == b'>' {
                        return self.self_closing();
                    }
                }
                b'>' => return Some(self.token(Kind::Other, 0, 1, State::Data)),
                _ => return Some(self.attribute_name()),
            }
        }
    }

    fn self_closing(&mut self) -> Option<Token<'a>> {
        match self.byte()? {
            b'>' => Some(self.token(Kind::Other, 0, 1, State::Data)),
            _ => self.before_name(),
        }
    }

    /// A name has one byte at least, whichever.
    fn attribute_name(&mut self) -> Token<'a> {
        let ends = |byte: &u8| is_white(*byte) || matches!(byte, b'/' | b'=' | b'>');
        let Some(length) = self.rest().iter().skip(1).position(ends) else {
            return self.the_rest(Kind::AttributeName);
        };
        let length = length + 1;
        let (skip, state) = match self.rest().get(length) {
            Some(b'/') => (1, State::SelfClosing),
            Some(b'=') => (1, State::BeforeValue),
            Some(b'>') => (0, State::TagEnd),
            _ => (1, State::AfterName),
        };
        self.token(Kind::AttributeName, length, skip, state)
    }

    fn after_name(&mut self) -> Option<Token<'a>> {
        match self.skip_white()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'=' => {
                self.at += 1;
                self.before_value()
            }
            b'>' => Some(self.tag_end()),
            _ => Some(self.attribute_name()),
        }
    }

    fn before_value(&mut self) -> Option<Token<'a>> {
        match self.skip_white()? {
            quote @ (b'"' | b'\'' | b'`') => Some(self.quoted(quote)),
            _ => Some(self.unquoted()),
        }
    }

    /// At the very beginning the quote is before the value.
    fn quoted(&mut self, quote: u8) -> Token<'a> {
        self.at += usize::from(self.at > 0);
        match memchr(quote, self.rest()) {
            Some(length) => self.token(Kind::AttributeValue, length, 1, State::AfterQuoted),
            None => self.the_rest(Kind::AttributeValue),
        }
    }

    fn unquoted(&mut self) -> Token<'a> {
        match self
            .rest()
            .iter()
            .position(|byte| is_white(*byte) || *byte == b'>')
        {
            None => self.the_rest(Kind::AttributeValue),
            Some(length) if self.rest().get(length) == Some(&b'>') => {
                self.token(Kind::AttributeValue, length, 0, State::TagEnd)
            }
            Some(length) => self.token(Kind::AttributeValue, length, 1, State::BeforeName),
        }
    }

    fn after_quoted(&mut self) -> Option<Token<'a>> {
        match self.byte()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'>' => Some(self.token(Kind::Other, 0, 1, State::Data)),
            _ => self.before_name(),
        }
    }

    /// Behind `<!`.
    fn declaration(&mut self) -> Token<'a> {
        let rest = self.rest();
        if rest
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"DOCTYPE"))
        {
            return self.until(Kind::Doctype, b">");
        }
        if rest.starts_with(b"[CDATA[") {
            self.at += 7;
            return self.until(Kind::Other, b"]]>");
        }
        if rest.starts_with(b"--") {
            self.at += 2;
            return self.comment();
        }
        self.bogus_comment()
    }

    fn bogus_comment(&mut self) -> Token<'a> {
        self.until(Kind::Comment, b">")
    }

    /// `<% … %>`, a comment for some old browsers.
    fn percent_comment(&mut self) -> Token<'a> {
        self.until(Kind::Comment, b"%>")
    }

    /// A comment ends with `-->` or `-!>`, and NUL may stand behind the first hyphen.
    fn comment(&mut self) -> Token<'a> {
        let rest = self.rest();
        let hyphens = memchr::memchr_iter(b'-', rest).take_while(|at| at + 3 <= rest.len());
        for at in hyphens {
            let behind = rest.get(at + 1..).unwrap_or_default();
            let nul = behind.iter().take_while(|byte| **byte == 0).count();
            if let Some([b'-' | b'!', b'>', ..]) = behind.get(nul..) {
                return self.token(Kind::Comment, at, nul + 3, State::Data);
            }
        }
        self.the_rest(Kind::Comment)
    }

    fn until(&mut self, kind: Kind, end: &[u8]) -> Token<'a> {
        match memmem::find(self.rest(), end) {
            Some(length) => self.token(kind, length, end.len(), State::Data),
            None => self.the_rest(kind),
        }
    }

    /// A token of `length` bytes; `skip` more are read, and `state` is next.
    fn token(&mut self, kind: Kind, length: usize, skip: usize, state: State) -> Token<'a> {
        let text = self.rest().get(..length).unwrap_or_default();
        self.at += length + skip;
        self.state = state;
        Token { kind, text }
    }

    fn the_rest(&mut self, kind: Kind) -> Token<'a> {
        self.token(kind, self.rest().len(), 0, State::End)
    }

    /// The first byte that is not white, at which the lexer is then. 0xFF is the end, as for C.
    fn skip_white(&mut self) -> Option<u8> {
        self.at += self
            .rest()
            .iter()
            .take_while(|byte| is_white(**byte))
            .count();
        self.byte().filter(|byte| *byte != 0xFF)
    }

    fn byte(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.value.get(self.at..).unwrap_or_default()
    }
}

/// White space, and NUL, which old browsers skip.
fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}
