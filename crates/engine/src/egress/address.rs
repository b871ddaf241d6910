//! Which addresses a name may stand for.
//!
//! A name that a function may call could point anywhere, and at something else tomorrow (DNS
//! rebinding). So the address that is connected to is checked, each time, after it was looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is of the public Internet: neither this machine nor its surroundings, nor a
/// service of the cloud it stands in (RFC 6890 and its updates).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        // This network, private, loopback, link-local and metadata, multicast, reserved.
        (0 | 10 | 127 | 224..=255, ..)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            // Shared address space (RFC 6598), protocol assignments, documentation, 6to4 relays,
            // benchmarks (RFC 2544).
            | (100, 64..=127, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; within it: documentation, Teredo and other assignments, 6to4,
    // whose addresses hold an IPv4 one.
    let is_special = match a {
        0x2001 => b < 0x0200 || b == 0x0db8,
        0x2002 => true,
        0x3fff => b < 0x1000,
        _ => false,
    };
    (0x2000..=0x3fff).contains(&a) && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> Option<bool> {
        text.parse().ok().map(is_public)
    }

    #[test]
    fn addresses_of_this_machine_and_its_surroundings_are_not_public() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert_eq!(public(address), Some(false), "{address}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        for address in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111"] {
            assert_eq!(public(address), Some(true), "{address}");
        }
    }
}
