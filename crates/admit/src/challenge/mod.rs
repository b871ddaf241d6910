//! The challenge: a little work, or a little patience, before a pass.
//!
//! Owns the token that asks for work, whether an answer is right, the pass, and the page. Keeps
//! nothing but which tokens were answered, in a table of fixed size. Must not: say who is asked.
//!
//! A token carries when it was made, how hard it is, and a number of its own, sealed with
//! HMAC-SHA-256 together with what it is bound to: the site, the client's network, the kind of its
//! software, and a word for what the token is. An answer is a number which, hashed behind the token, begins with
//! as many zero bits as the token says. Who cannot run the script waits instead.

mod page;
mod spent;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use vedette_limit::source_part;

pub use page::{Page, content_security_policy, is_local, page};
use spent::Spent;

/// How long a token can be answered.
const TOKEN_LIFE: u32 = 600;
/// A clock of another worker or engine may be this far ahead.
const SKEW: u32 = 5;
/// The longest an answer's number is written.
const LONGEST_NUMBER: usize = 15;
/// Harder than any client can do within the life of a token.
const HARDEST: u8 = 30;
/// What every pass's cookie begins with; the number of its challenge follows, so that two pages
/// that are answered at once do not take each other's.
const COOKIE: &str = "vedette-pass-";
/// The hexadecimal digits of that number.
const NUMBER: usize = 16;
/// Passes looked at in one request: a client that was asked more often has its newest first or last.
const MOST_PASSES: usize = 16;

/// How hard and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Zero bits an answer needs: 16 is 65,536 hashes on average. At most 30.
    pub difficulty: u8,
    /// How long who cannot run the script waits.
    pub wait: Duration,
    /// How long a pass is good for.
    pub pass: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            difficulty: 16,
            wait: Duration::from_secs(10),
            pass: Duration::from_secs(3600),
        }
    }
}

/// What a token and a pass are good for, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The host, lower case.
    pub host: &'a str,
    /// The client's address, of which the network counts (an IPv4 address, an IPv6 /64); `None` to
    /// let a pass move with its client.
    pub source: Option<IpAddr>,
    /// The kind of its software.
    pub agent: Agent,
}

/// The kind of software a client says it is: what does not change with its every update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Chrome and what is made of it.
    Chromium,
    /// Firefox.
    Firefox,
    /// Safari.
    Safari,
    /// Anything else, or nothing.
    Other,
}

/// Why an answer or a pass is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// It is no token, or one that was made for another site, client or use, or by another node.
    Forged,
    /// Its time is over.
    Expired,
    /// The number is not what the token asks for.
    Wrong,
    /// The wait is not over yet.
    TooEarly,
    /// The token was answered already.
    Spent,
}

/// The answer to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A number, in decimal.
    Work(&'a str),
    /// The client has waited.
    Wait,
}

/// A pass: the cookie to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The cookie's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// How long it is good for.
    pub max_age: Duration,
}

/// Makes and judges tokens. Nodes with the same key accept each other's.
pub struct Challenges {
    key: hmac::Key,
    terms: Terms,
    spent: Spent,
}

/// What is sealed: 14 bytes, and the first 16 of the seal.
#[derive(Clone, Copy)]
struct Token {
    kind: Kind,
    /// When it was made, or for a pass when it ends, in Unix seconds.
    time: u32,
    difficulty: u8,
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Challenge = 1,
    Pass = 2,
}

const TOKEN_BYTES: usize = 14;
const SEAL_BYTES: usize = 16;

impl Challenges {
    /// With a key of 32 bytes that no client knows, and room to remember answered tokens.
    pub fn new(key: &[u8; 32], terms: Terms, spent_bytes: usize) -> Self {
        let difficulty = terms.difficulty.min(HARDEST);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            terms: Terms {
                difficulty,
                ..terms
            },
            spent: Spent::within(spent_bytes),
        }
    }

    /// What it asks for.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// A token for this client. `number` is random; `now` is the Unix time.
    pub fn issue(&self, binding: &Binding, number: u64, now: Duration) -> String {
        let token = Token {
            kind: Kind::Challenge,
            time: seconds(now),
            difficulty: self.terms.difficulty,
            number,
        };
        self.seal(token, binding)
    }

    /// Judges the answer to a token, once. The pass is bound like the token was.
    pub fn answer(
        &self,
        token: &str,
        answer: Answer,
        binding: &Binding,
        now: Duration,
    ) -> Result<Pass, No> {
        let open = self.open(token, Kind::Challenge, binding)?;
        let now = seconds(now);
        if open.time > now.saturating_add(SKEW)
            || now.saturating_sub(open.time) > TOKEN_LIFE.saturating_add(seconds(self.terms.wait))
        {
            return Err(No::Expired);
        }
        match answer {
            Answer::Work(number) if is_solved(token, number, open.difficulty) => {}
            Answer::Work(_) => return Err(No::Wrong),
            Answer::Wait if now.saturating_sub(open.time) >= seconds(self.terms.wait) => {}
            Answer::Wait => return Err(No::TooEarly),
        }
        if !self.spent.spend(open.number, open.time) {
            return Err(No::Spent);
        }
        let pass = Token {
            kind: Kind::Pass,
            time: now.saturating_add(seconds(self.terms.pass)),
            ..open
        };
        Ok(Pass {
            name: format!("{COOKIE}{:016x}", open.number),
            value: self.seal(pass, binding),
            max_age: self.terms.pass,
        })
    }

    /// Whether one of the cookies, as `name=value; …` has them, is a pass for this client.
    pub fn has_pass(&self, cookies: &[u8], binding: &Binding, now: Duration) -> bool {
        let passes = pairs(cookies).filter_map(pass_of);
        passes.take(MOST_PASSES).any(|value| {
            std::str::from_utf8(value).is_ok_and(|value| self.pass(value, binding, now).is_ok())
        })
    }

    /// Whether this is a pass for this client.
    pub fn pass(&self, value: &str, binding: &Binding, now: Duration) -> Result<(), No> {
        let pass = self.open(value, Kind::Pass, binding)?;
        if pass.time <= seconds(now) {
            return Err(No::Expired);
        }
        Ok(())
    }

    fn seal(&self, token: Token, binding: &Binding) -> String {
        let mut bytes = token.bytes().to_vec();
        let seal = hmac::sign(&self.key, &bound(&token.bytes(), binding));
        bytes.extend(seal.as_ref().iter().take(SEAL_BYTES));
        BASE64.encode(bytes)
    }

    fn open(&self, text: &str, kind: Kind, binding: &Binding) -> Result<Token, No> {
        let mut bytes = [0; TOKEN_BYTES + SEAL_BYTES];
        let length = BASE64.decode_slice(text, &mut bytes);
        if length != Ok(bytes.len()) {
            return Err(No::Forged);
        }
        let (content, seal) = bytes.split_first_chunk().ok_or(No::Forged)?;
        let wanted = hmac::sign(&self.key, &bound(content, binding));
        let wanted = wanted.as_ref().get(..SEAL_BYTES).unwrap_or_default();
        if aws_lc_rs::constant_time::verify_slices_are_equal(wanted, seal).is_err() {
            return Err(No::Forged);
        }
        Token::of(content)
            .filter(|token| token.kind == kind)
            .ok_or(No::Forged)
    }
}

impl Token {
    fn bytes(self) -> [u8; TOKEN_BYTES] {
        let mut bytes = [0; TOKEN_BYTES];
        let time = self.time.to_be_bytes();
        let number = self.number.to_be_bytes();
        let parts = [self.kind as u8]
            .into_iter()
            .chain(time)
            .chain([self.difficulty])
            .chain(number);
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        bytes
    }

    fn of(bytes: &[u8; TOKEN_BYTES]) -> Option<Self> {
        let [kind, a, b, c, d, difficulty, number @ ..] = *bytes;
        Some(Self {
            kind: match kind {
                1 => Kind::Challenge,
                2 => Kind::Pass,
                _ => return None,
            },
            time: u32::from_be_bytes([a, b, c, d]),
            difficulty,
            number: u64::from_be_bytes(number),
        })
    }
}

impl Agent {
    /// The kind by what the client says of itself.
    pub fn of(user_agent: &[u8]) -> Self {
        let says = |word: &[u8]| user_agent.windows(word.len()).any(|it| it == word);
        if says(b"Firefox/") {
            Self::Firefox
        } else if says(b"Chrome/") || says(b"Chromium/") {
            Self::Chromium
        } else if says(b"Safari/") {
            Self::Safari
        } else {
            Self::Other
        }
    }
}

/// Parts the cookies of a field into passes and others, which stay as they were written; `None` where there is no
/// pass among them.
pub fn part(cookies: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let is_pass = |pair: &&[u8]| pass_of(pair.trim_ascii()).is_some();
    let mut written = cookies.split(|byte| *byte == b';');
    written.clone().find(is_pass)?;
    let (passes, others): (Vec<_>, Vec<_>) = written.by_ref().partition(is_pass);
    let others = others.join(&b";"[..]);
    Some((passes.join(&b";"[..]), others.trim_ascii().to_vec()))
}

fn pairs(cookies: &[u8]) -> impl Iterator<Item = &[u8]> {
    cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a cookie that has the name of a pass.
fn pass_of(pair: &[u8]) -> Option<&[u8]> {
    let numbered = pair.strip_prefix(COOKIE.as_bytes())?;
    let (number, value) = numbered.split_at_checked(NUMBER)?;
    let is_number = number.iter().all(u8::is_ascii_hexdigit);
    value.strip_prefix(b"=").filter(|_| is_number)
}

/// Everything the seal covers. The host comes last: nothing else varies in length.
fn bound(content: &[u8; TOKEN_BYTES], binding: &Binding) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.push(match binding.agent {
        Agent::Other => 0,
        Agent::Chromium => 1,
        Agent::Firefox => 2,
        Agent::Safari => 3,
    });
    bytes.push(u8::from(binding.source.is_some()));
    let source = binding.source.map_or(0, source_part);
    bytes.extend(source.to_be_bytes());
    bytes.extend(binding.host.as_bytes());
    bytes
}

/// Whether the number hashed behind the token begins with that many zero bits.
fn is_solved(token: &str, number: &str, difficulty: u8) -> bool {
    let is_number = !number.is_empty()
        && number.len() <= LONGEST_NUMBER
        && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return false;
    }
    let hash = digest(&SHA256, [token, number].concat().as_bytes());
    let first = hash.as_ref().first_chunk().copied().unwrap_or([0xff; 4]);
    u32::from_be_bytes(first).leading_zeros() >= difficulty.into()
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

impl fmt::Debug for Challenges {
    /// Without the key.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Challenges({:?})", self.terms)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
