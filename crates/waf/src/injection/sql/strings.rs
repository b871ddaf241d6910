//! Strings of SQL: where they end.

use memchr::{memchr, memmem};

use super::token::{Kind, Token};

/// A string from `start`, behind its opening quote, to the next `quote` that is neither escaped nor doubled. The second
/// value is where the next token begins.
pub(super) fn quoted(value: &[u8], start: usize, quote: u8, open: u8) -> (Token, usize) {
    let text = value.get(start..).unwrap_or_default();
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| memchr(quote, rest)) {
        let at = from + found;
        let before = text.get(..at).unwrap_or_default();
        let backslashes = before
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        if backslashes % 2 == 1 {
            from = at + 1;
        } else if text.get(at + 1) == Some(&quote) {
            from = at + 2;
        } else {
            let token = Token {
                open,
                close: quote,
                ..Token::new(Kind::Text, before)
            };
            return (token, start + at + 1);
        }
    }
    (
        Token {
            open,
            ..Token::new(Kind::Text, text)
        },
        value.len(),
    )
}

/// A string from `start` to the next `end`, without escapes: Oracle's `q'(…)'` and `PostgreSQL`'s `$a$…$a$`.
pub(super) fn delimited(value: &[u8], start: usize, end: &[u8], mark: u8) -> (Token, usize) {
    let text = value.get(start..).unwrap_or_default();
    match memmem::find(text, end) {
        Some(at) => {
            let inside = text.get(..at).unwrap_or_default();
            (
                Token {
                    open: mark,
                    close: mark,
                    ..Token::new(Kind::Text, inside)
                },
                start + at + end.len(),
            )
        }
        None => (
            Token {
                open: mark,
                ..Token::new(Kind::Text, text)
            },
            value.len(),
        ),
    }
}
