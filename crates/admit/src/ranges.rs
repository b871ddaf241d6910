//! Sets of addresses from plain-file feeds, and the lists made of them.
//!
//! Owns reading a feed (one address or CIDR a line) and looking an address up. Must not: know where
//! a feed came from or how old it is.
//!
//! A set keeps the borders of its merged ranges, sorted: an address is in the set when an odd number
//! of borders is at or below it. That is eight bytes for a range of IPv4, and a binary search.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of both kinds. An IPv4 address mapped into IPv6 is the IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Box<[u32]>,
    v6: Box<[u128]>,
}

/// A CIDR: the network's first address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// What becomes of a feed with a line that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadLine {
    /// The line is left out and reported.
    LeaveOut,
    /// The whole feed is refused.
    Refuse,
}

/// How much of a feed is read.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Bytes of the file.
    pub bytes: usize,
    /// Networks in it.
    pub networks: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            networks: 2_000_000,
        }
    }
}

/// A feed that was read.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    /// Its addresses.
    pub addresses: AddressSet,
    /// How many networks it names, before merging.
    pub networks: usize,
    /// How many lines were left out.
    pub left_out: usize,
    /// The first of them.
    pub bad_lines: Vec<BadLine>,
}

/// A line of a feed that is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not UTF-8, or its first word is no address.
    NoAddress,
    /// What follows the `/` is no length of a prefix.
    NoPrefix,
    /// The network covers more than any feed means to: IPv4 beyond a /8, IPv6 beyond a /16.
    TooWide,
}

/// Why a feed is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedError {
    /// It has more bytes than allowed.
    TooLarge {
        /// Bytes it may have.
        limit: usize,
    },
    /// It names more networks than allowed.
    TooMany {
        /// Networks it may name.
        limit: usize,
    },
    /// A line is no address, and the feed is to be refused then.
    Bad(BadLine),
}

/// Lines that are reported one by one; the others are counted.
const REPORTED: usize = 20;
/// A line longer than this is no address, whatever it is.
const LONGEST_WORD: usize = 64;

impl Network {
    /// Reads `192.0.2.0/24`, `2001:db8::/32` or a single address. Bits behind the prefix do not count.
    pub fn parse(word: &str) -> Result<Self, Fault> {
        let (address, prefix) = match word.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (word, None),
        };
        let address: IpAddr = address.parse().map_err(|_| Fault::NoAddress)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|it| it.is_ascii_digit()) => {
                digits.parse().map_err(|_| Fault::NoPrefix)?
            }
            Some(_) => return Err(Fault::NoPrefix),
        };
        if prefix > most {
            return Err(Fault::NoPrefix);
        }
        Self::canonical(address, prefix)
    }

    /// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
    fn canonical(address: IpAddr, prefix: u8) -> Result<Self, Fault> {
        let (first, prefix, least) = match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && prefix >= 96 => (IpAddr::V4(v4), prefix - 96, 8),
            IpAddr::V4(_) if address.is_ipv6() => return Err(Fault::TooWide),
            first @ IpAddr::V4(_) => (first, prefix, 8),
            first @ IpAddr::V6(_) => (first, prefix, 16),
        };
        if prefix < least {
            return Err(Fault::TooWide);
        }
        Ok(Self { first, prefix })
    }
}

impl AddressSet {
    /// The set of all addresses of the networks.
    pub fn of(networks: impl IntoIterator<Item = Network>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.first {
                IpAddr::V4(first) => {
                    let rest = u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
                    let first = u32::from(first) & !rest;
                    v4.push((first, first | rest));
                }
                IpAddr::V6(first) => {
                    let rest = u128::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
                    let first = u128::from(first) & !rest;
                    v6.push((first, first | rest));
                }
            }
        }
        Self {
            v4: borders(v4, |last| last.checked_add(1)),
            v6: borders(v6, |last| last.checked_add(1)),
        }
    }

    /// Whether the address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => is_within(&self.v6, u128::from(address)),
        }
    }

    /// How many separate ranges it has.
    pub fn ranges(&self) -> usize {
        self.v4.len().div_ceil(2) + self.v6.len().div_ceil(2)
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Bytes it takes.
    pub fn memory_usage(&self) -> usize {
        size_of_val(&*self.v4) + size_of_val(&*self.v6)
    }

    /// Every address of any of the sets.
    fn union<'a>(sets: impl Iterator<Item = &'a Self>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for set in sets {
            v4.extend(spans(&set.v4, u32::MAX, |next| next.wrapping_sub(1)));
            v6.extend(spans(&set.v6, u128::MAX, |next| next.wrapping_sub(1)));
        }
        Self {
            v4: borders(v4, |last| last.checked_add(1)),
            v6: borders(v6, |last| last.checked_add(1)),
        }
    }
}

fn is_within<T: Ord + Copy>(borders: &[T], address: T) -> bool {
    borders.partition_point(|border| *border <= address) % 2 == 1
}

/// Merges ranges (first and last address) into borders. A range to the very last address has no
/// closing border.
fn borders<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Box<[T]> {
    ranges.sort_unstable();
    let mut found = Vec::new();
    let mut open: Option<(T, T)> = None;
    for (first, last) in ranges {
        open = Some(match open {
            Some((start, end)) if after(end).is_none_or(|next| first <= next) => {
                (start, end.max(last))
            }
            Some((start, end)) => {
                found.push(start);
                found.extend(after(end));
                (first, last)
            }
            None => (first, last),
        });
    }
    if let Some((start, end)) = open {
        found.push(start);
        found.extend(after(end));
    }
    found.into_boxed_slice()
}

/// The ranges of which [`borders`] made these borders.
fn spans<T: Copy>(borders: &[T], most: T, before: impl Fn(T) -> T) -> Vec<(T, T)> {
    let pairs = borders.chunks(2);
    pairs
        .filter_map(|pair| match pair {
            [first, next] => Some((*first, before(*next))),
            [first] => Some((*first, most)),
            _ => None,
        })
        .collect()
}

impl Feed {
    /// Reads a feed: Spamhaus DROP (`CIDR ; comment`), a netset of FireHOL, or one address or CIDR a
    /// line. `#` and `;` begin a comment, words after the first are ignored.
    pub fn parse(text: &[u8], on_bad: OnBadLine, limits: FeedLimits) -> Result<Self, FeedError> {
        if text.len() > limits.bytes {
            return Err(FeedError::TooLarge {
                limit: limits.bytes,
            });
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut feed = Self::default();
        let mut networks = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            match network_of(line) {
                Ok(None) => {}
                Ok(Some(_)) if networks.len() == limits.networks => {
                    return Err(FeedError::TooMany {
                        limit: limits.networks,
                    });
                }
                Ok(Some(network)) => networks.push(network),
                Err(fault) => feed.leave_out(index + 1, fault, on_bad)?,
            }
        }
        feed.networks = networks.len();
        feed.addresses = AddressSet::of(networks);
        Ok(feed)
    }

    fn leave_out(&mut self, line: usize, fault: Fault, on_bad: OnBadLine) -> Result<(), FeedError> {
        let bad = BadLine { line, fault };
        if on_bad == OnBadLine::Refuse {
            return Err(FeedError::Bad(bad));
        }
        self.left_out += 1;
        if self.bad_lines.len() < REPORTED {
            self.bad_lines.push(bad);
        }
        Ok(())
    }
}

fn network_of(line: &[u8]) -> Result<Option<Network>, Fault> {
    let is_comment = |byte: &u8| matches!(byte, b'#' | b';');
    let content = line.split(is_comment).next().unwrap_or_default();
    let mut words = content
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let Some(word) = words.next() else {
        return Ok(None);
    };
    if word.len() > LONGEST_WORD {
        return Err(Fault::NoAddress);
    }
    let word = std::str::from_utf8(word).map_err(|_| Fault::NoAddress)?;
    Network::parse(word).map(Some)
}

/// What the lists say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing<'a> {
    /// An allow list has it, whatever block lists say.
    Allowed,
    /// The block list of this name has it.
    Blocked(&'a str),
    /// No list has it.
    Unlisted,
}

/// Allow lists and named block lists.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    allowed: AddressSet,
    /// All block lists together: most addresses are on none, and need one search.
    blocked: AddressSet,
    feeds: Vec<(Box<str>, AddressSet)>,
}

impl Lists {
    /// Lists of which each allow list wins over each block list.
    pub fn new<'a>(
        allow: impl IntoIterator<Item = &'a AddressSet>,
        block: Vec<(Box<str>, AddressSet)>,
    ) -> Self {
        Self {
            allowed: AddressSet::union(allow.into_iter()),
            blocked: AddressSet::union(block.iter().map(|(_, set)| set)),
            feeds: block,
        }
    }

    /// What they say of an address. Of several block lists, the first is named.
    pub fn judge(&self, address: IpAddr) -> Listing<'_> {
        if self.allowed.contains(address) {
            return Listing::Allowed;
        }
        if !self.blocked.contains(address) {
            return Listing::Unlisted;
        }
        let feed = self.feeds.iter().find(|(_, set)| set.contains(address));
        feed.map_or(Listing::Unlisted, |(name, _)| Listing::Blocked(name))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::NoAddress => "no address",
            Self::NoPrefix => "no length of a prefix after the /",
            Self::TooWide => "a network wider than /8 (IPv4) or /16 (IPv6)",
        })
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(to, "the feed has more than {limit} bytes"),
            Self::TooMany { limit } => write!(to, "the feed names more than {limit} networks"),
            Self::Bad(bad) => write!(to, "line {}: {}", bad.line, bad.fault),
        }
    }
}

impl std::error::Error for FeedError {}

impl fmt::Display for Network {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.first, self.prefix)
    }
}

impl From<Ipv4Addr> for Network {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            first: address.into(),
            prefix: 32,
        }
    }
}

impl From<Ipv6Addr> for Network {
    fn from(address: Ipv6Addr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            first @ IpAddr::V6(_) => Self { first, prefix: 128 },
        }
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
