//! The words of SQL and the fingerprints of attacks, in one sorted table.

use std::cmp::Ordering;

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

use super::token::Kind;

/// What kind of token a word is, in any case; nothing for a word that SQL does not know.
pub(super) fn kind(word: &[u8]) -> Option<Kind> {
    let at = SQL_KEYWORDS
        .binary_search_by(|known| compare(known.word.as_bytes(), word))
        .ok()?;
    Some(match SQL_KEYWORDS.get(at)?.token_type {
        b'k' => Kind::Keyword,
        b'U' => Kind::Union,
        b'B' => Kind::Group,
        b'E' => Kind::Expression,
        b't' => Kind::SqlType,
        b'f' => Kind::Function,
        b'1' => Kind::Number,
        b'v' => Kind::Variable,
        b'o' => Kind::Operator,
        b'&' => Kind::LogicOperator,
        b'A' => Kind::Collate,
        b'T' => Kind::TransactSql,
        b'F' => Kind::Fingerprint,
        _ => Kind::Bareword,
    })
}

/// Whether a pattern is one of attacks.
pub(super) fn is_fingerprint(pattern: &str) -> bool {
    let mut key = [b'0'; 6];
    for (place, byte) in key.iter_mut().skip(1).zip(pattern.bytes()) {
        *place = byte;
    }
    key.get(..=pattern.len()).and_then(kind) == Some(Kind::Fingerprint)
}

fn compare(known: &[u8], word: &[u8]) -> Ordering {
    known
        .iter()
        .copied()
        .cmp(word.iter().map(u8::to_ascii_uppercase))
}
