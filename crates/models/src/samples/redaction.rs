//! What people and secrets leave in a text, taken out of it: each is replaced by what it was, in brackets.
//!
//! Owns: which these are. Where in doubt it is taken out: a date is no loss to whoever calibrates a model. Names of people
//! and places are not known here. Time is linear in the text: `regex` does not backtrack, and what a check refuses is
//! passed over, or is short.
//!
//! Must not: keep a text, or say what was in it.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What a match is.
enum Verdict {
    /// This; its first group, where it has one, is replaced, else all of it.
    Is(&'static str),
    /// This, as far as so many bytes of it.
    Begins(&'static str, usize),
    /// Nothing; what follows its first character may be.
    Not,
}

type Judge = fn(&str) -> Verdict;

struct Rule {
    pattern: Regex,
    judge: Judge,
}

/// In their order: what comes later is not looked for in what was replaced.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(rules);

fn rules() -> Vec<Rule> {
    let known: [(&str, Judge); 12] = [
        // RFC 7468; one that is cut off goes on to the end.
        (
            r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\z)",
            |_| Verdict::Is("[private key]"),
        ),
        // RFC 7519: a header begins with `{"`.
        (
            r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
            |_| Verdict::Is("[token]"),
        ),
        // RFC 6750 §2.1.
        (r"(?i)\bbearer\s+([A-Z0-9._~+/=-]{6,})", |_| {
            Verdict::Is("[token]")
        }),
        // RFC 9110 §11.6.2.
        (
            r#"(?i)authorization["']?\s{0,4}[:=]\s{0,4}["']?(?:[a-z]+\s+)?([^\s"',;\[]+)"#,
            |_| Verdict::Is("[secret]"),
        ),
        // RFC 3986 §3.2.1.
        (r"://([^\s/@]*:[^\s/@]*)@", |_| Verdict::Is("[secret]")),
        (
            r#"(?i)(?:password|passwd|passphrase|pwd|secret|token|api[_ -]?key|access[_ -]?key|\bpin)["']?\s{0,4}(?:[:=]|\bis\b)\s{0,4}["']?([^\s"',;\[]+)"#,
            |_| Verdict::Is("[secret]"),
        ),
        (
            r"[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+",
            |_| Verdict::Is("[email]"),
        ),
        (r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}", iban),
        (r"[A-Za-z0-9+/_=-]{24,}", |text| match is_random(text) {
            true => Verdict::Is("[key]"),
            // As a whole: no part of it is looked at again.
            false => Verdict::Begins("", 0),
        }),
        (
            r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.[0-9]{1,3}){3})?",
            |text| match text.parse::<Ipv6Addr>() {
                Ok(it) if !it.is_unspecified() => Verdict::Is("[ip]"),
                _ => Verdict::Not,
            },
        ),
        (
            r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b",
            |text| match text.parse::<Ipv4Addr>() {
                Ok(_) => Verdict::Is("[ip]"),
                Err(_) => Verdict::Not,
            },
        ),
        // All that is left of digits, whatever they are of: seven with what people put between them, or six.
        (
            r"\+?\(?\d(?:[\s./()\u{a0}\u{2010}-\u{2015}-]{0,3}\d){6,}|\d{6,}",
            |text| Verdict::Is(number(text)),
        ),
    ];
    let rules = known.into_iter().filter_map(|(pattern, judge)| {
        // A pattern that does not compile fails every test of this module.
        let pattern = Regex::new(pattern).ok()?;
        Some(Rule { pattern, judge })
    });
    rules.collect()
}

/// `text` without what is personal or secret in it.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for rule in RULES.iter() {
        if let Some(changed) = rule.apply(&text) {
            text = Cow::Owned(changed);
        }
    }
    text
}

impl Rule {
    /// `None`: nothing was found.
    fn apply(&self, text: &str) -> Option<String> {
        let (mut out, mut kept, mut at) = (String::new(), 0, 0);
        while let Some((start, end, kind, next)) = self.next(text, at) {
            at = next;
            if end > start {
                out.push_str(text.get(kept..start).unwrap_or_default());
                out.push_str(kind);
                kept = end;
            }
        }
        if kept == 0 {
            return None;
        }
        out.push_str(text.get(kept..).unwrap_or_default());
        Some(out)
    }

    /// What is found from `at` on: what of it is replaced, by what, and where to go on.
    fn next(&self, text: &str, at: usize) -> Option<(usize, usize, &'static str, usize)> {
        let found = (at <= text.len()).then(|| self.pattern.captures_at(text, at))??;
        let whole = found.get(0)?;
        let next = text.ceil_char_boundary(whole.start() + 1);
        Some(match (self.judge)(whole.as_str()) {
            Verdict::Is(kind) => {
                let (start, end) = replaced(&found)?;
                (start, end, kind, whole.end().max(next))
            }
            Verdict::Begins("", _) => (0, 0, "", whole.end().max(next)),
            Verdict::Begins(kind, length) => {
                let end = whole.start() + length;
                (whole.start(), end, kind, end.max(next))
            }
            Verdict::Not => (0, 0, "", next),
        })
    }
}

fn replaced(found: &Captures<'_>) -> Option<(usize, usize)> {
    let part = found.get(1).or_else(|| found.get(0))?;
    Some((part.start(), part.end()))
}

/// Letters of both kinds or with digits, as keys have them: no word of a language, and no path.
fn is_random(text: &str) -> bool {
    let has = |is_it: fn(&u8) -> bool| text.bytes().any(|it| is_it(&it));
    let kinds = [
        has(u8::is_ascii_digit),
        has(u8::is_ascii_lowercase),
        has(u8::is_ascii_uppercase),
    ];
    kinds.into_iter().filter(|it| *it).count() >= 2
}

/// ISO 13616: the longest beginning whose check digits hold. What follows it may be a word.
fn iban(text: &str) -> Verdict {
    let ends = text
        .char_indices()
        .filter(|(_, it)| it.is_ascii_alphanumeric());
    let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
    let lengths = (15..=34.min(ends.len())).rev();
    for length in lengths {
        let end = ends.get(length - 1).copied().unwrap_or_default();
        if is_iban(text.get(..end).unwrap_or_default()) {
            return Verdict::Begins("[iban]", end);
        }
    }
    Verdict::Not
}

/// ISO 7064, MOD 97-10.
fn is_iban(text: &str) -> bool {
    let signs: Vec<u32> = text.chars().filter_map(|it| it.to_digit(36)).collect();
    let Some((head, rest)) = signs.split_at_checked(4) else {
        return false;
    };
    let left = rest.iter().chain(head).fold(0, |left, sign| match sign {
        0..10 => (left * 10 + sign) % 97,
        _ => (left * 100 + sign) % 97,
    });
    left == 1
}

fn number(text: &str) -> &'static str {
    let digits: Vec<u32> = text.chars().filter_map(|it| it.to_digit(10)).collect();
    let is_one_run = text.chars().all(|it| it.is_ascii_digit());
    match digits.len() {
        13..=19 if !text.starts_with('+') && is_card(&digits) => "[card]",
        7..=15 if !is_one_run || text.starts_with('0') => "[phone]",
        _ => "[number]",
    }
}

/// ISO/IEC 7812-1, annex B.
fn is_card(digits: &[u32]) -> bool {
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(place, digit)| match place % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
#[path = "redaction_tests.rs"]
mod tests;
