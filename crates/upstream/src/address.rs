//! Which addresses are of the public internet, and which of them a rule lets pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::AddressRule;

impl AddressRule {
    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOnly => is_public(address),
            Self::Exactly(named) => {
                let address = address.to_canonical();
                named.iter().any(|it| it.to_canonical() == address)
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
