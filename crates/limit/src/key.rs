//! Keys as 64-bit tags, made with a secret that no client knows.
//!
//! A tag stands for its key: two keys share a count with chance 2^-64, and without the secret
//! nobody can look for such a pair or aim at one shard.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;

/// How many times as much as a source an IPv6 /48 may have: enough for a site of several networks, and far from what
/// its 65,536 would have.
pub const OF_A_SITE: u32 = 4;

/// What a request is counted by.
#[derive(Clone, Copy, Debug)]
pub struct RequestKeys<'a> {
    /// The principal; `None` for anonymous callers, who are one.
    pub principal: Option<&'a str>,
    /// The name of the route.
    pub route: &'a str,
    /// The address of the client.
    pub source: IpAddr,
}

/// A key; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u64);

/// A secret of this process: `RandomState` is keyed by the system's random numbers.
pub fn random_key() -> [u8; 16] {
    let random = RandomState::new();
    let both = u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1));
    both.to_le_bytes()
}

/// The secret.
#[derive(Clone, Copy)]
pub(crate) struct Seed(pub(crate) [u8; 16]);

impl Seed {
    pub(crate) fn of(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(bytes)
    }

    /// The tag of a key made of parts; a part that does not count is `None`.
    pub(crate) fn tag(&self, parts: [Option<u64>; 3]) -> Tag {
        let mut bytes = [0; 27];
        for (place, part) in bytes.chunks_exact_mut(9).zip(parts) {
            if let (Some((mark, rest)), Some(part)) = (place.split_first_mut(), part) {
                *mark = 1;
                rest.copy_from_slice(&part.to_le_bytes());
            }
        }
        Tag(self.of(&bytes).max(1))
    }
}

/// An IPv4 address, also one mapped into IPv6 (RFC 4291 §2.5.5.2), or the /64 of an IPv6 address:
/// what one subscriber has at least (RFC 6177).
pub fn source_part(source: IpAddr) -> u64 {
    match source.to_canonical() {
        // `::/32` is not given to anyone, so this is no /64 of a client.
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => prefix(address),
    }
}

/// The /48 of an IPv6 address, which is what a site has (RFC 6177): 65,536 of the sources above. It is no
/// [`source_part`] of a client.
pub fn site_part(source: IpAddr) -> Option<u64> {
    let IpAddr::V6(address) = source.to_canonical() else {
        return None;
    };
    // `::/16` is not given to anyone (RFC 4291 §2.4), so these are above all of IPv4 and below every /64 of a client.
    Some(prefix(address) >> 16).filter(|site| site >> 32 != 0)
}

fn prefix(address: Ipv6Addr) -> u64 {
    u64::try_from(u128::from(address) >> 64).unwrap_or_default()
}
