//! Operators that read one value by a rule of their own: addresses, words, cards, UTF-8.

use std::net::IpAddr;

/// Networks, in order for a binary search. IPv4 is held as IPv4-mapped IPv6.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressSet(Vec<(u128, u128)>);

impl AddressSet {
    pub(crate) fn new(networks: &[(IpAddr, u8)]) -> Self {
        let mut ranges: Vec<(u128, u128)> = networks
            .iter()
            .map(|&(address, length)| range(address, length))
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some((_, end)) if low <= *end => *end = high.max(*end),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        let after = self.0.partition_point(|&(low, _)| low <= number);
        after
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .is_some_and(|&(_, high)| number <= high)
    }
}

fn number(address: IpAddr) -> u128 {
    u128::from(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

fn range(address: IpAddr, length: u8) -> (u128, u128) {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let free = u32::from(width - length.min(width));
    let mask = u128::MAX.checked_shl(free).unwrap_or(0);
    let low = number(address) & mask;
    (low, low | !mask)
}

/// Where `word` begins in `text` with no letter, digit or underscore beside it.
pub(super) fn find_word(text: &[u8], word: &[u8]) -> Option<usize> {
    let is_word =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    memchr::memmem::find_iter(text, word).find(|&at| {
        let before = at.checked_sub(1).and_then(|index| text.get(index));
        !is_word(before) && !is_word(text.get(at + word.len()))
    })
}

/// The check digit of card numbers (ISO/IEC 7812-1, annex B).
pub(crate) fn is_card_number(text: &[u8]) -> bool {
    let digits = text
        .iter()
        .rev()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| u32::from(byte - b'0'));
    let (mut sum, mut count) = (0u32, 0u32);
    for (place, digit) in digits.enumerate() {
        sum += match place % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        };
        count += 1;
    }
    count > 0 && sum.is_multiple_of(10)
}

/// Whether a text is UTF-8 of the shortest form, without surrogates (RFC 3629).
pub(crate) fn is_utf8_strict(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok()
}
