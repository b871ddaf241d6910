//! Who is blocked, for how long, and what a flood of addresses does to it.

use super::*;

const MIB: usize = 1 << 20;

fn table() -> Offenders {
    Offenders::within(2 * MIB, Terms::default())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

fn attack(table: &Offenders, source: IpAddr, now: Duration) -> Option<Block> {
    let offend = || table.offend(source, Offence::WafBlock.points(), now);
    (0..20).find_map(|_| Some(offend()?.block))
}

#[test]
fn a_source_is_blocked_once_its_points_reach_the_threshold() {
    let (table, client) = (table(), v4(0xc000_0207));
    let offend = || table.offend(client, 12.0, at(0));
    for _ in 0..8 {
        assert_eq!(offend(), None);
        assert_eq!(table.block(client, at(0)), None);
    }
    let block = offend().unwrap().block;
    assert_eq!((block.until, block.strike), (at(60), 1));
    assert_eq!(table.block(client, at(59)), Some(block));
    assert_eq!(table.block(client, at(60)), None);
    assert_eq!(
        table.block(v4(0xc000_0208), at(0)),
        None,
        "a neighbour is not blocked"
    );
}

#[test]
fn a_score_halves_with_its_half_life_so_that_slow_mistakes_block_nobody() {
    let (table, client) = (table(), v4(1));
    for minute in 0..10_000 {
        assert_eq!(table.offend(client, 45.0, at(60 * minute)), None);
    }
    assert!(table.offend(client, 60.0, at(60 * 10_000)).is_some());
}

#[test]
fn each_block_in_a_row_is_twice_as_long_up_to_the_longest() {
    let (table, client) = (table(), v4(2));
    let mut now = at(0);
    let mut lengths = Vec::new();
    for _ in 0..14 {
        let block = attack(&table, client, now).unwrap();
        lengths.push(block.until.as_secs() - now.as_secs());
        now = block.until;
    }
    assert_eq!(lengths[..5], [60, 120, 240, 480, 960]);
    assert_eq!(lengths[11..], [86_400, 86_400, 86_400]);
}

#[test]
fn after_a_long_time_without_a_block_the_next_is_a_first_one() {
    let (table, client) = (table(), v4(3));
    assert_eq!(attack(&table, client, at(0)).unwrap().strike, 1);
    assert_eq!(attack(&table, client, at(3600)).unwrap().strike, 2);
    let later = attack(&table, client, at(3 * 24 * 3600)).unwrap();
    assert_eq!(later.strike, 1);
}

#[test]
fn what_a_blocked_source_does_does_not_lengthen_its_block() {
    let (table, client) = (table(), v4(4));
    let block = attack(&table, client, at(0)).unwrap();
    assert_eq!(attack(&table, client, at(30)), None);
    assert_eq!(table.block(client, at(30)), Some(block));
}

#[test]
fn all_addresses_of_an_ipv6_network_of_64_bits_are_one_source() {
    let table = table();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    attack(&table, address("2001:db8:1:2::1"), at(0));
    assert!(
        table
            .block(address("2001:db8:1:2:ffff::9"), at(0))
            .is_some()
    );
    assert!(table.block(address("2001:db8:1:3::1"), at(0)).is_none());
}

#[test]
fn a_network_of_48_bits_that_changes_its_network_of_64_is_blocked_at_four_times_the_points() {
    let table = table();
    let address = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
    let began = (0..=u16::MAX).find_map(|subnet| {
        let blocked = table.offend(address(subnet), 50.0, at(0))?;
        Some((subnet, blocked.source.to_string(), blocked.block.strike))
    });
    assert_eq!(began, Some((7, "2001:db8:1::/48".into(), 1)));
    assert!(table.block(address(0xffff), at(0)).is_some(), "never seen");
    assert!(table.block(address(0xffff), at(60)).is_none());
    let other = IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
    assert!(table.block(other, at(0)).is_none(), "another site");
    assert!(table.pardon(address(9)));
    assert!(table.block(address(9), at(0)).is_none());
}

#[test]
fn one_network_that_is_blocked_again_and_again_does_not_get_its_neighbours_blocked() {
    let terms = Terms {
        half_life: Duration::from_secs(24 * 3600),
        first_block: Duration::from_secs(1),
        ..Terms::default()
    };
    let table = Offenders::within(2 * MIB, terms);
    let address = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
    let mut now = at(0);
    for _ in 0..10 {
        now = attack(&table, address(1), now).unwrap().until;
        assert!(table.block(address(2), now).is_none());
    }
    for subnet in 3..6 {
        attack(&table, address(subnet), now).unwrap();
    }
    assert!(table.block(address(2), now).is_some(), "the fourth of them");
}

#[test]
fn the_block_that_goes_on_longer_counts() {
    let table = table();
    let address = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
    let mut now = at(0);
    for _ in 0..3 {
        now = attack(&table, address(0), now).unwrap().until;
    }
    let own = attack(&table, address(0), now).unwrap();
    let site = (1..9).find_map(|subnet| table.offend(address(subnet), 90.0, now));
    let site = site.unwrap().block;
    assert!(
        own.until > site.until,
        "its fourth, and the first of the /48"
    );
    assert_eq!(table.block(address(0), now), Some(own));
    assert_eq!(table.block(address(1), now), Some(site));
}

#[test]
fn an_address_mapped_into_ipv6_is_the_ipv4_source() {
    let table = table();
    attack(&table, "::ffff:192.0.2.1".parse().unwrap(), at(0));
    assert!(table.block("192.0.2.1".parse().unwrap(), at(0)).is_some());
}

#[test]
fn a_pardon_forgets_the_block_and_the_strikes() {
    let (table, client) = (table(), v4(5));
    attack(&table, client, at(0));
    assert!(table.pardon(client));
    assert!(!table.pardon(client));
    assert_eq!(table.block(client, at(0)), None);
    assert_eq!(attack(&table, client, at(1)).unwrap().strike, 1);
}

#[test]
fn blocked_sources_can_be_listed_with_their_addresses() {
    let table = table();
    let clients = ["192.0.2.1", "2001:db8:1:2::"].map(|it| it.parse::<IpAddr>().unwrap());
    for client in clients {
        attack(&table, client, at(0));
    }
    table.offend(v4(9), 1.0, at(0));
    let listed = table.blocked(at(0), 10).into_iter();
    let mut listed: Vec<_> = listed.map(|it| it.source.to_string()).collect();
    listed.sort();
    assert_eq!(listed, ["192.0.2.1", "2001:db8:1:2::/64"]);
    assert_eq!(table.blocked(at(0), 1).len(), 1);
    assert_eq!(table.blocked(at(61), 10), []);
    let stats = table.stats(at(0));
    assert_eq!((stats.sources, stats.blocked), (4, 2), "and the /48");
}

#[test]
fn ten_million_random_addresses_neither_grow_the_table_nor_free_a_heavy_offender() {
    let table = Offenders::within(MIB, Terms::default());
    let bytes = table.memory_usage();
    let (blocked, near): (Vec<_>, Vec<_>) = (0..500).map(|it| (v4(it + 1), v4(it + 1001))).unzip();
    for client in &blocked {
        attack(&table, *client, at(0)).unwrap();
    }
    for client in &near {
        table.offend(*client, 90.0, at(0));
    }
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..10_000_000 {
        let flood = Ipv6Addr::from(random.u128(..) | 1 << 127);
        assert_eq!(table.offend(flood.into(), 1.0, at(1)), None);
    }
    assert_eq!(table.memory_usage(), bytes);
    let stats = table.stats(at(1));
    assert_eq!(
        (stats.sources, stats.capacity),
        (stats.capacity, stats.capacity)
    );
    assert!(blocked.iter().all(|it| table.block(*it, at(1)).is_some()));
    // The heavy ones that were not blocked yet are still known: little more gets them blocked.
    let kept = near
        .iter()
        .filter(|it| table.offend(**it, 12.0, at(1)).is_some());
    assert_eq!(kept.count(), near.len());
}

#[test]
fn a_full_table_never_blames_a_source_for_what_others_did() {
    let table = Offenders::within(0, Terms::default());
    let mut random = fastrand::Rng::with_seed(5);
    let mut own = std::collections::HashMap::<u32, f64>::new();
    for _ in 0..200_000 {
        let (source, points) = (random.u32(1..2_000), f64::from(random.u32(1..9)));
        let sum = own.entry(source).or_default();
        *sum += points;
        if table.offend(v4(source), points, at(0)).is_some() {
            assert!(*sum >= 100.0, "{source} was blocked for {sum}");
        }
    }
    assert!(table.stats(at(0)).blocked > 0);
}

#[test]
fn an_offender_that_persists_is_blocked_though_the_table_is_full_of_lesser_ones() {
    let table = Offenders::within(0, Terms::default());
    for source in 1..5_000 {
        table.offend(v4(source), 50.0, at(0));
    }
    let client = v4(0xc000_0201);
    let needed = (1..1000).find(|_| table.offend(client, 12.0, at(0)).is_some());
    // It first wears one of the lesser down, then counts for itself.
    assert!(needed.unwrap() <= 14, "{needed:?}");
}

#[test]
fn a_newcomer_with_little_pushes_nobody_out_who_has_done_more() {
    let table = Offenders::within(0, Terms::default());
    for source in 1..5_000 {
        table.offend(v4(source), 50.0, at(0));
    }
    let before = table.stats(at(0));
    assert_eq!(before.sources, before.capacity);
    for source in 10_000..10_100 {
        table.offend(v4(source), 1.0, at(0));
    }
    let after = table.stats(at(0));
    assert_eq!(
        (after.dropped, after.unseen),
        (before.dropped, before.unseen + 100)
    );
}
