//! Fuzz targets of the way to other servers: see `vedette_engine::fuzz`. Here the service is hostile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::{
    EndpointConfig, Machine, OutlierConfig, Protocol, SendOptions, SystemResolver, Upstream,
    UpstreamConfig, WebSocketKey, strip_hop_by_hop,
};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("fields", fields),
    ("answer1", answer1),
    ("answer2", answer2),
    ("upgrade", upgrade),
];

/// A body may be cut off here: what matters happens before.
const MOST: usize = 1 << 20;
/// More than an exchange takes; one that is not over then hangs.
const PATIENCE: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_millis(300);

fn fields_of(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn require_no_hop_by_hop(headers: &HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        assert!(!headers.contains_key(&name), "{name} goes on");
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(!headers.contains_key(name), "{name} goes on");
    }
}

/// Header fields on their way on: nothing of one hop is left, what a gateway says stays.
fn fields(data: &[u8]) {
    let mut headers = fields_of(data);
    let ours = headers.contains_key("x-forwarded-for");
    strip_hop_by_hop(&mut headers);
    require_no_hop_by_hop(&headers);
    assert_eq!(headers.contains_key("x-forwarded-for"), ours);
    let mut again = headers.clone();
    strip_hop_by_hop(&mut again);
    assert_eq!(again, headers, "once is enough");
    let mut head = Request::new(()).into_parts().0;
    let key = WebSocketKey::ask(&mut head);
    assert!(!key.accepts(&mut headers), "nobody knows the key");
}

/// A service that answers each request with the same bytes and closes.
struct Bench {
    runtime: tokio::runtime::Runtime,
    local: LocalSet,
    says: Rc<RefCell<Bytes>>,
    service: Arc<Upstream>,
}

thread_local! {
    // For good: a runtime that ends with its thread would look for what the thread has lost already.
    static HTTP1: &'static Bench = Box::leak(Box::new(Bench::new(Protocol::Http1)));
    static HTTP2: &'static Bench = Box::leak(Box::new(Bench::new(Protocol::Http2)));
}

impl Bench {
    fn new(protocol: Protocol) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (local, says) = (LocalSet::new(), Rc::new(RefCell::new(Bytes::new())));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        local.spawn_local(serve(listener, Rc::clone(&says)));
        let machine = Machine::with(
            Arc::new(SystemResolver::read().unwrap()),
            rustls::RootCertStore::empty(),
        );
        let config = UpstreamConfig {
            protocol,
            outlier: OutlierConfig {
                failures: 0,
                ..OutlierConfig::default()
            },
            ..UpstreamConfig::new("fuzz", vec![EndpointConfig::new("127.0.0.1", port)])
        };
        let service = runtime.block_on(async { Upstream::new(config, &machine).unwrap() });
        Self {
            runtime,
            local,
            says,
            service,
        }
    }

    /// Sends one request, with the service's bytes for an answer; looks at what comes of it.
    fn ask(&self, bytes: &[u8], look: impl AsyncFnOnce(&Upstream, Request<Empty<Bytes>>)) {
        *self.says.borrow_mut() = Bytes::copy_from_slice(bytes);
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = http::Uri::from_static("/");
        let asked = async { timeout(PATIENCE, look(&self.service, request)).await };
        self.runtime
            .block_on(self.local.run_until(asked))
            .expect("the exchange hangs");
    }
}

async fn serve(listener: TcpListener, says: Rc<RefCell<Bytes>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = says.borrow().clone();
        tokio::task::spawn_local(say(stream, answer));
    }
}

async fn say(mut stream: TcpStream, answer: Bytes) {
    let mut request = [0; 1024];
    let _ = timeout(IDLE, stream.read(&mut request)).await;
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
    // Reads on, so that closing does not reset what was sent.
    while timeout(IDLE, stream.read(&mut request))
        .await
        .is_ok_and(|read| read.is_ok_and(|count| count > 0))
    {}
}

fn options() -> SendOptions {
    SendOptions {
        timeout: Some(Duration::from_secs(2)),
        body_idle: Some(IDLE),
        ..SendOptions::default()
    }
}

/// What goes on of an answer is of no hop, and as long as it says.
async fn look<B>(response: Response<B>)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    require_no_hop_by_hop(response.headers());
    let lengths: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
    let told = lengths
        .first()
        .and_then(|it| it.to_str().ok()?.parse().ok());
    let is_bodiless =
        response.status().is_informational() || matches!(response.status().as_u16(), 204 | 304);
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return; // broken off, and said to be
        };
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > MOST {
            return;
        }
    }
    if let Some(told) = told.filter(|_| !is_bodiless) {
        assert_eq!(length, told, "a whole body is as long as it says");
    }
}

/// Any bytes in answer to a GET over HTTP/1.1.
fn answer1(data: &[u8]) {
    HTTP1.with(|bench| {
        bench.ask(data, async |service, request| {
            if let Ok(response) = service.send(request, &options()).await {
                look(response).await;
            }
        });
    });
}

/// The frames that follow an empty SETTINGS frame and its acknowledgement.
fn answer2(data: &[u8]) {
    let settings = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
    HTTP2.with(|bench| {
        bench.ask(&[settings, data].concat(), async |service, request| {
            if let Ok(response) = service.send(request, &options()).await {
                look(response).await;
            }
        });
    });
}

/// Any bytes in answer to a WebSocket handshake.
fn upgrade(data: &[u8]) {
    HTTP1.with(|bench| {
        bench.ask(data, async |service, mut request| {
            let headers = request.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let Ok((response, tunnel)) = service.send_upgrade(request, &options()).await else {
                return;
            };
            match tunnel {
                None => look(response).await,
                Some(mut tunnel) => {
                    assert_eq!(response.status(), 101);
                    let mut bytes = [0; 4096];
                    let _ = timeout(IDLE, tunnel.read(&mut bytes)).await;
                }
            }
        });
    });
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn every_seed_of_the_upstream_passes_its_target() {
    replay::all(TARGETS);
}
