//! One token of SQL.

/// How much of a token is kept: longer ones are no words.
pub(super) const LONGEST: usize = 31;

/// What a token is; its letter in a fingerprint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    #[default]
    None = 0,
    Keyword = b'k',
    Union = b'U',
    Group = b'B',
    Expression = b'E',
    SqlType = b't',
    Function = b'f',
    Bareword = b'n',
    Number = b'1',
    Variable = b'v',
    Text = b's',
    Operator = b'o',
    LogicOperator = b'&',
    Comment = b'c',
    Collate = b'A',
    LeftParenthesis = b'(',
    RightParenthesis = b')',
    LeftBrace = b'{',
    RightBrace = b'}',
    Dot = b'.',
    Comma = b',',
    Colon = b':',
    Semicolon = b';',
    TransactSql = b'T',
    Unknown = b'?',
    /// What different servers read differently: an attack in itself.
    Evil = b'X',
    Backslash = b'\\',
}

/// A token's kind and the beginning of its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// What opened a string, and what closed it; 0 for the value's own begin and end.
    pub(super) open: u8,
    pub(super) close: u8,
    pub(super) length: u8,
    pub(super) bytes: [u8; LONGEST],
}

impl Token {
    pub(super) fn new(kind: Kind, text: &[u8]) -> Self {
        let mut token = Self {
            kind,
            ..Self::default()
        };
        for (place, byte) in token.bytes.iter_mut().zip(text) {
            *place = *byte;
            token.length += 1;
        }
        token
    }

    pub(super) fn text(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    pub(super) fn is(&self, word: &[u8]) -> bool {
        self.text().eq_ignore_ascii_case(word)
    }

    pub(super) fn is_unary_operator(&self) -> bool {
        self.kind == Kind::Operator
            && (matches!(self.text(), b"+" | b"-" | b"!" | b"~" | b"!!") || self.is(b"NOT"))
    }

    pub(super) fn is_arithmetic_operator(&self) -> bool {
        self.kind == Kind::Operator && matches!(self.text(), b"*" | b"/" | b"-" | b"+" | b"%")
    }

    pub(super) fn is_open_backtick(&self) -> bool {
        self.kind == Kind::Bareword && self.open == b'`' && self.close == 0 && self.length == 0
    }
}
