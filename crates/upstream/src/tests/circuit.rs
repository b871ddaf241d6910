//! When an endpoint is left out, and when a whole service is.

use super::*;

/// Answers with what it is told now: a status, and how long that takes.
struct Mood {
    status: AtomicUsize,
    millis: AtomicUsize,
    asked: AtomicUsize,
}

impl Mood {
    fn new(status: usize, millis: usize) -> Arc<Self> {
        Arc::new(Self {
            status: AtomicUsize::new(status),
            millis: AtomicUsize::new(millis),
            asked: AtomicUsize::new(0),
        })
    }

    fn set(&self, status: usize, millis: usize) {
        self.status.store(status, Ordering::SeqCst);
        self.millis.store(millis, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn moody(mood: &Arc<Mood>) -> u16 {
    let mood = Arc::clone(mood);
    serve(move |_, mut stream| {
        let mood = Arc::clone(&mood);
        async move {
            while let Some(head) = head(&mut stream).await {
                mood.asked.fetch_add(1, Ordering::SeqCst);
                if head.contains("content-length: 4") {
                    let mut body = [0; 4];
                    stream.read_exact(&mut body).await.ok();
                }
                let millis = mood.millis.load(Ordering::SeqCst) as u64;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                let status = mood.status.load(Ordering::SeqCst);
                let answer = match status {
                    // A head that says well, and a body that breaks off.
                    0 => "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf".to_owned(),
                    _ => format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok"),
                };
                if stream.write_all(answer.as_bytes()).await.is_err() || status == 0 {
                    return;
                }
            }
        }
    })
    .await
}

fn shares(volume: u32) -> Shares {
    Shares {
        interval: Duration::from_secs(3_600),
        volume,
        failure_percent: Some(50),
        slow: None,
    }
}

fn slow_shares(volume: u32) -> Shares {
    Shares {
        failure_percent: None,
        slow: Some(SlowShare {
            after: Duration::from_millis(100),
            percent: 50,
        }),
        ..shares(volume)
    }
}

async fn ask(upstream: &Upstream) -> Result<u16, SendError> {
    let response = upstream.send(get("/"), &SendOptions::default()).await?;
    let status = response.status().as_u16();
    text(response).await.ok();
    Ok(status)
}

async fn circuit_until(upstream: &Upstream, state: CircuitState) {
    while upstream.circuit().unwrap().state != state {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_endpoint_is_left_out_for_its_share_of_failures() {
    let mood = Mood::new(503, 0);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.failures = 0;
    config.outlier.shares = Some(shares(6));
    let upstream = upstream(config);
    // Never two in a row: only the share tells.
    for number in 0..6 {
        assert_eq!(upstream.counters().ejections, 0, "after {number}");
        mood.set(if number % 2 == 0 { 503 } else { 200 }, 0);
        ask(&upstream).await.unwrap();
    }
    let known = upstream.health().swap_remove(0);
    assert_eq!(known.state, EndpointState::Ejected);
    assert_eq!(known.last_error.unwrap().message, "3 of 6 requests failed");
}

#[tokio::test]
async fn an_endpoint_is_left_out_for_its_share_of_slow_answers() {
    let (slow, fast) = (Mood::new(200, 150), Mood::new(200, 0));
    let mut config = config(&[moody(&slow).await, moody(&fast).await]);
    config.outlier.shares = Some(slow_shares(2));
    let upstream = upstream(config);
    while slow.asked() < 2 {
        assert_eq!(upstream.counters().ejections, 0);
        ask(&upstream).await.unwrap();
    }
    let known = upstream.health().swap_remove(0);
    assert_eq!(known.state, EndpointState::Ejected);
    assert_eq!(
        known.last_error.unwrap().message,
        "2 of 2 answers took 100ms or longer"
    );
    for _ in 0..20 {
        ask(&upstream).await.unwrap();
    }
    assert_eq!(slow.asked(), 2, "it is left alone");
}

#[tokio::test]
async fn a_request_that_is_given_up_is_as_slow_as_one_that_is_answered() {
    let mood = Mood::new(200, 60_000);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.shares = Some(slow_shares(2));
    let upstream = upstream(config);
    for millis in [10, 20, 150, 150] {
        assert_eq!(upstream.counters().ejections, 0);
        let options = SendOptions {
            timeout: Some(Duration::from_millis(millis)),
            ..SendOptions::default()
        };
        let sent = upstream.send(get("/"), &options).await;
        assert_eq!(sent.err(), Some(SendError::TimeoutWhole));
    }
    assert_eq!(upstream.counters().ejections, 1);
}

/// A body of four bytes, of which the last come after a while; then its end.
fn trickled(
    millis: u64,
    pieces: u64,
) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Send {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        for _ in 0..pieces {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if sender.send(Bytes::from_static(b"xx")).await.is_err() {
                return;
            }
        }
        if pieces < 2 {
            std::future::pending::<()>().await;
        }
    });
    Trickle(receiver, 4)
}

struct Trickle(tokio::sync::mpsc::Receiver<Bytes>, u64);

impl http_body::Body for Trickle {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let polled = self.0.poll_recv(cx);
        if let std::task::Poll::Ready(Some(bytes)) = &polled {
            self.1 -= bytes.len() as u64;
        }
        polled.map(|it| it.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.1 == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn nobody_makes_an_endpoint_look_slow_by_sending_slowly() {
    let mood = Mood::new(200, 0);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.shares = Some(slow_shares(1));
    config.breaker = Some(BreakerConfig {
        failures: 1,
        shares: Some(slow_shares(1)),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    let post = |pieces| {
        let body = http_body_util::combinators::UnsyncBoxBody::new(trickled(80, pieces));
        Request::post("http://a/").body(body).unwrap()
    };
    let answer = upstream.send(post(2), &SendOptions::default()).await;
    text(answer.unwrap()).await.unwrap();
    // It stops halfway, and goes after a time that would be too long for an answer.
    for options in [
        SendOptions {
            timeout: Some(Duration::from_millis(300)),
            ..SendOptions::default()
        },
        SendOptions {
            try_timeout: Some(Duration::from_millis(300)),
            ..SendOptions::default()
        },
    ] {
        let sent = upstream.send(post(1), &options).await;
        assert_eq!(sent.err(), Some(SendError::TimeoutWhole));
    }
    assert_eq!(upstream.counters().ejections, 0);
    assert_eq!(upstream.circuit().unwrap().state, CircuitState::Closed);
    // The endpoint's own slowness counts for such a request as for any.
    mood.set(200, 150);
    let answer = upstream.send(post(2), &SendOptions::default()).await;
    text(answer.unwrap()).await.unwrap();
    assert_eq!(upstream.counters().ejections, 1);
    assert_eq!(upstream.circuit().unwrap().state, CircuitState::Open);
}

#[tokio::test]
async fn each_time_it_is_left_out_it_is_for_longer_up_to_a_bound() {
    let mood = Mood::new(503, 0);
    let mut config = config(&[moody(&mood).await]);
    config.outlier = OutlierConfig {
        failures: 1,
        shares: None,
        eject: Duration::from_secs(100),
        max_eject: Duration::from_secs(250),
    };
    let upstream = upstream(config);
    for expected in [100_000, 200_000, 250_000, 250_000] {
        ask(&upstream).await.unwrap();
        let left = upstream.endpoints[0].ejected_for();
        assert!((expected - 5_000..=expected).contains(&left), "{left}");
        upstream.endpoints[0].end_ejection();
    }
}

#[tokio::test]
async fn a_service_that_fails_is_not_asked_until_a_trial_goes_well() {
    let mood = Mood::new(503, 0);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.failures = 0;
    config.breaker = Some(BreakerConfig {
        failures: 3,
        pause: Duration::from_millis(300),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    for _ in 0..3 {
        assert_eq!(ask(&upstream).await, Ok(503));
    }
    for _ in 0..20 {
        let refused = ask(&upstream).await.unwrap_err();
        assert_eq!((refused.word(), refused.status()), ("circuit_open", 503));
        let SendError::CircuitOpen(left) = refused else {
            panic!();
        };
        assert!(left <= Duration::from_millis(300));
    }
    assert_eq!(mood.asked(), 3);
    circuit_until(&upstream, CircuitState::HalfOpen).await;
    assert_eq!(ask(&upstream).await, Ok(503));
    assert!(ask(&upstream).await.is_err(), "the trial failed");
    mood.set(200, 0);
    circuit_until(&upstream, CircuitState::HalfOpen).await;
    assert_eq!(ask(&upstream).await, Ok(200));
    assert_eq!(ask(&upstream).await, Ok(200));
    let known = upstream.circuit().unwrap();
    assert_eq!((known.state, known.opened), (CircuitState::Closed, 2));
    assert_eq!(known.refused, 21);
}

#[tokio::test]
async fn it_counts_over_all_endpoints_and_retries_end_when_it_opens() {
    let (one, two) = (Mood::new(503, 0), Mood::new(503, 0));
    let mut config = config(&[moody(&one).await, moody(&two).await]);
    config.outlier.failures = 0;
    config.retry_percent = 100;
    config.breaker = Some(BreakerConfig {
        failures: 4,
        pause: Duration::from_secs(3_600),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    let options = SendOptions {
        retry: Some(Retry {
            attempts: 10,
            codes: Arc::new([http::StatusCode::SERVICE_UNAVAILABLE]),
            backoff: Duration::from_millis(1),
        }),
        ..SendOptions::default()
    };
    let mut tries = Tries::default();
    let sent = upstream.send_telling(get("/"), &options, &mut tries).await;
    // What the service said last is what the caller gets, not that there is no further try.
    assert_eq!(sent.unwrap().status(), 503);
    assert_eq!(tries.number, 4);
    assert_eq!(one.asked() + two.asked(), 4);
    assert!(one.asked() > 0 && two.asked() > 0);
    assert!(ask(&upstream).await.is_err());
}

#[tokio::test]
async fn answers_that_break_off_open_it_by_their_share() {
    let mood = Mood::new(0, 0);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.failures = 0;
    config.breaker = Some(BreakerConfig {
        failures: 0,
        shares: Some(shares(3)),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    for _ in 0..3 {
        assert_eq!(ask(&upstream).await, Ok(200));
    }
    let refused = ask(&upstream).await.unwrap_err();
    assert!(matches!(refused, SendError::CircuitOpen(_)));
    let why = upstream.circuit().unwrap().why.unwrap();
    assert!(why.ends_with("requests failed"), "{why}");
}

#[tokio::test]
async fn a_hundred_requests_at_once_open_it_once() {
    let mood = Mood::new(503, 50);
    let mut config = config(&[moody(&mood).await]);
    config.outlier.failures = 0;
    config.breaker = Some(BreakerConfig {
        failures: 5,
        pause: Duration::from_secs(3_600),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move { ask(&upstream).await.is_err() });
    }
    asking.join_all().await;
    let known = upstream.circuit().unwrap();
    assert_eq!((known.state, known.opened), (CircuitState::Open, 1));
}

#[tokio::test]
async fn when_all_endpoints_are_left_out_the_breaker_still_decides() {
    let (one, two) = (Mood::new(503, 0), Mood::new(503, 0));
    let mut config = config(&[moody(&one).await, moody(&two).await]);
    config.outlier.failures = 1;
    config.breaker = Some(BreakerConfig {
        failures: 6,
        pause: Duration::from_millis(200),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    for _ in 0..6 {
        assert_eq!(ask(&upstream).await, Ok(503));
    }
    assert!(upstream.health().iter().all(|it| it.is_ejected));
    assert!(ask(&upstream).await.is_err());
    one.set(200, 0);
    two.set(200, 0);
    circuit_until(&upstream, CircuitState::HalfOpen).await;
    assert_eq!(ask(&upstream).await, Ok(200), "all are used");
    assert_eq!(upstream.circuit().unwrap().state, CircuitState::Closed);
}

#[tokio::test]
async fn a_tunnel_is_not_asked_for_while_it_is_open() {
    let mood = Mood::new(503, 0);
    let mut config = config(&[moody(&mood).await]);
    config.breaker = Some(BreakerConfig {
        failures: 1,
        pause: Duration::from_secs(3_600),
        ..BreakerConfig::default()
    });
    let upstream = upstream(config);
    let asking = || {
        let upgrade = Request::get("http://a/").header("connection", "upgrade");
        upgrade
            .header("upgrade", "echo")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let options = SendOptions::default();
    let first = upstream.send_upgrade(asking(), &options).await.unwrap();
    assert_eq!(first.0.status(), 503);
    let second = upstream.send_upgrade(asking(), &options).await;
    assert!(matches!(second.err(), Some(SendError::CircuitOpen(_))));
    assert_eq!(mood.asked(), 1);
}

#[tokio::test]
async fn each_try_has_a_time_of_its_own() {
    let (stuck, well) = (Mood::new(200, 60_000), Mood::new(200, 0));
    let mut config = config(&[moody(&stuck).await, moody(&well).await]);
    config.retry_percent = 100;
    let upstream = upstream(config);
    let options = SendOptions {
        try_timeout: Some(Duration::from_millis(100)),
        retry: Some(Retry {
            attempts: 1,
            codes: Arc::new([]),
            backoff: Duration::from_millis(1),
        }),
        ..SendOptions::default()
    };
    while stuck.asked() == 0 {
        let response = upstream.send(get("/"), &options).await.unwrap();
        text(response).await.unwrap();
    }
    assert_eq!(upstream.health()[0].failures, 1, "it counts against it");
    assert_eq!(upstream.counters().failures, 0);
    let once = SendOptions {
        retry: None,
        ..options
    };
    let sent = loop {
        let sent = upstream.send(get("/"), &once).await;
        if sent.is_err() {
            break sent;
        }
    };
    assert_eq!(sent.err(), Some(SendError::TimeoutResponse));
}
