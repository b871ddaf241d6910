//! Operators: whether a value is what a rule looks for.
//!
//! Owns the compiled operators and how each is run. Each is linear in the value. Must not: know
//! targets or actions.

mod name;
mod pattern;
mod phrases;
mod plain;
mod value;

pub(crate) use name::NamePattern;
pub(crate) use pattern::{Caches, Pattern, parse_pattern};
pub(crate) use phrases::Phrases;
pub(crate) use value::{AddressSet, is_card_number, is_utf8_strict};

use crate::bytes::ByteSet;
use crate::rule::Template;
use crate::seclang::{NumberTest, TextTest};

/// A compiled operator.
#[derive(Debug)]
pub(crate) enum Operator {
    Pattern {
        pattern: Pattern,
        every_match: bool,
    },
    Phrases(Phrases),
    Number(NumberTest, Template),
    Text(TextTest, Template),
    Addresses(AddressSet),
    /// A value with a byte outside this set matches.
    ByteRange(ByteSet),
    UrlEncoding,
    Utf8,
    SqlInjection,
    Xss,
    CardNumber(Pattern),
    Country,
    Always,
    Never,
}

impl Operator {
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Pattern { pattern, .. } | Self::CardNumber(pattern) => pattern.memory(),
            Self::Phrases(phrases) => phrases.memory(),
            _ => 0,
        }
    }

    pub(crate) fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Pattern { pattern, .. } | Self::CardNumber(pattern) => Some(pattern),
            _ => None,
        }
    }
}

/// Whether the number stands so to the other.
pub(crate) const fn compare(test: NumberTest, value: i64, other: i64) -> bool {
    match test {
        NumberTest::Equal => value == other,
        NumberTest::Greater => value > other,
        NumberTest::GreaterOrEqual => value >= other,
        NumberTest::Less => value < other,
        NumberTest::LessOrEqual => value <= other,
    }
}

/// Where the texts agree so: the bytes of `value` that do.
pub(crate) fn agree<'v>(test: TextTest, value: &'v [u8], other: &[u8]) -> Option<&'v [u8]> {
    match test {
        TextTest::Equal => (value == other).then_some(value),
        TextTest::Contains => {
            let at = crate::bytes::find(value, other)?;
            value.get(at..at + other.len())
        }
        TextTest::ContainsWord => {
            value::find_word(value, other).and_then(|at| value.get(at..at + other.len()))
        }
        TextTest::BeginsWith => value
            .starts_with(other)
            .then_some(value.get(..other.len())?),
        TextTest::EndsWith => value
            .ends_with(other)
            .then_some(value.get(value.len() - other.len()..)?),
        TextTest::Within => {
            (value.is_empty() || crate::bytes::find(other, value).is_some()).then_some(value)
        }
    }
}

#[cfg(test)]
mod tests;
