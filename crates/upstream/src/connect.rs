//! A new connection: the name, TCP, TLS, HTTP; or a Unix socket and HTTP.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::Protocol;
use crate::error::SendError;
use crate::pool::{Connection, Http1, Http2};
use crate::target::Target;
use crate::wire::{Socket, Stream, Wire};

/// Largest head of an answer, and of its trailers, in bytes. hyper takes up to 100 fields.
const HEAD_BYTES: usize = 64 << 10;
/// What one connection keeps of a body that nobody reads yet.
const BUFFER_BYTES: usize = 128 << 10;
/// Most streams of one connection, whatever the service allows.
pub(crate) const STREAMS: usize = 100;
/// So large that readers who stop cannot keep the other streams of a connection waiting.
const CONNECTION_WINDOW: u32 = 100 * (128 << 10);
const STREAM_WINDOW: u32 = 128 << 10;
/// When the next address is tried beside the one before (RFC 8305 §5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Which version the request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Any,
    Http1,
}

/// Opens a connection, in time.
pub(crate) async fn connect(
    target: &Arc<Target>,
    need: Need,
    deadline: Instant,
) -> Result<Connection, SendError> {
    let opened = target.open().ok_or(SendError::Overloaded)?;
    let dialled = timeout_at(deadline, async {
        let (stream, is_http2) = match &target.socket {
            Some((path, dialler)) => {
                let stream = dialler.dial(path).await;
                let stream = stream.map_err(|it| SendError::ConnectFailed(it.to_string()))?;
                (Stream::Unix(stream), false)
            }
            None => secure(target, need, dial(target).await?).await?,
        };
        let wire = Arc::new(Wire::default());
        let io = TokioIo::new(Socket::new(stream, Arc::clone(&wire), opened));
        if is_http2 {
            shared(io).await
        } else {
            alone(io, wire).await
        }
    });
    dialled.await.unwrap_or(Err(SendError::TimeoutConnect))
}

pub(crate) async fn dial(target: &Target) -> Result<TcpStream, SendError> {
    let addresses = target.allowed_addresses().await?;
    let failed = |error: io::Error| SendError::ConnectFailed(error.to_string());
    let stream = match addresses.as_slice() {
        [only] => TcpStream::connect(SocketAddr::new(*only, target.port)).await,
        _ => race(addresses, target.port).await,
    };
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The first of these addresses that answers: each starts when the one before has failed, or has
/// taken too long.
async fn race(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut dialling: Vec<Dialling> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    poll_fn(move |cx| {
        loop {
            let mut index = 0;
            while let Some(one) = dialling.get_mut(index) {
                match one.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        drop(dialling.swap_remove(index));
                        patience = None;
                    }
                    Poll::Pending => index += 1,
                }
            }
            if let Some(patience) = &mut patience
                && patience.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            match waiting.next() {
                Some(address) => {
                    let address = SocketAddr::new(address, port);
                    dialling.push(Box::pin(TcpStream::connect(address)));
                    patience = Some(Box::pin(sleep(NEXT_ADDRESS)));
                }
                None if dialling.is_empty() => {
                    let nothing = io::Error::from(io::ErrorKind::AddrNotAvailable);
                    return Poll::Ready(Err(std::mem::replace(&mut failure, nothing)));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

/// TLS where it is spoken, and whether the connection is one of HTTP/2.
async fn secure(target: &Target, need: Need, tcp: TcpStream) -> Result<(Stream, bool), SendError> {
    let Some((settings, name)) = &target.tls else {
        let is_http2 = target.protocol == Protocol::Http2;
        return Ok((Stream::Plain(tcp), is_http2));
    };
    let config = match need {
        Need::Any => &settings.any,
        Need::Http1 => &settings.http1,
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name.clone(), tcp).await;
    let stream = stream.map_err(|error| SendError::TlsFailed(error.to_string()))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if target.protocol == Protocol::Http2 && !is_http2 {
        return Err(SendError::TlsFailed("HTTP/2 was not agreed on".into()));
    }
    if need == Need::Any {
        target.learn(is_http2);
    }
    Ok((Stream::Tls(Box::new(stream)), is_http2))
}

async fn alone(io: TokioIo<Socket>, wire: Arc<Wire>) -> Result<Connection, SendError> {
    let (sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .handshake(io)
        .await
        .map_err(|error| SendError::ConnectFailed(error.to_string()))?;
    let task = tokio::spawn(async move {
        // How it ended is told to the request under way, if any.
        let _ = connection.with_upgrades().await;
    });
    Ok(Connection::Http1(Http1 {
        sender,
        wire,
        task: task.abort_handle(),
        opened: Instant::now(),
    }))
}

async fn shared(io: TokioIo<Socket>) -> Result<Connection, SendError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(64 << 10)
        // More wait until the service has said how many it takes; it would refuse them.
        .initial_max_send_streams(1)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .handshake(io)
        .await
        .map_err(|error| SendError::ConnectFailed(error.to_string()))?;
    let allowed = Arc::new(AtomicUsize::new(STREAMS));
    let told = Arc::clone(&allowed);
    let http2 = Http2::new(sender, allowed);
    let stream_ended = http2.stream_ended();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        // hyper does not say when the service's settings have come: it is asked after each stream.
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = stream_ended.notified() => {
                    told.store(connection.current_max_send_streams(), Ordering::Relaxed);
                }
            }
        }
    });
    Ok(Connection::Http2(http2))
}
