use super::{Network, is_public};
use crate::config::AddressRule;

#[test]
fn addresses_that_are_not_of_the_internet_are_known() {
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.7",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.7",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:7",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:7::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
    for address in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_named_address_is_allowed_in_each_of_its_forms() {
    let rule = AddressRule::Exactly(vec!["10.0.0.7".parse().unwrap()]);
    assert!(rule.allows("10.0.0.7".parse().unwrap()));
    assert!(rule.allows("::ffff:10.0.0.7".parse().unwrap()));
    assert!(!rule.allows("10.0.0.8".parse().unwrap()));
    assert!(!rule.allows("8.8.8.8".parse().unwrap()));
}

#[test]
fn a_range_holds_its_addresses_and_no_others() {
    for (range, inside, outside) in [
        (
            "10.0.0.0/8",
            ["10.0.0.0", "10.255.255.255"],
            ["9.255.255.255", "11.0.0.0"],
        ),
        (
            "10.1.0.0/16",
            ["10.1.0.1", "::ffff:10.1.2.3"],
            ["10.0.255.255", "10.2.0.0"],
        ),
        (
            "192.168.7.9/32",
            ["192.168.7.9", "::ffff:192.168.7.9"],
            ["192.168.7.8", "192.168.7.10"],
        ),
        (
            "fd00::/8",
            ["fd00::1", "fdff:ffff::1"],
            ["fc00::1", "fe80::1"],
        ),
        (
            "2001:db8::7/128",
            ["2001:db8::7", "2001:db8:0::7"],
            ["2001:db8::8", "10.0.0.7"],
        ),
        (
            "169.254.0.0/16",
            ["169.254.169.254", "169.254.0.1"],
            ["::", "fe80::1"],
        ),
    ] {
        let network = Network::parse(range).unwrap();
        for address in inside {
            assert!(network.holds(address.parse().unwrap()), "{range} {address}");
        }
        for address in outside {
            assert!(
                !network.holds(address.parse().unwrap()),
                "{range} {address}"
            );
        }
    }
}

#[test]
fn what_is_no_range_is_said() {
    for bad in [
        "",
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/x",
        "10.0.0.0/+8",
        "10.0.0.0/33",
        "10.0.0.0/99999999999",
        "0.0.0.0/0",
        "8.0.0.0/7",
        "10.0.0.7/8",
        "10.0.0/8",
        "/8",
        "fc00::/6",
        "fd00::1/8",
        "::ffff:10.0.0.0/104",
    ] {
        assert!(Network::parse(bad).is_err(), "{bad}");
    }
    assert!(Network::parse("fc00::/7").is_ok());
}

#[test]
fn a_name_leads_to_public_addresses_and_to_listed_ranges() {
    let rule = AddressRule::PublicOr(vec![Network::parse("10.1.0.0/16").unwrap()]);
    for (address, is_allowed) in [
        ("8.8.8.8", true),
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.0.1", false),
        ("127.0.0.1", false),
        ("169.254.169.254", false),
    ] {
        assert_eq!(
            rule.allows(address.parse().unwrap()),
            is_allowed,
            "{address}"
        );
    }
}
