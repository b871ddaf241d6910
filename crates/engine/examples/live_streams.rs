//! How long it takes from a revocation to the last byte of a live exchange: thousands of them, each with a token of its
//! own, and one after another is revoked.
//!
//! `serve http1|http2` answers everything with a first byte and then nothing more, for the node to have behind it; it
//! prints its port. `measure PORT http1|http2|tunnel ADMIN_SOCKET CA_FILE ROUNDS MILLIS < TOKENS` opens an exchange for
//! each line (`TOKEN JTI`), revokes `ROUNDS` of them over the admin API, `MILLIS` apart, and prints JSON, times in
//! microseconds. Nothing is sent on what is open, so what both cost the machine meanwhile is next to nothing. Must not:
//! judge.

// A measurement may panic.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::error::Error;
use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: live_streams serve http1|http2 | \
                     measure PORT http1|http2|tunnel ADMIN_SOCKET CA_FILE ROUNDS MILLIS < TOKENS";
/// Exchanges that are begun at once.
const AT_ONCE: usize = 16;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match words.as_slice() {
        ["serve", protocol] => runtime.block_on(serve(*protocol == "http2")),
        ["measure", port, protocol, admin, ca, rounds, millis] => {
            let kind = match *protocol {
                "http1" => Kind::Http1,
                "http2" => Kind::Http2,
                "tunnel" => Kind::Tunnel,
                _ => return Err(USAGE.into()),
            };
            let (rounds, pause) = (rounds.parse()?, Duration::from_millis(millis.parse()?));
            runtime.block_on(async {
                let live = open_all(port.parse()?, kind, ca).await?;
                measure(live, admin, rounds, pause).await
            })
        }
        _ => Err(USAGE.into()),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http1,
    Http2,
    Tunnel,
}

async fn serve(is_http2: bool) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        if is_http2 {
            tokio::spawn(serve_http2(stream));
        } else {
            tokio::spawn(serve_http1(stream));
        }
    }
}

async fn serve_http1(mut stream: TcpStream) -> Result<(), Failure> {
    let mut head = vec![0; 16 * 1024];
    let read = stream.read(&mut head).await?;
    let is_tunnel = head[..read].windows(13).any(|it| it == b"upgrade: echo");
    let answer: &[u8] = if is_tunnel {
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n."
    } else {
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n1\r\n.\r\n"
    };
    stream.write_all(answer).await?;
    while stream.read(&mut head).await? > 0 {}
    Ok(())
}

async fn serve_http2(stream: TcpStream) -> Result<(), Failure> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(20_000);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let mut body = respond.send_response(Response::new(()), false)?;
        body.send_data(Bytes::from_static(b"."), false)?;
        tokio::spawn(async move { std::future::poll_fn(|cx| body.poll_reset(cx)).await });
    }
    Ok(())
}

/// One exchange: the id of its token, and when it ended.
struct Live {
    jti: String,
    ended: oneshot::Receiver<Instant>,
}

async fn open_all(port: u16, kind: Kind, ca: &str) -> Result<Vec<Live>, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let is_http2 = kind == Kind::Http2;
    let alpn: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (token, jti) = line.split_once(' ').ok_or("a line is TOKEN JTI")?;
        let (token, jti) = (token.to_owned(), jti.to_owned());
        let (connector, places) = (connector.clone(), Arc::clone(&places));
        opening.push(tokio::spawn(async move {
            let _place = places.acquire_owned().await;
            let ended = open(&connector, port, kind, &token).await?;
            Ok::<_, Failure>(Live { jti, ended })
        }));
    }
    let mut live = Vec::new();
    for one in opening {
        live.push(one.await??);
    }
    Ok(live)
}

async fn measure(
    live: Vec<Live>,
    admin: &str,
    rounds: usize,
    pause: Duration,
) -> Result<(), Failure> {
    eprintln!("{} exchanges are live", live.len());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let opened = live.len();
    let step = (opened / rounds.max(1)).max(1);
    let mut samples = Vec::new();
    let mut kept = Vec::new();
    for (number, mut one) in live.into_iter().enumerate() {
        if number % step != 0 || samples.len() >= rounds {
            kept.push(one);
            continue;
        }
        if one.ended.try_recv().is_ok() {
            return Err("an exchange ended before it was revoked".into());
        }
        let begin = Instant::now();
        let (answered, ended) = tokio::join!(revoke(admin, &one.jti), one.ended);
        let closed = ended?.duration_since(begin).as_micros();
        let answered = answered?.duration_since(begin).as_micros();
        samples.push(format!("[{closed}, {answered}]"));
        tokio::time::sleep(pause).await;
    }
    let left = kept.iter_mut().filter_map(|it| it.ended.try_recv().ok());
    if left.count() > 0 {
        return Err("an exchange ended that was not revoked".into());
    }
    println!(
        "{{\"live\": {opened}, \"samples\": [{}]}}",
        samples.join(", ")
    );
    Ok(())
}

/// Revokes a token over the admin API; when that was answered.
async fn revoke(admin: &str, jti: &str) -> Result<Instant, Failure> {
    let body = format!("{{\"what\": \"{jti}\"}}");
    let mut socket = UnixStream::connect(admin).await?;
    let head = format!(
        "POST /v1/revocations HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(&answer).into_owned().into());
    }
    Ok(Instant::now())
}

/// Begins an exchange and returns once its first byte has come; what it returns says when it ended.
async fn open(
    connector: &TlsConnector,
    port: u16,
    kind: Kind,
    token: &str,
) -> Result<oneshot::Receiver<Instant>, Failure> {
    let plain = TcpStream::connect(("127.0.0.1", port)).await?;
    plain.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let stream = connector.connect(name, plain).await?;
    let (told, ended) = oneshot::channel();
    match kind {
        Kind::Http2 => open_http2(stream, token, told).await?,
        Kind::Http1 | Kind::Tunnel => {
            open_http1(stream, token, kind == Kind::Tunnel, told).await?;
        }
    }
    Ok(ended)
}

async fn open_http1(
    mut stream: TlsStream<TcpStream>,
    token: &str,
    is_tunnel: bool,
    told: oneshot::Sender<Instant>,
) -> Result<(), Failure> {
    let upgrade = if is_tunnel {
        "connection: upgrade\r\nupgrade: echo\r\n"
    } else {
        ""
    };
    let head = format!(
        "GET /live HTTP/1.1\r\nhost: localhost\r\n{upgrade}authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut read = Vec::new();
    while !read.ends_with(b".\r\n") && !read.ends_with(b"\r\n\r\n.") {
        if stream.read_buf(&mut read).await? == 0 || read.starts_with(b"HTTP/1.1 4") {
            return Err(String::from_utf8_lossy(&read).into_owned().into());
        }
    }
    tokio::spawn(async move {
        let mut rest = [0; 64];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        let _ = told.send(Instant::now());
    });
    Ok(())
}

async fn open_http2(
    stream: TlsStream<TcpStream>,
    token: &str,
    told: oneshot::Sender<Instant>,
) -> Result<(), Failure> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await?;
    let request = Request::get("https://localhost/live")
        .header("authorization", format!("Bearer {token}"))
        .body(())?;
    let (response, _) = sender.send_request(request, true)?;
    let response = response.await?;
    if response.status() != 200 {
        return Err(format!("answered {}", response.status()).into());
    }
    let mut body = response.into_body();
    body.data().await.ok_or("no first byte")??;
    tokio::spawn(async move {
        // The connection is kept as long as its stream.
        let _sender = sender;
        while let Some(Ok(_)) = body.data().await {}
        let _ = told.send(Instant::now());
    });
    Ok(())
}
