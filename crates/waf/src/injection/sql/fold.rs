//! Folding: what says the same becomes the same. `1+2` is a number, `a.b` a name, `not -x` an `x`.

// Each arm is a rule of its own, and their order matters.
#![allow(clippy::match_same_arms)]

use super::lexer::{Dialect, Lexer};
use super::token::{Kind, LONGEST, Token};
use super::words;

/// How many tokens make a fingerprint.
pub(super) const MOST_TOKENS: usize = 5;

/// Names that are functions before a parenthesis.
const FUNCTIONS: [&[u8]; 11] = [
    b"USER_ID",
    b"USER_NAME",
    b"DATABASE",
    b"PASSWORD",
    b"USER",
    b"CURRENT_USER",
    b"CURRENT_DATE",
    b"CURRENT_TIME",
    b"CURRENT_TIMESTAMP",
    b"LOCALTIME",
    b"LOCALTIMESTAMP",
];

/// A value's tokens, folded.
pub(super) struct Folded {
    pub(super) tokens: [Token; 8],
    /// How many of them count.
    pub(super) length: usize,
    /// How many were read before folding.
    pub(super) read: usize,
    /// Whether `MySQL` reads the value in another way.
    pub(super) differs_in_mysql: bool,
}

/// What to do after a look at some tokens.
enum Step {
    /// Look again: something has changed.
    Again,
    /// Nothing to fold.
    On,
    /// The value is no SQL that servers agree on: an attack, whatever else is in it.
    Evil,
}

struct Folder<'a> {
    lexer: Lexer<'a>,
    tokens: [Token; 8],
    /// Where the next token goes.
    next: usize,
    /// How many tokens are done with.
    left: usize,
    has_more: bool,
    last_comment: Option<Token>,
}

/// Read and fold `value`.
pub(super) fn fold(value: &[u8], quote: Option<u8>, dialect: Dialect) -> Folded {
    let mut folder = Folder {
        lexer: Lexer::new(value, quote, dialect),
        tokens: [Token::default(); 8],
        next: 0,
        left: 0,
        has_more: true,
        last_comment: None,
    };
    let length = folder.run();
    Folded {
        tokens: folder.tokens,
        length: length.min(MOST_TOKENS),
        read: folder.lexer.read,
        differs_in_mysql: folder.lexer.differs_in_mysql,
    }
}

impl Folder<'_> {
    fn run(&mut self) -> usize {
        if !self.skip_to_first() {
            return 0;
        }
        loop {
            self.fold_five();
            if !self.has_more || self.left >= MOST_TOKENS {
                break;
            }
            let step = if self.fill(2) {
                self.two()
            } else {
                Step::Again
            };
            let step = match step {
                Step::On if self.fill(3) => self.three(),
                Step::On => Step::Again,
                done => done,
            };
            match step {
                Step::Again => {}
                Step::On => self.left += 1,
                Step::Evil => {
                    self.put(0, Token::new(Kind::Evil, b"X"));
                    return 1;
                }
            }
        }
        self.left = self.next;
        if self.left < MOST_TOKENS
            && let Some(comment) = self.last_comment
        {
            self.put(self.left, comment);
            self.left += 1;
        }
        self.left
    }

    /// Comments, parentheses, types and signs at the beginning say nothing.
    fn skip_to_first(&mut self) -> bool {
        while let Some(token) = self.lexer.next() {
            let says_nothing = matches!(
                token.kind,
                Kind::Comment | Kind::LeftParenthesis | Kind::SqlType
            );
            if !says_nothing && !token.is_unary_operator() {
                self.put(0, token);
                self.next = 1;
                return true;
            }
        }
        false
    }

    /// Read on until `count` tokens follow those that are done with. False when there are fewer.
    fn fill(&mut self, count: usize) -> bool {
        while self.has_more
            && self.next <= MOST_TOKENS
            && self.next.saturating_sub(self.left) < count
        {
            match self.lexer.next() {
                None => self.has_more = false,
                Some(token) if token.kind == Kind::Comment => self.last_comment = Some(token),
                Some(token) => {
                    self.last_comment = None;
                    self.put(self.next, token);
                    self.next += 1;
                }
            }
        }
        let is_enough = self.next.saturating_sub(self.left) >= count;
        if !is_enough {
            self.left = self.next;
        }
        is_enough
    }

    /// Five tokens that are an expression are one.
    fn fold_five(&mut self) {
        use Kind::{Bareword, Comma, LeftParenthesis, Number, Operator, RightParenthesis};
        if self.next < MOST_TOKENS {
            return;
        }
        let [a, b, c, d, e, sixth, ..] = &self.tokens;
        let is_expression = matches!(
            (a.kind, b.kind, c.kind, d.kind, e.kind),
            (
                Number,
                Operator | Comma,
                LeftParenthesis,
                Number,
                RightParenthesis
            ) | (
                Bareword,
                Operator,
                LeftParenthesis,
                Bareword | Number,
                RightParenthesis
            ) | (Number, RightParenthesis, Comma, LeftParenthesis, Number)
                | (
                    Bareword,
                    RightParenthesis,
                    Operator,
                    LeftParenthesis,
                    Bareword
                )
        );
        if !is_expression {
            return;
        }
        if self.next > MOST_TOKENS {
            let sixth = *sixth;
            self.put(1, sixth);
            self.next = 2;
        } else {
            self.next = 1;
        }
        self.left = 0;
    }

    fn two(&mut self) -> Step {
        let (a, b) = (self.token(0), self.token(1));
        match (a.kind, b.kind) {
            (Kind::Text, Kind::Text) | (Kind::Semicolon, Kind::Semicolon) => self.drop_last(1),
            (Kind::Operator | Kind::LogicOperator, kind)
                if b.is_unary_operator() || kind == Kind::SqlType =>
            {
                self.drop_and_restart(1)
            }
            (Kind::LeftParenthesis, _) if b.is_unary_operator() => self.drop_and_step_back(),
            _ if self.merge_words(&a, &b) => self.drop_and_step_back(),
            (Kind::Semicolon, Kind::Function) if is_if(&b) => self.change(1, Kind::TransactSql),
            (Kind::Bareword | Kind::Variable, Kind::LeftParenthesis)
                if FUNCTIONS.iter().any(|name| a.is(name)) =>
            {
                self.change(0, Kind::Function)
            }
            (Kind::Keyword, kind) if a.is(b"IN") || a.is(b"NOT IN") => {
                let is_operator = kind == Kind::LeftParenthesis;
                self.change(
                    0,
                    if is_operator {
                        Kind::Operator
                    } else {
                        Kind::Bareword
                    },
                )
            }
            (Kind::Operator, kind) if a.is(b"LIKE") || a.is(b"NOT LIKE") => {
                if kind == Kind::LeftParenthesis {
                    self.change(0, Kind::Function);
                }
                Step::On
            }
            _ => self.two_of_names(&a, &b),
        }
    }

    fn two_of_names(&mut self, a: &Token, b: &Token) -> Step {
        match (a.kind, b.kind) {
            (
                Kind::SqlType,
                Kind::Bareword
                | Kind::Number
                | Kind::SqlType
                | Kind::LeftParenthesis
                | Kind::Function
                | Kind::Variable
                | Kind::Text,
            ) => self.replace_and_restart(0, b),
            (Kind::Collate, Kind::Bareword) => {
                // There are too many collations for a list; all have this in their name.
                let name = b.text().split(|byte| *byte == 0).next().unwrap_or_default();
                if name.contains(&b'_') {
                    self.change(1, Kind::SqlType);
                    self.left = 0;
                }
                Step::On
            }
            // SQL Server reads `\%1` as `0 % 1` and `\1` as `1`.
            (Kind::Backslash, _) if b.is_arithmetic_operator() => {
                self.change(0, Kind::Number);
                self.left = 0;
                Step::Again
            }
            (Kind::Backslash, _) => self.replace_and_restart(0, b),
            (Kind::LeftParenthesis, Kind::LeftParenthesis)
            | (Kind::RightParenthesis, Kind::RightParenthesis) => self.drop_and_restart(1),
            // MySQL takes { ``.``.a } for a name.
            (Kind::LeftBrace, Kind::Bareword) if b.text().is_empty() => Step::Evil,
            (Kind::LeftBrace, Kind::Bareword) => self.drop_and_restart(2),
            (_, Kind::RightBrace) => self.drop_and_restart(1),
            _ => Step::On,
        }
    }

    fn three(&mut self) -> Step {
        use Kind::{Bareword, Comma, LogicOperator, Number, Operator, SqlType, Text, Variable};
        let (a, b, c) = (self.token(0), self.token(1), self.token(2));
        match (a.kind, b.kind, c.kind) {
            (Number, Operator, Number)
            | (LogicOperator, _, LogicOperator)
            | (Variable, Operator, Variable | Number | Bareword)
            | (Bareword | Number, Operator, Number | Bareword)
            | (Bareword | Number | Text | Variable, Comma, Number | Bareword | Text | Variable) => {
                self.drop_and_restart(2)
            }
            (Operator, kind, Operator) if kind != Kind::LeftParenthesis => self.drop_and_restart(2),
            (Bareword | Number | Variable | Text, Operator, SqlType) if b.text() == b"::" => {
                self.drop_and_restart(2)
            }
            _ => self.three_with_sign(&a, &b, &c),
        }
    }

    /// A sign before a value says nothing, nor does the name of a table before a column's.
    fn three_with_sign(&mut self, a: &Token, b: &Token, c: &Token) -> Step {
        use Kind::{
            Bareword, Comma, Dot, Expression, Function, Group, Keyword, LeftParenthesis, Number,
            Text, Variable,
        };
        let is_sign = b.is_unary_operator();
        match (a.kind, b.kind, c.kind) {
            (Expression | Group | Comma, _, LeftParenthesis) if is_sign => {
                self.replace_and_restart(1, c)
            }
            (Keyword | Expression | Group, _, Number | Bareword | Variable | Text | Function)
                if is_sign =>
            {
                self.replace_and_restart(1, c)
            }
            (Comma, _, Number | Bareword | Variable | Text) if is_sign => {
                self.put(self.left + 1, *c);
                self.drop_and_restart(3)
            }
            (Comma, _, Function) if is_sign => self.replace_and_restart(1, c),
            (Bareword, Dot, Bareword) => self.drop_and_restart(2),
            (Expression, Dot, Bareword) => self.replace_and_restart(1, c),
            (Function, LeftParenthesis, kind)
                if kind != Kind::RightParenthesis && a.is(b"USER") =>
            {
                // It has no arguments.
                self.change(0, Bareword);
                Step::On
            }
            _ => Step::On,
        }
    }

    /// Two words that are one keyword, such as `GROUP BY`, become it.
    fn merge_words(&mut self, a: &Token, b: &Token) -> bool {
        use Kind::{
            Bareword, Expression, Function, Keyword, LogicOperator, Operator, SqlType, TransactSql,
            Union,
        };
        let is_word = |kind| {
            matches!(
                kind,
                Keyword
                    | Bareword
                    | Operator
                    | Union
                    | Function
                    | Expression
                    | TransactSql
                    | SqlType
            )
        };
        let (first, second) = (a.text(), b.text());
        let length = first.len() + second.len() + 1;
        if !is_word(a.kind) || !(is_word(b.kind) || b.kind == LogicOperator) || length > LONGEST {
            return false;
        }
        let mut merged = [0; LONGEST];
        for (place, byte) in merged
            .iter_mut()
            .zip(first.iter().chain(b" ").chain(second))
        {
            *place = *byte;
        }
        let merged = merged.get(..length).unwrap_or_default();
        let Some(kind) = words::kind(merged) else {
            return false;
        };
        self.put(
            self.left,
            Token {
                open: a.open,
                close: a.close,
                ..Token::new(kind, merged)
            },
        );
        true
    }

    fn token(&self, offset: usize) -> Token {
        self.tokens
            .get(self.left + offset)
            .copied()
            .unwrap_or_default()
    }

    fn put(&mut self, at: usize, token: Token) {
        if let Some(place) = self.tokens.get_mut(at) {
            *place = token;
        }
    }

    fn change(&mut self, offset: usize, kind: Kind) -> Step {
        if let Some(token) = self.tokens.get_mut(self.left + offset) {
            token.kind = kind;
        }
        Step::Again
    }

    fn drop_last(&mut self, count: usize) -> Step {
        self.next = self.next.saturating_sub(count);
        Step::Again
    }

    fn drop_and_restart(&mut self, count: usize) -> Step {
        self.left = 0;
        self.drop_last(count)
    }

    fn drop_and_step_back(&mut self) -> Step {
        self.left = self.left.saturating_sub(1);
        self.drop_last(1)
    }

    fn replace_and_restart(&mut self, offset: usize, token: &Token) -> Step {
        self.put(self.left + offset, *token);
        self.drop_and_restart(1)
    }
}

/// Transact-SQL's statement, where others have a function.
fn is_if(token: &Token) -> bool {
    token
        .text()
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"IF"))
}
