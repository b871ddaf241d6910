//! Lists of phrases, found in one pass and without regard to case.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// A compiled list.
#[derive(Debug)]
pub(crate) struct Phrases {
    finder: AhoCorasick,
    /// The phrases in lower case, for the prefilter.
    pub(crate) phrases: Vec<Box<[u8]>>,
}

impl Phrases {
    pub(crate) fn new(phrases: &[Box<[u8]>]) -> Result<Self, String> {
        let mut phrases: Vec<Box<[u8]>> = phrases
            .iter()
            .map(|phrase| phrase.to_ascii_lowercase().into_boxed_slice())
            .collect();
        phrases.sort();
        phrases.dedup();
        let finder = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&phrases)
            .map_err(|error| format!("the phrases cannot be used: {error}"))?;
        Ok(Self { finder, phrases })
    }

    /// The lines of a list of phrases: not the empty ones, not the comments.
    pub(crate) fn of_file(text: &[u8]) -> Vec<Box<[u8]>> {
        text.split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty() && line.first() != Some(&b'#'))
            .map(Into::into)
            .collect()
    }

    pub(crate) fn find(&self, value: &[u8]) -> Option<(usize, usize)> {
        self.finder
            .find(value)
            .map(|found| (found.start(), found.end()))
    }

    pub(crate) fn memory(&self) -> usize {
        self.finder.memory_usage()
            + self
                .phrases
                .iter()
                .map(|phrase| phrase.len() + 16)
                .sum::<usize>()
    }
}
