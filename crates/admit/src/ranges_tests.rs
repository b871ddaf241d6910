//! Feeds and sets of addresses.

use super::*;

fn read(text: &str) -> Feed {
    Feed::parse(text.as_bytes(), OnBadLine::LeaveOut, FeedLimits::default()).unwrap()
}

fn has(feed: &Feed, address: &str) -> bool {
    feed.addresses.contains(address.parse().unwrap())
}

#[test]
fn a_drop_list_of_spamhaus_is_read() {
    let feed = read(
        "; Spamhaus DROP List 2026/11/21\n; Expires: Sun, 22 Nov 2026 18:00:00 GMT\n\
         1.10.16.0/20 ; SBL256894\n2.56.192.0/22 ; SBL459831\n",
    );
    assert_eq!((feed.networks, feed.left_out), (2, 0));
    assert!(has(&feed, "1.10.16.0") && has(&feed, "1.10.31.255"));
    assert!(!has(&feed, "1.10.15.255") && !has(&feed, "1.10.32.0"));
}

#[test]
fn a_netset_with_single_addresses_and_windows_line_ends_is_read() {
    let feed = read("\u{feff}# firehol\r\n192.0.2.7\r\n\r\n2001:db8::/32 # net\r\n2001:db9::1\r\n");
    assert_eq!((feed.networks, feed.left_out), (3, 0));
    assert!(has(&feed, "192.0.2.7") && !has(&feed, "192.0.2.8"));
    assert!(has(&feed, "2001:db8:ffff::1") && has(&feed, "2001:db9::1"));
    assert!(!has(&feed, "2001:db9::2"));
}

#[test]
fn an_address_mapped_into_ipv6_is_the_ipv4_address_in_feeds_and_lookups() {
    let feed = read("::ffff:192.0.2.0/120\n198.51.100.1\n");
    assert!(has(&feed, "192.0.2.255") && has(&feed, "::ffff:192.0.2.255"));
    assert!(has(&feed, "::ffff:198.51.100.1"));
    assert!(!has(&feed, "192.0.3.0"));
}

#[test]
fn a_bad_line_is_left_out_with_its_number_and_the_rest_is_kept() {
    let feed = read("192.0.2.1\nhello\n192.0.2.0/33\n10.0.0.0/-1\n0.0.0.0/0\n192.0.2.3\n");
    assert_eq!((feed.networks, feed.left_out), (2, 4));
    let faults: Vec<_> = feed
        .bad_lines
        .iter()
        .map(|it| (it.line, it.fault))
        .collect();
    let wanted = [
        (2, Fault::NoAddress),
        (3, Fault::NoPrefix),
        (4, Fault::NoPrefix),
        (5, Fault::TooWide),
    ];
    assert_eq!(faults, wanted);
    assert!(has(&feed, "192.0.2.3") && !has(&feed, "8.8.8.8"));
}

#[test]
fn a_bad_line_refuses_the_whole_feed_when_asked_to() {
    let refused = Feed::parse(
        b"192.0.2.1\n\xff\xfe\n",
        OnBadLine::Refuse,
        FeedLimits::default(),
    );
    let error = refused.unwrap_err();
    assert_eq!(error.to_string(), "line 2: no address");
}

#[test]
fn only_the_first_bad_lines_are_reported_and_all_are_counted() {
    let feed = read(&"nonsense\n".repeat(1000));
    assert_eq!((feed.left_out, feed.bad_lines.len()), (1000, REPORTED));
}

#[test]
fn a_feed_beyond_its_limits_is_refused() {
    let limits = FeedLimits {
        bytes: 40,
        networks: 2,
    };
    let parse = |text: &[u8]| Feed::parse(text, OnBadLine::LeaveOut, limits).unwrap_err();
    assert_eq!(parse(&[b'#'; 41]), FeedError::TooLarge { limit: 40 });
    let three = b"192.0.2.1\n192.0.2.2\n192.0.2.3\n";
    assert_eq!(parse(three), FeedError::TooMany { limit: 2 });
}

#[test]
fn the_first_and_the_last_address_there_are_can_be_listed() {
    let feed = read("0.0.0.0/8\n255.0.0.0/8\nffff::/16\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n");
    assert!(has(&feed, "0.0.0.0") && has(&feed, "255.255.255.255"));
    assert!(!has(&feed, "1.0.0.0") && !has(&feed, "254.255.255.255"));
    assert!(has(&feed, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_eq!(feed.addresses.ranges(), 3);
}

#[test]
fn neighbours_and_nested_networks_become_one_range() {
    let feed = read("192.0.2.128/25\n192.0.2.0/25\n192.0.2.17\n192.0.3.0/24\n");
    assert_eq!(feed.addresses.ranges(), 1);
    assert_eq!(feed.addresses.memory_usage(), 8);
}

#[test]
fn a_set_says_of_every_address_what_its_networks_say_one_by_one() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let networks: Vec<Network> = (0..random.usize(0..30))
            .map(|_| {
                // All in 10.0.0.0/16, so that they touch and overlap.
                let address = Ipv4Addr::from(0x0a00_0000 | random.u32(0..0x1_0000));
                Network::parse(&format!("{address}/{}", random.u32(20..=32))).unwrap()
            })
            .collect();
        let set = AddressSet::of(networks.clone());
        let joined = Lists::new(
            [],
            networks
                .iter()
                .map(|it| ("one".into(), AddressSet::of([*it])))
                .collect(),
        );
        for _ in 0..500 {
            let address = 0x0a00_0000 | random.u32(0..0x1_0000);
            let is_in_one = networks.iter().any(|network| {
                let IpAddr::V4(first) = network.first else {
                    return false;
                };
                let rest = u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
                u32::from(first) | rest == address | rest
            });
            let address = IpAddr::V4(address.into());
            assert_eq!(set.contains(address), is_in_one, "{address} {networks:?}");
            let is_blocked = joined.judge(address) == Listing::Blocked("one");
            assert_eq!(is_blocked, is_in_one, "{address} {networks:?}");
        }
    }
}

#[test]
fn an_allow_list_wins_over_every_block_list() {
    let set = |text: &str| read(text).addresses;
    let (mine, office) = (set("192.0.2.7\n"), set("2001:db8:1::/48\n"));
    let block = vec![
        ("drop".into(), set("192.0.2.0/24\n")),
        ("own".into(), set("192.0.2.9\n2001:db8::/32\n")),
    ];
    let lists = Lists::new([&mine, &office], block);
    let judge = |address: &str| lists.judge(address.parse().unwrap());
    assert_eq!(judge("192.0.2.7"), Listing::Allowed);
    assert_eq!(judge("2001:db8:1::1"), Listing::Allowed);
    assert_eq!(judge("192.0.2.9"), Listing::Blocked("drop"));
    assert_eq!(judge("2001:db8:2::1"), Listing::Blocked("own"));
    assert_eq!(judge("198.51.100.1"), Listing::Unlisted);
}

#[test]
fn a_hundred_thousand_networks_take_little_memory() {
    let mut random = fastrand::Rng::with_seed(1);
    let networks = (0..100_000).map(|_| Network::from(Ipv4Addr::from(random.u32(..))));
    let set = AddressSet::of(networks);
    assert!(set.memory_usage() <= 800_000, "{}", set.memory_usage());
}
