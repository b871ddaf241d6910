//! One connection: accepted, made secure, told apart (HTTP/1.1 or 2), served, drained.
//!
//! What is awaited is on the heap: the task of a connection is as large as its largest part, and most
//! connections rest.

mod door;
mod head;
mod http1;
mod sidecar;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Version};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use vedette_admit::hello::Ja4;

use self::head::HeadRoom;
pub use self::sidecar::of_program;
use crate::certificate::{Authorities, Presented};
use crate::first_words::FirstWords;
use crate::frames::Frames;
use crate::handover::{Phase, leaving};
use crate::mesh::{MeshTls, Sidecar};
use crate::node::{Connection, Node};
use crate::pace;
use crate::pipeline;
use crate::plain::{self, Begins};
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::Timers;
use crate::sources::Seat;
use crate::stages::admit::refusal_of_client;
use crate::streams::Streams;
use crate::tls::{self, Tls};
use crate::wire::{Answering, Patience, Wire};

/// Streams that a client may have open at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// How long a client that was told GOAWAY may still finish what it had begun to send.
const GOODBYE: Duration = Duration::from_secs(5);
/// Patience with clients when there is no plan to say how much.
const NO_PLAN: Timers = Timers {
    handshake_millis: 10_000,
    header_millis: 15_000,
    idle_millis: 60_000,
    body_bytes_per_second: 240,
    tunnel_millis: 300_000,
};
/// Connections held when there is no plan to say how many.
const CONNECTIONS: u64 = 1000;

/// What all connections of a listener share.
pub struct ListenerShared {
    /// Its name.
    pub name: Arc<str>,
    /// TLS, or none on a plain one.
    pub tls: Option<Arc<Tls>>,
    /// Whose it is; absent: the node's own.
    pub sidecar: Option<OfSidecar>,
}

/// What makes a listener a sidecar's.
pub struct OfSidecar {
    /// The sidecar.
    pub sidecar: Arc<Sidecar>,
    /// Its TLS, where others come to it.
    pub tls: Option<MeshTls>,
}

impl ListenerShared {
    /// The listener of one side of a sidecar.
    pub fn of_sidecar(sidecar: &Arc<Sidecar>, tls: Option<MeshTls>) -> Self {
        Self {
            name: sidecar.listener().into(),
            tls: None,
            sidecar: Some(OfSidecar {
                sidecar: Arc::clone(sidecar),
                tls,
            }),
        }
    }

    fn scheme(&self) -> &'static str {
        let of_sidecar = self.sidecar.as_ref().and_then(|it| it.tls.as_ref());
        if self.tls.is_some() || of_sidecar.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Whether its clients are one program of this machine.
    fn is_of_a_program(&self) -> bool {
        let sidecar = self.sidecar.as_ref();
        sidecar.is_some_and(|it| it.sidecar.is_outbound())
    }
}

/// What a handshake has shown of a client; nothing over plain HTTP.
#[derive(Default)]
struct Seen {
    sni: Option<String>,
    certificate: Option<Presented>,
    ja4: Option<Ja4>,
}

/// Accepts connections until the engine drains.
pub async fn accept(
    node: Arc<Node>,
    listener: TcpListener,
    shared: Arc<ListenerShared>,
    mut phase: watch::Receiver<Phase>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = leaving(&mut phase) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: others must close before another can open.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let plan = node.plan();
        let seat = door::seat(&node, plan.as_deref(), peer.ip(), shared.is_of_a_program());
        let seat = match seat {
            Ok(seat) => seat,
            Err(refusal) => {
                let seen = || connection(&node, &shared, shared.scheme(), peer, Seen::default());
                door::turn_away(plan.as_deref(), "TCP", refusal, seen);
                continue;
            }
        };
        let task = Task {
            node: Arc::clone(&node),
            shared: Arc::clone(&shared),
            phase: phase.clone(),
            seat,
        };
        tokio::spawn(task.run(stream, peer));
    }
}

/// A connection as its requests and its record see it.
fn connection(
    node: &Node,
    shared: &ListenerShared,
    scheme: &'static str,
    peer: SocketAddr,
    seen: Seen,
) -> Arc<Connection> {
    // An IPv4 client of an IPv6 socket is an IPv4 client to policies and records.
    let ip = peer.ip().to_canonical();
    Arc::new(Connection {
        listener: Arc::clone(&shared.name),
        scheme,
        client: SocketAddr::new(ip, peer.port()).to_string().into(),
        client_address: ip,
        client_ip: ip.to_string().into(),
        client_ip_value: HeaderValue::from_str(&ip.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("")),
        sni: seen.sni.map(Into::into),
        certificate: seen.certificate,
        ja4: seen.ja4,
        location: node.location.clone(),
        sidecar: shared.sidecar.as_ref().map(|it| Arc::clone(&it.sidecar)),
        offenders: Arc::clone(&node.offenders),
        answering: Answering::default(),
    })
}

/// A connection after its handshake.
struct Secured {
    stream: Box<TlsStream<FirstWords<TcpStream>>>,
    connection: Arc<Connection>,
    is_http2: bool,
}

struct Task {
    node: Arc<Node>,
    shared: Arc<ListenerShared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
}

impl Task {
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        if self.shared.sidecar.is_some() {
            return Box::pin(self.run_sidecar(stream, peer)).await;
        }
        let (timers, authorities) = self.terms();
        let Some(tls) = &self.shared.tls else {
            let connection = self.connection("http", peer, Seen::default());
            return self.serve_http1(stream, connection, &timers).await;
        };
        let Ok(config) = tls.current(authorities.as_ref()) else {
            return;
        };
        let Some(secured) = Box::pin(self.secure(stream, peer, config, &timers)).await else {
            return;
        };
        self.serve_secured(secured, &timers).await;
    }

    async fn serve_secured(self, secured: Secured, timers: &Timers) {
        if secured.is_http2 {
            Box::pin(self.serve_http2(secured.stream, secured.connection, timers)).await;
        } else {
            self.serve_http1(*secured.stream, secured.connection, timers)
                .await;
        }
    }

    /// The handshake; none when there is no connection after it.
    async fn secure(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        config: Arc<ServerConfig>,
        timers: &Timers,
    ) -> Option<Secured> {
        let patience = Instant::now() + Duration::from_millis(timers.handshake_millis);
        match timeout_at(patience, plain::begins(&mut stream)).await {
            Ok(Ok(Begins::Tls)) => {}
            Ok(Ok(Begins::PlainHttp)) => {
                self.refuse_plain(peer, stream).await;
                return None;
            }
            Ok(Ok(Begins::Unknown) | Err(_)) | Err(_) => return None,
        }
        self.shake_hands(stream, peer, config, patience).await
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        config: Arc<ServerConfig>,
        patience: Instant,
    ) -> Option<Secured> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), FirstWords::new(stream));
        let mut hello = timeout_at(patience, hello).await.ok()?.ok()?;
        let ja4 = hello.io.ja4();
        if !self.lets_in(peer, ja4) {
            return None;
        }
        self.node.pressure.shake_hands();
        let handshake = hello.into_stream(config).into_fallible();
        let stream = match timeout_at(patience, handshake).await.ok()? {
            Ok(stream) => stream,
            Err((error, stream)) => {
                self.refuse(peer, &error, stream.into_inner(), ja4).await;
                return None;
            }
        };
        let session = stream.get_ref().1;
        let seen = Seen {
            sni: session.server_name().map(str::to_ascii_lowercase),
            certificate: session.peer_certificates().map(Presented::new),
            ja4,
        };
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let connection = self.connection("https", peer, seen);
        Some(Secured {
            stream: Box::new(stream),
            connection,
            is_http2,
        })
    }

    /// Patience, and who vouches for callers, of the plan in force when the connection begins.
    /// Copies: a plan must not live as long as the connections that it saw begin.
    fn terms(&self) -> (Timers, Option<Arc<Authorities>>) {
        self.node.plan().map_or((NO_PLAN, None), |plan| {
            (plan.admit.limits.timers.clone(), plan.authorities.clone())
        })
    }

    /// Whether the plan lets in a TLS client that looks like this; the costly part of the handshake is
    /// still to come.
    fn lets_in(&self, peer: SocketAddr, ja4: Option<Ja4>) -> bool {
        let Some(plan) = self.node.plan().filter(|_| self.shared.sidecar.is_none()) else {
            return true;
        };
        let Some(refusal) = refusal_of_client(&plan, peer.ip(), ja4.as_ref()) else {
            return true;
        };
        let seen = || {
            let seen = Seen {
                ja4,
                ..Seen::default()
            };
            self.connection("https", peer, seen)
        };
        door::turn_away(Some(&plan), "TLS", refusal, seen);
        false
    }

    fn connection(&self, scheme: &'static str, peer: SocketAddr, seen: Seen) -> Arc<Connection> {
        connection(&self.node, &self.shared, scheme, peer, seen)
    }

    /// A handshake that failed over the client's certificate leaves a record; others are noise.
    async fn refuse(
        &self,
        peer: SocketAddr,
        error: &std::io::Error,
        stream: TcpStream,
        ja4: Option<Ja4>,
    ) {
        if let Some(refusal) = tls::refusal_of(error) {
            let seen = Seen {
                ja4,
                ..Seen::default()
            };
            let connection = self.connection("https", peer, seen);
            let mut record = Record::open(&connection, &no_request());
            record.protocol = "TLS";
            record.outcome = Outcome::Refused;
            record.refusal = Some(refusal);
            drop(record);
            tls::let_alert_arrive(stream).await;
        }
    }

    /// The record is kept before the answer is sent, like that of any other bytes that are no request.
    async fn refuse_plain(&self, peer: SocketAddr, stream: TcpStream) {
        let connection = self.connection("http", peer, Seen::default());
        let record = Record::open(&connection, &no_request());
        let ids = record.ids.clone();
        record_refused(record, Cause::PlainHttp.into());
        plain::refuse(stream, &ids, &connection.location).await;
    }

    fn serve_http1<I>(
        self,
        io: I,
        connection: Arc<Connection>,
        timers: &Timers,
    ) -> Pin<Box<impl Future<Output = ()> + Send + use<I>>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let patience = Patience {
            header: Duration::from_millis(timers.header_millis),
            idle: Duration::from_millis(timers.idle_millis),
            pace: pace_of(timers),
        };
        let wire = Box::new(Wire::new(io, Arc::clone(&connection), patience));
        Box::pin(http1::serve(
            self.node, connection, wire, self.phase, self.seat,
        ))
    }

    async fn serve_http2<I>(mut self, io: I, connection: Arc<Connection>, timers: &Timers)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = Streams::new(pace_of(timers));
        let header = Duration::from_millis(timers.header_millis);
        let io = Frames::new(io, Arc::clone(&connection), header, pace_of(timers));
        let service = service_fn(|request| {
            let (node, connection) = (Arc::clone(&self.node), Arc::clone(&connection));
            let handing = Some(streams.expect());
            async move {
                Ok::<_, Infallible>(pipeline::serve(&node, &connection, handing, request).await)
            }
        });
        let mut serving = pin!(
            http2::Builder::new(streams.clone())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HeadRoom::of(&self.node).list_of_http2())
                .max_pending_accept_reset_streams(20)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .enable_connect_protocol()
                .serve_connection(TokioIo::new(io), service)
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = leaving(&mut self.phase) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            () = connection.answering.goodbye() => {
                serving.as_mut().graceful_shutdown();
                // It takes new streams until the client has heard of it, which this one decides.
                timeout(GOODBYE, serving.as_mut()).await.unwrap_or(Ok(()))
            }
            () = streams.idle(Duration::from_millis(timers.idle_millis)) => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving.as_mut() => ended,
                    () = streams.idle(GOODBYE) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            record_broken(&connection, &error);
        }
    }
}

/// Serves bytes that come over no socket, as one connection of a TLS listener; says how many requests
/// they were.
#[cfg(any(test, fuzzing))]
pub async fn serve_bytes<I>(node: Arc<Node>, io: I, peer: SocketAddr, is_http2: bool) -> u64
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(place) = node.connections.enter(u64::MAX) else {
        return 0;
    };
    let (_serving, phase) = watch::channel(Phase::Serving);
    let name = "https".into();
    let shared = Arc::new(ListenerShared {
        name,
        tls: None,
        sidecar: None,
    });
    let task = Task {
        node,
        shared,
        phase,
        seat: Seat::uncounted(place),
    };
    let (timers, _) = task.terms();
    let connection = task.connection("https", peer, Seen::default());
    if is_http2 {
        task.serve_http2(io, Arc::clone(&connection), &timers).await;
    } else {
        task.serve_http1(io, Arc::clone(&connection), &timers).await;
    }
    connection.answering.requests()
}

/// The patience with bodies: a client that takes nothing for as long as a connection may idle is
/// as good as gone.
fn pace_of(timers: &Timers) -> pace::Patience {
    pace::Patience {
        grace: Duration::from_millis(timers.idle_millis),
        bytes_per_second: timers.body_bytes_per_second,
    }
}

/// A connection that was given up, or ended by what is no HTTP/2, leaves a record.
fn record_broken(connection: &Arc<Connection>, error: &hyper::Error) {
    let refusal = match connection.answering.gave_up() {
        // The answer that was not taken has a record of its own.
        Some(Cause::AnswerNotTaken) => None,
        Some(cause) => Some(cause.into()),
        None => refused_by_h2(error),
    };
    let Some(refusal) = refusal else {
        return;
    };
    let mut parts = no_request();
    parts.version = Version::HTTP_2;
    record_refused(Record::open(connection, &parts), refusal);
}

/// Why h2 has ended a connection, when the client brought it about.
fn refused_by_h2(error: &hyper::Error) -> Option<Refusal> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    let reason = error.reason().filter(|_| error.is_library())?;
    let cause = match reason {
        h2::Reason::NO_ERROR => return None,
        h2::Reason::ENHANCE_YOUR_CALM => Cause::Flooded,
        _ => Cause::MalformedRequest,
    };
    Some(Refusal::with(cause, error.to_string()))
}

fn record_refused(mut record: Record, refusal: Refusal) {
    record.status = refusal.cause.outcome().2;
    record.outcome = Outcome::Refused;
    record.refusal = Some(refusal);
}

/// A request that was no HTTP: hyper has answered it, and it gets its record like any other.
fn record_unreadable(connection: &Arc<Connection>, error: &hyper::Error) {
    match connection.answering.gave_up() {
        Some(Cause::AnswerNotTaken) => return,
        Some(cause) => {
            return record_refused(Record::open(connection, &no_request()), cause.into());
        }
        None => {}
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
    record_refused(record, Refusal::with(cause, error.to_string()));
}

/// The head of a request that was never read: no method, no path.
fn no_request() -> http::request::Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(b"-").unwrap_or_default();
    parts
}
