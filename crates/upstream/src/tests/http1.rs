//! HTTP/1.1: connections used again, header fields, bodies, upgrades.

use super::*;
use http_body::{Body, Frame};
use http_body_util::Full;
use std::pin::Pin;
use std::task::{Context, Poll};

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let port = serve(|number, mut stream| async move {
        while head(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    for _ in 0..20 {
        let response = upstream
            .send(get("/"), &SendOptions::default())
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "0");
    }
    assert_eq!(upstream.counters().open_connections, 1);
    assert_eq!(upstream.counters().requests, 20);
}

#[tokio::test]
async fn chunked_answers_and_answers_without_a_body_leave_the_connection_for_the_next() {
    let port = serve(|number, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            let chunked = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{number}\r\n0\r\n\r\n"
            );
            let answer = match head.starts_with("head") {
                true => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_owned(),
                false => chunked,
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    for _ in 0..5 {
        let mut asked = get("/");
        *asked.method_mut() = http::Method::HEAD;
        let response = upstream.send(asked, &SendOptions::default()).await.unwrap();
        assert_eq!(response.headers()["content-length"], "7");
        assert_eq!(text(response).await.unwrap(), "");
        let response = upstream
            .send(get("/"), &SendOptions::default())
            .await
            .unwrap();
        assert!(!response.headers().contains_key("transfer-encoding"));
        assert_eq!(text(response).await.unwrap(), "0");
    }
}

#[tokio::test]
async fn an_answer_dropped_half_way_cuts_its_connection() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let port = serve(move |_, mut stream| {
        let told = told.clone();
        async move {
            head(&mut stream).await;
            let long = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nstart";
            stream.write_all(long).await.unwrap();
            while stream.read_u8().await.is_ok() {}
            told.send(()).unwrap();
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    let response = upstream
        .send(get("/"), &SendOptions::default())
        .await
        .unwrap();
    assert_eq!(upstream.health()[0].active_requests, 1);
    drop(response);
    tokio::time::timeout(Duration::from_secs(5), ended.recv())
        .await
        .unwrap();
    assert_eq!(upstream.health()[0].active_requests, 0);
}

#[tokio::test]
async fn fields_of_one_hop_do_not_pass_and_host_does() {
    let port = serve(|_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
             proxy-authenticate: basic\r\nx-kept: 1\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let upstream = upstream(config(&[port]));
    let mut asked = get("/path?q=1");
    for (name, value) in [
        ("connection", "keep-alive, x-secret, x-vedette-principal"),
        ("x-secret", "1"),
        ("x-vedette-principal", "alice"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "secret"),
        ("upgrade", "h2c"),
        ("te", "gzip, trailers"),
        ("expect", "100-continue"),
        ("accept", "*/*"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = upstream.send(asked, &SendOptions::default()).await.unwrap();
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(response.headers()["x-kept"], "1");
    let seen = text(response).await.unwrap();
    assert!(seen.starts_with("get /path?q=1 http/1.1\r\n"), "{seen}");
    for kept in [
        "host: service.example",
        "te: trailers",
        "connection: te",
        "accept: */*",
        "x-vedette-principal: alice",
    ] {
        assert!(
            seen.contains(&format!("\r\n{kept}\r\n")),
            "{kept} in {seen}"
        );
    }
    for gone in [
        "x-secret",
        "keep-alive",
        "proxy-",
        "upgrade",
        "expect",
        "gzip",
    ] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
}

#[tokio::test]
async fn the_length_of_a_request_is_what_its_body_says() {
    let port = serve(|_, mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().unwrap().parse::<usize>().unwrap()
            });
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
                head.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    let asked = Request::post("http://a/").header("content-length", "9999");
    let asked = asked.body(Full::new(Bytes::from_static(b"four"))).unwrap();
    let seen = upstream.send(asked, &SendOptions::default()).await.unwrap();
    assert!(text(seen).await.unwrap().contains("content-length: 4\r\n"));
    let asked = Request::post("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let seen = upstream.send(asked, &SendOptions::default()).await.unwrap();
    assert!(text(seen).await.unwrap().contains("content-length: 0\r\n"));
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once_for_a_request_without_a_body() {
    let port = serve(|number, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        if number == 0 {
            // Reads the second request and dies without a word.
            head(&mut stream).await;
            return;
        }
        head(&mut stream).await;
    })
    .await;
    let upstream = upstream(config(&[port]));
    let options = SendOptions::default();
    let response = upstream.send(get("/"), &options).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "ok");
    let response = upstream.send(get("/"), &options).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "ok");
    // POST is not idempotent: it is told.
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let upstream = super::upstream(config(&[port]));
    text(upstream.send(get("/"), &options).await.unwrap())
        .await
        .unwrap();
    let post = Request::post("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let error = upstream.send(post, &options).await.err().unwrap();
    assert_eq!(error.word(), "reset");
}

#[tokio::test]
async fn a_websocket_upgrade_gives_both_directions() {
    let port = serve(|_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"));
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nfirst";
        stream.write_all(answer).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await;
    let upstream = upstream(config(&[port]));
    let mut asked = get("/ws");
    asked
        .headers_mut()
        .insert("connection", "Upgrade".parse().unwrap());
    asked
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    let options = SendOptions::default();
    let (response, tunnel) = upstream.send_upgrade(asked, &options).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], "x");
    let mut tunnel = tunnel.unwrap();
    let mut read = [0; 5];
    tunnel.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"first");
    tunnel.write_all(b"again").await.unwrap();
    tunnel.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"again");
    assert_eq!(upstream.counters().open_connections, 1);
    assert_eq!(upstream.health()[0].active_requests, 1);
    drop(tunnel);
    assert_eq!(upstream.counters().open_connections, 0);
}

#[tokio::test]
async fn a_service_that_declines_an_upgrade_is_heard() {
    let port = answers(OK).await;
    let upstream = upstream(config(&[port]));
    let mut asked = get("/ws");
    asked
        .headers_mut()
        .insert("connection", "Upgrade".parse().unwrap());
    asked
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    let sent = upstream.send_upgrade(asked, &SendOptions::default()).await;
    let (response, tunnel) = sent.unwrap();
    assert!(tunnel.is_none());
    assert_eq!(text(response).await.unwrap(), "ok");
}

/// Frames of 64 KiB; counts how many were asked for.
struct Blocks {
    frames: usize,
    asked: Arc<AtomicUsize>,
    block: Bytes,
}

fn blocks(frames: usize, asked: &Arc<AtomicUsize>) -> Blocks {
    Blocks {
        frames,
        asked: Arc::clone(asked),
        block: Bytes::from(vec![b'x'; 64 << 10]),
    }
}

impl Body for Blocks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        self.asked.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(self.block.clone()))))
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_service_that_does_not_read_stops_the_upload() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut config = config(&[port]);
    config.response_timeout = Duration::from_millis(300);
    let upstream = upstream(config);
    let asked = Arc::new(AtomicUsize::new(0));
    let request = Request::post("http://a/")
        .body(blocks(4096, &asked))
        .unwrap();
    let error = upstream
        .send(request, &SendOptions::default())
        .await
        .err()
        .unwrap();
    assert_eq!(error, SendError::TimeoutResponse);
    // Of 256 MiB no more than sockets and buffers hold.
    assert!(
        asked.load(Ordering::SeqCst) < 512,
        "{}",
        asked.load(Ordering::SeqCst)
    );
}

#[tokio::test]
async fn a_quarter_of_a_gigabyte_passes_both_ways_with_flat_memory() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(start).await.unwrap();
        // The chunks of the request are the chunks of the answer.
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await;
    let upstream = upstream(config(&[port]));
    let asked = Arc::new(AtomicUsize::new(0));
    let request = Request::post("http://a/")
        .body(blocks(4096, &asked))
        .unwrap();
    let before = resident_kib();
    let response = upstream
        .send(request, &SendOptions::default())
        .await
        .unwrap();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, 256 << 20);
    let grown = resident_kib() - before;
    assert!(grown < 64 << 10, "{grown} KiB more");
}
