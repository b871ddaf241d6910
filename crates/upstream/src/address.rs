//! Which addresses are of the public internet, which of a network, and which a rule lets pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::AddressRule;

impl AddressRule {
    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOr(networks) => {
                is_public(address) || networks.iter().any(|it| it.holds(address))
            }
            Self::Exactly(named) => {
                let address = address.to_canonical();
                named.iter().any(|it| it.to_canonical() == address)
            }
        }
    }
}

/// A range of addresses (CIDR, RFC 4632 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

/// The shortest prefixes taken: the largest private ranges are 10.0.0.0/8 and `fc00::/7`, and what is
/// wider is no list of places any more.
const SHORTEST_V4: u32 = 8;
const SHORTEST_V6: u32 = 7;

impl Network {
    /// A range such as `10.0.0.0/8` or `fd00::/8`: its first address, and how many bits all share.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (first, prefix) = text.split_once('/').ok_or("no prefix length")?;
        let first: IpAddr = first.parse().map_err(|_| "no address before the slash")?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|it| it.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| is_number);
        let prefix: u32 = prefix.ok_or("no prefix length")?;
        let (bits, shortest) = match first {
            IpAddr::V4(_) => (32, SHORTEST_V4),
            IpAddr::V6(_) => (128, SHORTEST_V6),
        };
        if !(shortest..=bits).contains(&prefix) {
            return Err("a prefix length that is not taken");
        }
        if first.to_canonical() != first {
            return Err("an IPv4 range is written as one");
        }
        let network = Self { first, prefix };
        if network.of(first) != first {
            return Err("its address is not the first of the range");
        }
        Ok(network)
    }

    /// Whether the address is in the range. An IPv4 address within an IPv6 one counts as what it is.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.of(address.to_canonical()) == self.first
    }

    /// The address with what follows the prefix set to zero.
    fn of(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix));
                Ipv4Addr::from_bits(it.to_bits() & mask.unwrap_or(0)).into()
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix));
                Ipv6Addr::from_bits(it.to_bits() & mask.unwrap_or(0)).into()
            }
        }
    }
}

/// Whether an address is of the public internet (the registries of RFC 6890, as of 2026). An IPv4
/// address within an IPv6 one is judged as what it leads to.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let inner = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        // IPv4-mapped, and NAT64 (RFC 6052).
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => inner(g, h),
        // 6to4 (RFC 3056).
        (0x2002, ..) => inner(b, c),
        // IETF protocol assignments with Teredo, and documentation.
        (0x2001, 0..=0x1ff | 0xdb8, ..) | (0x3fff, 0..=0xfff, ..) => false,
        // Of the rest only global unicast: no ULA, link-local, site-local, multicast, loopback.
        (0x2000..=0x3fff, ..) => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
