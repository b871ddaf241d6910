//! What may leave: destinations, methods, how often.
//!
//! Owns: reading rules, comparing a call with them, and saying which rule a refused call would need.
//! Must not: look up a name, or connect.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, Uri};

use super::credential::Credential;
use crate::address::Network;
use crate::balance::nanos;
use crate::config::{AddressRule, BreakerConfig, SpiffeConfig};
use crate::error::ConfigError;

/// Networks of organisations (RFC 1918, 4193, 6598).
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];

/// One destination that may be called, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// `https://api.example.com`, `http://10.0.0.7:8080`, `https://*.example.com`, `http://10.0.0.0/8:8080`,
    /// `https://[fd00::/8]`; `tcp://db.example.com:5432` for a tunnel whose content nobody looks at.
    pub to: String,
    /// The methods of calls; empty: any. A rule that names methods allows no tunnel.
    pub methods: Vec<Method>,
    /// How often; absent: any number of times.
    pub rate: Option<EgressRate>,
    /// When a destination that fails is left alone for a while.
    pub breaker: Option<BreakerConfig>,
    /// What calls are given that whoever makes them never sees. Such a rule allows no tunnel.
    pub credential: Option<Credential>,
    /// Both sides prove who they are by X509-SVIDs; absent: as everywhere on the web. Such a rule allows no tunnel.
    pub spiffe: Option<SpiffeConfig>,
}

/// How many calls in how much time (GCRA, ITU-T I.371).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRate {
    /// Calls in a period.
    pub calls: u64,
    /// The period.
    pub period: Duration,
    /// Most at once.
    pub burst: u64,
}

impl EgressRule {
    /// A destination that may be called in any way.
    pub fn to(destination: &str) -> Self {
        Self {
            to: destination.to_owned(),
            methods: Vec::new(),
            rate: None,
            breaker: None,
            credential: None,
            spiffe: None,
        }
    }

    /// Whether it is for tunnels as well, in which nobody sees a method, can add a field or show an SVID.
    fn takes_tunnels(&self) -> bool {
        self.methods.is_empty() && self.credential.is_none() && self.spiffe.is_none()
    }
}

/// Where calls may go.
#[derive(Debug, Clone, Default)]
pub struct EgressRules(Vec<Arc<Rule>>);

impl PartialEq for EgressRules {
    /// Whether they say the same; what they have counted aside.
    fn eq(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && pairs.all(|(one, other)| one.said == other.said)
    }
}

#[derive(Debug)]
struct Rule {
    kind: Kind,
    host: RuleHost,
    port: u16,
    said: EgressRule,
    pace: Option<Pace>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Http,
    Https,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RuleHost {
    Name(String),
    /// Names that end so, the dot included.
    Below(String),
    Address(IpAddr),
    Network(Network),
}

/// A scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) address: Option<IpAddr>,
}

/// That a call may go out: nothing is sent without one.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub(crate) destination: Destination,
    /// Where its name may lead, or which address it may be.
    pub(crate) addresses: AddressRule,
    pub(crate) breaker: Option<BreakerConfig>,
    /// The field that it is given.
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    pub(crate) spiffe: Option<SpiffeConfig>,
    /// Whether a rule says so.
    pub(crate) is_listed: bool,
}

/// Why a call may not go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// No rule is for this destination; what a rule for it would say, unless it is no destination at all.
    Destination(Option<String>),
    /// The rules for it are for other methods, or for calls and not for tunnels.
    Method(String),
    /// Too often; when there is room again.
    Rate(Duration),
    /// There is no token now that the rule would add.
    Token,
}

impl EgressRules {
    /// Compiles rules. An address is allowed by being named, itself or in a range; a name leads to a private
    /// address only within a range.
    ///
    /// # Errors
    /// The first rule that is none.
    pub fn compile(rules: impl IntoIterator<Item = EgressRule>) -> Result<Self, ConfigError> {
        let rules = rules
            .into_iter()
            .map(|rule| Rule::parse(rule).map(Arc::new));
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// The rules of all of these, in order. A call counts in each place where its rule is.
    pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let rules = parts
            .into_iter()
            .flat_map(|part| part.0.iter().map(Arc::clone));
        Self(rules.collect())
    }

    /// Whether this call may go out, the address of its name aside. It counts as made.
    ///
    /// # Errors
    /// Why it may not.
    pub fn call(&self, uri: &Uri, method: &Method) -> Result<Allowed, Denied> {
        let destination = destination_of(uri)
            .filter(|it| it.kind != Kind::Tcp)
            .ok_or(Denied::Destination(None))?;
        let takes = |rule: &Rule| rule.takes_method(method);
        self.decide(destination, takes)
    }

    /// Whether a tunnel to this host (a name or an address) and port may be opened, the address of its name
    /// aside; and whether it must begin with a TLS handshake for that host. It counts as made.
    ///
    /// # Errors
    /// Why it may not.
    pub fn tunnel(&self, host: &str, port: u16) -> Result<(Allowed, bool), Denied> {
        let destination = tunnel_of(host, port).ok_or(Denied::Destination(None))?;
        let mut secure = destination.clone();
        secure.kind = Kind::Https;
        if self.has(&destination) {
            return Ok((self.decide(destination, |_| true)?, false));
        }
        if self.has(&secure) {
            let takes = |rule: &Rule| rule.said.takes_tunnels();
            return Ok((self.decide(secure, takes)?, true));
        }
        let rule = if port == 443 { &secure } else { &destination };
        Err(Denied::Destination(Some(rule.as_rule())))
    }

    /// Whether a tunnel that is open may stay.
    pub fn keeps_tunnel(&self, host: &str, port: u16) -> bool {
        tunnel_of(host, port).is_some_and(|mut destination| {
            let is_plain = self.has(&destination);
            destination.kind = Kind::Https;
            is_plain
                || self
                    .0
                    .iter()
                    .any(|it| it.allows(&destination) && it.said.takes_tunnels())
        })
    }

    fn has(&self, destination: &Destination) -> bool {
        self.0.iter().any(|rule| rule.allows(destination))
    }

    fn decide(
        &self,
        destination: Destination,
        takes: impl Fn(&Rule) -> bool,
    ) -> Result<Allowed, Denied> {
        let mut fitting = self
            .0
            .iter()
            .filter(|it| it.allows(&destination))
            .peekable();
        if fitting.peek().is_none() {
            return Err(Denied::Destination(Some(destination.as_rule())));
        }
        let Some(rule) = fitting.find(|it| takes(it)) else {
            return Err(Denied::Method(destination.as_rule()));
        };
        let credential = match &rule.said.credential {
            None => None,
            Some(credential) => Some(credential.field().ok_or(Denied::Token)?),
        };
        if let Some(pace) = &rule.pace {
            pace.take(nanos()).map_err(Denied::Rate)?;
        }
        Ok(Allowed {
            addresses: match destination.address {
                Some(address) => AddressRule::Exactly(vec![address]),
                None => AddressRule::PublicOr(self.networks(&destination)),
            },
            breaker: rule.said.breaker.clone(),
            credential,
            spiffe: rule.said.spiffe.clone(),
            destination,
            is_listed: true,
        })
    }

    /// Where names may lead besides public addresses.
    fn networks(&self, destination: &Destination) -> Vec<Network> {
        let same =
            |rule: &&Arc<Rule>| rule.kind == destination.kind && rule.port == destination.port;
        let networks = self
            .0
            .iter()
            .filter(same)
            .filter_map(|rule| match rule.host {
                RuleHost::Network(network) => Some(network),
                _ => None,
            });
        networks.collect()
    }
}

impl Allowed {
    /// What no rule allows, let go all the same so that somebody learns what a program needs: any destination of
    /// the internet and of private networks, none of this machine and none that is link-local, where the
    /// metadata services of clouds are.
    pub fn unlisted_call(uri: &Uri) -> Option<Self> {
        destination_of(uri).map(Self::unlisted)
    }

    /// The same for a tunnel.
    pub fn unlisted_tunnel(host: &str, port: u16) -> Option<Self> {
        tunnel_of(host, port).map(Self::unlisted)
    }

    fn unlisted(destination: Destination) -> Self {
        let networks = PRIVATE.iter().filter_map(|it| Network::parse(it).ok());
        Self {
            addresses: AddressRule::PublicOr(networks.collect()),
            breaker: None,
            credential: None,
            spiffe: None,
            destination,
            is_listed: false,
        }
    }
}

impl Destination {
    /// The rule that would allow it.
    fn as_rule(&self) -> String {
        let host = match self.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        match (self.kind, self.port) {
            (Kind::Https, 443) => format!("https://{host}"),
            (Kind::Http, 80) => format!("http://{host}"),
            (kind, port) => format!("{}://{host}:{port}", kind.as_str()),
        }
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }

    fn of(scheme: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Tcp]
            .into_iter()
            .find(|it| it.as_str() == scheme)
    }

    /// The port that goes without saying.
    fn usual_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp => None,
        }
    }
}

impl Rule {
    fn parse(said: EgressRule) -> Result<Self, ConfigError> {
        let refused = |why: &str| ConfigError(format!("egress rule {}: {why}", said.to));
        let (kind, host, port) = Self::place(&said.to).map_err(refused)?;
        if kind == Kind::Tcp && !said.takes_tunnels() {
            return Err(refused("a tunnel has no methods and no fields"));
        }
        if said.spiffe.is_some() && kind != Kind::Https {
            return Err(refused("SVIDs are shown over https only"));
        }
        let is_here =
            matches!(&host, RuleHost::Address(address) if address.to_canonical().is_loopback());
        if kind == Kind::Http && said.credential.is_some() && !is_here {
            return Err(refused(
                "a credential goes over https only, or to this machine",
            ));
        }
        let pace = said
            .rate
            .as_ref()
            .map(|rate| Pace::new(rate).ok_or("no rate"));
        Ok(Self {
            kind,
            host,
            port,
            pace: pace.transpose().map_err(refused)?,
            said,
        })
    }

    fn place(rule: &str) -> Result<(Kind, RuleHost, u16), &'static str> {
        if let Some((scheme, network, port)) = range_in(rule) {
            return Self::range(scheme, network, port);
        }
        let bare = rule.replacen("://*.", "://", 1);
        let is_wild = bare.len() != rule.len();
        let uri: Uri = bare.parse().map_err(|_| "no URI")?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") || rule.contains('#') {
            return Err("only scheme, host and port");
        }
        let found = destination_of(&uri).ok_or("not http(s)://host or tcp://host:port")?;
        let host = match (found.address, is_wild) {
            (Some(_), true) => return Err("a wildcard of an address"),
            (Some(address), false) => RuleHost::Address(address),
            (None, false) => RuleHost::Name(found.host),
            (None, true) if !found.host.contains('.') => {
                return Err("a wildcard of a whole top-level domain");
            }
            (None, true) => RuleHost::Below(format!(".{}", found.host)),
        };
        Ok((found.kind, host, found.port))
    }

    fn range(
        scheme: &str,
        network: &str,
        port: Option<&str>,
    ) -> Result<(Kind, RuleHost, u16), &'static str> {
        let kind = Kind::of(scheme).ok_or("not http(s):// or tcp://")?;
        let is_number = |it: &&str| it.bytes().all(|byte| byte.is_ascii_digit());
        let port: Option<u16> = match port {
            None => kind.usual_port(),
            Some(port) => Some(port).filter(is_number).and_then(|it| it.parse().ok()),
        };
        let host = RuleHost::Network(Network::parse(network)?);
        Ok((kind, host, port.filter(|it| *it != 0).ok_or("no port")?))
    }

    fn takes_method(&self, method: &Method) -> bool {
        // TRACE is answered with what was sent, a credential with it.
        let tells = self.said.credential.is_some() && *method == Method::TRACE;
        !tells && (self.said.methods.is_empty() || self.said.methods.contains(method))
    }

    fn allows(&self, destination: &Destination) -> bool {
        self.kind == destination.kind
            && self.port == destination.port
            && match &self.host {
                RuleHost::Address(address) => destination.address == Some(*address),
                RuleHost::Network(network) => {
                    destination.address.is_some_and(|it| network.holds(it))
                }
                RuleHost::Name(name) => *name == destination.host,
                RuleHost::Below(suffix) => {
                    destination.address.is_none()
                        && destination.host.len() > suffix.len()
                        && destination.host.ends_with(suffix.as_str())
                }
            }
    }
}

/// A bucket: the time at which it would be empty again, moved on by each call.
#[derive(Debug)]
struct Pace {
    each: u64,
    burst: u64,
    empty_at: AtomicU64,
}

impl Pace {
    fn new(rate: &EgressRate) -> Option<Self> {
        let period = u64::try_from(rate.period.as_nanos()).ok()?;
        let each = period.checked_div(rate.calls)?.max(1);
        Some(Self {
            each,
            burst: each.saturating_mul(rate.burst.max(1)),
            empty_at: AtomicU64::new(0),
        })
    }

    fn take(&self, now: u64) -> Result<(), Duration> {
        let mut wait = 0;
        let next = |empty_at: u64| {
            let next = empty_at.max(now).saturating_add(self.each);
            wait = next.saturating_sub(now).saturating_sub(self.burst);
            (wait == 0).then_some(next)
        };
        let taken = self
            .empty_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|_| Duration::from_nanos(wait))
    }
}

/// Scheme, range and port of a rule that names a range: `10.0.0.0/8:8080` or `[fd00::/8]:8080`.
fn range_in(rule: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = rule.split_once("://")?;
    let (network, port) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let (address, prefix) = network.split_once('/')?;
    let address = address.parse::<IpAddr>().ok()?;
    let is_range = address.is_ipv6() == rest.starts_with('[') && !prefix.is_empty();
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?),
    };
    is_range.then_some((scheme, network, port))
}

/// Scheme, host and port of an absolute target without user information. Names are letters, digits,
/// hyphens and dots: nothing that another reader could take for another host.
fn destination_of(uri: &Uri) -> Option<Destination> {
    let kind = Kind::of(uri.scheme().map(Scheme::as_str)?)?;
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let port = match port_of(authority) {
        Ok(port) => port.or(kind.usual_port())?,
        Err(()) => return None,
    };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        let address = address.to_canonical();
        return (bare.is_some() == host.contains(':')).then(|| Destination {
            kind,
            host: address.to_string(),
            port,
            address: Some(address),
        });
    }
    is_name(host).then(|| Destination {
        kind,
        host: host.to_ascii_lowercase(),
        port,
        address: None,
    })
}

/// Host (a name, or an address with or without brackets) and port of a tunnel.
fn tunnel_of(host: &str, port: u16) -> Option<Destination> {
    let bracketed = host.contains(':') && !host.starts_with('[');
    let authority = match bracketed {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let uri = Uri::builder()
        .scheme("tcp")
        .authority(authority)
        .path_and_query("/");
    destination_of(&uri.build().ok()?)
}

fn port_of(authority: &Authority) -> Result<Option<u16>, ()> {
    match authority.port() {
        // A number and nothing else: parsers of ports take a sign as well.
        Some(port) if !port.as_str().bytes().all(|it| it.is_ascii_digit()) => Err(()),
        Some(port) if port.as_u16() != 0 => Ok(Some(port.as_u16())),
        None if authority.as_str().len() == authority.host().len() => Ok(None),
        _ => Err(()),
    }
}

/// Whether it is a host name; one whose last label is a number could be read as an address.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|it: char| it.is_ascii_digit());
    host.len() <= 253 && host.split('.').all(is_label) && !is_number
}

#[cfg(test)]
#[path = "../egress_tests.rs"]
mod tests;
