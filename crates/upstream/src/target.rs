//! One destination: where it is, how it is spoken to, and how many connections to it are open.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use rustls_pki_types::ServerName;
use tokio::time::Instant;

use crate::config::{AddressRule, Protocol};
use crate::dns::Resolve;
use crate::error::{ConfigError, SendError};
use crate::socket::DialSocket;
use crate::tls::Settings;

/// What a target is made of.
pub(crate) struct TargetConfig<'a> {
    pub(crate) host: &'a str,
    /// Whether the name is whole: the machine's search list is not for it.
    pub(crate) is_absolute: bool,
    pub(crate) port: u16,
    /// Connected to in place of host and port.
    pub(crate) socket: Option<(&'a Path, Arc<dyn DialSocket>)>,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<(Arc<Settings>, ServerName<'static>)>,
    pub(crate) addresses: AddressRule,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) resolver: Arc<dyn Resolve>,
}

/// One destination. Shared by all workers; their connections are not.
pub(crate) struct Target {
    /// Names it within a worker's pool; never given twice.
    pub(crate) id: u64,
    host: Box<str>,
    pub(crate) port: u16,
    /// Host and port as in `Host`, without the port that goes without saying.
    pub(crate) authority: Authority,
    pub(crate) authority_value: HeaderValue,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<(Arc<Settings>, ServerName<'static>)>,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) socket: Option<(PathBuf, Arc<dyn DialSocket>)>,
    address: Option<IpAddr>,
    addresses: AddressRule,
    resolver: Arc<dyn Resolve>,
    max_connections: usize,
    open: AtomicUsize,
    pressed: AtomicBool,
    learned: AtomicU8,
}

const LEARNED_HTTP1: u8 = 1;
const LEARNED_HTTP2: u8 = 2;
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Target {
    pub(crate) fn new(config: TargetConfig<'_>) -> Result<Arc<Self>, ConfigError> {
        let address = config.host.parse::<IpAddr>().ok();
        let default_port = if config.tls.is_some() { 443 } else { 80 };
        let host = match address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => config.host.to_owned(),
        };
        let authority = if config.port == default_port {
            host
        } else {
            format!("{host}:{}", config.port)
        };
        let malformed = || ConfigError(format!("no host: {}", config.host));
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            host: match config.is_absolute && address.is_none() {
                true => format!("{}.", config.host).into(),
                false => config.host.into(),
            },
            port: config.port,
            authority_value: HeaderValue::from_str(&authority).map_err(|_| malformed())?,
            authority: authority.parse().map_err(|_| malformed())?,
            protocol: config.protocol,
            tls: config.tls,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            socket: config
                .socket
                .map(|(path, dialler)| (path.to_owned(), dialler)),
            address,
            addresses: config.addresses,
            resolver: config.resolver,
            max_connections: config.max_connections,
            open: AtomicUsize::new(0),
            pressed: AtomicBool::new(false),
            learned: AtomicU8::new(0),
        }))
    }

    /// Whether a connection of that age gets another request.
    pub(crate) fn uses(&self, opened: Instant) -> bool {
        let longest = self.tls.as_ref().and_then(|(it, _)| it.longest_use);
        longest.is_none_or(|age| opened.elapsed() < age)
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// The addresses to try, each of them allowed. What is checked here is what is connected to:
    /// there is no second look-up.
    pub(crate) async fn allowed_addresses(&self) -> Result<Vec<IpAddr>, SendError> {
        let found = if let Some(address) = self.address {
            vec![address]
        } else {
            let found = self.resolver.resolve(&self.host).await;
            found.map_err(SendError::DnsFailed)?
        };
        if found.is_empty() {
            return Err(SendError::DnsFailed(format!("{}: no address", self.host)));
        }
        let refused = found.iter().copied().find(|it| !self.addresses.allows(*it));
        let allowed: Vec<IpAddr> = found
            .into_iter()
            .filter(|it| self.addresses.allows(*it))
            .map(|it| it.to_canonical())
            .collect();
        match refused {
            Some(refused) if allowed.is_empty() => {
                Err(SendError::NotAllowed(format!("{} is {refused}", self.host)))
            }
            _ => Ok(in_turns(&allowed)),
        }
    }

    /// Counts one more connection, when there is room for it.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Opened> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let opened = Opened(Arc::clone(self));
        if before < self.max_connections {
            return Some(opened);
        }
        self.pressed.store(true, Ordering::Relaxed);
        None
    }

    /// Connections open now, over all workers.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a worker found no room since the last time someone asked: idle connections of
    /// another worker should go.
    pub(crate) fn take_pressure(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) && self.pressed.swap(false, Ordering::Relaxed)
    }

    /// Whether connections to it can be shared: unknown until one was made.
    pub(crate) fn is_http2(&self) -> Option<bool> {
        match (self.protocol, &self.tls) {
            (Protocol::Http1, _) | (Protocol::Auto, None) => Some(false),
            (Protocol::Http2, _) => Some(true),
            (Protocol::Auto, Some(_)) => match self.learned.load(Ordering::Relaxed) {
                LEARNED_HTTP1 => Some(false),
                LEARNED_HTTP2 => Some(true),
                _ => None,
            },
        }
    }

    pub(crate) fn learn(&self, is_http2: bool) {
        let learned = if is_http2 {
            LEARNED_HTTP2
        } else {
            LEARNED_HTTP1
        };
        self.learned.store(learned, Ordering::Relaxed);
    }
}

/// A connection that counts as open while this lives.
pub(crate) struct Opened(Arc<Target>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// IPv6 and IPv4 in turns (RFC 8305 §4), so that a family that is broken costs one wait.
fn in_turns(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (one, other): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|it| it.is_ipv6() == first_is_v6);
    let mut others = other.into_iter();
    let mut turns = Vec::with_capacity(addresses.len());
    for address in one {
        turns.push(address);
        turns.extend(others.next());
    }
    turns.extend(others);
    turns
}
