//! Services on Unix sockets.

use super::*;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use http_body_util::Full;
use tokio::net::{UnixListener, UnixStream};
use vedette_quiet::Quiet;

/// A folder for one socket, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("vedette-upstream-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("it.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn head_of(stream: &mut UnixStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(read).unwrap().to_lowercase())
}

/// Answers each request with the number of its connection and what was asked.
fn listen(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Some(head) = head_of(&mut stream).await {
                    let told = format!("{number} {head}");
                    let length = told.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{told}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
            number += 1;
        }
    });
}

fn config(path: &Path) -> UpstreamConfig {
    let endpoint = EndpointConfig::on_socket("digits", path);
    UpstreamConfig::new("service", vec![endpoint])
}

fn by_its_name() -> SendOptions {
    SendOptions {
        host: Host::Endpoint,
        ..SendOptions::default()
    }
}

#[tokio::test]
async fn one_connection_to_a_socket_serves_many_requests_and_is_counted() {
    let folder = Folder::new();
    listen(&folder.socket());
    let upstream = upstream(config(&folder.socket()));
    for _ in 0..5 {
        let answered = upstream.send(get("/v2"), &by_its_name()).await.unwrap();
        let said = text(answered).await.unwrap();
        assert!(said.starts_with("0 get /v2 http/1.1\r\n"), "{said}");
        assert!(said.contains("\r\nhost: digits\r\n"), "{said}");
    }
    assert_eq!(upstream.counters().open_connections, 1);
    assert_eq!(upstream.counters().requests, 5);
    assert_eq!(upstream.health()[0].host, "digits");
}

#[tokio::test]
async fn a_socket_has_room_for_as_many_connections_as_it_may_have() {
    let folder = Folder::new();
    listen(&folder.socket());
    let mut config = config(&folder.socket());
    config.max_connections = 1;
    let upstream = upstream(config);
    let first = upstream.send(get("/"), &by_its_name()).await.unwrap();
    let second = upstream.send(get("/"), &by_its_name()).await;
    assert_eq!(second.err(), Some(SendError::Overloaded));
    text(first).await.unwrap();
    // Whoever found no room has idle connections closed, which takes a moment.
    let again = async {
        while upstream.send(get("/"), &by_its_name()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(5), again).await;
    assert!(again.is_ok());
}

#[tokio::test]
async fn nobody_at_a_socket_is_a_connection_that_failed() {
    let folder = Folder::new();
    let upstream = upstream(config(&folder.socket()));
    let missing = upstream.send(get("/"), &by_its_name()).await;
    assert!(matches!(missing, Err(SendError::ConnectFailed(_))));
    drop(UnixListener::bind(folder.socket()).unwrap());
    let refused = upstream.send(get("/"), &by_its_name()).await;
    assert!(matches!(refused, Err(SendError::ConnectFailed(_))));
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_used_again() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    tokio::spawn(async move {
        // Each connection has one answer in it.
        while let Ok((mut stream, _)) = listener.accept().await {
            head_of(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    });
    let upstream = upstream(config(&folder.socket()));
    for _ in 0..10 {
        let asked = Request::post("http://digits/infer");
        let asked = asked.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let answered = upstream.send(asked, &by_its_name()).await.unwrap();
        assert_eq!(text(answered).await.unwrap(), "ok");
        // Its end is there before the next request is.
        while upstream.counters().open_connections > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_socket_that_says_nothing_is_waited_for_no_longer_than_asked() {
    let folder = Folder::new();
    let _listener = UnixListener::bind(folder.socket()).unwrap();
    let mut config = config(&folder.socket());
    config.response_timeout = Duration::from_millis(20);
    let silent = upstream(config).send(get("/"), &by_its_name()).await;
    assert_eq!(silent.err(), Some(SendError::TimeoutResponse));
}

/// Says that it was asked, and connects.
struct Told(Arc<AtomicBool>);

impl DialSocket for Told {
    fn dial<'a>(&'a self, path: &'a Path) -> DiallingSocket<'a> {
        self.0.store(true, Ordering::SeqCst);
        Box::pin(Quiet::connect(path))
    }
}

/// Never comes to an end.
struct Stuck;

impl DialSocket for Stuck {
    fn dial<'a>(&'a self, _: &'a Path) -> DiallingSocket<'a> {
        Box::pin(std::future::pending::<io::Result<Quiet>>())
    }
}

#[tokio::test]
async fn somebody_else_can_be_the_one_who_connects() {
    let folder = Folder::new();
    listen(&folder.socket());
    let asked = Arc::new(AtomicBool::new(false));
    let machine = machine().dialling(Arc::new(Told(Arc::clone(&asked))));
    let upstream = Upstream::new(config(&folder.socket()), &machine).unwrap();
    assert!(upstream.send(get("/"), &by_its_name()).await.is_ok());
    assert!(asked.load(Ordering::SeqCst));
}

#[tokio::test]
async fn one_who_connects_has_so_long_for_it() {
    let mut config = config(Path::new("/nowhere"));
    config.connect_timeout = Duration::from_millis(20);
    let upstream = Upstream::new(config, &machine().dialling(Arc::new(Stuck))).unwrap();
    let sent = upstream.send(get("/"), &by_its_name()).await;
    assert_eq!(sent.err(), Some(SendError::TimeoutConnect));
}

#[test]
fn a_socket_has_neither_tls_nor_http2() {
    let mut secure = config(Path::new("/nowhere"));
    secure.tls = Some(TlsConfig::default());
    assert!(Upstream::new(secure, &machine()).is_err());
    let mut http2 = config(Path::new("/nowhere"));
    http2.protocol = Protocol::Http2;
    assert!(Upstream::new(http2, &machine()).is_err());
    assert!(Upstream::new(config(Path::new("/nowhere")), &machine()).is_ok());
}
