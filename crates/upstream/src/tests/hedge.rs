//! Requests that are sent to another endpoint while one waits.

use super::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const AFTER: Duration = Duration::from_millis(50);

fn hedging(attempts: u32) -> SendOptions {
    SendOptions {
        hedge: Some(Hedge {
            after: AFTER,
            attempts,
        }),
        ..SendOptions::default()
    }
}

/// Reads a request and never answers it; tells when the connection is cut.
async fn stuck() -> (u16, UnboundedReceiver<()>) {
    let (told, cut) = unbounded_channel();
    let port = serve(move |_, mut stream| {
        let told = told.clone();
        async move {
            head(&mut stream).await;
            let left = stream.read_u8().await;
            assert!(left.is_err());
            told.send(()).ok();
        }
    })
    .await;
    (port, cut)
}

/// Answers with a status after some time.
async fn after(millis: u64, status: u16) -> u16 {
    serve(move |_, mut stream| async move {
        while head(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    })
    .await
}

/// With the first endpoint asked first, whatever is drawn.
fn first_of(ports: &[u16]) -> Arc<Upstream> {
    let mut config = config(ports);
    config.retry_percent = 100;
    config.endpoints[0].weight = 1_000;
    config.outlier.failures = 0;
    upstream(config)
}

async fn told(
    upstream: &Upstream,
    options: &SendOptions,
) -> (Result<Response<UpstreamBody>, SendError>, Tries) {
    let mut tries = Tries::default();
    let sent = upstream.send_telling(get("/"), options, &mut tries).await;
    (sent, tries)
}

#[tokio::test]
async fn another_endpoint_answers_while_the_first_waits_and_the_first_is_cut_off() {
    let (port, mut cut) = stuck().await;
    let upstream = first_of(&[port, after(0, 200).await]);
    // Weights are drawn: in a thousand one begins with the other.
    let tries = loop {
        let (sent, tries) = told(&upstream, &hedging(1)).await;
        text(sent.unwrap()).await.unwrap();
        if tries.number == 2 {
            break tries;
        }
    };
    assert!(tries.has_hedge_won);
    tokio::time::timeout(Duration::from_secs(10), cut.recv())
        .await
        .unwrap();
    let counters = upstream.counters();
    assert_eq!((counters.hedges, counters.hedges_won), (1, 1));
    assert_eq!(upstream.health()[0].active_requests, 0);
    assert_eq!(
        upstream.health()[0].failures,
        0,
        "it was not asked to the end"
    );
}

#[tokio::test]
async fn an_answer_in_time_needs_no_hedge() {
    let upstream = first_of(&[after(0, 200).await, after(0, 200).await]);
    let options = SendOptions {
        hedge: Some(Hedge {
            after: Duration::from_secs(60),
            attempts: 1,
        }),
        ..SendOptions::default()
    };
    for _ in 0..20 {
        let (sent, tries) = told(&upstream, &options).await;
        assert_eq!(text(sent.unwrap()).await.unwrap(), "ok");
        assert_eq!((tries.number, tries.has_hedge_won), (1, false));
    }
    assert_eq!(upstream.counters().hedges, 0);
}

#[tokio::test]
async fn a_hedge_that_fails_does_not_win_over_a_good_answer_that_comes_later() {
    let upstream = first_of(&[after(400, 200).await, after(0, 503).await]);
    let (sent, tries) = loop {
        let (sent, tries) = told(&upstream, &hedging(1)).await;
        if tries.number == 2 {
            break (sent, tries);
        }
    };
    assert_eq!(sent.unwrap().status(), 200);
    assert!(!tries.has_hedge_won);
    let counters = upstream.counters();
    assert_eq!((counters.hedges, counters.hedges_won), (1, 0));
}

#[tokio::test]
async fn when_both_fail_the_caller_hears_what_was_said() {
    let upstream = first_of(&[after(200, 502).await, after(100, 503).await]);
    let (sent, tries) = loop {
        let (sent, tries) = told(&upstream, &hedging(1)).await;
        if tries.number == 2 && upstream.counters().hedges == 1 {
            break (sent, tries);
        }
    };
    assert!(matches!(sent.unwrap().status().as_u16(), 502 | 503));
    assert!(!tries.has_hedge_won);
    let failures: u64 = upstream.health().iter().map(|it| it.failures).sum();
    assert!(failures >= 2);
    assert_eq!(upstream.counters().hedges_won, 0);
}

#[tokio::test]
async fn an_answer_of_any_kind_is_told_rather_than_none() {
    let reset = || {
        serve(|_, mut stream| async move {
            head(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        })
    };
    // Whichever comes first: the answer, or the end of the connection.
    for millis in [0, 300] {
        let upstream = first_of(&[reset().await, after(millis, 503).await]);
        let sent = loop {
            let (sent, tries) = told(&upstream, &hedging(1)).await;
            if tries.number == 2 {
                break sent;
            }
        };
        assert_eq!(sent.unwrap().status(), 503);
    }
}

#[tokio::test]
async fn no_more_hedges_than_attempts_and_never_two_at_one_endpoint() {
    let mut ports = Vec::new();
    let mut cuts = Vec::new();
    for _ in 0..5 {
        let (port, cut) = stuck().await;
        ports.push(port);
        cuts.push(cut);
    }
    let upstream = first_of(&ports);
    let mut options = hedging(3);
    options.timeout = Some(Duration::from_secs(2));
    let (sent, tries) = told(&upstream, &options).await;
    assert_eq!(sent.err(), Some(SendError::TimeoutWhole));
    assert_eq!(tries.number, 4);
    let asked: Vec<u64> = upstream.health().iter().map(|it| it.requests).collect();
    assert!(asked.iter().all(|it| *it <= 1), "{asked:?}");
    assert_eq!(asked.iter().sum::<u64>(), 4);
    assert!(upstream.health().iter().all(|it| it.active_requests == 0));
}

#[tokio::test]
async fn one_endpoint_has_no_other_to_hedge_with() {
    let upstream = first_of(&[after(200, 200).await]);
    let (sent, tries) = told(&upstream, &hedging(3)).await;
    assert_eq!(sent.unwrap().status(), 200);
    assert_eq!((tries.number, upstream.counters().hedges), (1, 0));
}

#[tokio::test]
async fn what_is_not_safe_or_has_a_body_is_never_hedged() {
    let upstream = first_of(&[after(200, 200).await, after(200, 200).await]);
    let post = Request::post("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let body = http_body_util::Full::new(Bytes::from_static(b"x"));
    let with_body = Request::get("http://a/").body(body).unwrap();
    let mut tries = Tries::default();
    let sent = upstream.send_telling(post, &hedging(1), &mut tries).await;
    sent.unwrap();
    let sent = upstream
        .send_telling(with_body, &hedging(1), &mut tries)
        .await;
    sent.unwrap();
    assert_eq!((tries.number, upstream.counters().hedges), (2, 0));
}

#[tokio::test]
async fn hedges_stay_within_the_budget_of_retries() {
    let mut config = config(&[after(60, 200).await, after(60, 200).await]);
    config.retry_percent = 0;
    config.outlier.failures = 0;
    let upstream = upstream(config);
    let mut options = hedging(1);
    options.hedge = Some(Hedge {
        after: Duration::from_millis(1),
        attempts: 1,
    });
    let started = std::time::Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (upstream, options) = (Arc::clone(&upstream), options.clone());
        asking.spawn(async move { upstream.send(get("/"), &options).await.unwrap().status() });
    }
    asking.join_all().await;
    let aside =
        11 + started.elapsed().as_secs() * 10 + u64::from(started.elapsed().subsec_millis() / 100);
    let hedges = upstream.counters().hedges;
    assert!(
        (10..=aside).contains(&hedges),
        "{hedges} of at most {aside}"
    );
}

#[tokio::test]
async fn retries_go_on_after_hedges_that_failed() {
    let upstream = first_of(&[after(100, 503).await, after(0, 503).await]);
    let mut options = hedging(1);
    options.retry = Some(Retry {
        attempts: 1,
        codes: Arc::new([http::StatusCode::SERVICE_UNAVAILABLE]),
        backoff: Duration::from_millis(1),
    });
    let (sent, tries) = told(&upstream, &options).await;
    assert_eq!(sent.unwrap().status(), 503);
    // Each of two rounds begins with one, and has a hedge when it began with the slow one.
    assert!((2..=4).contains(&tries.number), "{tries:?}");
    assert_eq!(upstream.counters().retries, 1);
}

#[tokio::test]
async fn no_hedge_goes_where_the_breaker_lets_one_trial_go() {
    let upstream = {
        let mut config = config(&[after(150, 200).await, after(150, 200).await]);
        config.retry_percent = 100;
        config.breaker = Some(BreakerConfig {
            failures: 1,
            pause: Duration::from_millis(100),
            ..BreakerConfig::default()
        });
        upstream(config)
    };
    upstream
        .breaker
        .as_ref()
        .unwrap()
        .pass()
        .unwrap()
        .judge(true, None);
    while upstream.circuit().unwrap().state == CircuitState::Open {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (sent, tries) = told(&upstream, &hedging(1)).await;
    assert_eq!(sent.unwrap().status(), 200);
    assert_eq!((tries.number, upstream.counters().hedges), (1, 0));
    assert_eq!(upstream.circuit().unwrap().state, CircuitState::Closed);
}
