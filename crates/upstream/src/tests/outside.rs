//! Names and addresses: what is looked up, what is connected to, where functions may call.

use super::*;

/// A way out with its rules, asked in the order that whoever sends has to.
struct Out {
    rules: EgressRules,
    egress: Arc<Egress>,
}

impl Out {
    fn new(rules: Vec<EgressRule>, config: EgressConfig, machine: &Machine) -> Self {
        Self {
            rules: EgressRules::compile(rules).unwrap(),
            egress: Egress::new(config, machine).unwrap(),
        }
    }

    async fn send(
        &self,
        call: Request<Empty<Bytes>>,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let allowed = self.rules.call(call.uri(), call.method());
        let allowed = allowed.map_err(|denied| SendError::NotAllowed(format!("{denied:?}")))?;
        self.egress.send(allowed, call, options).await
    }
}

fn egress(rules: &[&str], names: Arc<Fake>) -> Out {
    let machine = Machine::with(names, RootCertStore::empty());
    let rules = rules.iter().map(|rule| EgressRule::to(rule)).collect();
    Out::new(rules, EgressConfig::default(), &machine)
}

fn call(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_name_is_looked_up_and_each_of_its_addresses_tried() {
    let port = answers(OK).await;
    let names = fake(&[("service", &[&["127.0.0.2", "::1", "127.0.0.1"]])]);
    let machine = Machine::with(names, RootCertStore::empty());
    let mut config = config(&[port]);
    config.endpoints[0].host = "service".into();
    let upstream = Upstream::new(config, &machine).unwrap();
    let response = upstream
        .send(get("/"), &SendOptions::default())
        .await
        .unwrap();
    assert_eq!(text(response).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_name_nobody_knows_is_said() {
    let mut config = config(&[1]);
    config.endpoints[0].host = "nowhere".into();
    let sent = upstream(config)
        .send(get("/"), &SendOptions::default())
        .await;
    assert_eq!(sent.err().unwrap().word(), "dns_failed");
}

#[tokio::test]
async fn a_call_to_a_named_address_passes_with_the_host_of_its_rule() {
    let port = serve(|_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let answer = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let egress = egress(&[&format!("http://127.0.0.1:{port}")], fake(&[]));
    let mut asked = call(&format!("http://127.0.0.1:{port}/path"));
    asked
        .headers_mut()
        .insert("host", "metadata.internal".parse().unwrap());
    let response = egress.send(asked, &SendOptions::default()).await.unwrap();
    // A redirect is an answer.
    assert_eq!(response.status(), 302);
    let seen = text(response).await.unwrap();
    assert!(
        seen.contains(&format!("host: 127.0.0.1:{port}\r\n")),
        "{seen}"
    );
    assert!(!seen.contains("metadata"));
    let elsewhere = call("http://127.0.0.1:1/");
    let error = egress
        .send(elsewhere, &SendOptions::default())
        .await
        .err()
        .unwrap();
    assert_eq!(error.word(), "not_allowed");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_whatever_its_rule_says() {
    let port = answers(OK).await;
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
    ] {
        let names = fake(&[("api.example.com", &[&[address]])]);
        let egress = egress(&[&format!("http://api.example.com:{port}")], names);
        let asked = call(&format!("http://api.example.com:{port}/"));
        let error = egress
            .send(asked, &SendOptions::default())
            .await
            .err()
            .unwrap();
        assert_eq!(error.word(), "not_allowed", "{address}");
    }
}

#[tokio::test]
async fn a_name_leads_inside_only_within_a_range_of_the_same_scheme_and_port() {
    let port = answers(OK).await;
    let name = format!("http://inside.example.com:{port}");
    let asked = async |rules: &[&str]| {
        let names = fake(&[("inside.example.com", &[&["127.0.0.1"]])]);
        let mut all = vec![name.as_str()];
        all.extend(rules);
        let egress = egress(&all, names);
        let sent = egress.send(call(&name), &SendOptions::default()).await;
        sent.map_err(|error| error.word())
    };
    let range = format!("http://127.0.0.0/8:{port}");
    assert_eq!(asked(&[&range]).await.unwrap().status(), 200);
    for other in [
        "http://127.0.0.0/8".to_owned(),
        format!("https://127.0.0.0/8:{port}"),
        format!("http://127.0.1.0/24:{port}"),
        // An address that is named is one that calls may name, not one that names may lead to.
        format!("http://127.0.0.1:{port}"),
    ] {
        assert_eq!(asked(&[&other]).await.err(), Some("not_allowed"), "{other}");
    }
}

#[tokio::test]
async fn a_call_to_an_address_of_a_range_passes() {
    let port = answers(OK).await;
    let egress = egress(&[&format!("http://127.0.0.0/8:{port}")], fake(&[]));
    let asked = call(&format!("http://127.0.0.1:{port}/"));
    let sent = egress.send(asked, &SendOptions::default()).await;
    assert_eq!(text(sent.unwrap()).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_name_that_changes_between_look_ups_gains_nothing() {
    let port = answers(OK).await;
    // First a public address where nobody answers, then one inside.
    let names = fake(&[("rebind.example.com", &[&["192.0.1.1"], &["127.0.0.1"]])]);
    let rule = format!("http://rebind.example.com:{port}");
    let egress = egress(&[&rule], Arc::clone(&names));
    let options = SendOptions {
        connect_timeout: Some(Duration::from_millis(200)),
        ..SendOptions::default()
    };
    let uri = format!("http://rebind.example.com:{port}/");
    let first = egress.send(call(&uri), &options).await.err().unwrap();
    assert!(
        matches!(
            first,
            SendError::TimeoutConnect | SendError::ConnectFailed(_)
        ),
        "{first}"
    );
    // One look-up for one call: what was checked is what was connected to.
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    let second = egress.send(call(&uri), &options).await.err().unwrap();
    assert_eq!(second.word(), "not_allowed");
}

#[tokio::test]
async fn of_several_addresses_only_public_ones_are_tried() {
    let port = answers(OK).await;
    let names = fake(&[("mixed.example.com", &[&["127.0.0.1", "192.0.1.1"]])]);
    let egress = egress(&[&format!("http://mixed.example.com:{port}")], names);
    let options = SendOptions {
        connect_timeout: Some(Duration::from_millis(200)),
        ..SendOptions::default()
    };
    let sent = egress
        .send(call(&format!("http://mixed.example.com:{port}/")), &options)
        .await;
    let error = sent.err().unwrap();
    assert!(
        matches!(
            error,
            SendError::TimeoutConnect | SendError::ConnectFailed(_)
        ),
        "{error}"
    );
}

#[tokio::test]
async fn calls_under_way_are_bounded() {
    let port = serve(|_, mut stream| async move {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
            .await
            .ok();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let uri = format!("http://127.0.0.1:{port}/");
    let config = EgressConfig {
        max_calls: 2,
        ..EgressConfig::default()
    };
    let egress = Out::new(vec![EgressRule::to(&uri)], config, &machine());
    let options = SendOptions::default();
    let first = egress.send(call(&uri), &options).await.unwrap();
    let _second = egress.send(call(&uri), &options).await.unwrap();
    assert_eq!(
        egress.send(call(&uri), &options).await.err(),
        Some(SendError::Overloaded)
    );
    drop(first);
    egress.send(call(&uri), &options).await.unwrap();
}

#[tokio::test]
async fn the_machine_knows_its_own_name() {
    let resolver = SystemResolver::read().unwrap();
    let found = resolver.resolve("localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
}

#[tokio::test]
async fn a_destination_that_fails_is_left_alone_for_a_while() {
    let port = 1; // nobody listens there
    let uri = format!("http://127.0.0.1:{port}/");
    let mut rule = EgressRule::to(&uri);
    rule.breaker = Some(BreakerConfig {
        failures: 2,
        pause: Duration::from_millis(200),
        ..BreakerConfig::default()
    });
    let egress = Out::new(vec![rule], EgressConfig::default(), &machine());
    let options = SendOptions::default();
    for _ in 0..2 {
        let sent = egress.send(call(&uri), &options).await;
        assert!(matches!(sent, Err(SendError::ConnectFailed(_))));
    }
    let sent = egress.send(call(&uri), &options).await;
    assert!(matches!(sent, Err(SendError::CircuitOpen(_))));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = egress.send(call(&uri), &options).await;
    assert!(matches!(sent, Err(SendError::ConnectFailed(_))));
    // One trial that fails is enough to leave it alone again.
    let sent = egress.send(call(&uri), &options).await;
    assert!(matches!(sent, Err(SendError::CircuitOpen(_))));
}

#[tokio::test]
async fn a_tunnel_leads_to_an_address_that_was_checked() {
    let port = answers(OK).await;
    let names = fake(&[
        ("inside.example.com", &[&["127.0.0.1"]]),
        ("mapped.example.com", &[&["::ffff:127.0.0.1"]]),
    ]);
    let rules = [
        format!("tcp://127.0.0.1:{port}"),
        format!("tcp://*.example.com:{port}"),
    ];
    let out = egress(&[&rules[0], &rules[1]], names);
    let (allowed, is_secure) = out.rules.tunnel("127.0.0.1", port).unwrap();
    assert!(!is_secure);
    let mut dialled = out.egress.dial(allowed).await.unwrap();
    dialled
        .stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 4];
    dialled.stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP");
    for name in ["inside.example.com", "mapped.example.com"] {
        let (allowed, _) = out.rules.tunnel(name, port).unwrap();
        let error = out.egress.dial(allowed).await.err();
        assert!(matches!(error, Some(SendError::NotAllowed(_))), "{name}");
    }
}

#[tokio::test]
async fn a_credential_is_added_in_place_of_what_the_caller_says() {
    let port = serve(|_, mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let uri = format!("http://127.0.0.1:{port}/");
    let mut rule = EgressRule::to(&uri);
    rule.credential = Some(Credential {
        header: http::header::AUTHORIZATION,
        value: CredentialValue::Kept("Bearer secret".parse().unwrap()),
    });
    let out = Out::new(vec![rule], EgressConfig::default(), &machine());
    let mut asked = call(&uri);
    asked
        .headers_mut()
        .append("authorization", "mine".parse().unwrap());
    asked
        .headers_mut()
        .append("authorization", "mine too".parse().unwrap());
    let response = out.send(asked, &SendOptions::default()).await.unwrap();
    let seen = text(response).await.unwrap();
    assert!(seen.contains("authorization: bearer secret\r\n"), "{seen}");
    assert!(!seen.contains("mine"));
    assert!(out.rules.tunnel("127.0.0.1", port).is_err());
    let mut plain = EgressRule::to("http://api.example.com");
    plain.credential = Some(Credential {
        header: http::header::AUTHORIZATION,
        value: CredentialValue::Kept("Bearer secret".parse().unwrap()),
    });
    assert!(EgressRules::compile([plain]).is_err());
}

/// A token that comes and goes.
struct Held(std::sync::Mutex<Option<&'static str>>);

impl TokenSource for Held {
    fn token(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap().map(Arc::from)
    }
}

#[tokio::test]
async fn a_minted_token_is_that_of_the_moment_and_without_one_nothing_is_sent() {
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let port = serve(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(head) = head(&mut stream).await {
                seen.lock().unwrap().push(head);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let uri = format!("http://127.0.0.1:{port}/");
    let held = Arc::new(Held(std::sync::Mutex::new(Some("first-token"))));
    let mut rule = EgressRule::to(&uri);
    rule.rate = Some(EgressRate {
        calls: 2,
        period: Duration::from_secs(3_600),
        burst: 2,
    });
    rule.credential = Some(Credential {
        header: http::header::AUTHORIZATION,
        value: CredentialValue::Minted {
            prefix: "Bearer ".to_owned(),
            source: Arc::clone(&held) as Arc<dyn TokenSource>,
        },
    });
    assert!(!format!("{rule:?}").contains("first-token"));
    let out = Out::new(vec![rule], EgressConfig::default(), &machine());
    let send = || async {
        let response = out.send(call(&uri), &SendOptions::default()).await;
        text(response.unwrap()).await.unwrap()
    };
    send().await;
    *held.0.lock().unwrap() = None;
    let asked: http::Uri = uri.parse().unwrap();
    for _ in 0..3 {
        // What is not sent does not count as sent.
        let denied = out.rules.call(&asked, &http::Method::GET).unwrap_err();
        assert_eq!(denied, Denied::Token);
    }
    *held.0.lock().unwrap() = Some("second-token");
    send().await;
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 2);
    assert!(
        heads[0].contains("authorization: bearer first-token\r\n"),
        "{heads:?}"
    );
    assert!(
        heads[1].contains("authorization: bearer second-token\r\n"),
        "{heads:?}"
    );
}
