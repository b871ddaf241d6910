//! Databases: whole, damaged, knotted.

use super::*;

/// Bytes of a small database: records of 24 bits, one map for each country.
struct Written {
    nodes: Vec<[u32; 2]>,
    data: Vec<u8>,
}

/// Stands for "nothing here" until the number of nodes is known.
const EMPTY: u32 = u32::MAX;
/// Added to an offset in the data for the same reason.
const DATA: u32 = 1 << 30;

fn text(word: &str) -> Vec<u8> {
    let length = u8::try_from(word.len()).unwrap();
    assert!(length < 29);
    [&[0x40 | length], word.as_bytes()].concat()
}

/// A number of 16 bits.
fn short(value: u8) -> Vec<u8> {
    vec![0xa2, 0, value]
}

/// A number of 32 bits.
fn long(value: u32) -> Vec<u8> {
    [&[0xc4], value.to_be_bytes().as_slice()].concat()
}

impl Written {
    fn new() -> Self {
        Self {
            nodes: vec![[EMPTY; 2]],
            data: Vec::new(),
        }
    }

    fn with(mut self, network: &str, entry: &[Vec<u8>]) -> Self {
        let (address, prefix) = network.split_once('/').unwrap();
        let prefix: u32 = prefix.parse().unwrap();
        let (bits, prefix) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 96 + prefix),
            IpAddr::V6(v6) => (u128::from(v6), prefix),
        };
        let offset = u32::try_from(self.data.len()).unwrap();
        self.data.extend(entry.concat());
        let mut node = 0;
        for depth in 0..prefix {
            let bit = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == prefix {
                self.nodes[node][bit] = DATA + offset;
            } else if self.nodes[node][bit] == EMPTY {
                self.nodes.push([EMPTY; 2]);
                self.nodes[node][bit] = u32::try_from(self.nodes.len() - 1).unwrap();
            }
            node = usize::try_from(self.nodes[node][bit]).unwrap();
        }
        self
    }

    fn flat(self, network: &str, code: &str) -> Self {
        self.with(network, &[vec![0xe1], text("country_code"), text(code)])
    }

    fn nested(self, network: &str, code: &str) -> Self {
        let entry = [
            vec![0xe1],
            text("country"),
            vec![0xe1],
            text("iso_code"),
            text(code),
        ];
        self.with(network, &entry)
    }

    fn bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).unwrap();
        let mut file = Vec::new();
        for record in self.nodes.iter().flatten() {
            let record = match *record {
                EMPTY => count,
                data if data >= DATA => count + 16 + (data - DATA),
                node => node,
            };
            file.extend(&record.to_be_bytes()[1..]);
        }
        file.extend([0; 16]);
        file.extend(&self.data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        let metadata = [
            vec![0xe9],
            text("binary_format_major_version"),
            short(2),
            text("binary_format_minor_version"),
            short(0),
            text("build_epoch"),
            // An extended type: 9 - 7, 64 bits, of which four bytes are written.
            [&[0x04, 0x02], 1_750_000_000u32.to_be_bytes().as_slice()].concat(),
            text("database_type"),
            text("Test"),
            text("description"),
            vec![0xe0],
            text("ip_version"),
            short(6),
            text("languages"),
            vec![0x00, 0x04],
            text("node_count"),
            long(count),
            text("record_size"),
            short(24),
        ];
        file.extend(metadata.concat());
        file
    }
}

fn small() -> Written {
    Written::new()
        .flat("192.0.2.0/24", "CH")
        .flat("198.51.100.0/25", "NZ")
        .flat("198.51.100.128/25", "nz")
        .nested("203.0.113.0/24", "FR")
        .flat("255.255.255.0/24", "ZZ")
        .flat("2001:db8::/32", "DE")
        .flat("2400::/12", "JP")
        .flat("2600:1:2:3:8000::/65", "US")
}

fn of(countries: &Countries, address: &str) -> Option<String> {
    let country = countries.of(address.parse().unwrap());
    country.map(|it| it.to_string())
}

#[test]
fn addresses_of_both_kinds_have_the_country_of_their_network() {
    let countries = Countries::parse(&small().bytes()).unwrap();
    let wanted = [
        ("192.0.2.0", Some("CH")),
        ("192.0.2.255", Some("CH")),
        ("::ffff:192.0.2.1", Some("CH")),
        ("192.0.1.255", None),
        ("192.0.3.0", None),
        ("198.51.100.127", Some("NZ")),
        ("198.51.100.128", Some("NZ")),
        ("203.0.113.9", Some("FR")),
        ("255.255.255.255", Some("ZZ")),
        ("0.0.0.0", None),
        ("2001:db8:ffff::1", Some("DE")),
        ("2001:db9::", None),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", None),
        ("2400::1", Some("JP")),
        ("240f:ffff::1", Some("JP")),
        ("2410::", None),
        ("ffff::1", None),
    ];
    for (address, country) in wanted {
        assert_eq!(of(&countries, address).as_deref(), country, "{address}");
    }
    assert_eq!(
        (countries.networks(), countries.built()),
        (8, 1_750_000_000)
    );
}

#[test]
fn a_network_within_a_subscriber_s_is_left_out() {
    let countries = Countries::parse(&small().bytes()).unwrap();
    assert_eq!(of(&countries, "2600:1:2:3:8000::1"), None);
}

#[test]
fn neighbours_of_one_country_take_one_place() {
    let apart = Countries::parse(&small().bytes()).unwrap();
    let more = small().flat("198.51.101.0/24", "NZ");
    let together = Countries::parse(&more.bytes()).unwrap();
    assert_eq!(apart.memory_usage(), together.memory_usage());
}

#[test]
fn a_database_that_is_cut_anywhere_is_refused() {
    let file = small().bytes();
    for length in 0..file.len() {
        assert!(Countries::parse(&file[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_database_with_any_byte_changed_is_read_or_refused_without_a_panic() {
    let file = small().bytes();
    let mut refused = 0;
    for at in 0..file.len() {
        for byte in [0, 1, 0x20, 0x7f, 0xe1, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = byte;
            match Countries::parse(&damaged) {
                Ok(countries) => drop(of(&countries, "192.0.2.1")),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().starts_with("the database"));
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_tree_whose_nodes_share_children_is_refused_before_it_takes_long() {
    let mut knot = small();
    let last = u32::try_from(knot.nodes.len()).unwrap();
    // Forty nodes, each with the next one twice: 2^40 leaves.
    for depth in 0..40 {
        knot.nodes.push([last + depth + 1; 2]);
    }
    knot.nodes.push([EMPTY; 2]);
    let free = knot.nodes[0].iter().position(|it| *it == EMPTY).unwrap();
    knot.nodes[0][free] = last;
    let refused = Countries::parse(&knot.bytes());
    assert!(matches!(refused, Err(CountryError::Knot)), "{refused:?}");
}

#[test]
fn a_database_of_something_else_is_refused() {
    let cities = Written::new().with("192.0.2.0/24", &[vec![0xe1], text("city"), text("Bern")]);
    let refused = Countries::parse(&cities.bytes());
    assert!(matches!(refused, Err(CountryError::NoCountries)));
    let odd = Written::new().flat("192.0.2.0/24", "C1");
    assert!(Countries::parse(&odd.bytes()).is_err());
}

#[test]
fn a_country_is_two_letters_in_capitals() {
    assert_eq!(Country::parse("ch").unwrap().as_str(), "CH");
    for wrong in ["", "C", "CHE", "C1", "é"] {
        assert_eq!(Country::parse(wrong), None);
    }
}
