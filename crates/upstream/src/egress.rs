//! Calls and tunnels to the outside: only where rules say, as they say.
//!
//! Owns: the connections to destinations. What rules allow is [`rules`]' to say. The address of a name is looked
//! up once, checked, and is the one connected to: a public one, or one of a range that the rules name for the
//! same scheme and port. Redirects are answers like any other: following one is a new call.

mod credential;
mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::active::{Active, Clock, Watch};
use crate::balance::Endpoint;
use crate::body::{OutBody, Progress, UpstreamBody};
use crate::breaker::Breaker;
use crate::config::{Host, OutlierConfig, Protocol, SendOptions, TlsConfig};
use crate::connect::{Need, dial};
use crate::error::{BoxError, ConfigError, SendError};
use crate::exchange::{Limits, exchange, plain_answer};
use crate::fields::{Outgoing, strip_hop_by_hop};
use crate::target::{Opened, Target, TargetConfig};
use crate::tls::{self, Settings};
use crate::upstream::Machine;

pub use credential::{Credential, CredentialValue, TokenSource};
pub use rules::{Allowed, Denied, EgressRate, EgressRule, EgressRules};
use rules::{Destination, Kind};

/// Most destinations remembered: a rule with a wildcard has no end of them.
const DESTINATIONS: usize = 256;

/// What calls may take.
#[derive(Debug, Clone)]
pub struct EgressConfig {
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

impl Default for EgressConfig {
    /// Limits for one function or program.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(30),
            max_calls: 256,
            max_connections: 128,
        }
    }
}

/// What is known of a destination is kept by this.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    destination: Destination,
    is_tunnel: bool,
    is_listed: bool,
    /// SPIFFE IDs of which it must have one.
    peers: Vec<String>,
}

/// The way out of one function or program. Shared by all workers; each has connections of its own.
pub struct Egress {
    config: EgressConfig,
    machine: Machine,
    settings: Arc<Settings>,
    calls: Arc<Semaphore>,
    places: Mutex<HashMap<Place, Known>>,
}

/// What is known of a destination.
#[derive(Clone)]
struct Known {
    endpoint: Arc<Endpoint>,
    breaker: Option<Arc<Breaker>>,
    /// Whether its breaker asks how long an answer takes.
    is_timed: bool,
}

/// A connection to a destination whose content is not looked at. It counts as a call under way, and as an open
/// connection, until it is dropped.
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    _active: Active,
    _opened: Opened,
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
            places: Mutex::default(),
            config,
        }))
    }

    /// Sends a call that is allowed. `Host`, the name in TLS and the rule are one: what the call says in `Host`
    /// does not count, and neither does `options.host`.
    ///
    /// # Errors
    /// [`SendError::NotAllowed`] where the name leads to an address that is not allowed,
    /// [`SendError::CircuitOpen`] while its breaker is open; else why there is no answer.
    pub async fn send<B>(
        &self,
        allowed: Allowed,
        request: Request<B>,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request;
        if let Some((name, value)) = &allowed.credential {
            let fields = request.headers_mut();
            // What the caller calls a field of this hop is not sent on: never the credential.
            strip_hop_by_hop(fields);
            fields.insert(name.clone(), value.clone());
        }
        let mut outgoing = Outgoing::new(request.map(OutBody::new), &Host::Endpoint, None)?;
        let (endpoint, mut active) = self.enter(allowed, false, outgoing.time_body())?;
        let limits = self.limits(options);
        let deadline = options.timeout.map(|it| Instant::now() + it);
        let exchanged = exchange(&endpoint.target, outgoing, limits);
        let answered = match deadline {
            None => exchanged.await,
            Some(deadline) => timeout_at(deadline, exchanged)
                .await
                .map_err(|_| SendError::TimeoutWhole)?,
        };
        let answered = answered.map_err(|none| none.error).and_then(plain_answer);
        active.judge(answered.as_ref().map(Response::status));
        let mut response = answered?;
        let body = response.body_mut();
        body.attend(Some(active), deadline, options.body_idle);
        Ok(response)
    }

    /// Opens a tunnel that is allowed.
    ///
    /// # Errors
    /// As [`Egress::send`].
    pub async fn dial(&self, allowed: Allowed) -> Result<Dialled, SendError> {
        let (endpoint, mut active) = self.enter(allowed, true, None)?;
        let opened = endpoint.target.open().ok_or(SendError::Overloaded)?;
        let dialled = timeout(self.config.connect_timeout, dial(&endpoint.target)).await;
        let dialled = dialled.unwrap_or(Err(SendError::TimeoutConnect));
        active.judge(dialled.as_ref().map(|_| StatusCode::OK));
        Ok(Dialled {
            stream: dialled?,
            _active: active,
            _opened: opened,
        })
    }

    /// Whether everybody who was called is left alone for now by a breaker. Nobody was: no.
    pub fn is_left_alone(&self) -> bool {
        let known = self.places.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let is_open = |it: &Known| it.breaker.as_ref().is_some_and(|it| it.is_open());
        !known.is_empty() && known.values().all(is_open)
    }

    /// A place among the calls under way, if there is one and the breaker lets it.
    fn enter(
        &self,
        allowed: Allowed,
        is_tunnel: bool,
        body: Option<Arc<Progress>>,
    ) -> Result<(Arc<Endpoint>, Active), SendError> {
        let permit = Arc::clone(&self.calls).try_acquire_owned();
        let permit = permit.map_err(|_| SendError::Overloaded)?;
        let known = self.known(allowed, is_tunnel)?;
        let pass = known.breaker.as_ref().map(Breaker::pass).transpose()?;
        let clock = known.is_timed.then(|| Clock::start(body));
        let active = Active::new(&known.endpoint, Watch::of(pass, clock));
        Ok((known.endpoint, active.with_permit(permit)))
    }

    fn limits(&self, options: &SendOptions) -> Limits {
        let shorter = |own: Duration, other: Option<Duration>| other.map_or(own, |it| it.min(own));
        Limits {
            connect: shorter(self.config.connect_timeout, options.connect_timeout),
            response: shorter(self.config.response_timeout, options.response_timeout),
            need: Need::Any,
        }
    }

    /// What is known of a destination. The lock is one subject's and held for a look into a map.
    fn known(&self, allowed: Allowed, is_tunnel: bool) -> Result<Known, SendError> {
        let place = Place {
            destination: allowed.destination.clone(),
            is_tunnel,
            is_listed: allowed.is_listed,
            peers: allowed
                .spiffe
                .as_ref()
                .map_or_else(Vec::new, |it| it.peers.clone()),
        };
        let known = self.places.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&place) {
            return Ok(known.clone());
        }
        if known.len() >= DESTINATIONS {
            known.retain(|_, it| {
                let is_used = Arc::strong_count(&it.endpoint) > 1;
                is_used
                    || it.endpoint.target.connections() > 0
                    || it.breaker.as_ref().is_some_and(|it| it.is_tripped())
            });
        }
        if known.len() >= DESTINATIONS {
            return Err(SendError::Overloaded);
        }
        let breaker = allowed.breaker.clone();
        let shares = breaker.as_ref().and_then(|it| it.shares.as_ref());
        let is_timed = shares.is_some_and(|it| it.slow.is_some());
        let endpoint = self.new_endpoint(allowed, is_tunnel);
        let made = Known {
            endpoint: endpoint.map_err(|error| SendError::NotAllowed(error.0))?,
            breaker: breaker.map(Breaker::new),
            is_timed,
        };
        known.insert(place, made.clone());
        Ok(made)
    }

    fn new_endpoint(
        &self,
        allowed: Allowed,
        is_tunnel: bool,
    ) -> Result<Arc<Endpoint>, ConfigError> {
        let destination = allowed.destination;
        let settings = if allowed.spiffe.is_some() {
            let config = TlsConfig {
                spiffe: allowed.spiffe,
                ..TlsConfig::default()
            };
            let made = tls::settings(&config, Protocol::Auto, &self.machine.roots)?;
            Arc::new(made)
        } else {
            Arc::clone(&self.settings)
        };
        let tls = match destination.kind == Kind::Https && !is_tunnel {
            true => Some((settings, tls::server_name(&destination.host)?)),
            false => None,
        };
        let target = Target::new(TargetConfig {
            host: &destination.host,
            // Never a name of the machine's search list instead of the one in the rule.
            is_absolute: true,
            port: destination.port,
            socket: None,
            protocol: Protocol::Auto,
            tls,
            addresses: allowed.addresses,
            idle_timeout: self.config.idle_timeout,
            connect_timeout: self.config.connect_timeout,
            max_connections: self.config.max_connections,
            resolver: Arc::clone(&self.machine.resolver),
        })?;
        // There is no other to use instead; its breaker is what there is.
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
