//! What every match of an operator must contain.

use super::shape::Needs;
use crate::bytes::ByteSet;
use crate::operator::Operator;
use crate::seclang::TextTest;

/// What every match of an operator must contain; nothing where it is not filtered. What a pattern needs
/// is known from its syntax, which the operator no longer has.
pub(super) fn need(operator: &Operator) -> Option<Needs> {
    Some(match operator {
        Operator::Phrases(phrases) => Needs::of_phrases(phrases.all()),
        Operator::ByteRange(allowed) => Needs::of_mask(allowed.complement()),
        Operator::UrlEncoding => Needs::of_mask(ByteSet::of(b"%")),
        Operator::Utf8 => Needs::of_mask(ByteSet::from_words([0, 0, u64::MAX, u64::MAX])),
        Operator::SqlInjection => Needs::of_mask(not_plain(b"")),
        Operator::Xss => Needs::of_mask(not_plain(b"0123456789")),
        Operator::Text(TextTest::Within, _) => return None,
        Operator::Text(_, other) => {
            Needs::of_phrases([other.literal()?.to_ascii_lowercase().as_slice()].into_iter())
        }
        _ => return None,
    })
}

/// All bytes but letters, underscores and these. Text of nothing but letters and underscores is one
/// bare word to SQL and to HTML, to HTML with digits too, and neither check calls a bare word an
/// injection.
fn not_plain(others: &[u8]) -> ByteSet {
    let mut plain = ByteSet::of(others);
    plain.insert(b'_');
    plain.insert_range(b'a', b'z');
    plain.insert_range(b'A', b'Z');
    plain.complement()
}
