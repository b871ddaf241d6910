//! Services that reset, stall, lie and flood.

use super::*;

async fn first_error(port: u16) -> SendError {
    let mut config = config(&[port]);
    config.response_timeout = Duration::from_secs(2);
    let sent = upstream(config)
        .send(get("/"), &SendOptions::default())
        .await;
    sent.err().expect("an error")
}

async fn body_error(port: u16) -> BodyError {
    let upstream = upstream(config(&[port]));
    let response = upstream
        .send(get("/"), &SendOptions::default())
        .await
        .unwrap();
    let error = text(response).await.expect_err("the body is cut");
    assert_eq!(upstream.health()[0].failures, 1);
    error
}

#[tokio::test]
async fn a_head_cut_off_is_a_reset() {
    for cut in [&b""[..], b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-le"] {
        let error = first_error(answers_once(cut).await).await;
        assert_eq!(error.word(), "reset", "{error}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_malformed() {
    for lie in [
        &b"SSH-2.0-OpenSSH_9\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
    ] {
        let error = first_error(answers_once(lie).await).await;
        let shown = String::from_utf8_lossy(lie);
        assert_eq!(error.word(), "malformed_response", "{error} of {shown}");
        assert_eq!(error.status(), 502);
    }
}

#[tokio::test]
async fn a_length_too_long_for_the_body_cuts_it() {
    let error =
        body_error(answers_once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await);
    assert_eq!(error.await.word(), "reset");
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n";
    assert_eq!(
        body_error(answers_once(chunked).await).await.word(),
        "reset"
    );
}

#[tokio::test]
async fn bytes_after_an_answer_are_never_the_next_answer() {
    let port = serve(|number, mut stream| async move {
        while head(&mut stream).await.is_some() {
            let lie = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}\
                 HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned"
            );
            if stream.write_all(lie.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    for number in 0..5 {
        let response = upstream
            .send(get("/"), &SendOptions::default())
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), number.to_string());
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_times_out_and_cuts_the_connection() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut config = config(&[port]);
    config.response_timeout = Duration::from_millis(100);
    let upstream = upstream(config);
    let error = upstream.send(get("/"), &SendOptions::default()).await.err();
    assert_eq!(error, Some(SendError::TimeoutResponse));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(upstream.counters().open_connections, 0);
    let options = SendOptions {
        timeout: Some(Duration::from_millis(30)),
        ..SendOptions::default()
    };
    let error = upstream.send(get("/"), &options).await.err();
    assert_eq!(error, Some(SendError::TimeoutWhole));
}

#[tokio::test]
async fn a_body_that_stalls_times_out() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nstart";
        stream.write_all(start).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let upstream = upstream(config(&[port]));
    let short = Some(Duration::from_millis(100));
    let idle = SendOptions {
        body_idle: short,
        ..SendOptions::default()
    };
    let response = upstream.send(get("/"), &idle).await.unwrap();
    assert_eq!(text(response).await, Err(BodyError::TimeoutIdle));
    let whole = SendOptions {
        timeout: short,
        ..SendOptions::default()
    };
    let response = upstream.send(get("/"), &whole).await.unwrap();
    assert_eq!(text(response).await, Err(BodyError::TimeoutWhole));
}

/// Sends `start`, then `part` until the other side has had enough or so many bytes were taken.
async fn floods(start: &'static [u8], part: Vec<u8>, most: usize) -> (u16, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let port = serve(move |_, mut stream| {
        let (part, counted) = (part.clone(), Arc::clone(&counted));
        async move {
            head(&mut stream).await;
            stream.write_all(start).await.unwrap();
            while counted.load(Ordering::SeqCst) < most {
                if stream.write_all(&part).await.is_err() {
                    return;
                }
                counted.fetch_add(part.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    (port, taken)
}

#[tokio::test]
async fn a_gigabyte_of_header_is_refused_at_its_beginning() {
    let field = [b"x-field: ", [b'x'; 1000].as_slice(), b"\r\n"].concat();
    let one_field = vec![b'x'; 4096];
    let start = b"HTTP/1.1 200 OK\r\n";
    let endless = b"HTTP/1.1 200 OK\r\nx: ";
    for (start, part) in [(&start[..], field), (&endless[..], one_field)] {
        let (port, taken) = floods(start, part, 1 << 30).await;
        assert_eq!(first_error(port).await, SendError::HeadersTooLarge);
        assert!(taken.load(Ordering::SeqCst) < 32 << 20);
    }
}

#[tokio::test]
async fn too_many_fields_are_refused() {
    let (port, _) = floods(b"HTTP/1.1 200 OK\r\n", b"a: 1\r\n".repeat(200), 1000).await;
    assert_eq!(first_error(port).await, SendError::HeadersTooLarge);
}

#[tokio::test]
async fn chunk_extensions_without_end_cut_the_body() {
    let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;";
    let (port, taken) = floods(start, vec![b'x'; 4096], 1 << 30).await;
    body_error(port).await;
    assert!(taken.load(Ordering::SeqCst) < 32 << 20);
}

#[tokio::test]
async fn a_hundred_interim_answers_are_passed_over_and_a_flood_is_not() {
    let mut many = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
    many.extend_from_slice(OK);
    let port = answers(many.leak()).await;
    let upstream = upstream(config(&[port]));
    let response = upstream
        .send(get("/"), &SendOptions::default())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await.unwrap(), "ok");
    let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
    let (port, taken) = floods(b"", hint, 1 << 30).await;
    assert_eq!(first_error(port).await.word(), "malformed_response");
    assert!(taken.load(Ordering::SeqCst) < 32 << 20);
}

#[tokio::test]
async fn nobody_listening_is_a_failed_connection() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = first_error(port).await;
    assert_eq!((error.word(), error.status()), ("connect_failed", 502));
}
