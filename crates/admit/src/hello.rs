//! What a TLS client looks like: its `ClientHello`, and the JA4 fingerprint made of it.
//!
//! Owns reading the first bytes of a connection (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2) and JA4 as
//! FoxIO specify it for TLS clients (BSD 3-Clause). Must not: make any other fingerprint of that
//! family (JA4S, JA4H and the others are under a licence that this source is not), or decide
//! whether the handshake is good: rustls does.
//!
//! Everything here comes from whoever connects. Nothing is indexed by a number of theirs.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// The longest message that is read. Real ones have two kilobytes with a post-quantum key.
pub const LONGEST: usize = 16 << 10;
/// RFC 8446 §5.1.
const LONGEST_RECORD: u16 = 1 << 14;
/// Records the message may be split over.
const MOST_RECORDS: usize = 16;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0x0000;
const SIGNATURE_ALGORITHMS: u16 = 0x000d;
const ALPN: u16 = 0x0010;
const SUPPORTED_VERSIONS: u16 = 0x002b;

/// The parts of a `ClientHello` that say which software sent it and where to, in the order sent, GREASE left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The highest version offered.
    pub version: u16,
    /// Cipher suites.
    pub ciphers: Vec<u16>,
    /// Types of extensions.
    pub extensions: Vec<u16>,
    /// Signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// The first protocol offered (ALPN); empty for none.
    pub protocol: Vec<u8>,
    /// The host it is for (SNI, RFC 6066 §3), as sent; empty for none. No part of the fingerprint.
    pub server_name: Vec<u8>,
}

/// A JA4 fingerprint: 36 characters such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; 36]);

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// The message is whole.
    Hello(ClientHello),
    /// It goes on.
    Incomplete,
}

/// Why the bytes are no `ClientHello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// They are no handshake record of TLS.
    NotTls,
    /// The first message is another.
    NotClientHello,
    /// It is longer than [`LONGEST`], or in more records than anybody needs.
    TooLong,
    /// A length in it does not fit what is there.
    Malformed,
}

/// Reads the first bytes of a connection.
pub fn read(bytes: &[u8]) -> Result<First, HelloError> {
    let mut input = Input(bytes);
    let mut message = Vec::new();
    for _ in 0..MOST_RECORDS {
        let Some(header) = input.header() else {
            // What cannot become one is not waited for.
            let is_so_far = [HANDSHAKE, 3]
                .iter()
                .zip(input.0)
                .all(|(one, it)| one == it);
            return is_so_far
                .then_some(First::Incomplete)
                .ok_or(HelloError::NotTls);
        };
        let [HANDSHAKE, 3, _, high, low] = header else {
            return Err(HelloError::NotTls);
        };
        let length = u16::from_be_bytes([high, low]);
        if length == 0 || length > LONGEST_RECORD {
            return Err(HelloError::Malformed);
        }
        let is_whole = input.0.len() >= usize::from(length);
        message.extend_from_slice(input.up_to(length.into()));
        if let Some(body) = body_of(&message)? {
            return parse(body).ok_or(HelloError::Malformed).map(First::Hello);
        }
        if !is_whole {
            return Ok(First::Incomplete);
        }
    }
    Err(HelloError::TooLong)
}

/// The body of the handshake message, once all of it is there.
fn body_of(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let mut input = Input(message);
    match input.byte() {
        None => return Ok(None),
        Some(CLIENT_HELLO) => {}
        Some(_) => return Err(HelloError::NotClientHello),
    }
    let Some(length) = input.three() else {
        return Ok(None);
    };
    if length > LONGEST {
        return Err(HelloError::TooLong);
    }
    Ok(input.take(length))
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut input = Input(body);
    let mut hello = ClientHello {
        version: input.short()?,
        ..ClientHello::default()
    };
    let _random = input.take(32)?;
    let _session = input.short_vector()?;
    hello.ciphers = input.vector()?.shorts()?;
    let _compression = input.short_vector()?;
    if input.0.is_empty() {
        // Before TLS 1.2 a hello may end here.
        return Some(hello);
    }
    let mut extensions = input.vector()?;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.short()?, extensions.vector()?);
        if !is_grease(kind) {
            hello.extensions.push(kind);
            hello.extension(kind, content)?;
        }
    }
    input.0.is_empty().then_some(hello)
}

impl ClientHello {
    fn extension(&mut self, kind: u16, mut content: Input) -> Option<()> {
        match kind {
            SERVER_NAME => self.server_name = host_name(content).unwrap_or_default(),
            SIGNATURE_ALGORITHMS => self.signature_algorithms = content.vector()?.shorts()?,
            ALPN => {
                let mut names = content.vector()?;
                // An empty list is against RFC 7301; JA4 counts it as none.
                if !names.0.is_empty() {
                    self.protocol = names.short_vector()?.0.to_vec();
                }
            }
            SUPPORTED_VERSIONS => {
                let offered = content.short_vector()?.shorts()?;
                self.version = offered.into_iter().max().unwrap_or(self.version);
            }
            _ => {}
        }
        Some(())
    }

    /// The fingerprint of this hello over TCP.
    pub fn ja4(&self) -> Ja4 {
        let has_name = self.extensions.contains(&SERVER_NAME);
        let [first, last] = protocol_characters(&self.protocol);
        let shape = format!(
            "t{}{}{:02}{:02}{first}{last}",
            version_characters(self.version),
            if has_name { 'd' } else { 'i' },
            self.ciphers.len().min(99),
            self.extensions.len().min(99),
        );
        let mut ciphers = self.ciphers.clone();
        ciphers.sort_unstable();
        let is_hashed = |kind: &u16| !matches!(*kind, SERVER_NAME | ALPN);
        let mut extensions: Vec<u16> = self.extensions.iter().copied().filter(is_hashed).collect();
        extensions.sort_unstable();
        let (ciphers, mut kinds) = (listed(&ciphers), listed(&extensions));
        if !kinds.is_empty() && !self.signature_algorithms.is_empty() {
            kinds.push('_');
            kinds.push_str(&listed(&self.signature_algorithms));
        }
        let text = format!("{shape}_{}_{}", short_hash(&ciphers), short_hash(&kinds));
        let mut ja4 = [b'0'; 36];
        for (place, byte) in ja4.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ja4(ja4)
    }
}

impl Ja4 {
    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Reads one from a list.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 36] = text.as_bytes().try_into().ok()?;
        let is_ja4 = bytes.iter().enumerate().all(|(place, byte)| match place {
            10 | 23 => *byte == b'_',
            0..10 => byte.is_ascii_alphanumeric(),
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        is_ja4.then_some(Self(bytes))
    }

    /// Whether the client offered a protocol (ALPN), as everything that is made for the web does.
    pub fn offers_protocol(&self) -> bool {
        self.as_str().get(8..10) != Some("00")
    }

    /// Whether it offered TLS 1.3, as every browser since 2018 does.
    pub fn offers_tls13(&self) -> bool {
        self.as_str().get(1..3) == Some("13")
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Ja4({})", self.as_str())
    }
}

/// The one host name of a list; a server, which answers, sends an empty one.
fn host_name(mut content: Input) -> Option<Vec<u8>> {
    if content.0.is_empty() {
        return Some(Vec::new());
    }
    let mut names = content.vector()?;
    let (kind, name) = (names.byte()?, names.vector()?);
    // RFC 6066: one name of each type, and there is no other type.
    let is_one = kind == 0 && names.0.is_empty() && !name.0.is_empty();
    is_one.then(|| name.0.to_vec())
}

/// RFC 8701: `0x0a0a`, `0x1a1a` and so on mean nothing.
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn version_characters(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the protocol, or of its hex form where either is no letter or digit.
fn protocol_characters(protocol: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)];
    }
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0x0f)]
}

fn listed(values: &[u16]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut list = String::with_capacity(values.len() * 5 + 1);
    for value in values {
        if !list.is_empty() {
            list.push(',');
        }
        for shift in [12, 8, 4, 0] {
            // Four bits: below sixteen.
            #[allow(clippy::indexing_slicing)]
            list.push(DIGITS[usize::from(value >> shift & 15)]);
        }
    }
    list
}

fn short_hash(text: &str) -> String {
    if text.is_empty() {
        return "000000000000".to_owned();
    }
    let hash = digest(&SHA256, text.as_bytes());
    let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:012x}", u64::from_be_bytes(first) >> 16)
}

/// What is left to read. Every method takes from the front, or gives `None` and has taken no more
/// than there was.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn up_to(&mut self, length: usize) -> &'a [u8] {
        self.take(length.min(self.0.len())).unwrap_or_default()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The head of a record: its type, version and length.
    fn header(&mut self) -> Option<[u8; 5]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn short(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    fn three(&mut self) -> Option<usize> {
        let (high, low) = (self.byte()?, self.short()?);
        Some(usize::from(high) << 16 | usize::from(low))
    }

    /// What follows a length of two bytes.
    fn vector(&mut self) -> Option<Input<'a>> {
        let length = self.short()?;
        self.take(length.into()).map(Input)
    }

    /// What follows a length of one byte.
    fn short_vector(&mut self) -> Option<Input<'a>> {
        let length = self.byte()?;
        self.take(length.into()).map(Input)
    }

    /// All of it as numbers of two bytes, less GREASE.
    fn shorts(self) -> Option<Vec<u16>> {
        let (pairs, rest) = self.0.as_chunks();
        let numbers = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
        rest.is_empty()
            .then(|| numbers.filter(|it| !is_grease(*it)).collect())
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
