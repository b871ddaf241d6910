//! Patterns, matched in linear time over bytes.

use regex_automata::meta::{self, Cache, Regex};
use regex_automata::util::captures::Captures;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::Hir;

use super::plain::Plain;

/// A compiled pattern. Its cache is the worker's.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// What it says, where that is simple.
    plain: Option<Plain>,
    /// No shorter text matches.
    shortest: usize,
    /// Its place among the caches of a worker.
    pub(crate) cache: usize,
}

/// Why a pattern was refused.
#[derive(Debug)]
pub(crate) struct PatternError(pub(crate) String);

/// The caches of one worker: a pattern's is made when it is first run.
#[derive(Debug, Default)]
pub(crate) struct Caches(Vec<Option<Box<Cache>>>);

impl Caches {
    pub(crate) fn with_room_for(patterns: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(patterns).collect())
    }

    fn with<T>(&mut self, pattern: &Pattern, run: impl FnOnce(&mut Cache) -> T) -> T {
        match self.0.get_mut(pattern.cache) {
            Some(slot) => run(slot.get_or_insert_with(|| Box::new(pattern.regex.create_cache()))),
            None => run(&mut pattern.regex.create_cache()),
        }
    }
}

/// The pattern as syntax: bytes, dot matches newline, lines not told apart, Unicode only where the
/// pattern cannot be read without.
pub(crate) fn parse_pattern(text: &str) -> Result<Hir, PatternError> {
    let text = with_short_escapes(text);
    let parse = |unicode| {
        regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(unicode)
            .dot_matches_new_line(true)
            .nest_limit(200)
            .build()
            .parse(&text)
            .map_err(|error| error.to_string())
    };
    parse(false).or_else(|_| parse(true)).map_err(|text| {
        // The library draws the pattern; the reason is its last line.
        let reason = text
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        PatternError(format!("the pattern cannot be used: {reason}"))
    })
}

/// `\x{e2}` as `\xe2`: to PCRE, for which rules are written, both are the byte; to our syntax the
/// first is the letter.
fn with_short_escapes(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        short.push_str(before);
        let braced = escape
            .strip_prefix("\\x{")
            .and_then(|digits| digits.split_once('}'));
        let byte =
            braced.and_then(|(digits, after)| Some((u8::from_str_radix(digits, 16).ok()?, after)));
        if let Some((byte, after)) = byte {
            short.push_str("\\x");
            short.extend(
                [byte >> 4, byte & 15]
                    .into_iter()
                    .filter_map(|digit| char::from_digit(digit.into(), 16)),
            );
            rest = after;
        } else {
            let (whole, after) = escape.split_at(escape.chars().take(2).map(char::len_utf8).sum());
            short.push_str(whole);
            rest = after;
        }
    }
    short.push_str(rest);
    short
}

impl Pattern {
    pub(crate) fn new(hir: &Hir, most_bytes: usize) -> Result<Self, PatternError> {
        let config = meta::Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .utf8_empty(false)
            .nfa_size_limit(Some(most_bytes))
            .hybrid_cache_capacity(1 << 20)
            .onepass_size_limit(Some(64 << 10));
        let regex = meta::Builder::new()
            .configure(config)
            .build_from_hir(hir)
            .map_err(|error| {
                PatternError(match error.size_limit() {
                    Some(limit) => {
                        format!("the pattern takes more than {limit} bytes once compiled")
                    }
                    None => format!("the pattern cannot be used: {error}"),
                })
            })?;
        Ok(Self {
            regex,
            plain: Plain::of(hir),
            shortest: hir.properties().minimum_len().unwrap_or(0),
            cache: 0,
        })
    }

    pub(crate) fn is_match(&self, caches: &mut Caches, value: &[u8]) -> bool {
        if let Some(plain) = &self.plain {
            return plain.find(value).is_some();
        }
        let input = Input::new(value).earliest(true);
        caches
            .with(self, |cache| self.regex.search_half_with(cache, &input))
            .is_some()
    }

    /// Without a cache of one's own: for the few patterns that choose names.
    pub(crate) fn is_match_shared(&self, value: &[u8]) -> bool {
        match &self.plain {
            Some(plain) => plain.find(value).is_some(),
            None => value.len() >= self.shortest && self.regex.is_match(value),
        }
    }

    /// The first match that begins at or after `from`.
    pub(crate) fn find(
        &self,
        caches: &mut Caches,
        value: &[u8],
        from: usize,
    ) -> Option<(usize, usize)> {
        match &self.plain {
            Some(plain) if from == 0 => plain.find(value),
            _ => self.search(caches, value, from),
        }
    }

    /// The same by a search, whatever the pattern says.
    pub(super) fn search(
        &self,
        caches: &mut Caches,
        value: &[u8],
        from: usize,
    ) -> Option<(usize, usize)> {
        if from > value.len() {
            return None;
        }
        let input = Input::new(value)
            .span(from..value.len())
            .anchored(Anchored::No);
        let found = caches.with(self, |cache| self.regex.search_with(cache, &input))?;
        Some((found.start(), found.end()))
    }

    /// Whether there are groups besides the whole match.
    pub(crate) fn has_groups(&self) -> bool {
        self.regex.captures_len() > 1
    }

    /// The first match and its groups, as spans.
    pub(crate) fn groups(
        &self,
        caches: &mut Caches,
        value: &[u8],
    ) -> Option<Vec<Option<(usize, usize)>>> {
        let mut captures: Captures = self.regex.create_captures();
        caches.with(self, |cache| {
            self.regex
                .search_captures_with(cache, &Input::new(value), &mut captures);
        });
        if !captures.is_match() {
            return None;
        }
        Some(
            captures
                .iter()
                .map(|span| span.map(|span| (span.start, span.end)))
                .collect(),
        )
    }

    pub(crate) fn memory(&self) -> usize {
        self.regex.memory_usage()
    }
}
