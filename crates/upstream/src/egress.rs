//! Calls that a function makes to the outside: only where its rules say, as its rules say.
//!
//! Owns: the comparison of a destination with the rules, and the connections to destinations. The
//! address of a name is looked up once, checked, and is the one connected to: a public one, or one of
//! a range that the rules name for the same scheme and port. Redirects are answers
//! like any other: following one is a new call.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::address::Network;
use crate::balance::{Active, Endpoint};
use crate::body::{OutBody, UpstreamBody};
use crate::config::{AddressRule, Host, OutlierConfig, Protocol, SendOptions, TlsConfig};
use crate::connect::Need;
use crate::error::{BoxError, ConfigError, SendError};
use crate::exchange::{Limits, exchange, plain_answer};
use crate::fields::Outgoing;
use crate::target::{Target, TargetConfig};
use crate::tls::{self, Settings};
use crate::upstream::Machine;

/// Most destinations remembered: a rule with a wildcard has no end of them.
const DESTINATIONS: usize = 256;

/// Where calls may go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressRules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    is_tls: bool,
    host: RuleHost,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RuleHost {
    Name(String),
    /// Names that end so, the dot included.
    Below(String),
    Address(IpAddr),
    Network(Network),
}

/// A scheme, host and port that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Destination {
    is_tls: bool,
    host: String,
    port: u16,
    address: Option<IpAddr>,
}

impl EgressRules {
    /// Compiles rules such as `https://api.example.com`, `http://10.0.0.7:8080`,
    /// `https://*.example.com`, `http://10.0.0.0/8:8080`, `https://[fd00::/8]`. An address is allowed by
    /// being named, itself or in a range; a name leads to a private address only within a range.
    ///
    /// # Errors
    /// The first rule that is none.
    pub fn compile<S: AsRef<str>>(rules: &[S]) -> Result<Self, ConfigError> {
        let rules = rules.iter().map(|rule| Rule::parse(rule.as_ref()));
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Whether a call to this target is allowed, the address of its name aside.
    pub fn allows(&self, uri: &Uri) -> bool {
        self.destination(uri).is_ok()
    }

    /// Where names may lead besides public addresses.
    fn networks(&self, destination: &Destination) -> Vec<Network> {
        let same =
            |rule: &&Rule| rule.is_tls == destination.is_tls && rule.port == destination.port;
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

    fn destination(&self, uri: &Uri) -> Result<Destination, SendError> {
        let refused = || SendError::NotAllowed(shown(uri));
        let destination = destination_of(uri).ok_or_else(refused)?;
        let is_allowed = self.0.iter().any(|rule| rule.allows(&destination));
        is_allowed.then_some(destination).ok_or_else(refused)
    }
}

/// A destination as the record may show it: no path, no query, nothing before an `@`.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("?");
    let port = uri
        .port_u16()
        .map(|it| format!(":{it}"))
        .unwrap_or_default();
    format!("{scheme}://{}{port}", uri.host().unwrap_or("?"))
}

impl Rule {
    fn parse(rule: &str) -> Result<Self, ConfigError> {
        let refused = |why: &str| ConfigError(format!("egress rule {rule}: {why}"));
        if let Some((scheme, network, port)) = range_in(rule) {
            return Self::of_range(scheme, network, port).map_err(refused);
        }
        let bare = rule.replacen("://*.", "://", 1);
        let is_wild = bare.len() != rule.len();
        let uri: Uri = bare.parse().map_err(|_| refused("no URI"))?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") || rule.contains('#') {
            return Err(refused("only scheme, host and port"));
        }
        let found = destination_of(&uri).ok_or_else(|| refused("not http(s)://host"))?;
        let host = match (found.address, is_wild) {
            (Some(_), true) => return Err(refused("a wildcard of an address")),
            (Some(address), false) => RuleHost::Address(address),
            (None, false) => RuleHost::Name(found.host),
            (None, true) if !found.host.contains('.') => {
                return Err(refused("a wildcard of a whole top-level domain"));
            }
            (None, true) => RuleHost::Below(format!(".{}", found.host)),
        };
        Ok(Self {
            is_tls: found.is_tls,
            host,
            port: found.port,
        })
    }

    fn of_range(scheme: &str, network: &str, port: Option<&str>) -> Result<Self, &'static str> {
        let (is_tls, usual) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err("not http(s)://"),
        };
        let is_number = |it: &&str| it.bytes().all(|byte| byte.is_ascii_digit());
        let port: Option<u16> = match port {
            None => Some(usual),
            Some(port) => Some(port).filter(is_number).and_then(|it| it.parse().ok()),
        };
        Ok(Self {
            is_tls,
            host: RuleHost::Network(Network::parse(network)?),
            port: port.filter(|it| *it != 0).ok_or("no port")?,
        })
    }

    fn allows(&self, destination: &Destination) -> bool {
        self.is_tls == destination.is_tls
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
    let scheme = uri.scheme()?;
    let is_tls = *scheme == Scheme::HTTPS;
    if !is_tls && *scheme != Scheme::HTTP {
        return None;
    }
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let port = match port_of(authority) {
        Ok(port) => port.unwrap_or(if is_tls { 443 } else { 80 }),
        Err(()) => return None,
    };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        let address = address.to_canonical();
        return (bare.is_some() == host.contains(':')).then(|| Destination {
            is_tls,
            host: address.to_string(),
            port,
            address: Some(address),
        });
    }
    is_name(host).then(|| Destination {
        is_tls,
        host: host.to_ascii_lowercase(),
        port,
        address: None,
    })
}

fn port_of(authority: &Authority) -> Result<Option<u16>, ()> {
    match authority.port() {
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

/// What calls may take.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Where they may go.
    pub rules: EgressRules,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Most calls under way, over all workers.
    pub max_calls: usize,
    /// Most connections to one destination, over all workers.
    pub max_connections: usize,
}

impl EgressConfig {
    /// Calls to where `rules` say, within limits for one function.
    pub fn new(rules: EgressRules) -> Self {
        Self {
            rules,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(30),
            max_calls: 256,
            max_connections: 128,
        }
    }
}

/// The way out of one function. Shared by all workers; each has connections of its own.
pub struct Egress {
    config: EgressConfig,
    machine: Machine,
    settings: Arc<Settings>,
    calls: Arc<Semaphore>,
    destinations: Mutex<HashMap<Destination, Arc<Endpoint>>>,
}

impl Egress {
    /// A way out with the certificates that the machine trusts.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: EgressConfig, machine: &Machine) -> Result<Arc<Self>, ConfigError> {
        Self::with_tls(config, &TlsConfig::default(), machine)
    }

    /// A way out with trust of its own.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn with_tls(
        config: EgressConfig,
        tls: &TlsConfig,
        machine: &Machine,
    ) -> Result<Arc<Self>, ConfigError> {
        Ok(Arc::new(Self {
            settings: Arc::new(tls::settings(tls, Protocol::Auto, &machine.roots)?),
            machine: machine.clone(),
            calls: Arc::new(Semaphore::new(config.max_calls.min(Semaphore::MAX_PERMITS))),
            destinations: Mutex::default(),
            config,
        }))
    }

    /// Sends a call to the absolute target in it. `Host`, the name in TLS and the rule are one: what
    /// the call says in `Host` does not count, and neither does `options.host`.
    ///
    /// # Errors
    /// [`SendError::NotAllowed`] where no rule allows it or the name leads to a private address; else
    /// why there is no answer.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let destination = self.config.rules.destination(request.uri())?;
        let permit = Arc::clone(&self.calls).try_acquire_owned();
        let permit = permit.map_err(|_| SendError::Overloaded)?;
        let endpoint = self.endpoint(destination)?;
        let outgoing = Outgoing::new(request.map(OutBody::new), &Host::Endpoint, None)?;
        let active = Active::with_permit(&endpoint, permit);
        let limits = self.limits(options);
        let deadline = options.timeout.map(|it| Instant::now() + it);
        let exchanged = exchange(&endpoint.target, outgoing, limits);
        let answered = match deadline {
            None => exchanged.await,
            Some(deadline) => timeout_at(deadline, exchanged)
                .await
                .map_err(|_| SendError::TimeoutWhole)?,
        };
        let answer = answered.map_err(|none| none.error)?;
        let mut response = plain_answer(answer)?;
        let body = response.body_mut();
        body.attend(Some(active), deadline, options.body_idle);
        Ok(response)
    }

    fn limits(&self, options: &SendOptions) -> Limits {
        let shorter = |own: Duration, other: Option<Duration>| other.map_or(own, |it| it.min(own));
        Limits {
            connect: shorter(self.config.connect_timeout, options.connect_timeout),
            response: shorter(self.config.response_timeout, options.response_timeout),
            need: Need::Any,
        }
    }

    /// What is known of a destination. The lock is one function's and held for a look into a map.
    fn endpoint(&self, destination: Destination) -> Result<Arc<Endpoint>, SendError> {
        let known = self.destinations.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = known.get(&destination) {
            return Ok(Arc::clone(endpoint));
        }
        if known.len() >= DESTINATIONS {
            known.retain(|_, it| it.target.connections() > 0 || Arc::strong_count(it) > 1);
        }
        if known.len() >= DESTINATIONS {
            return Err(SendError::Overloaded);
        }
        let endpoint = self.new_endpoint(&destination);
        let endpoint = endpoint.map_err(|error| SendError::NotAllowed(error.0))?;
        known.insert(destination, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    fn new_endpoint(&self, destination: &Destination) -> Result<Arc<Endpoint>, ConfigError> {
        let tls = match destination.is_tls {
            true => Some((
                Arc::clone(&self.settings),
                tls::server_name(&destination.host)?,
            )),
            false => None,
        };
        let target = Target::new(TargetConfig {
            host: &destination.host,
            // Never a name of the machine's search list instead of the one in the rule.
            is_absolute: true,
            port: destination.port,
            protocol: Protocol::Auto,
            tls,
            addresses: match destination.address {
                Some(address) => AddressRule::Exactly(vec![address]),
                None => AddressRule::PublicOr(self.config.rules.networks(destination)),
            },
            idle_timeout: self.config.idle_timeout,
            connect_timeout: self.config.connect_timeout,
            max_connections: self.config.max_connections,
            resolver: Arc::clone(&self.machine.resolver),
        })?;
        let outlier = OutlierConfig {
            failures: 0,
            ..OutlierConfig::default()
        };
        Ok(Arc::new(Endpoint::new(
            target,
            &destination.host,
            1,
            outlier,
        )))
    }
}

/// A place among the calls under way.
pub(crate) type Permit = OwnedSemaphorePermit;

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
