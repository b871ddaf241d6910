//! The list of destinations of a function, and whether a URI is on it.

use std::net::IpAddr;

use http::Uri;

/// Where a call goes: what of a URI decides about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Whether over TLS.
    pub is_tls: bool,
    /// The host, lower case, without brackets and without a final dot.
    pub host: String,
    /// The port, spelled out or the scheme's own.
    pub port: u16,
    /// The host, where it is an address. Only a listed one may be private.
    pub address: Option<IpAddr>,
}

/// Destinations as the snapshot lists them. Empty: nowhere.
#[derive(Debug, Default)]
pub struct AllowedHosts(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    is_tls: bool,
    port: u16,
    host: HostRule,
}

#[derive(Debug)]
enum HostRule {
    Exact(String),
    /// `.example.com`: every name below it, not itself.
    Below(String),
    Address(IpAddr),
}

impl Destination {
    /// The destination of an absolute URI with a scheme of HTTP.
    pub fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        // Credentials in a URI are no part of HTTP's (RFC 9110 §4.2.4) and fool readers of logs.
        if authority.as_str().contains('@') {
            return None;
        }
        // `http` reads a port that is no number as none.
        if authority.port().is_none() && has_port_text(authority.as_str()) {
            return None;
        }
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        Self::new(is_tls, authority.host(), port)
    }

    fn new(is_tls: bool, host: &str, port: u16) -> Option<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|it| it.to_canonical());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || port == 0 || (address.is_none() && !host.bytes().all(is_name)) {
            return None;
        }
        Some(Self {
            is_tls,
            host,
            port,
            address,
        })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// Whether an authority has something after the colon of a port, or the colon alone.
fn has_port_text(authority: &str) -> bool {
    let after_address = authority.rsplit(']').next().unwrap_or(authority);
    after_address.contains(':')
}

impl AllowedHosts {
    /// Reads a list; the error names the entry that is no destination.
    pub fn compile(list: &[String]) -> Result<Self, String> {
        let rules = list
            .iter()
            .map(|entry| Rule::read(entry).ok_or_else(|| entry.clone()));
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// The destination, if it is on the list.
    pub fn permit(&self, destination: Destination) -> Option<Destination> {
        let is_listed = self.0.iter().any(|rule| rule.holds(&destination));
        is_listed.then_some(destination)
    }
}

impl Rule {
    fn read(entry: &str) -> Option<Self> {
        let (below, entry) = match entry.split_once("://*.") {
            Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
            None => (false, entry.to_owned()),
        };
        let uri: Uri = entry.parse().ok()?;
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let destination = Destination::of(&uri).filter(|_| !has_path && !entry.ends_with('/'))?;
        let host = match (below, destination.address) {
            (true, None) => HostRule::Below(format!(".{}", destination.host)),
            (true, Some(_)) => return None,
            (false, Some(address)) => HostRule::Address(address),
            (false, None) => HostRule::Exact(destination.host),
        };
        Some(Self {
            is_tls: destination.is_tls,
            port: destination.port,
            host,
        })
    }

    fn holds(&self, to: &Destination) -> bool {
        let is_host = match &self.host {
            HostRule::Exact(host) => to.address.is_none() && *host == to.host,
            HostRule::Below(suffix) => {
                to.address.is_none()
                    && to.host.len() > suffix.len()
                    && to.host.ends_with(suffix.as_str())
            }
            HostRule::Address(address) => to.address == Some(*address),
        };
        is_host && self.is_tls == to.is_tls && self.port == to.port
    }
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
