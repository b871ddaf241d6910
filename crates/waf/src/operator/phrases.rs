//! Lists of phrases, found in one pass and without regard to case.
//!
//! A list is kept sorted and searched as it is: an automaton over the lists of a rule set would take seven
//! times their memory, and most of the time of a load, for values that the prefilter has nearly all
//! rejected before.

/// Bytes that phrases are told apart by before they are looked up.
const MOST_HEAD: usize = 4;
/// Marks for heads, a power of two: lists have up to two thousand.
const MARKS: usize = 1 << 14;

/// A list.
#[derive(Debug)]
pub(crate) struct Phrases {
    /// In lower case and sorted; none begins with another.
    text: Box<[u8]>,
    /// Where each ends.
    ends: Box<[u32]>,
    /// The bytes of a head: as many as the shortest phrase has, and no more than [`MOST_HEAD`].
    head: usize,
    /// The heads that phrases have, one bit each.
    marks: Box<[u64]>,
}

impl Phrases {
    pub(crate) fn new(mut phrases: Vec<Box<[u8]>>) -> Self {
        for phrase in &mut phrases {
            phrase.make_ascii_lowercase();
        }
        phrases.sort_unstable();
        // One that begins with another ends after it, and is never the first to be found.
        phrases.dedup_by(|later, earlier| later.starts_with(earlier));
        let shortest = phrases.iter().map(|phrase| phrase.len()).min();
        let head = shortest.unwrap_or(0).min(MOST_HEAD);
        let mut marks = vec![0; MARKS / 64].into_boxed_slice();
        for phrase in &phrases {
            let (word, bit) = mark(phrase.get(..head).unwrap_or_default());
            if let Some(word) = marks.get_mut(word) {
                *word |= bit;
            }
        }
        let mut end = 0u32;
        let ends = phrases.iter().map(|phrase| {
            end = end.saturating_add(u32::try_from(phrase.len()).unwrap_or(u32::MAX));
            end
        });
        Self {
            ends: ends.collect(),
            text: phrases.concat().into(),
            head,
            marks,
        }
    }

    /// The lines of a list of phrases: not the empty ones, not the comments.
    pub(crate) fn of_file(text: &[u8]) -> Vec<Box<[u8]>> {
        text.split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty() && line.first() != Some(&b'#'))
            .map(Into::into)
            .collect()
    }

    /// All phrases that can be found, sorted.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|at| self.phrase(at))
    }

    /// The phrase that ends first; of two that do, the longer.
    pub(crate) fn find(&self, value: &[u8]) -> Option<(usize, usize)> {
        match self.head {
            0 => (!self.ends.is_empty()).then_some((0, 0)),
            1 => self.search::<1>(value),
            2 => self.search::<2>(value),
            3 => self.search::<3>(value),
            _ => self.search::<MOST_HEAD>(value),
        }
    }

    /// The same by heads of a length that is known when this is compiled.
    fn search<const HEAD: usize>(&self, value: &[u8]) -> Option<(usize, usize)> {
        let mut found: Option<(usize, usize)> = None;
        for (start, head) in value.windows(HEAD).enumerate() {
            if found.is_some_and(|(_, end)| end <= start + HEAD) {
                break;
            }
            let (word, bit) = mark(head);
            if self.marks.get(word).is_some_and(|word| word & bit == 0) {
                continue;
            }
            let rest = value.get(start..).unwrap_or_default();
            if let Some(length) = self.begins(rest)
                && found.is_none_or(|(_, end)| start + length < end)
            {
                found = Some((start, start + length));
            }
        }
        found
    }

    /// The length of the phrase that the text begins with: the last that is not behind it, if any.
    fn begins(&self, text: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            let phrase = self.phrase(middle);
            let same = text.get(..phrase.len()).unwrap_or(text);
            let lower = same.iter().map(u8::to_ascii_lowercase);
            match lower.cmp(phrase.iter().copied()) {
                std::cmp::Ordering::Equal => return Some(phrase.len()),
                std::cmp::Ordering::Greater => low = middle + 1,
                std::cmp::Ordering::Less => high = middle,
            }
        }
        None
    }

    fn phrase(&self, at: usize) -> &[u8] {
        let end = |at: usize| self.ends.get(at).map_or(0, |&end| end as usize);
        let start = at.checked_sub(1).map_or(0, end);
        self.text.get(start..end(at)).unwrap_or_default()
    }

    pub(crate) fn memory(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends) + size_of_val(&*self.marks)
    }
}

/// The word and the bit of a head's mark. Bytes that differ as the cases of a letter do have one mark.
#[inline]
fn mark(head: &[u8]) -> (usize, u64) {
    let head = head
        .iter()
        .fold(0, |bytes, byte| bytes << 8 | u32::from(byte | 0x20));
    let place = (head.wrapping_mul(0x9e37_79b1) >> 18) as usize;
    (place / 64, 1 << (place % 64))
}
