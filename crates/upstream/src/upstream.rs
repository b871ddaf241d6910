//! A service: its endpoints, and one request to it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::BodyExt;
use rustls::RootCertStore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::balance::{self, Active, Endpoint, EndpointHealth};
use crate::body::{OutBody, UpstreamBody};
use crate::budget::Budget;
use crate::config::{Protocol, Retry, SendOptions, UpstreamConfig};
use crate::connect::Need;
use crate::dns::{Resolve, SystemResolver};
use crate::error::{BoxError, ConfigError, SendError};
use crate::exchange::{self, Limits, exchange, plain_answer};
use crate::fields::{Outgoing, wanted_upgrade};
use crate::target::{Target, TargetConfig};
use crate::tls;
use crate::tunnel::{Tunnel, upgraded};

/// What of the machine this crate needs, read once before the engine confines itself.
#[derive(Clone)]
pub struct Machine {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) roots: Arc<RootCertStore>,
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
        }
    }
}

/// Most mirrored requests under way, and most bytes of their bodies, of one upstream.
const MIRRORED: usize = 64;
const MIRRORED_BYTES: usize = 16 << 20;
/// What of a mirror's answer is read, so that its connection can be used again.
const MIRROR_ANSWER_BYTES: usize = 64 << 10;
/// Longest wait between two tries.
const BACKOFF: Duration = Duration::from_secs(10);

/// Totals since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests handed in.
    pub requests: u64,
    /// Requests without an answer, after all tries.
    pub failures: u64,
    /// Second and further tries.
    pub retries: u64,
    /// Times an endpoint was left out.
    pub ejections: u64,
    /// Mirrored requests that were not sent, since too many were under way.
    pub mirrors_dropped: u64,
    /// Connections open now, of all workers.
    pub open_connections: u64,
}

/// A service behind the gateway. Shared by all workers; each has connections of its own.
pub struct Upstream {
    config: UpstreamConfig,
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    budget: Budget,
    requests: AtomicU64,
    failures: AtomicU64,
    retries: AtomicU64,
    mirrors_dropped: AtomicU64,
    mirrors: Arc<Mirrors>,
}

#[derive(Default)]
struct Mirrors {
    number: AtomicUsize,
    bytes: AtomicUsize,
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
            config,
            endpoints: endpoints.into(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            retries: AtomicU64::new(0),
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
        let outgoing = Outgoing::new(request.map(OutBody::new), &options.host, None);
        let sent = self.send_out(outgoing?, options).await;
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
        let index = balance::choose(&self.endpoints, None).ok_or(SendError::NoHealthyEndpoint);
        let endpoint = index.map(|index| self.endpoints.get(index));
        let Some(endpoint) = endpoint? else {
            return Err(SendError::NoHealthyEndpoint);
        };
        let active = Active::new(endpoint);
        let limits = self.limits(options, Need::Http1);
        let deadline = options.timeout.map(|it| Instant::now() + it);
        let answered = within(deadline, exchange(&endpoint.target, outgoing, limits)).await;
        let answered = answered.and_then(|it| it.map_err(|none| none.error));
        endpoint.judge(answered.as_ref().map(|(it, _)| it.status()));
        let (response, lease) = self.counted(answered)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return upgraded(response, lease, active, &upgrade).await;
        }
        let mut response = plain_answer((response, lease))?;
        let body = response.body_mut();
        body.attend(Some(active), deadline, options.body_idle);
        Ok((response, None))
    }

    /// Sends a copy of a request and forgets it. `false`: not sent, too many are under way.
    pub fn mirror(
        self: &Arc<Self>,
        head: request::Parts,
        body: Bytes,
        options: &SendOptions,
    ) -> bool {
        let Some(place) = Mirrors::enter(&self.mirrors, body.len()) else {
            self.mirrors_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let request = Request::from_parts(head, OutBody::whole(body));
        let Ok(outgoing) = Outgoing::new(request, &options.host, None) else {
            return false;
        };
        let (upstream, mut options) = (Arc::clone(self), options.clone());
        options.retry = None;
        options
            .timeout
            .get_or_insert(upstream.config.response_timeout);
        tokio::spawn(async move {
            let sent = upstream.send_out(outgoing, &options).await;
            if let Ok(response) = upstream.counted(sent) {
                discard(response.into_body()).await;
            }
            drop(place);
        });
        true
    }

    /// What is known of each endpoint.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.endpoints.iter().map(|it| it.health()).collect()
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
            ejections: endpoints
                .clone()
                .map(|it| it.ejections.load(Ordering::Relaxed))
                .sum(),
            mirrors_dropped: self.mirrors_dropped.load(Ordering::Relaxed),
            open_connections: endpoints.map(|it| it.target.connections() as u64).sum(),
        }
    }

    async fn send_out(
        &self,
        outgoing: Outgoing,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.budget.earn();
        match options.timeout {
            None => self.tries(outgoing, options, None).await,
            Some(time) => {
                let deadline = Instant::now() + time;
                within(
                    Some(deadline),
                    self.tries(outgoing, options, Some(deadline)),
                )
                .await?
            }
        }
    }

    /// Tries until there is an answer to give out, or none to hope for.
    async fn tries(
        &self,
        outgoing: Outgoing,
        options: &SendOptions,
        deadline: Option<Instant>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let limits = self.limits(options, Need::Any);
        let retry = options.retry.as_ref();
        let retry = retry.filter(|it| it.attempts > 0 && exchange::is_safe(outgoing.method()));
        let mut outgoing = outgoing;
        let (mut tried, mut tries, mut moved) = (None, 0, false);
        loop {
            let spare = retry.and_then(|_| outgoing.copy());
            let index = balance::choose(&self.endpoints, tried);
            let endpoint = index.and_then(|index| self.endpoints.get(index));
            let endpoint = endpoint.ok_or(SendError::NoHealthyEndpoint)?;
            let active = Active::new(endpoint);
            let answered = exchange(&endpoint.target, outgoing, limits).await;
            let (answered, unsent) = match answered {
                Ok(answer) => (plain_answer(answer), None),
                Err(none) => (Err(none.error), none.unsent),
            };
            endpoint.judge(answered.as_ref().map(Response::status));
            tries += 1;
            let again = spare.filter(|_| retry.is_some_and(|it| is_hoped(it, tries, &answered)));
            // What never left may go to another endpoint, whatever its method; once.
            let elsewhere = unsent.filter(|_| {
                let is_first = !std::mem::replace(&mut moved, true);
                is_first && self.endpoints.len() > 1 && is_a_failed_connection(&answered)
            });
            let is_retry = again.is_some();
            let next = again.or(elsewhere);
            match next.filter(|_| self.budget.take(balance::now())) {
                Some(next) => outgoing = next,
                None => {
                    return answered.map(|mut response| {
                        let body = response.body_mut();
                        body.attend(Some(active), deadline, options.body_idle);
                        response
                    });
                }
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            drop((answered, active));
            tried = index;
            if let Some(retry) = retry.filter(|_| is_retry) {
                sleep(pause(retry.backoff, tries)).await;
            }
        }
    }

    fn limits(&self, options: &SendOptions, need: Need) -> Limits {
        let shorter = |own: Duration, other: Option<Duration>| other.map_or(own, |it| it.min(own));
        Limits {
            connect: shorter(self.config.connect_timeout, options.connect_timeout),
            response: shorter(self.config.response_timeout, options.response_timeout),
            need,
        }
    }

    fn counted<T>(&self, sent: Result<T, SendError>) -> Result<T, SendError> {
        if sent.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

async fn within<F: Future>(deadline: Option<Instant>, work: F) -> Result<F::Output, SendError> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => {
            let done = timeout_at(deadline, work).await;
            done.map_err(|_| SendError::TimeoutWhole)
        }
    }
}

fn is_hoped(
    retry: &Retry,
    tries: u32,
    answered: &Result<Response<UpstreamBody>, SendError>,
) -> bool {
    tries <= retry.attempts
        && match answered {
            Ok(response) => retry.codes.contains(&response.status()),
            Err(error) => error.is_worth_another_try(),
        }
}

fn is_a_failed_connection<T>(answered: &Result<T, SendError>) -> bool {
    matches!(
        answered,
        Err(SendError::ConnectFailed(_)
            | SendError::DnsFailed(_)
            | SendError::TimeoutConnect
            | SendError::Overloaded)
    )
}

/// A random part of the wait, which doubles with each try.
fn pause(backoff: Duration, tries: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
    backoff
        .saturating_mul(factor)
        .min(BACKOFF)
        .mul_f64(fastrand::f64())
}

async fn discard(mut body: UpstreamBody) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MIRROR_ANSWER_BYTES {
            return;
        }
    }
}

impl Mirrors {
    fn enter(mirrors: &Arc<Self>, bytes: usize) -> Option<MirrorPlace> {
        let before = mirrors.number.fetch_add(1, Ordering::Relaxed);
        let held = mirrors.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = MirrorPlace(Arc::clone(mirrors), bytes);
        (before < MIRRORED && held.saturating_add(bytes) <= MIRRORED_BYTES).then_some(place)
    }
}

struct MirrorPlace(Arc<Mirrors>, usize);

impl Drop for MirrorPlace {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}
