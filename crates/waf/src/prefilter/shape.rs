//! What every match of a pattern must contain.
//!
//! Necessary conditions only, each sound by itself: a value that fails one cannot match. Letters
//! are taken without case, so that one pass over a value serves patterns of either kind.

use regex_syntax::hir::{Class, Hir, HirKind};

use crate::bytes::ByteSet;

/// Strings of an exact set, at most.
const MOST_EXACT: usize = 64;
/// Literals of one requirement, at most.
const MOST_LITERALS: usize = 4000;
/// Bytes of a literal that are looked for: more make the automaton larger and hardly surer.
pub(crate) const MOST_BYTES: usize = 4;
/// Masks kept of one pattern.
pub(crate) const MOST_MASKS: usize = 3;
/// A mask that an ordinary value meets more often than this in a byte does not pay.
const WORST_MASK: f32 = 0.06;
/// Literals that an ordinary value meets more often than this in a byte do not pay.
const WORST_RATE: f32 = 0.015;
/// Ever more of what ordinary values consist of. Where every match holds a byte beyond such a set,
/// the bytes beyond it are a mask.
const PLAIN: [&[u8]; 4] = [b"_", b"_-.", b"_-. /", b"_-. /,:=+"];

/// The requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Of each set at least one byte.
    pub(crate) masks: Vec<ByteSet>,
    /// One of these.
    pub(crate) literals: Option<Vec<Literal>>,
    /// So many bytes.
    pub(crate) length: usize,
}

/// A literal in lower case, as far as it is looked for. There are thousands in a set, so it stands where it
/// is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Literal {
    bytes: [u8; MOST_BYTES],
    length: u8,
}

impl Literal {
    /// Of the first [`MOST_BYTES`] bytes.
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut bytes = [0; MOST_BYTES];
        let mut length = 0;
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
            length += 1;
        }
        Self { bytes, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or(&self.bytes)
    }
}

impl Needs {
    pub(crate) fn of_pattern(hir: &Hir) -> Self {
        let facts = facts(hir);
        let mut needs = Self {
            length: hir.properties().minimum_len().unwrap_or(0),
            ..Self::default()
        };
        needs.literals = facts
            .best()
            .filter(|literals| rate(literals) <= WORST_RATE)
            .map(|literals| cut(literals.iter().map(Vec::as_slice)));
        let beyond = PLAIN
            .iter()
            .rev()
            .map(|marks| plain(marks))
            .find(|plain| leaves(hir, plain));
        needs.masks = facts.masks;
        needs.masks.retain(|mask| {
            weight(mask) <= WORST_MASK && !mask.iter().any(|byte| byte.is_ascii_alphanumeric())
        });
        needs.masks.truncate(MOST_MASKS - 1);
        needs.masks.extend(beyond.map(|plain| plain.complement()));
        needs
    }

    /// Of a list of phrases in lower case.
    pub(super) fn of_phrases<'a>(phrases: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let length = phrases.clone().map(<[u8]>::len).min().unwrap_or(0);
        let literals = (length > 0).then(|| cut(phrases));
        Self {
            masks: Vec::new(),
            literals,
            length,
        }
    }

    pub(super) fn of_mask(mask: ByteSet) -> Self {
        Self {
            masks: vec![mask],
            literals: None,
            length: 0,
        }
    }
}

/// What is known of a part of a pattern.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// All strings that it can match, in lower case.
    exact: Option<Vec<Vec<u8>>>,
    /// One of these is in every match.
    literals: Option<Vec<Vec<u8>>>,
    /// The best first.
    masks: Vec<ByteSet>,
}

impl Facts {
    fn exactly(exact: Vec<Vec<u8>>) -> Self {
        Self {
            exact: Some(exact),
            ..Self::default()
        }
    }

    /// The better of the exact strings and the literals.
    fn best(&self) -> Option<Vec<Vec<u8>>> {
        let mut sets = [&self.exact, &self.literals]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        sets.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        sets.first().map(|set| (*set).clone())
    }
}

fn facts(hir: &Hir) -> Facts {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Facts::exactly(vec![Vec::new()]),
        HirKind::Literal(literal) => {
            let mut facts = Facts::exactly(vec![literal.0.to_ascii_lowercase()]);
            facts.masks = literal.0.iter().map(|&byte| ByteSet::of(&[byte])).collect();
            sort_masks(&mut facts.masks);
            facts
        }
        HirKind::Class(class) => of_class(class),
        HirKind::Capture(capture) => facts(&capture.sub),
        HirKind::Repetition(repetition) => {
            of_repetition(&facts(&repetition.sub), repetition.min, repetition.max)
        }
        HirKind::Concat(parts) => of_concat(parts.iter().map(facts)),
        HirKind::Alternation(branches) => {
            of_alternation(&branches.iter().map(facts).collect::<Vec<_>>())
        }
    }
}

fn of_class(class: &Class) -> Facts {
    let mut set = ByteSet::EMPTY;
    match class {
        Class::Bytes(bytes) => bytes
            .ranges()
            .iter()
            .for_each(|range| set.insert_range(range.start(), range.end())),
        Class::Unicode(letters) => match letters.to_byte_class() {
            Some(bytes) => bytes
                .ranges()
                .iter()
                .for_each(|range| set.insert_range(range.start(), range.end())),
            // Of letters beyond ASCII nothing is claimed.
            None => return Facts::default(),
        },
    }
    let exact = (set.len() <= 16).then(|| {
        let mut exact: Vec<Vec<u8>> = set
            .iter()
            .map(|byte| vec![byte.to_ascii_lowercase()])
            .collect();
        exact.sort();
        exact.dedup();
        exact
    });
    Facts {
        exact,
        literals: None,
        masks: vec![set],
    }
}

fn of_repetition(sub: &Facts, min: u32, max: Option<u32>) -> Facts {
    if min == 0 {
        let optional = sub
            .exact
            .as_ref()
            .filter(|exact| max == Some(1) && exact.len() < MOST_EXACT);
        return Facts {
            exact: optional.map(|exact| exact.iter().cloned().chain([Vec::new()]).collect()),
            ..Facts::default()
        };
    }
    if max == Some(min) && min <= 4 {
        return of_concat(std::iter::repeat_n(sub.clone(), min as usize));
    }
    let least = of_concat(std::iter::repeat_n(sub.clone(), min.min(4) as usize));
    Facts {
        exact: None,
        literals: least.best(),
        masks: sub.masks.clone(),
    }
}

fn of_concat(parts: impl Iterator<Item = Facts>) -> Facts {
    let mut run = vec![Vec::new()];
    let mut whole = true;
    let mut sets: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut masks = Vec::new();
    for part in parts {
        let crossed = part.exact.as_ref().and_then(|exact| cross(&run, exact));
        if let Some(crossed) = crossed {
            run = crossed;
        } else {
            whole = false;
            sets.push(std::mem::replace(
                &mut run,
                part.exact.clone().unwrap_or_else(|| vec![Vec::new()]),
            ));
        }
        sets.extend(part.literals);
        masks.extend(part.masks);
    }
    sort_masks(&mut masks);
    masks.truncate(16);
    let exact = whole.then(|| run.clone());
    sets.push(run);
    let literals = sets.into_iter().min_by(|a, b| rate(a).total_cmp(&rate(b)));
    Facts {
        exact,
        literals: literals.filter(|_| !whole),
        masks,
    }
}

/// Every string of the one before every string of the other, where they are few.
fn cross(before: &[Vec<u8>], after: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if before.len().checked_mul(after.len())? > MOST_EXACT {
        return None;
    }
    let mut crossed: Vec<Vec<u8>> = before
        .iter()
        .flat_map(|first| {
            after
                .iter()
                .map(move |second| [first.as_slice(), second].concat())
        })
        .collect();
    crossed.sort();
    crossed.dedup();
    Some(crossed)
}

fn of_alternation(branches: &[Facts]) -> Facts {
    let all_exact: Option<Vec<Vec<u8>>> = branches
        .iter()
        .map(|branch| branch.exact.as_ref())
        .collect::<Option<Vec<_>>>()
        .map(|sets| sets.into_iter().flatten().cloned().collect());
    let exact = all_exact.filter(|exact| exact.len() <= MOST_EXACT);
    let literals = branches.iter().map(Facts::best).collect::<Option<Vec<_>>>();
    let literals = literals.map(|sets| sets.into_iter().flatten().collect::<Vec<_>>());
    let literals = literals
        .filter(|literals| literals.len() <= MOST_LITERALS && !literals.iter().any(Vec::is_empty));
    let mut masks = Vec::new();
    for place in 0..2 {
        let chosen = branches
            .iter()
            .map(|branch| branch.masks.get(place))
            .collect::<Option<Vec<_>>>();
        masks.extend(chosen.map(|chosen| {
            chosen
                .into_iter()
                .fold(ByteSet::EMPTY, |all, mask| all.union(mask))
        }));
    }
    Facts {
        literals: literals.filter(|_| exact.is_none()),
        exact,
        masks,
    }
}

/// Letters, digits and the marks.
fn plain(marks: &[u8]) -> ByteSet {
    let mut plain = ByteSet::of(marks);
    plain.insert_range(b'0', b'9');
    plain.insert_range(b'A', b'Z');
    plain.insert_range(b'a', b'z');
    plain
}

/// Whether every match holds a byte that is not plain.
fn leaves(hir: &Hir, plain: &ByteSet) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.iter().any(|byte| !plain.contains(*byte)),
        HirKind::Class(Class::Bytes(bytes)) => bytes
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(|byte| !plain.contains(byte))),
        HirKind::Class(Class::Unicode(letters)) => letters.ranges().iter().all(|range| {
            !(0..=0x7f).any(|byte| {
                plain.contains(byte) && (range.start()..=range.end()).contains(&char::from(byte))
            })
        }),
        HirKind::Repetition(repetition) => repetition.min > 0 && leaves(&repetition.sub, plain),
        HirKind::Capture(capture) => leaves(&capture.sub, plain),
        HirKind::Concat(parts) => parts.iter().any(|part| leaves(part, plain)),
        HirKind::Alternation(branches) => branches.iter().all(|branch| leaves(branch, plain)),
    }
}

fn sort_masks(masks: &mut Vec<ByteSet>) {
    masks.sort_by(|a, b| weight(a).total_cmp(&weight(b)));
    masks.dedup();
}

/// How often one byte of an ordinary value is in the mask.
fn weight(mask: &ByteSet) -> f32 {
    mask.iter().map(frequency).sum()
}

/// How often a byte stands in ordinary values: a guess that decides speed, never the answer.
const fn frequency(byte: u8) -> f32 {
    match byte {
        b'e' | b'a' | b't' | b'o' | b'i' | b'n' | b's' | b'r' => 0.05,
        b'q' | b'x' | b'z' | b'j' => 0.004,
        b'a'..=b'z' => 0.02,
        b'0'..=b'9' => 0.025,
        b' ' => 0.03,
        b'A'..=b'Z' => 0.008,
        b'/' | b'.' | b'-' | b'_' | b',' | b':' => 0.012,
        b'=' | b';' | b'(' | b')' | b'&' | b'+' | b'%' | b'?' | b'"' => 0.006,
        0x80.. => 0.0005,
        _ => 0.001,
    }
}

/// How often an ordinary value meets one of the literals in a byte.
fn rate(literals: &[Vec<u8>]) -> f32 {
    if literals.is_empty() {
        return f32::INFINITY;
    }
    literals.iter().map(|literal| meets(window(literal))).sum()
}

fn meets(literal: &[u8]) -> f32 {
    let often = |byte: &u8| CASE_BLIND.get(usize::from(*byte)).copied().unwrap_or(1.0);
    literal.iter().map(often).product()
}

/// [`frequency`] of a byte and its other case.
const CASE_BLIND: [f32; 256] = {
    let mut often = [0.0; 256];
    let mut rest: &mut [f32] = &mut often;
    let mut byte = 0u8;
    while let Some((first, others)) = rest.split_first_mut() {
        *first = frequency(byte);
        if byte.is_ascii_alphabetic() {
            *first += frequency(byte.to_ascii_uppercase());
        }
        byte = byte.wrapping_add(1);
        rest = others;
    }
    often
};

/// The part of a literal that is met least.
fn window(literal: &[u8]) -> &[u8] {
    literal
        .windows(MOST_BYTES)
        .min_by(|a, b| meets(a).total_cmp(&meets(b)))
        .unwrap_or(literal)
}

fn cut<'a>(literals: impl Iterator<Item = &'a [u8]>) -> Vec<Literal> {
    let mut cut: Vec<Literal> = literals
        .map(|literal| Literal::new(window(literal)))
        .collect();
    cut.sort();
    cut.dedup();
    cut
}
