//! What a caller of this crate says about a service: plain values, no policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::address::Network;

/// A service and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name, for status.
    pub name: String,
    /// Where it answers.
    pub endpoints: Vec<EndpointConfig>,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS; absent: plain.
    pub tls: Option<TlsConfig>,
    /// How long a connection may take to open, TLS and the look-up of the name included.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take once nothing more of the request moves.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Most connections to one endpoint, over all workers.
    pub max_connections: usize,
    /// Share of the requests that may be retries, ten a second aside.
    pub retry_percent: u32,
    /// Questions asked of each endpoint; absent: none.
    pub health: Option<HealthConfig>,
    /// What is learnt from the requests themselves.
    pub outlier: OutlierConfig,
    /// When nothing is sent to any endpoint for a while; absent: never.
    pub breaker: Option<BreakerConfig>,
    /// Which addresses a name may lead to.
    pub addresses: AddressRule,
}

impl UpstreamConfig {
    /// A service over plain HTTP/1.1 with the defaults of the manifest.
    pub fn new(name: &str, endpoints: Vec<EndpointConfig>) -> Self {
        Self {
            name: name.to_owned(),
            endpoints,
            protocol: Protocol::Auto,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            max_connections: 1024,
            retry_percent: 20,
            health: None,
            outlier: OutlierConfig::default(),
            breaker: None,
            addresses: AddressRule::Any,
        }
    }
}

/// One place where a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Address or name; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Its share of the requests; 0: none.
    pub weight: u32,
    /// The Unix socket that it answers on, in plain HTTP/1.1. Then host and port only say what it is called.
    pub socket: Option<PathBuf>,
}

impl EndpointConfig {
    /// An endpoint of weight 1.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            weight: 1,
            socket: None,
        }
    }

    /// An endpoint of weight 1 that answers on the Unix socket at `path`; `name` is its `Host`.
    pub fn on_socket(name: &str, path: &Path) -> Self {
        Self {
            socket: Some(path.to_owned()),
            ..Self::new(name, 80)
        }
    }
}

/// Versions of HTTP spoken to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS with prior knowledge.
    Http2,
}

/// TLS to a service.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Name the certificate must be for; absent: the endpoint's host.
    pub server_name: Option<String>,
    /// Certificates trusted and no others, PEM; absent: those of the machine.
    pub ca: Option<String>,
    /// Chain and key shown to the service.
    pub client: Option<ClientCertificate>,
    /// Both sides prove who they are by X509-SVIDs; then none of the others counts.
    pub spiffe: Option<SpiffeConfig>,
}

/// SPIFFE authentication of both sides (X509-SVID §5).
#[derive(Clone)]
pub struct SpiffeConfig {
    /// SPIFFE IDs of which the service must have one.
    pub peers: Vec<String>,
    /// Who is shown, and what is believed.
    pub identity: Arc<dyn SpiffeIdentity>,
}

/// An identity of this node's own, whose SVIDs and bundles change while it is used.
pub trait SpiffeIdentity: Send + Sync {
    /// The SVID that is shown now; `None` while there is none.
    fn shown(&self) -> Option<Arc<CertifiedKey>>;

    /// The SPIFFE ID that this chain of a server proves now.
    ///
    /// # Errors
    /// Why it proves none.
    fn proved(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<String, rustls::Error>;
}

impl std::fmt::Debug for SpiffeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpiffeConfig({:?})", self.peers)
    }
}

impl PartialEq for SpiffeConfig {
    fn eq(&self, other: &Self) -> bool {
        self.peers == other.peers && Arc::ptr_eq(&self.identity, &other.identity)
    }
}

impl Eq for SpiffeConfig {}

/// A certificate chain, leaf first, and its private key, in one PEM. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate(pub String);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig")
            .field("server_name", &self.server_name)
            .field("own_ca", &self.ca.is_some())
            .field("client", &self.client.is_some())
            .field("peers", &self.spiffe.as_ref().map(|it| &it.peers))
            .finish()
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

/// Requests that ask an endpoint whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Path asked for.
    pub path: String,
    /// Time between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers until it is used again.
    pub healthy_after: u32,
    /// Bad answers until it is not used.
    pub unhealthy_after: u32,
}

/// When an endpoint that fails requests is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierConfig {
    /// Failures in a row; 0: any number.
    pub failures: u32,
    /// Shares of its requests; absent: any.
    pub shares: Option<Shares>,
    /// For how long the first time, and how much longer each further time.
    pub eject: Duration,
    /// For how long at most.
    pub max_eject: Duration,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            shares: None,
            eject: Duration::from_secs(10),
            max_eject: Duration::from_secs(300),
        }
    }
}

/// When a service, or a destination outside, is left alone for a while (circuit breaker).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row; 0: any number.
    pub failures: u32,
    /// Shares of the requests; absent: any.
    pub shares: Option<Shares>,
    /// For how long.
    pub pause: Duration,
    /// Trials after that which must all go well, at most so many at once.
    pub trials: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            shares: None,
            pause: Duration::from_secs(10),
            trials: 1,
        }
    }
}

/// Shares that are too much among the requests of some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// The time that is looked back over.
    pub interval: Duration,
    /// With fewer requests in it no share is too much.
    pub volume: u32,
    /// Failures in a hundred requests; absent: any.
    pub failure_percent: Option<u32>,
    /// Slow answers; absent: any.
    pub slow: Option<SlowShare>,
}

/// A share of slow answers that is too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowShare {
    /// From the end of the request to the head of its answer.
    pub after: Duration,
    /// In a hundred requests.
    pub percent: u32,
}

/// Which addresses may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressRule {
    /// Any: the operator named the destination.
    Any,
    /// Addresses of the public internet, and of these networks.
    PublicOr(Vec<Network>),
    /// These and no others, public or not.
    Exactly(Vec<std::net::IpAddr>),
}

/// How one request is sent.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// Time for everything, the body of the answer included.
    pub timeout: Option<Duration>,
    /// In place of the service's own, when shorter.
    pub connect_timeout: Option<Duration>,
    /// In place of the service's own, when shorter.
    pub response_timeout: Option<Duration>,
    /// Longest pause between two parts of the answer's body; absent: no limit.
    pub body_idle: Option<Duration>,
    /// Time for one try, the body of the answer included.
    pub try_timeout: Option<Duration>,
    /// When it is sent again; absent: never.
    pub retry: Option<Retry>,
    /// When it is sent to another endpoint as well; absent: never.
    pub hedge: Option<Hedge>,
    /// What `Host` says.
    pub host: Host,
}

/// When a request is sent again. Only GET, HEAD and OPTIONS without a body ever are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Statuses that are tried again.
    pub codes: Arc<[StatusCode]>,
    /// Wait before the second try, at most; doubles each time. The wait is random below that.
    pub backoff: Duration,
}

/// When a request that waits is sent to another endpoint as well. Only GET, HEAD and OPTIONS without a body ever are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hedge {
    /// Wait for an answer before the next is sent.
    pub after: Duration,
    /// Requests beside the first.
    pub attempts: u32,
}

/// What `Host` (or `:authority`) says.
#[derive(Debug, Clone, Default)]
pub enum Host {
    /// What the request says.
    #[default]
    Keep,
    /// The endpoint's host and port.
    Endpoint,
    /// This.
    Named(HeaderValue),
}
