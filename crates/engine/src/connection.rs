//! One connection: accepted, made secure, told apart (HTTP/1.1 or 2), served, drained.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::certificate::{Authorities, Presented, refusal_of};
use crate::node::{Connection, Node, Place};
use crate::pipeline;
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::Timers;
use crate::tls::{self, Tls};
use crate::wire::{Answering, Patience, Wire};

/// What hyper may buffer of a head. More than `admit` allows, so that the refusal is ours.
const HEAD_BUFFER: usize = 256 << 10;
/// Streams that a client may have open at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Patience with clients when there is no plan to say how much.
const NO_PLAN: Timers = Timers {
    handshake_millis: 10_000,
    header_millis: 15_000,
    idle_millis: 60_000,
    body_bytes_per_second: 240,
};
/// Connections held when there is no plan to say how many.
const CONNECTIONS: u64 = 1000;

/// What all connections of a listener share.
pub struct ListenerShared {
    /// Its name.
    pub name: Arc<str>,
    /// TLS, or none on a plain one.
    pub tls: Option<Arc<Tls>>,
}

/// Accepts connections until the engine drains.
pub async fn accept(
    node: Arc<Node>,
    listener: TcpListener,
    shared: Arc<ListenerShared>,
    mut draining: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain_begins(&mut draining) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: others must close before another can open.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let limit = node
            .plan()
            .map_or(CONNECTIONS, |it| it.admit.limits.max_connections);
        let Some(place) = node.connections.enter(limit) else {
            continue;
        };
        let task = Task {
            node: Arc::clone(&node),
            shared: Arc::clone(&shared),
            draining: draining.clone(),
            _place: place,
        };
        tokio::spawn(task.run(stream, peer));
    }
}

async fn drain_begins(draining: &mut watch::Receiver<bool>) {
    // An error means that the engine is gone, which is the end as well.
    let _ = draining.wait_for(|is_draining| *is_draining).await;
}

struct Task {
    node: Arc<Node>,
    shared: Arc<ListenerShared>,
    draining: watch::Receiver<bool>,
    _place: Place,
}

impl Task {
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let (timers, authorities) = self.terms();
        let Some(tls) = &self.shared.tls else {
            let connection = self.connection("http", peer, None, None);
            return self.serve_http1(stream, connection, &timers).await;
        };
        let Ok(config) = tls.current(authorities.as_ref()) else {
            return;
        };
        let patience = Duration::from_millis(timers.handshake_millis);
        let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
        let stream = match timeout(patience, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => return self.refuse(peer, &error, stream).await,
            Err(_) => return,
        };
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().map(Presented::new);
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let sni = session.server_name().map(str::to_ascii_lowercase);
        let connection = self.connection("https", peer, sni, certificate);
        if is_http2 {
            self.serve_http2(TokioIo::new(stream), connection).await;
        } else {
            self.serve_http1(stream, connection, &timers).await;
        }
    }

    /// Patience, and who vouches for callers, of the plan in force when the connection begins.
    /// Copies: a plan must not live as long as the connections that it saw begin.
    fn terms(&self) -> (Timers, Option<Arc<Authorities>>) {
        self.node.plan().map_or((NO_PLAN, None), |plan| {
            (plan.admit.limits.timers.clone(), plan.authorities.clone())
        })
    }

    fn connection(
        &self,
        scheme: &'static str,
        peer: SocketAddr,
        sni: Option<String>,
        certificate: Option<Presented>,
    ) -> Arc<Connection> {
        // An IPv4 client of an IPv6 socket is an IPv4 client to policies and records.
        let ip = peer.ip().to_canonical();
        Arc::new(Connection {
            listener: Arc::clone(&self.shared.name),
            scheme,
            client: SocketAddr::new(ip, peer.port()).to_string().into(),
            client_address: ip,
            client_ip: ip.to_string().into(),
            client_ip_value: HeaderValue::from_str(&ip.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            sni: sni.map(Into::into),
            certificate,
            location: self.node.location.clone(),
            answering: Answering::default(),
        })
    }

    /// A handshake that failed over the client's certificate leaves a record; others are noise.
    async fn refuse(self, peer: SocketAddr, error: &std::io::Error, stream: TcpStream) {
        if let Some(error) = tls::certificate_error(error) {
            let connection = self.connection("https", peer, None, None);
            let mut record = Record::open(&connection, &no_request());
            record.protocol = "TLS";
            record.outcome = Outcome::Refused;
            record.refusal = Some(refusal_of(error));
            drop(record);
            tls::let_alert_arrive(stream).await;
        }
    }

    async fn serve_http1<I>(mut self, io: I, connection: Arc<Connection>, timers: &Timers)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let patience = Patience {
            header: Duration::from_millis(timers.header_millis),
            idle: Duration::from_millis(timers.idle_millis),
        };
        let io = TokioIo::new(Wire::new(io, Arc::clone(&connection), patience));
        let service = service_fn(|request| {
            let (node, connection) = (Arc::clone(&self.node), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(pipeline::serve(&node, &connection, request).await) }
        });
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .max_buf_size(HEAD_BUFFER)
                .max_headers(256)
                .serve_connection(io, service)
                .with_upgrades()
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = drain_begins(&mut self.draining) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            record_unreadable(&connection, &error);
        }
    }

    async fn serve_http2<I>(mut self, io: TokioIo<I>, connection: Arc<Connection>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let node = Arc::clone(&self.node);
        let service = service_fn(move |request| {
            let (node, connection) = (Arc::clone(&node), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(pipeline::serve(&node, &connection, request).await) }
        });
        let mut serving = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(128 << 10)
                .max_pending_accept_reset_streams(20)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service)
        );
        let _ = tokio::select! {
            ended = serving.as_mut() => ended,
            () = drain_begins(&mut self.draining) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
    }
}

/// A request that was no HTTP: hyper has answered it, and it gets its record like any other.
fn record_unreadable(connection: &Arc<Connection>, error: &hyper::Error) {
    if connection.answering.is_too_slow() {
        let mut record = Record::open(connection, &no_request());
        let cause = Cause::HeadTooSlow;
        record.status = cause.outcome().2;
        record.outcome = Outcome::Refused;
        record.refusal = Some(cause.into());
        return;
    }
    if !error.is_parse() {
        return;
    }
    // Without an answer the client had gone before one could be sent.
    let (cause, ids) = match connection.answering.unreadable() {
        Some((cause, ids)) => (*cause, Some(ids.clone())),
        None => (Cause::MalformedRequest, None),
    };
    let mut record = Record::open(connection, &no_request());
    if let Some(ids) = ids {
        record.ids = ids;
    }
    record.status = cause.outcome().2;
    record.outcome = Outcome::Refused;
    record.refusal = Some(Refusal::with(cause, error.to_string()));
}

/// The head of a request that was never read: no method, no path.
fn no_request() -> http::request::Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(b"-").unwrap_or_default();
    parts
}
