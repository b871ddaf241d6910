//! Sets of bytes, and bytes as text reads them.

/// A set of byte values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const EMPTY: Self = Self([0; 4]);
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    pub(crate) const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    pub(crate) const fn words(self) -> [u64; 4] {
        self.0
    }

    pub(crate) const fn of(mut bytes: &[u8]) -> Self {
        let [mut a, mut b, mut c, mut d] = [0u64; 4];
        while let Some((&byte, rest)) = bytes.split_first() {
            let word = match byte >> 6 {
                0 => &mut a,
                1 => &mut b,
                2 => &mut c,
                _ => &mut d,
            };
            *word |= 1 << (byte & 63);
            bytes = rest;
        }
        Self([a, b, c, d])
    }

    /// The same, quicker where nothing of it is known beforehand: what is added to one set does not wait
    /// for what was added to the others.
    pub(crate) fn occurring(text: &[u8]) -> Self {
        let mut sets = [Self::EMPTY; 4];
        let (groups, rest) = text.as_chunks::<4>();
        for group in groups {
            for (set, &byte) in sets.iter_mut().zip(group) {
                set.insert(byte);
            }
        }
        for (set, &byte) in sets.iter_mut().zip(rest) {
            set.insert(byte);
        }
        let [a, b, c, d] = sets;
        a.union(&b).union(&c.union(&d))
    }

    #[inline]
    pub(crate) fn insert(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    pub(crate) fn insert_range(&mut self, low: u8, high: u8) {
        for byte in low..=high {
            self.insert(byte);
        }
    }

    #[inline]
    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0
            .get(usize::from(byte >> 6))
            .is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    #[inline]
    pub(crate) fn intersects(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a & e) | (b & f) | (c & g) | (d & h) != 0
    }

    #[inline]
    pub(crate) const fn union(&self, other: &Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a | e, b | f, c | g, d | h])
    }

    #[inline]
    pub(crate) const fn intersection(&self, other: &Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a & e, b & f, c & g, d & h])
    }

    /// The set with small letters in place of capitals.
    pub(crate) const fn in_lower_case(self) -> Self {
        const CAPITALS: u64 = 0x07ff_fffe;
        let [a, letters, c, d] = self.0;
        let small = letters & !CAPITALS | (letters & CAPITALS) << 32;
        Self([a, small, c, d])
    }

    /// The set with one small letter, one capital and one digit for any number of each.
    pub(crate) const fn with_one_of_each(self) -> Self {
        const DIGITS: u64 = 0x3ff << 48;
        let [mut a, letters, c, d] = self.0;
        if a & DIGITS != 0 {
            a = a & !DIGITS | 1 << 48;
        }
        let mut kept = letters & !(0x07ff_fffe << 32 | 0x07ff_fffe);
        if letters & 0x07ff_fffe != 0 {
            kept |= 1 << 1;
        }
        if letters & (0x07ff_fffe << 32) != 0 {
            kept |= 1 << 33;
        }
        Self([a, kept, c, d])
    }

    /// The set with the first of `alike` for any number of them.
    pub(crate) fn with_one_of(self, alike: &Self) -> Self {
        if !self.intersects(alike) {
            return self;
        }
        let mut kept = self.intersection(&alike.complement());
        if let Some(first) = alike.iter().next() {
            kept.insert(first);
        }
        kept
    }

    /// Whether it holds all small letters or none, and so with capitals and digits.
    pub(crate) fn is_plain(&self) -> bool {
        let [first, letters, ..] = self.0;
        let none_or_all = |word: u64, all: u64| matches!(word & all, 0) || word & all == all;
        none_or_all(first, 0x3ff << 48)
            && none_or_all(letters, 0x07ff_fffe)
            && none_or_all(letters, 0x07ff_fffe << 32)
    }

    /// A cheap mix, by which tables place the set.
    pub(crate) const fn mix(self) -> usize {
        let [a, b, c, d] = self.0;
        spread(a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47))
    }

    pub(crate) const fn complement(&self) -> Self {
        let [a, b, c, d] = self.0;
        Self([!a, !b, !c, !d])
    }

    #[inline]
    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.union(other) == *other
    }

    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Calls `visit` with each byte of the set: what the loops that run for every text use.
    #[inline]
    pub(crate) fn visit(self, mut visit: impl FnMut(u8)) {
        for (place, word) in (0u8..).zip(self.0) {
            let mut rest = word;
            while rest != 0 {
                visit(place << 6 | (rest.trailing_zeros() & 63) as u8);
                rest &= rest - 1;
            }
        }
    }

    /// The bytes of the set, in time that their number takes.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let words = (0u8..4).zip(self.0);
        words.flat_map(|(place, word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = u8::try_from(rest.trailing_zeros())
                    .ok()
                    .filter(|&bit| bit < 64)?;
                rest &= rest - 1;
                Some(place * 64 + bit)
            })
        })
    }
}

/// A number of 24 bits in which each bit of the word plays a part.
pub(crate) const fn spread(word: u64) -> usize {
    let folded = word ^ word >> 32;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// What C's `isspace` says in the C locale.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that two hexadecimal digits at the start of `text` write.
pub(crate) fn hex_pair(text: &[u8]) -> Option<u8> {
    match *text {
        [high, low, ..] => Some(hex_digit(high)? << 4 | hex_digit(low)?),
        _ => None,
    }
}

/// The number that a text begins with, as C's `atoi` reads it; 0 where there is none.
pub(crate) fn leading_number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut number = 0i64;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = number
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'));
    }
    if negative { -number } else { number }
}

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
