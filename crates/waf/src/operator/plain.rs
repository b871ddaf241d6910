//! Patterns that say something simple, which is seen without a search.
//!
//! Must not: say of any pattern what its search would not.

use regex_syntax::hir::{Class, ClassBytes, Hir, HirKind, Look};

/// What the pattern says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// `^.*$`: every text matches, as a whole.
    Everything,
    /// `^word`, and nothing after it: the texts that begin so.
    StartsWith(Word),
}

/// A word, in lower case where case does not matter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    bytes: Box<[u8]>,
    ignores_case: bool,
}

impl Plain {
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let HirKind::Concat(parts) = hir.kind() else {
            return None;
        };
        let (first, rest) = parts.split_first()?;
        if *first.kind() != HirKind::Look(Look::Start) {
            return None;
        }
        match rest {
            [all, end] if is_everything(all) && *end.kind() == HirKind::Look(Look::End) => {
                Some(Self::Everything)
            }
            _ => Word::of(rest).map(Self::StartsWith),
        }
    }

    /// The first match in the text.
    pub(super) fn find(&self, text: &[u8]) -> Option<(usize, usize)> {
        match self {
            Self::Everything => Some((0, text.len())),
            Self::StartsWith(word) => word.begins(text).then_some((0, word.bytes.len())),
        }
    }
}

fn is_everything(hir: &Hir) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else {
        return false;
    };
    let any = matches!(repetition.sub.kind(), HirKind::Class(Class::Bytes(class)) if is_any(class));
    any && repetition.min == 0 && repetition.max.is_none()
}

fn is_any(class: &ClassBytes) -> bool {
    matches!(class.ranges(), [all] if all.start() == 0 && all.end() == 255)
}

impl Word {
    /// The word that the parts spell, letters all in one case or all in either.
    fn of(parts: &[Hir]) -> Option<Self> {
        let mut bytes = Vec::new();
        let (mut in_either, mut in_one) = (false, false);
        for part in parts {
            match part.kind() {
                HirKind::Literal(literal) => {
                    in_one |= literal.0.iter().any(u8::is_ascii_alphabetic);
                    bytes.extend_from_slice(&literal.0);
                }
                HirKind::Class(Class::Bytes(class)) => {
                    bytes.push(letter(class)?);
                    in_either = true;
                }
                _ => return None,
            }
        }
        (!(in_either && in_one)).then(|| Self {
            bytes: bytes.into(),
            ignores_case: in_either,
        })
    }

    fn begins(&self, text: &[u8]) -> bool {
        text.get(..self.bytes.len()).is_some_and(|start| {
            if self.ignores_case {
                start.eq_ignore_ascii_case(&self.bytes)
            } else {
                *start == *self.bytes
            }
        })
    }
}

/// The letter of which the class is both cases.
fn letter(class: &ClassBytes) -> Option<u8> {
    let [capital, small] = class.ranges() else {
        return None;
    };
    let is_one = capital.len() == 1 && small.len() == 1;
    let is_letter = capital.start().is_ascii_uppercase()
        && capital.start().to_ascii_lowercase() == small.start();
    (is_one && is_letter).then_some(small.start())
}

#[cfg(test)]
mod tests {
    use super::super::pattern::parse_pattern;
    use super::super::{Caches, Pattern};
    use super::Plain;

    fn plain(text: &str) -> Option<Plain> {
        Plain::of(&parse_pattern(text).unwrap())
    }

    #[test]
    fn simple_patterns_are_known_and_others_are_not() {
        assert_eq!(plain("^.*$"), Some(Plain::Everything));
        for known in ["^header_", "(?i:^header_1)", "(?i)^x-", "^a"] {
            assert!(
                matches!(plain(known), Some(Plain::StartsWith(_))),
                "{known}"
            );
        }
        for other in [
            "^.+$", ".*", "^.*", "^[^a]*$", "^.{0,9}$", "header", "^a|b", "^a*", "^a(?i)b", "^(a)",
            "^ab$", "(?m)^ab", "^[ab]c", "^[a-z]", "(?m)^.*$",
        ] {
            assert_eq!(plain(other), None, "{other}");
        }
    }

    #[test]
    fn a_simple_pattern_finds_what_its_search_finds() {
        let mut random = fastrand::Rng::with_seed(9);
        let mut matches = 0;
        for text in ["^.*$", "^aB-", "(?i:^aB-)", "(?i)^b", "^a"] {
            let hir = parse_pattern(text).unwrap();
            let (plain, pattern) = (
                Plain::of(&hir).unwrap(),
                Pattern::new(text, &hir, 1 << 20).unwrap(),
            );
            let mut caches = Caches::with_room_for(1);
            for _ in 0..20_000 {
                let value: Vec<u8> = (0..random.usize(..6))
                    .map(|_| b"aAbB-\n\xff"[random.usize(..7)])
                    .collect();
                let searched = pattern.search(&mut caches, &value, 0);
                assert_eq!(plain.find(&value), searched, "{text} {value:?}");
                matches += usize::from(searched.is_some());
            }
        }
        assert!((20_000..80_000).contains(&matches), "{matches}");
    }
}
