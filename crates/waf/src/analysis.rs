//! What a load found out about patterns, so that the next one need not.
//!
//! Owns the facts by pattern and their form in bytes: which patterns compile, and what each match of
//! one must contain. To find that out is nearly all the time that a load takes. Who loads has to keep
//! the bytes as safe as the rules: a pattern whose facts are forged is passed over by the prefilter.
//! Must not: hold anything that the rules do not say themselves.

use std::collections::BTreeMap;
use std::fmt;

use sha1::{Digest, Sha1};

use crate::bytes::ByteSet;
use crate::prefilter::{Literal, MOST_BYTES, MOST_MASKS, Needs};

/// The form, and with it how patterns are read and what is found out about them. A change of either has
/// a new number: a test holds it to that.
const MAGIC: &[u8; 8] = b"vedwaf\0\x01";
/// Of the digest behind all, which tells damage.
const DIGEST: usize = 20;

/// What is known of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    of: BTreeMap<Box<str>, Needs>,
    /// Each takes at most so many bytes once compiled.
    most_bytes: usize,
}

/// Why bytes are no analysis that this version can use. Without one, a load takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnalysisError {
    /// They are of another version.
    Version,
    /// They are not what was written.
    Damaged,
}

impl fmt::Display for AnalysisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the analysis of the rules is of another version",
            Self::Damaged => "the analysis of the rules is damaged",
        })
    }
}

impl std::error::Error for AnalysisError {}

impl Analysis {
    pub(crate) fn new(of: BTreeMap<Box<str>, Needs>, most_bytes: usize) -> Self {
        Self { of, most_bytes }
    }

    /// What matches of the pattern need, where it is known to compile to so many bytes at most.
    pub(crate) fn needs(&self, text: &str, most_bytes: usize) -> Option<&Needs> {
        self.of.get(text).filter(|_| self.most_bytes <= most_bytes)
    }

    /// The number of patterns.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The analysis as [`Analysis::from_bytes`] reads it. The same patterns give the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend((self.most_bytes as u64).to_le_bytes());
        number(&mut out, self.of.len());
        for (text, needs) in &self.of {
            number(&mut out, text.len());
            out.extend(text.as_bytes());
            number(&mut out, needs.length);
            number(&mut out, needs.masks.len());
            for word in needs.masks.iter().flat_map(|mask| mask.words()) {
                out.extend(word.to_le_bytes());
            }
            // One more than there are; 0 where none is needed.
            number(
                &mut out,
                needs.literals.as_ref().map_or(0, |all| all.len() + 1),
            );
            for literal in needs.literals.iter().flatten() {
                out.push(u8::try_from(literal.bytes().len()).unwrap_or_default());
                out.extend(literal.bytes());
            }
        }
        let digest = Sha1::digest(&out);
        out.extend(digest);
        out
    }

    /// Reads what [`Analysis::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnalysisError> {
        if !bytes.starts_with(MAGIC) {
            return Err(AnalysisError::Version);
        }
        let (content, digest) = bytes
            .split_last_chunk::<DIGEST>()
            .ok_or(AnalysisError::Damaged)?;
        if Sha1::digest(content).as_slice() != digest {
            return Err(AnalysisError::Damaged);
        }
        Reader(content.get(MAGIC.len()..).unwrap_or_default())
            .analysis()
            .ok_or(AnalysisError::Damaged)
    }
}

fn number(out: &mut Vec<u8>, number: usize) {
    // Limits on files and patterns keep all of them far below; what does not fit is not read again.
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// What is left to read. Nothing is taken for granted: the digest tells damage and no intent.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn analysis(mut self) -> Option<Analysis> {
        let most_bytes = usize::try_from(self.word()?).ok()?;
        let count = self.number()?;
        let mut of = BTreeMap::<Box<str>, Needs>::new();
        for _ in 0..count {
            let length = self.number()?;
            let text = std::str::from_utf8(self.take(length)?).ok()?;
            // In order, so that there is one form of each analysis.
            if of.last_key_value().is_some_and(|(last, _)| **last >= *text) {
                return None;
            }
            of.insert(text.into(), self.needs()?);
        }
        self.0.is_empty().then_some(Analysis { of, most_bytes })
    }

    fn needs(&mut self) -> Option<Needs> {
        let length = self.number()?;
        let masks = self.number().filter(|&masks| masks <= MOST_MASKS)?;
        let masks = (0..masks).map(|_| self.mask()).collect::<Option<_>>()?;
        let literals = match self.number()?.checked_sub(1) {
            None => None,
            Some(count) => Some((0..count).map(|_| self.literal()).collect::<Option<_>>()?),
        };
        Some(Needs {
            masks,
            literals,
            length,
        })
    }

    fn mask(&mut self) -> Option<ByteSet> {
        let words = [self.word()?, self.word()?, self.word()?, self.word()?];
        Some(ByteSet::from_words(words))
    }

    /// Not empty, and in lower case.
    fn literal(&mut self) -> Option<Literal> {
        let [length] = self.chunk()?;
        let length = usize::from(length);
        let text = self.take(length)?;
        let is_one = (1..=MOST_BYTES).contains(&length) && !text.iter().any(u8::is_ascii_uppercase);
        is_one.then(|| Literal::new(text))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.chunk()?)).ok()
    }

    fn word(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(content: &[u8]) -> Vec<u8> {
    [content, &Sha1::digest(content)].concat()
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
