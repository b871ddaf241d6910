//! JA4's published examples, and hellos as nobody should send them.

use super::*;

const CIPHERS: &str = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035";
const EXTENSIONS: &str =
    "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015";
const ALGORITHMS: &str = "0403,0804,0401,0503,0805,0501,0806,0601";

fn numbers(list: &str) -> Vec<u16> {
    let words = list.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| u16::from_str_radix(word, 16).unwrap())
        .collect()
}

fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&length, content].concat()
}

fn short_vector(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

fn bytes_of(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_be_bytes()).collect()
}

/// A hello to be written: lists as JA4 writes them.
struct Sent<'a> {
    version: u16,
    versions: &'a [u16],
    ciphers: &'a str,
    extensions: &'a str,
    algorithms: &'a str,
    protocols: &'a [&'a [u8]],
}

const CHROME: Sent = Sent {
    version: 0x0303,
    versions: &[0x3a3a, 0x0304, 0x0303],
    ciphers: CIPHERS,
    extensions: EXTENSIONS,
    algorithms: ALGORITHMS,
    protocols: &[b"h2", b"http/1.1"],
};

impl Sent<'_> {
    fn content(&self, kind: u16) -> Vec<u8> {
        let name = b"\0\x0c\0\0\x09localhost";
        match kind {
            SERVER_NAME => name.to_vec(),
            SIGNATURE_ALGORITHMS => vector(&bytes_of(&numbers(self.algorithms))),
            ALPN => {
                let names: Vec<u8> = self
                    .protocols
                    .iter()
                    .flat_map(|it| short_vector(it))
                    .collect();
                vector(&names)
            }
            SUPPORTED_VERSIONS => short_vector(&bytes_of(self.versions)),
            _ => b"?".to_vec(),
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend(short_vector(&[9; 32]));
        body.extend(vector(&bytes_of(&numbers(self.ciphers))));
        body.extend(short_vector(&[0]));
        let extensions = numbers(self.extensions).into_iter();
        let extensions: Vec<u8> = extensions
            .flat_map(|kind| [kind.to_be_bytes().to_vec(), vector(&self.content(kind))].concat())
            .collect();
        body.extend(vector(&extensions));
        body
    }

    fn message(&self) -> Vec<u8> {
        let body = self.body();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn wire(&self) -> Vec<u8> {
        record(&self.message())
    }

    fn ja4(&self) -> String {
        match read(&self.wire()) {
            Ok(First::Hello(hello)) => hello.ja4().to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1], vector(content).as_slice()].concat()
}

#[test]
fn the_example_of_the_specification_has_its_fingerprint() {
    assert_eq!(CHROME.ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

#[test]
fn a_hello_without_signature_algorithms_hashes_its_extensions_alone() {
    // JA4.md, "Extension hash": without 000d in the list, the published hash is of these fourteen.
    let hello = ClientHello {
        extensions: numbers(
            "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01",
        ),
        ..ClientHello::default()
    };
    assert!(hello.ja4().as_str().ends_with("_6d807ffa2a79"));
}

#[test]
fn lists_that_are_empty_are_zeros() {
    let hello = ClientHello::default();
    assert_eq!(hello.ja4().as_str(), "t00i000000_000000000000_000000000000");
}

#[test]
fn grease_is_left_out_wherever_it_is() {
    let greased = Sent {
        ciphers: &format!("0a0a,{CIPHERS},fafa"),
        extensions: &format!("4a4a,{EXTENSIONS},dada"),
        algorithms: &format!("8a8a,{ALGORITHMS}"),
        ..CHROME
    };
    assert_eq!(greased.ja4(), CHROME.ja4());
    // Alike, and yet no GREASE.
    let other = Sent {
        ciphers: &format!("0a1a,{CIPHERS}"),
        ..CHROME
    };
    assert!(other.ja4().starts_with("t13d1616h2_"));
}

#[test]
fn order_of_ciphers_and_extensions_does_not_matter_and_that_of_algorithms_does() {
    let reversed = |list: &str| {
        let words: Vec<&str> = list.split(',').rev().collect();
        words.join(",")
    };
    let shuffled = Sent {
        ciphers: &reversed(CIPHERS),
        extensions: &reversed(EXTENSIONS),
        ..CHROME
    };
    assert_eq!(shuffled.ja4(), CHROME.ja4());
    let other = Sent {
        algorithms: &reversed(ALGORITHMS),
        ..CHROME
    };
    assert_ne!(other.ja4(), CHROME.ja4());
}

#[test]
fn name_and_protocol_are_told_in_the_first_part_only() {
    let bare = Sent {
        extensions: &EXTENSIONS.replace("0000,", "").replace("0010,", ""),
        ..CHROME
    };
    assert_eq!(bare.ja4(), "t13i151400_8daaf6152771_e5627efa2ab1");
}

#[test]
fn the_protocol_is_told_as_the_specification_lists_it() {
    let characters = |protocol: &[u8]| String::from_iter(protocol_characters(protocol));
    let listed: [(&[u8], &str); 12] = [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"", "00"),
        (b"x", "xx"),
        (&[0xab], "ab"),
        (&[0x20], "20"),
        (&[0xab, 0xcd], "ad"),
        (&[0x20, 0x61], "21"),
        (&[0x30, 0xab], "3b"),
        (&[0x61, 0x20], "60"),
        (&[0x30, 0x31, 0xab, 0xcd], "3d"),
        (&[0x30, 0xab, 0xcd, 0x31], "01"),
    ];
    for (protocol, wanted) in listed {
        assert_eq!(characters(protocol), wanted, "{protocol:02x?}");
    }
}

#[test]
fn the_version_is_the_highest_offered_else_that_of_the_hello() {
    let start = |sent: &Sent| sent.ja4().get(..3).unwrap().to_owned();
    let versions = [
        (0x0304, "t13"),
        (0x0303, "t12"),
        (0x0302, "t11"),
        (0x0301, "t10"),
        (0x0300, "ts3"),
        (0x0305, "t00"),
    ];
    for (version, wanted) in versions {
        let offered = Sent {
            versions: &[0x0a0a, 0x0001, version],
            ..CHROME
        };
        assert_eq!(start(&offered), wanted);
        let old = Sent {
            version,
            extensions: &EXTENSIONS.replace("002b,", ""),
            ..CHROME
        };
        assert_eq!(start(&old), wanted);
    }
}

#[test]
fn more_than_ninety_nine_are_ninety_nine() {
    let many: Vec<String> = (0..150).map(|it| format!("{it:04x}")).collect();
    let sent = Sent {
        ciphers: &many.join(","),
        ..CHROME
    };
    assert!(sent.ja4().starts_with("t13d9916h2_"));
}

#[test]
fn a_hello_is_incomplete_until_its_last_byte_and_read_whatever_follows() {
    let wire = CHROME.wire();
    for length in 0..wire.len() {
        assert_eq!(read(&wire[..length]), Ok(First::Incomplete), "{length}");
    }
    let more = [wire.as_slice(), b"anything"].concat();
    assert_eq!(read(&more), read(&wire));
}

#[test]
fn a_hello_split_over_records_is_one() {
    let message = CHROME.message();
    let wire: Vec<u8> = message.chunks(100).flat_map(record).collect();
    assert_eq!(read(&wire), read(&CHROME.wire()));
    assert_eq!(read(&wire[..wire.len() - 1]), Ok(First::Incomplete));
}

#[test]
fn what_is_no_hello_says_so_at_once() {
    let wire = CHROME.wire();
    let changed = |at: usize, byte: u8| {
        let mut bytes = wire.clone();
        bytes[at] = byte;
        read(&bytes).unwrap_err()
    };
    assert_eq!(read(b"GET / HTTP/1.1").unwrap_err(), HelloError::NotTls);
    assert_eq!(read(b"G").unwrap_err(), HelloError::NotTls);
    assert_eq!(changed(1, 2), HelloError::NotTls);
    assert_eq!(changed(5, 2), HelloError::NotClientHello);
    assert_eq!(changed(6, 1), HelloError::TooLong);
    // The session's length reaches over the end.
    assert_eq!(changed(9 + 34, 255), HelloError::Malformed);
    assert_eq!(read(&[22, 3, 1, 0, 0]).unwrap_err(), HelloError::Malformed);
}

#[test]
fn a_hello_in_many_tiny_records_is_refused() {
    let message = CHROME.message();
    let wire: Vec<u8> = message.chunks(2).flat_map(record).collect();
    assert_eq!(read(&wire).unwrap_err(), HelloError::TooLong);
}

#[test]
fn an_odd_number_of_bytes_in_a_list_of_pairs_is_malformed() {
    let mut body = CHROME.body();
    let ciphers_at = 2 + 32 + 33;
    assert_eq!(body[ciphers_at + 1], 30);
    body[ciphers_at + 1] = 29;
    assert_eq!(parse(&body), None);
}

#[test]
fn a_hello_with_every_byte_changed_never_panics_and_keeps_to_its_lengths() {
    let wire = CHROME.wire();
    for at in 0..wire.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bytes = wire.clone();
            bytes[at] = byte;
            if let Ok(First::Hello(hello)) = read(&bytes) {
                assert_eq!(hello.ja4().as_str().len(), 36);
            }
        }
    }
}

#[test]
fn a_fingerprint_is_read_back_from_its_text() {
    let ja4 = Ja4::parse("t13d1516h2_8daaf6152771_e5627efa2ab1").unwrap();
    assert_eq!(ja4.to_string(), CHROME.ja4());
    assert!(ja4.offers_protocol() && ja4.offers_tls13());
    let old = Ja4::parse("t12i151400_8daaf6152771_e5627efa2ab1").unwrap();
    assert!(!old.offers_protocol() && !old.offers_tls13());
    for wrong in ["", "t13d1516h2", "t13d1516h2_8daaf6152771_e5627efa2abX"] {
        assert_eq!(Ja4::parse(wrong), None);
    }
}
