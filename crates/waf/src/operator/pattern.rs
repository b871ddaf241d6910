//! Patterns, matched in linear time over bytes.
//!
//! A pattern is one program for a forward search, which answers for nearly all values that they do not
//! match. Where a match lies is found by the same program, step by step, up to where the search ended:
//! automata for a search backwards, or for literals, would take five times the time and twice the memory
//! to make, for values that the prefilter has nearly all rejected before. A pattern that is known to be
//! good is compiled when it is first run.

use std::sync::OnceLock;

use regex_automata::hybrid::dfa::{self, DFA};
use regex_automata::nfa::thompson::backtrack::{self, BoundedBacktracker};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Input, PatternID};
use regex_syntax::hir::{Hir, Look};

use super::plain::Plain;

/// Bytes of the states of one pattern that a worker keeps.
const MOST_CACHE: usize = 1 << 20;

/// A pattern. Its cache is the worker's.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: Box<str>,
    most_bytes: usize,
    /// Nothing where it could not be compiled.
    program: OnceLock<Option<Box<Program>>>,
    /// Its place among the caches of a worker.
    pub(crate) cache: usize,
}

#[derive(Debug)]
struct Program {
    /// What the pattern says, where that is simple.
    plain: Option<Plain>,
    search: DFA,
    backtracker: BoundedBacktracker,
    /// For values too long for the backtracker.
    machine: PikeVM,
    /// A match begins where the value does.
    is_anchored: bool,
}

/// Why a pattern was refused.
#[derive(Debug)]
pub(crate) struct PatternError(pub(crate) String);

/// The caches of one worker: a pattern's is made when it is first run.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    searches: Vec<Option<Box<dfa::Cache>>>,
    /// For want of a place: of a pattern that is not the set's.
    other: Option<Box<dfa::Cache>>,
    /// Of whichever pattern is run.
    backtracker: Option<backtrack::Cache>,
    machine: Option<pikevm::Cache>,
}

impl Caches {
    pub(crate) fn with_room_for(patterns: usize) -> Self {
        Self {
            searches: std::iter::repeat_with(|| None).take(patterns).collect(),
            ..Self::default()
        }
    }

    fn of(&mut self, pattern: usize) -> &mut Option<Box<dfa::Cache>> {
        if let Some(cache) = self.searches.get_mut(pattern) {
            cache
        } else {
            self.other = None;
            &mut self.other
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

impl Program {
    fn new(hir: &Hir, most_bytes: usize) -> Result<Self, PatternError> {
        let unusable = |error: &dyn std::fmt::Display| {
            PatternError(format!("the pattern cannot be used: {error}"))
        };
        let nfa = thompson::Compiler::new()
            .configure(
                NFA::config()
                    .utf8(false)
                    .which_captures(WhichCaptures::All)
                    .nfa_size_limit(Some(most_bytes)),
            )
            .build_from_hir(hir)
            .map_err(|error| match error.size_limit() {
                Some(limit) => PatternError(format!(
                    "the pattern takes more than {limit} bytes once compiled"
                )),
                None => unusable(&error),
            })?;
        let search = DFA::builder()
            .configure(
                DFA::config()
                    .unicode_word_boundary(true)
                    .cache_capacity(MOST_CACHE)
                    .skip_cache_capacity_check(true)
                    // A search that keeps clearing its cache is slower than the machine.
                    .minimum_cache_clear_count(Some(3))
                    .minimum_bytes_per_state(Some(10)),
            )
            .build_from_nfa(nfa.clone())
            .map_err(|error| unusable(&error))?;
        let backtracker =
            BoundedBacktracker::new_from_nfa(nfa.clone()).map_err(|error| unusable(&error))?;
        let machine = PikeVM::new_from_nfa(nfa).map_err(|error| unusable(&error))?;
        Ok(Self {
            plain: Plain::of(hir),
            search,
            backtracker,
            machine,
            is_anchored: hir.properties().look_set_prefix().contains(Look::Start),
        })
    }

    fn nfa(&self) -> &NFA {
        self.machine.get_nfa()
    }

    fn groups_len(&self) -> usize {
        self.nfa().group_info().group_len(PatternID::ZERO)
    }

    fn memory(&self) -> usize {
        self.nfa().memory_usage() + self.search.memory_usage() + size_of::<Self>()
    }

    /// Where the first match ends.
    fn end(
        &self,
        cache: &mut Option<Box<dfa::Cache>>,
        input: &Input<'_>,
    ) -> Result<Option<usize>, GaveUp> {
        let cache = cache.get_or_insert_with(|| Box::new(self.search.create_cache()));
        let found = self.search.try_search_fwd(cache, input);
        let found = found.map_err(|_| GaveUp)?;
        Ok(found.map(|end| end.offset()))
    }

    fn slots(
        &self,
        caches: &mut Caches,
        input: &Input<'_>,
        slots: &mut [Option<NonMaxUsize>],
    ) -> bool {
        let backtracker = &self.backtracker;
        let cache = caches
            .backtracker
            .get_or_insert_with(|| backtracker.create_cache());
        cache.reset(backtracker);
        // Refused for a value that is too long for it, and for nothing else.
        if let Ok(found) = backtracker.try_search_slots(cache, input, slots) {
            return found.is_some();
        }
        let machine = &self.machine;
        let cache = caches.machine.get_or_insert_with(|| machine.create_cache());
        cache.reset(machine);
        machine.search_slots(cache, input, slots).is_some()
    }
}

impl Pattern {
    /// Compiled at once; `hir` is the text's syntax.
    pub(crate) fn new(text: &str, hir: &Hir, most_bytes: usize) -> Result<Self, PatternError> {
        let program = Some(Box::new(Program::new(hir, most_bytes)?));
        Ok(Self {
            program: program.into(),
            ..Self::known(text, most_bytes)
        })
    }

    /// Of a text that `new` has once taken with as few bytes. Should it refuse it now, every value matches:
    /// a rule must not be blind unseen.
    pub(crate) fn known(text: &str, most_bytes: usize) -> Self {
        Self {
            text: text.into(),
            most_bytes,
            program: OnceLock::new(),
            cache: 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn program(&self) -> Option<&Program> {
        let compile = || {
            let hir = parse_pattern(&self.text).ok()?;
            Some(Box::new(Program::new(&hir, self.most_bytes).ok()?))
        };
        self.program.get_or_init(compile).as_deref()
    }

    pub(crate) fn is_match(&self, caches: &mut Caches, value: &[u8]) -> bool {
        let Some(program) = self.program() else {
            return true;
        };
        if let Some(plain) = &program.plain {
            return plain.find(value).is_some();
        }
        let input = Input::new(value).earliest(true);
        match program.end(caches.of(self.cache), &input) {
            Ok(end) => end.is_some(),
            Err(GaveUp) => program.slots(caches, &input, &mut []),
        }
    }

    /// The first match that begins at or after `from`.
    pub(crate) fn find(
        &self,
        caches: &mut Caches,
        value: &[u8],
        from: usize,
    ) -> Option<(usize, usize)> {
        match self.program().and_then(|program| program.plain.as_ref()) {
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
        let input = Input::new(value).span(from..value.len());
        let Some(program) = self.program() else {
            return Some((from, value.len()));
        };
        if program.is_anchored
            && let Ok(end) = program.end(caches.of(self.cache), &input)
        {
            return end.map(|end| (from, end));
        }
        let mut slots = [None; 2];
        self.spans(program, caches, input, &mut slots)?;
        span(&slots, 0)
    }

    /// Whether there are groups besides the whole match.
    pub(crate) fn has_groups(&self) -> bool {
        self.program()
            .is_some_and(|program| program.groups_len() > 1)
    }

    /// The first match and its groups, as spans.
    pub(crate) fn groups(
        &self,
        caches: &mut Caches,
        value: &[u8],
    ) -> Option<Vec<Option<(usize, usize)>>> {
        let Some(program) = self.program() else {
            return Some(vec![Some((0, value.len()))]);
        };
        let mut slots = vec![None; 2 * program.groups_len()];
        self.spans(program, caches, Input::new(value), &mut slots)?;
        let groups = (0..program.groups_len()).map(|group| span(&slots, group));
        Some(groups.collect())
    }

    pub(crate) fn memory(&self) -> usize {
        let program = self.program.get().and_then(Option::as_deref);
        self.text.len() + program.map_or(0, Program::memory)
    }

    /// Fills the slots of the first match.
    fn spans(
        &self,
        program: &Program,
        caches: &mut Caches,
        mut input: Input<'_>,
        slots: &mut [Option<NonMaxUsize>],
    ) -> Option<()> {
        if let Ok(end) = program.end(caches.of(self.cache), &input) {
            input.set_end(end?);
        }
        program.slots(caches, &input, slots).then_some(())
    }
}

/// The search met a byte that it cannot judge, or would need more states than it may keep.
struct GaveUp;

fn span(slots: &[Option<NonMaxUsize>], group: usize) -> Option<(usize, usize)> {
    let at = |slot: usize| slots.get(slot).copied().flatten().map(NonMaxUsize::get);
    Some((at(2 * group)?, at(2 * group + 1)?))
}
