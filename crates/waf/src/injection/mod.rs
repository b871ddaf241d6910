//! `@detectSQLi` and `@detectXSS`: whether a value would act as SQL or as script.
//!
//! Owns two small lexers that read a value as a database and as a browser would, in each context in which it may end
//! up. They decide as libinjection 3.9.2 does (<https://github.com/libinjection/libinjection>, BSD-3-Clause), which
//! libmodsecurity has and the Core Rule Set is tuned for; `tests/waf/test_injection.py` compares them. The one crate
//! that ports it, `libinjectionrs`, misses attacks that the C library finds; its table of SQL's words is used here.
//! Must not: panic, allocate, or take longer than a constant times the value's length.

mod html;
mod sql;

pub use sql::Fingerprint;

/// Whether a value is SQL injection, and by which pattern of tokens.
pub fn is_sql_injection(value: &[u8]) -> Option<Fingerprint> {
    sql::verdict(value)
}

/// Whether a value is script in HTML.
pub fn is_xss(value: &[u8]) -> bool {
    html::verdict(value)
}

/// The bytes of `text` that are not NUL, in capitals, are exactly `word`.
fn is_word_around_nul(text: &[u8], word: &[u8]) -> bool {
    text.iter()
        .filter(|byte| **byte != 0)
        .map(u8::to_ascii_uppercase)
        .eq(word.iter().copied())
}

#[cfg(test)]
#[path = "injection_tests.rs"]
#[allow(clippy::indexing_slicing)]
mod tests;
