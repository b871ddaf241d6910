//! Who calls itself a crawler, and what looks like a program.
//!
//! Owns the list of crawlers with their addresses, the list of known TLS clients, and the score made
//! of what a request shows. Every point has a reason. Must not: decide what becomes of a score.
//!
//! Nothing here proves that a person is there: it tells honest software that says what it is, and
//! programs that take no trouble, from the rest.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::hello::Ja4;
use crate::ranges::AddressSet;

/// A crawler that is known by the addresses it comes from.
#[derive(Clone, Debug)]
pub struct Crawler {
    /// Its name in records.
    pub name: Box<str>,
    /// The word in its user agent, in any case: `Googlebot`.
    pub token: Box<str>,
    /// Where it comes from, as its operator publishes.
    pub addresses: AddressSet,
}

/// What a client that calls itself a crawler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawling<'a> {
    /// This one, from its own addresses.
    Verified(&'a str),
    /// It says so, from elsewhere.
    Pretended(&'a str),
    /// It says nothing of the kind.
    No,
}

/// The crawlers that are known.
#[derive(Clone, Debug, Default)]
pub struct Crawlers(Vec<Crawler>);

/// What is known of a TLS client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A browser.
    Browser,
    /// A program or a library: curl, Python, Go.
    Tool,
    /// Software that attacks.
    Bad,
}

/// TLS clients by fingerprint.
#[derive(Clone, Debug, Default)]
pub struct KnownClients(HashMap<Ja4, Client>);

/// A line of the list of clients that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// Its number, from 1.
    pub line: usize,
}

/// Most clients in a list.
const MOST_CLIENTS: usize = 100_000;

/// What a request shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The field `user-agent`.
    pub user_agent: Option<&'a [u8]>,
    /// Whether there is a field `accept`.
    pub has_accept: bool,
    /// Whether there is a field `accept-language`.
    pub has_accept_language: bool,
    /// Whether there is a field `accept-encoding`.
    pub has_accept_encoding: bool,
    /// The fingerprint of its TLS client; none over plain HTTP.
    pub ja4: Option<&'a Ja4>,
    /// What it is as a crawler.
    pub crawling: Crawling<'a>,
}

/// Why a request looks like a program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its TLS client is one that attacks.
    BadClient,
    /// It calls itself a crawler and comes from elsewhere.
    PretendedCrawler,
    /// It calls itself a browser, and its TLS client is a tool's.
    BrowserWithToolsTls,
    /// It calls itself a browser, and its TLS client offers less than any browser does.
    BrowserWithPoorTls,
    /// It says nothing of itself.
    NoUserAgent,
    /// It says that it is a tool.
    ToolByName,
    /// It calls itself a browser, and names no language.
    BrowserWithoutLanguage,
    /// It calls itself a browser, and takes no compressed answer.
    BrowserWithoutEncoding,
    /// It does not say what it accepts.
    NoAccept,
}

/// Points from 0 (nothing to say) to 100, with the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// The points.
    pub points: u8,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Crawlers {
    /// Those of the list.
    pub fn new(list: Vec<Crawler>) -> Self {
        Self(list)
    }

    /// What a client is that says this of itself and comes from this address.
    pub fn judge(&self, user_agent: &[u8], address: IpAddr) -> Crawling<'_> {
        let named = |it: &&Crawler| says(user_agent, it.token.as_bytes());
        let mut found = Crawling::No;
        for crawler in self.0.iter().filter(named) {
            if crawler.addresses.contains(address) {
                return Crawling::Verified(&crawler.name);
            }
            found = Crawling::Pretended(&crawler.name);
        }
        found
    }
}

impl KnownClients {
    /// Reads a list: a fingerprint, a word (`browser`, `tool`, `bad`) and a name a line; `#` begins a
    /// comment.
    pub fn parse(text: &str) -> Result<Self, BadEntry> {
        let mut known = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            let mut words = content.split_whitespace();
            let Some(first) = words.next() else {
                continue;
            };
            let bad = BadEntry { line: index + 1 };
            let ja4 = Ja4::parse(first).ok_or(bad)?;
            let client = match words.next() {
                Some("browser") => Client::Browser,
                Some("tool") => Client::Tool,
                Some("bad") => Client::Bad,
                _ => return Err(bad),
            };
            known.insert(ja4, client);
            if known.len() > MOST_CLIENTS {
                return Err(bad);
            }
        }
        Ok(Self(known))
    }

    /// Those of the list.
    pub fn of(list: impl IntoIterator<Item = (Ja4, Client)>) -> Self {
        Self(list.into_iter().collect())
    }

    /// What is known of a client.
    pub fn get(&self, ja4: &Ja4) -> Option<Client> {
        self.0.get(ja4).copied()
    }
}

impl Reason {
    /// What it weighs.
    pub fn points(self) -> u8 {
        match self {
            Self::BadClient => 100,
            Self::PretendedCrawler => 80,
            Self::BrowserWithToolsTls => 60,
            Self::BrowserWithPoorTls | Self::NoUserAgent => 40,
            Self::ToolByName | Self::BrowserWithoutLanguage => 30,
            Self::BrowserWithoutEncoding => 20,
            Self::NoAccept => 10,
        }
    }

    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadClient => "badClient",
            Self::PretendedCrawler => "pretendedCrawler",
            Self::BrowserWithToolsTls => "browserWithToolsTls",
            Self::BrowserWithPoorTls => "browserWithPoorTls",
            Self::NoUserAgent => "noUserAgent",
            Self::ToolByName => "toolByName",
            Self::BrowserWithoutLanguage => "browserWithoutLanguage",
            Self::BrowserWithoutEncoding => "browserWithoutEncoding",
            Self::NoAccept => "noAccept",
        }
    }
}

/// The score of a request. A verified crawler has none.
pub fn score(shown: &Shown, known: &KnownClients) -> Score {
    if matches!(shown.crawling, Crawling::Verified(_)) {
        return Score::default();
    }
    let agent = shown.user_agent.unwrap_or_default();
    let client = shown.ja4.and_then(|ja4| known.get(ja4));
    let is_browser = is_browser_by_name(agent);
    let has_poor_tls = shown
        .ja4
        .is_some_and(|ja4| !ja4.offers_tls13() || !ja4.offers_protocol());
    let found = [
        (client == Some(Client::Bad), Reason::BadClient),
        (
            matches!(shown.crawling, Crawling::Pretended(_)),
            Reason::PretendedCrawler,
        ),
        (
            is_browser && client == Some(Client::Tool),
            Reason::BrowserWithToolsTls,
        ),
        (
            is_browser && client.is_none() && has_poor_tls,
            Reason::BrowserWithPoorTls,
        ),
        (agent.is_empty(), Reason::NoUserAgent),
        (is_tool_by_name(agent), Reason::ToolByName),
        (
            is_browser && !shown.has_accept_language,
            Reason::BrowserWithoutLanguage,
        ),
        (
            is_browser && !shown.has_accept_encoding,
            Reason::BrowserWithoutEncoding,
        ),
        (!shown.has_accept, Reason::NoAccept),
    ];
    let reasons: Vec<Reason> = found
        .into_iter()
        .filter_map(|(is_so, reason)| is_so.then_some(reason))
        .collect();
    let points: u16 = reasons.iter().map(|it| u16::from(it.points())).sum();
    Score {
        points: u8::try_from(points.min(100)).unwrap_or(100),
        reasons,
    }
}

/// Whether the client calls itself a browser: what every browser since Mosaic's successor says.
pub fn is_browser_by_name(user_agent: &[u8]) -> bool {
    let names: [&[u8]; 4] = [b"Chrome/", b"Firefox/", b"Safari/", b"Edg/"];
    user_agent.starts_with(b"Mozilla/") && names.iter().any(|name| says(user_agent, name))
}

fn is_tool_by_name(user_agent: &[u8]) -> bool {
    let names: [&[u8]; 10] = [
        b"curl/",
        b"Wget/",
        b"python-requests/",
        b"Python-urllib/",
        b"aiohttp/",
        b"python-httpx/",
        b"Go-http-client/",
        b"Java/",
        b"libwww-perl/",
        b"Scrapy/",
    ];
    names.iter().any(|name| says(user_agent, name))
}

fn says(user_agent: &[u8], word: &[u8]) -> bool {
    !word.is_empty()
        && user_agent
            .windows(word.len())
            .any(|it| it.eq_ignore_ascii_case(word))
}

impl fmt::Display for BadEntry {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "line {}: not a JA4 fingerprint and one of browser, tool, bad",
            self.line
        )
    }
}

impl std::error::Error for BadEntry {}

#[cfg(test)]
#[path = "crawlers_tests.rs"]
mod tests;
