//! A service: its endpoints, and one request to it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use rustls::RootCertStore;
use tokio::time::{Instant, timeout_at};

use crate::active::{Active, Clock, Watch};
use crate::balance::{self, Endpoint, EndpointHealth};
use crate::body::{OutBody, UpstreamBody};
use crate::breaker::{Breaker, Circuit, Pass};
use crate::budget::Budget;
use crate::config::{Protocol, SendOptions, UpstreamConfig};
use crate::connect::Need;
use crate::dns::{Resolve, SystemResolver};
use crate::error::{BoxError, ConfigError, SendError};
use crate::exchange::{Limits, exchange, plain_answer};
use crate::fields::{Outgoing, wanted_upgrade};
use crate::mirror::Mirrors;
use crate::socket::{ByItself, DialSocket};
use crate::target::{Target, TargetConfig};
use crate::tls;
use crate::tries::Tries;
use crate::tunnel::{Tunnel, upgraded};

/// What of the machine this crate needs, read once before the engine confines itself.
#[derive(Clone)]
pub struct Machine {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) roots: Arc<RootCertStore>,
    dialler: Arc<dyn DialSocket>,
}

impl Machine {
    /// Reads name servers, hosts and trusted certificates from where the machine keeps them.
    ///
    /// # Errors
    /// When the resolver cannot be built.
    pub fn read() -> Result<Self, ConfigError> {
        let resolver = Arc::new(SystemResolver::read()?);
        Ok(Self::with(resolver, tls::machine_roots()))
    }

    /// With another resolver, and other certificates to trust.
    pub fn with(resolver: Arc<dyn Resolve>, roots: RootCertStore) -> Self {
        Self {
            resolver,
            roots: Arc::new(roots),
            dialler: Arc::new(ByItself),
        }
    }

    /// With another one who connects to Unix sockets.
    #[must_use]
    pub fn dialling(self, dialler: Arc<dyn DialSocket>) -> Self {
        Self { dialler, ..self }
    }
}

/// Totals since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests handed in.
    pub requests: u64,
    /// Requests without an answer, after all tries.
    pub failures: u64,
    /// Second and further tries.
    pub retries: u64,
    /// Requests that were sent to another endpoint as well.
    pub hedges: u64,
    /// Of them those whose other endpoint answered first.
    pub hedges_won: u64,
    /// Times an endpoint was left out.
    pub ejections: u64,
    /// Mirrored requests that were not sent, since too many were under way.
    pub mirrors_dropped: u64,
    /// Connections open now, of all workers.
    pub open_connections: u64,
}

/// A service behind the gateway. Shared by all workers; each has connections of its own.
pub struct Upstream {
    pub(crate) config: UpstreamConfig,
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    pub(crate) budget: Budget,
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// Whether somebody asks how long an answer takes.
    pub(crate) is_timed: bool,
    requests: AtomicU64,
    failures: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
    pub(crate) mirrors_dropped: AtomicU64,
    pub(crate) mirrors: Arc<Mirrors>,
}

impl Upstream {
    /// Compiles what is configured.
    ///
    /// # Errors
    /// A certificate, key, host name or number of endpoints that cannot be used.
    pub fn new(config: UpstreamConfig, machine: &Machine) -> Result<Arc<Self>, ConfigError> {
        if config.endpoints.is_empty() {
            return Err(ConfigError(format!("{}: no endpoint", config.name)));
        }
        let settings = match &config.tls {
            None => None,
            Some(tls) => Some(Arc::new(tls::settings(
                tls,
                config.protocol,
                &machine.roots,
            )?)),
        };
        let mut endpoints = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            let is_plain = settings.is_none() && config.protocol != Protocol::Http2;
            if endpoint.socket.is_some() && !is_plain {
                let what = "a Unix socket is spoken to in plain HTTP/1.1";
                return Err(ConfigError(format!("{}: {what}", config.name)));
            }
            let named = config.tls.as_ref().and_then(|it| it.server_name.as_deref());
            let tls = match &settings {
                None => None,
                Some(settings) => {
                    let name = tls::server_name(named.unwrap_or(&endpoint.host))?;
                    Some((Arc::clone(settings), name))
                }
            };
            let target = Target::new(TargetConfig {
                host: &endpoint.host,
                is_absolute: false,
                port: endpoint.port,
                socket: endpoint
                    .socket
                    .as_deref()
                    .map(|path| (path, Arc::clone(&machine.dialler))),
                protocol: config.protocol,
                tls,
                addresses: config.addresses.clone(),
                connect_timeout: config.connect_timeout,
                idle_timeout: config.idle_timeout,
                max_connections: config.max_connections,
                resolver: Arc::clone(&machine.resolver),
            })?;
            let outlier = config.outlier.clone();
            let endpoint = Endpoint::new(target, &endpoint.host, endpoint.weight, outlier);
            endpoints.push(Arc::new(endpoint));
        }
        Ok(Arc::new(Self {
            budget: Budget::new(config.retry_percent),
            breaker: config.breaker.clone().map(Breaker::new),
            is_timed: is_timed(&config),
            config,
            endpoints: endpoints.into(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
            hedges_won: AtomicU64::new(0),
            mirrors_dropped: AtomicU64::new(0),
            mirrors: Arc::default(),
        }))
    }

    /// Whether both sides prove themselves by SVIDs.
    pub fn shows_svids(&self) -> bool {
        let tls = self.config.tls.as_ref();
        tls.is_some_and(|it| it.spiffe.is_some())
    }

    /// What it was made of: with the same, an old one is as good as a new one.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// Why there is no answer. Nothing of an answer has been given out then.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_telling(request, options, &mut Tries::default())
            .await
    }

    /// The same, and says how it went, also when there is no answer.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub async fn send_telling<B>(
        &self,
        request: Request<B>,
        options: &SendOptions,
        tries: &mut Tries,
    ) -> Result<Response<UpstreamBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let outgoing = Outgoing::new(request.map(OutBody::new), &options.host, None);
        let sent = self.send_out(outgoing?, options, tries).await;
        self.counted(sent)
    }

    /// Sends a request that asks to change the protocol (`Connection: upgrade`), over HTTP/1.1. With
    /// 101 comes the tunnel; any other answer is one to pass on.
    ///
    /// # Errors
    /// As [`Upstream::send`]; also when the request asks for no upgrade, or the service speaks
    /// HTTP/2 only.
    pub async fn send_upgrade<B>(
        &self,
        request: Request<B>,
        options: &SendOptions,
    ) -> Result<(Response<UpstreamBody>, Option<Tunnel>), SendError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if self.config.protocol == Protocol::Http2 {
            return Err(SendError::Unsupported("upgrade over HTTP/2"));
        }
        let upgrade = wanted_upgrade(request.headers());
        let upgrade = upgrade.ok_or(SendError::Unsupported("no upgrade asked for"))?;
        let outgoing = Outgoing::new(
            request.map(OutBody::new),
            &options.host,
            Some(upgrade.clone()),
        )?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let pass = self.counted(self.pass())?;
        let endpoint = self.counted(self.chosen(None))?.1;
        let mut outgoing = outgoing;
        let clock = self.is_timed.then(|| Clock::start(outgoing.time_body()));
        let mut active = Active::new(endpoint, Watch::of(pass, clock));
        let limits = self.limits(options, Need::Http1);
        let deadline = options.timeout.map(|it| Instant::now() + it);
        let answered = within(deadline, exchange(&endpoint.target, outgoing, limits)).await;
        let answered = answered.and_then(|it| it.map_err(|none| none.error));
        active.judge(answered.as_ref().map(|(it, _)| it.status()));
        let (response, lease) = self.counted(answered)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return upgraded(response, lease, active, &upgrade).await;
        }
        let mut response = plain_answer((response, lease))?;
        let body = response.body_mut();
        body.attend(Some(active), deadline, options.body_idle);
        Ok((response, None))
    }

    /// What is known of each endpoint.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.endpoints.iter().map(|it| it.health()).collect()
    }

    /// How its breaker stands, if it has one.
    pub fn circuit(&self) -> Option<Circuit> {
        self.breaker.as_ref().map(|it| it.circuit())
    }

    /// Whether an endpoint can be expected to answer.
    pub fn has_ready_endpoint(&self) -> bool {
        let now = balance::now();
        self.endpoints.iter().any(|it| it.is_ready(now))
    }

    /// Totals since it was made.
    pub fn counters(&self) -> Counters {
        let endpoints = self.endpoints.iter();
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            hedges: self.hedges.load(Ordering::Relaxed),
            hedges_won: self.hedges_won.load(Ordering::Relaxed),
            ejections: endpoints
                .clone()
                .map(|it| it.ejections.load(Ordering::Relaxed))
                .sum(),
            mirrors_dropped: self.mirrors_dropped.load(Ordering::Relaxed),
            open_connections: endpoints.map(|it| it.target.connections() as u64).sum(),
        }
    }

    pub(crate) async fn send_out(
        &self,
        outgoing: Outgoing,
        options: &SendOptions,
        tries: &mut Tries,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.budget.earn();
        match options.timeout {
            None => self.tries(outgoing, options, None, tries).await,
            Some(time) => {
                let deadline = Some(Instant::now() + time);
                within(deadline, self.tries(outgoing, options, deadline, tries)).await?
            }
        }
    }

    /// The right to send one try, where a breaker gives it.
    pub(crate) fn pass(&self) -> Result<Option<Pass>, SendError> {
        self.breaker.as_ref().map(Breaker::pass).transpose()
    }

    /// An endpoint to ask; `not` only when there is no other.
    pub(crate) fn chosen(&self, not: Option<usize>) -> Result<(usize, &Arc<Endpoint>), SendError> {
        let index = balance::choose(&self.endpoints, not);
        index
            .and_then(|index| Some((index, self.endpoints.get(index)?)))
            .ok_or(SendError::NoHealthyEndpoint)
    }

    pub(crate) fn limits(&self, options: &SendOptions, need: Need) -> Limits {
        let shorter = |own: Duration, other: Option<Duration>| other.map_or(own, |it| it.min(own));
        Limits {
            connect: shorter(self.config.connect_timeout, options.connect_timeout),
            response: shorter(self.config.response_timeout, options.response_timeout),
            need,
        }
    }

    pub(crate) fn counted<T>(&self, sent: Result<T, SendError>) -> Result<T, SendError> {
        if sent.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

fn is_timed(config: &UpstreamConfig) -> bool {
    let of_endpoints = config.outlier.shares.as_ref();
    let of_all = config.breaker.as_ref().and_then(|it| it.shares.as_ref());
    let mut shares = of_endpoints.into_iter().chain(of_all);
    shares.any(|it| it.slow.is_some())
}

pub(crate) async fn within<F: Future>(
    deadline: Option<Instant>,
    work: F,
) -> Result<F::Output, SendError> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => {
            let done = timeout_at(deadline, work).await;
            done.map_err(|_| SendError::TimeoutWhole)
        }
    }
}
