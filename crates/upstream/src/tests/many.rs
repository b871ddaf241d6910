//! Several endpoints: balance, retries, health, limits.

use super::*;
use tokio::task::JoinSet;

/// Answers each request with this status, and says who answers.
async fn says(name: &'static str, status: u16) -> u16 {
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{name}",
        name.len()
    );
    answers(answer.leak().as_bytes()).await
}

async fn dead() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

async fn ask(upstream: &Upstream, options: &SendOptions) -> Result<String, SendError> {
    let response = upstream.send(get("/"), options).await?;
    Ok(text(response).await.unwrap())
}

fn retrying(attempts: u32, codes: &[u16]) -> SendOptions {
    let codes = codes
        .iter()
        .map(|it| http::StatusCode::from_u16(*it).unwrap());
    SendOptions {
        retry: Some(Retry {
            attempts,
            codes: codes.collect(),
            backoff: Duration::from_millis(1),
        }),
        ..SendOptions::default()
    }
}

#[tokio::test]
async fn requests_are_spread_by_weight() {
    let mut config = config(&[
        says("a", 200).await,
        says("b", 200).await,
        says("c", 200).await,
    ]);
    config.endpoints[0].weight = 3;
    config.endpoints[2].weight = 0;
    let upstream = upstream(config);
    let mut a = 0;
    for _ in 0..1000 {
        match ask(&upstream, &SendOptions::default())
            .await
            .unwrap()
            .as_str()
        {
            "a" => a += 1,
            other => assert_eq!(other, "b"),
        }
    }
    // 750 expected; five standard deviations are 68.
    assert!((682..=818).contains(&a), "{a} of 1000");
}

#[tokio::test]
async fn a_slow_endpoint_gets_fewer_requests() {
    let slow = serve(|_, mut stream| async move {
        while head(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.write_all(OK).await.ok();
        }
    })
    .await;
    let upstream = upstream(config(&[slow, says("fast", 200).await]));
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move {
            for _ in 0..50 {
                ask(&upstream, &SendOptions::default()).await.unwrap();
            }
        });
    }
    asking.join_all().await;
    let health = upstream.health();
    assert_eq!(health[0].requests + health[1].requests, 400);
    // A draw that does not look at what is under way gives it 200, ten standard deviations above.
    assert!(health[0].requests < 150, "{}", health[0].requests);
}

#[tokio::test]
async fn a_safe_request_is_tried_again_elsewhere() {
    let mut config = config(&[says("bad", 503).await, says("good", 200).await]);
    config.outlier.failures = 0;
    let upstream = upstream(config);
    let mut tried = 0;
    for _ in 0..8 {
        let answer = ask(&upstream, &retrying(2, &[503])).await.unwrap();
        assert_eq!(answer, "good");
        tried += 1;
    }
    assert!(upstream.counters().retries <= tried);
    let post = Request::post("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut refused = 0;
    for _ in 0..32 {
        let mut post = post.clone();
        *post.uri_mut() = "http://a/".parse().unwrap();
        let response = upstream.send(post, &retrying(2, &[503])).await.unwrap();
        refused += u32::from(response.status() == 503);
        text(response).await.unwrap();
    }
    assert!(refused > 0, "POST is never tried again");
}

#[tokio::test]
async fn retries_stay_within_the_budget() {
    let mut config = config(&[says("bad", 503).await]);
    config.retry_percent = 10;
    config.outlier.failures = 0;
    let upstream = upstream(config);
    for _ in 0..100 {
        assert_eq!(ask(&upstream, &retrying(5, &[503])).await.unwrap(), "bad");
    }
    // Ten earned, ten aside and what comes back of those while this runs.
    let retries = upstream.counters().retries;
    assert!((20..=60).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_request_that_found_no_connection_goes_to_another_endpoint() {
    let upstream = upstream(config(&[dead().await, says("good", 200).await]));
    for _ in 0..8 {
        let post = Request::post("http://a/");
        let post = post
            .body(http_body_util::Full::new(Bytes::from_static(b"x")))
            .unwrap();
        let response = upstream.send(post, &SendOptions::default()).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_out_and_comes_back() {
    let fails = Arc::new(AtomicUsize::new(3));
    let left = Arc::clone(&fails);
    let sick = serve(move |_, mut stream| {
        let left = Arc::clone(&left);
        async move {
            while head(&mut stream).await.is_some() {
                let is_sick =
                    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
                let answer: &[u8] = match is_sick {
                    Ok(_) => b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nsick",
                    Err(_) => b"HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nwell",
                };
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let mut config = config(&[sick, says("good", 200).await]);
    config.outlier = OutlierConfig {
        failures: 3,
        eject: Duration::from_millis(400),
        ..OutlierConfig::default()
    };
    let upstream = upstream(config);
    let options = SendOptions::default();
    while upstream.counters().ejections == 0 {
        ask(&upstream, &options).await.unwrap();
    }
    let out = upstream.health().swap_remove(0);
    assert!(out.is_ejected && !out.is_healthy);
    assert_eq!(out.state, EndpointState::Ejected);
    assert!(out.failing_since.is_some() && out.ejected_until > out.failing_since);
    assert_eq!(out.last_error.unwrap().message, "it answered 503");
    let started = std::time::Instant::now();
    for _ in 0..20 {
        let answer = ask(&upstream, &options).await.unwrap();
        if started.elapsed() < Duration::from_millis(390) {
            assert_eq!(answer, "good");
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut answered = Vec::new();
    for _ in 0..64 {
        answered.push(ask(&upstream, &options).await.unwrap());
    }
    assert!(answered.iter().any(|it| it == "well"), "{answered:?}");
    let back = upstream.health().swap_remove(0);
    assert_eq!(back.state, EndpointState::Healthy);
    assert_eq!((back.failing_since, back.ejected_until), (None, None));
    // What it was stays told, with its time.
    assert!(back.last_error.is_some());
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_follows_its_answers() {
    let is_well = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&is_well);
    let port = serve(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            while head(&mut stream).await.is_some() {
                let answer: &[u8] = match seen.load(Ordering::SeqCst) {
                    0 => b"HTTP/1.1 502 X\r\ncontent-length: 0\r\n\r\n",
                    _ => OK,
                };
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let mut config = config(&[port]);
    config.outlier = OutlierConfig {
        failures: 2,
        eject: Duration::from_millis(50),
        ..OutlierConfig::default()
    };
    let upstream = upstream(config);
    let state = || upstream.health()[0].state;
    let options = SendOptions::default();
    assert_eq!(state(), EndpointState::Healthy);
    ask(&upstream, &options).await.unwrap();
    assert_eq!(state(), EndpointState::Failing);
    let since = upstream.health()[0].failing_since;
    assert!(since.is_some() && state().is_ready());
    ask(&upstream, &options).await.unwrap();
    assert_eq!(state(), EndpointState::Ejected);
    // It is used again by itself; whether it is well, nobody knows until it answers.
    while upstream.health()[0].is_ejected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(state(), EndpointState::Recovering);
    assert!(!state().is_ready());
    assert_eq!(upstream.health()[0].failing_since, since);
    is_well.store(1, Ordering::SeqCst);
    ask(&upstream, &options).await.unwrap();
    assert_eq!(state(), EndpointState::Healthy);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_says_why() {
    let mut config = config(&[1]);
    config.outlier.failures = 1;
    let upstream = upstream(config);
    let error = upstream.send(get("/"), &SendOptions::default()).await;
    let known = upstream.health().swap_remove(0);
    assert_eq!(known.state, EndpointState::Ejected);
    let last = known.last_error.unwrap();
    assert_eq!(last.message, error.err().unwrap().to_string());
    assert_eq!(Some(last.unix_millis), known.failing_since);
}

#[tokio::test]
async fn when_more_than_half_are_unwell_all_are_used() {
    let mut config = config(&[says("a", 503).await, says("b", 503).await]);
    config.outlier.failures = 1;
    let upstream = upstream(config);
    for _ in 0..40 {
        ask(&upstream, &SendOptions::default()).await.unwrap();
    }
    let health = upstream.health();
    assert!(health.iter().all(|it| it.is_ejected), "{health:?}");
    assert!(health.iter().all(|it| it.requests > 2), "{health:?}");
}

#[tokio::test]
async fn active_health_takes_out_and_brings_back() {
    let is_sick = Arc::new(AtomicUsize::new(1));
    let seen = Arc::clone(&is_sick);
    let port = serve(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(head) = head(&mut stream).await {
                let is_probe = head.starts_with("get /healthz ");
                let answer: &[u8] = match is_probe && seen.load(Ordering::SeqCst) == 1 {
                    true => b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n",
                    false => OK,
                };
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let mut config = config(&[port, says("good", 200).await]);
    config.health = Some(HealthConfig {
        path: "/healthz".into(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
        healthy_after: 2,
        unhealthy_after: 3,
    });
    let upstream = upstream(config);
    let watching = tokio::spawn(Arc::clone(&upstream).watch());
    let until = async |wanted: bool| {
        while upstream.health()[0].is_healthy != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until(false))
        .await
        .unwrap();
    let sick = upstream.health().swap_remove(0);
    assert_eq!(sick.state, EndpointState::Unhealthy);
    assert!(sick.failing_since.is_some());
    let last = sick.last_error.unwrap().message;
    assert_eq!(last, "health check /healthz: it answered 500");
    for _ in 0..20 {
        assert_eq!(
            ask(&upstream, &SendOptions::default()).await.unwrap(),
            "good"
        );
    }
    is_sick.store(0, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(10), until(true))
        .await
        .unwrap();
    assert_eq!(upstream.health()[0].state, EndpointState::Healthy);
    drop(upstream);
    tokio::time::timeout(Duration::from_secs(10), watching)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut config = config(&[port]);
    config.max_connections = 2;
    let upstream = upstream(config);
    for _ in 0..2 {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move { drop(ask(&upstream, &SendOptions::default()).await) });
    }
    while upstream.counters().open_connections < 2 {
        tokio::task::yield_now().await;
    }
    let error = ask(&upstream, &SendOptions::default()).await.unwrap_err();
    assert_eq!((error.word(), error.status()), ("overloaded", 503));
}

#[tokio::test]
async fn idle_connections_go_after_their_time() {
    let mut config = config(&[says("a", 200).await]);
    config.idle_timeout = Duration::from_millis(200);
    let upstream = upstream(config);
    ask(&upstream, &SendOptions::default()).await.unwrap();
    assert_eq!(upstream.counters().open_connections, 1);
    let closed = async {
        while upstream.counters().open_connections > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mirrored_request_is_sent_and_its_number_is_bounded() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let port = serve(move |_, mut stream| {
        let told = told.clone();
        async move {
            let head = head(&mut stream).await.unwrap();
            told.send(head).unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    let upstream = upstream(config(&[port]));
    let options = SendOptions::default();
    for _ in 0..100 {
        let head = get("/copied").into_parts().0;
        upstream.mirror(head, Bytes::from_static(b"x"), &options);
    }
    let head = get("/copied").into_parts().0;
    assert!(!upstream.mirror(head, Bytes::new(), &options));
    assert_eq!(upstream.counters().mirrors_dropped, 37);
    let head = seen.recv().await.unwrap();
    assert!(
        head.starts_with("get /copied ") && head.contains("content-length: 1"),
        "{head}"
    );
}
