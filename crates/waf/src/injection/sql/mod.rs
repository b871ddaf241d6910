//! SQL: a value is read in up to five contexts; the kinds of its first five tokens, folded, are its fingerprint.

mod fold;
mod lexer;
mod strings;
mod token;
mod words;

use std::fmt;

use memchr::{memchr, memmem};

use fold::{Folded, MOST_TOKENS};
use lexer::Dialect;
use token::Kind;

/// The kinds of up to five tokens, a letter each, such as `s&1`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    kinds: [u8; MOST_TOKENS],
    length: usize,
}

impl Fingerprint {
    /// The letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The letters as a rule captures them.
    pub fn as_bytes(&self) -> &[u8] {
        self.kinds.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.as_str())
    }
}

/// Read `value` as it is, and as if it stood behind a quote.
pub(super) fn verdict(value: &[u8]) -> Option<Fingerprint> {
    // One word, or a number and one: no pattern of attacks. So are most values.
    if value
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    {
        return None;
    }
    in_context(value, None)
        .or_else(|| memchr(b'\'', value).and_then(|_| in_context(value, Some(b'\''))))
        .or_else(|| {
            memchr(b'"', value).and_then(|_| in_dialect(value, Some(b'"'), Dialect::MySql).0)
        })
}

fn in_context(value: &[u8], quote: Option<u8>) -> Option<Fingerprint> {
    let (found, differs) = in_dialect(value, quote, Dialect::Ansi);
    if found.is_none() && differs {
        in_dialect(value, quote, Dialect::MySql).0
    } else {
        found
    }
}

/// The verdict, and whether `MySQL` reads the value in another way.
fn in_dialect(value: &[u8], quote: Option<u8>, dialect: Dialect) -> (Option<Fingerprint>, bool) {
    let folded = fold::fold(value, quote, dialect);
    let fingerprint = fingerprint(&folded);
    let is_attack =
        words::is_fingerprint(fingerprint.as_str()) && !is_harmless(&fingerprint, &folded, value);
    (is_attack.then_some(fingerprint), folded.differs_in_mysql)
}

fn fingerprint(folded: &Folded) -> Fingerprint {
    let mut found = Fingerprint {
        kinds: [0; MOST_TOKENS],
        length: 0,
    };
    for (place, token) in found
        .kinds
        .iter_mut()
        .zip(folded.tokens.iter().take(folded.length))
    {
        found.length += 1;
        // PHP takes an open backtick at the end for a comment.
        let is_comment =
            found.length == folded.length && found.length > 2 && token.is_open_backtick();
        *place = if is_comment {
            Kind::Comment
        } else {
            token.kind
        } as u8;
    }
    if found.as_bytes().contains(&(Kind::Evil as u8)) {
        found = Fingerprint {
            kinds: [Kind::Evil as u8, 0, 0, 0, 0],
            length: 1,
        };
    }
    found
}

/// Whether a pattern of attacks is, of this value, more likely honest text.
fn is_harmless(fingerprint: &Fingerprint, folded: &Folded, value: &[u8]) -> bool {
    let pattern = fingerprint.as_str();
    // SQL Server keeps a statement with this word out of its log.
    if pattern.len() > 1 && pattern.ends_with('c') && memmem::find(value, b"sp_password").is_some()
    {
        return false;
    }
    match pattern.len() {
        2 => is_harmless_pair(pattern, folded, value),
        3 => is_harmless_triple(pattern, folded),
        _ => false,
    }
}

fn is_harmless_pair(pattern: &str, folded: &Folded, value: &[u8]) -> bool {
    let [first, second, ..] = &folded.tokens;
    let comment = second.text();
    if pattern.ends_with('U') {
        return folded.read == 2;
    }
    if comment.starts_with(b"#") {
        return true;
    }
    let is_block = comment.starts_with(b"/");
    match pattern {
        "nc" if !is_block => true,
        "1c" if is_block || folded.read > 2 => false,
        "1c" => !follows_a_number(value.get(first.text().len()..).unwrap_or_default()),
        _ => comment.len() > 2 && comment.starts_with(b"-"),
    }
}

/// `1234--` is likely an attack, `1234-ABC--` is likely Base64.
fn follows_a_number(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [byte, ..] if *byte <= b' ' || !byte.is_ascii() => true,
        _ => rest.starts_with(b"/*") || rest.starts_with(b"--"),
    }
}

fn is_harmless_triple(pattern: &str, folded: &Folded) -> bool {
    let [first, second, third, ..] = &folded.tokens;
    match pattern {
        "sos" | "s&s" => {
            let is_torn = first.open == 0 && third.close == 0 && first.close == third.open;
            !is_torn
        }
        "s&n" | "n&1" | "1&1" | "1&v" | "1&s" => folded.read == 3,
        _ if second.kind == Kind::Keyword => {
            let into = second.text().get(..4).unwrap_or_default();
            second.text().len() < 5 || !into.eq_ignore_ascii_case(b"INTO")
        }
        _ => false,
    }
}
