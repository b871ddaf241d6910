//! What functions may ask models, whose process is played by a task on a Unix socket.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use vedette_wasm::{LogSink, Outbound, OutboundTimeouts, Runtime, RuntimeOptions, Stream};

use super::*;
use crate::fuzz::SNAPSHOT;
use crate::load::{EngineDir, sha256};
use crate::plan::Before;
use crate::record::log::FunctionLog;
use crate::revoked::Revocation;
use crate::spool::Spool;

const SCHEMA: &str = include_str!("../../../../src/vedette/policy/schema.cedarschema");
const PERMIT: &str = r#"permit (principal == Function::"shop", action == Action::"predict", resource == Model::"digits");"#;
const WORKER: &str = "0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(120);
const ID: &str = "spiffe://edge-1.vedette.local/fn/shop";

/// An engine without sockets, that has the function `shop`, the models `digits` and `letters`, and one policy.
struct Bench {
    node: Arc<Node>,
    dir: EngineDir,
    root: PathBuf,
    log: Arc<Lines>,
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _: &HeaderValue, _: Stream, line: &[u8]) {
        let line = String::from_utf8(line.to_vec()).unwrap();
        self.0.lock().unwrap().push(line);
    }
}

fn component(which: char) -> String {
    format!("sha256:{}", which.to_string().repeat(64))
}

fn model(name: &str, version: u64) -> Value {
    json!({
        "name": name, "version": version, "blob": component('f'), "size": 1,
        "format": "onnx", "task": "tensors",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [0]}],
        "sessions": 1, "threads": 1, "worker": WORKER,
        "limits": {"memoryBytes": 67_108_864, "runMillis": 10_000, "queue": 4, "batch": 1, "streams": 1, "requestBytes": 1024},
    })
}

impl Bench {
    fn new(policy: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("vedette-asking-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for folder in [
            "engine/blobs/sha256",
            "engine/compiled/none",
            "spool",
            "models",
        ] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for which in ['a', 'b'] {
            let name = format!("{}.cwasm", which.to_string().repeat(64));
            std::fs::write(root.join("engine/compiled/none").join(name), "").unwrap();
        }
        let dir = EngineDir::new(root.join("engine"), "none").with_models(root.join("models"));
        let spool = root.join("spool");
        let log = FunctionLog::start(&spool, "log").unwrap();
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let location = HeaderValue::from_static("here");
        let node = Arc::new(Node::new(location, dir.clone(), runtime, log));
        worker::install(Spool::open(&spool, "records").unwrap(), node.shards.add());
        let log = Arc::default();
        let bench = Self {
            node,
            dir,
            root,
            log,
        };
        bench.serve(policy, Some('a'), &[]);
        bench
    }

    /// Serves this policy, the function `shop` as this component, and what is revoked.
    fn serve(&self, policy: &str, shop: Option<char>, revoked: &[&str]) {
        let store = |text: &str| {
            let digest = sha256(text.as_bytes());
            let blobs = self.root.join("engine/blobs/sha256");
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), text).unwrap();
            digest
        };
        let text = SNAPSHOT.replace("SCHEMA", &store(SCHEMA));
        let text = text.replace("POLICY", &store(policy));
        let mut snapshot: Value = serde_json::from_str(&text).unwrap();
        let functions = shop.map(|which| {
            json!({
                "name": "shop", "component": component(which), "size": 8, "env": {}, "config": {},
                "allowedHosts": [],
                "limits": {
                    "cpuMillis": 1, "wallMillis": 1, "memoryBytes": 1, "requestBytes": 1,
                    "responseBytes": 1, "concurrency": 1,
                },
            })
        });
        snapshot["functions"] = json!(functions.as_slice());
        snapshot["models"] = json!([model("digits", 2), model("letters", 1)]);
        snapshot["identity"]["revokedSpiffeIds"] = json!(revoked);
        let before = self.node.plan();
        let before = before.as_deref().map_or(Before::Nothing, Before::Plan);
        let snapshot = serde_json::from_value(snapshot).unwrap();
        let plan = Plan::compile(snapshot, "sha256:none".into(), &self.dir, before).unwrap();
        self.node.serve(plan);
    }

    /// What makes the calls of `shop`, as it was when a request of it came.
    fn calls(&self) -> Arc<dyn Outbound> {
        let subject = crate::egress::Subject::Function("shop".into());
        let egress = crate::egress::Egress::new(subject, crate::egress::Ways::default());
        let log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        egress.on_route("front", log, Asking::of(&self.node, &component('a')))
    }

    async fn ask(&self, uri: &str) -> Result<(u16, String), BodyError> {
        answered(&self.calls(), call(uri, whole("{}1234"))).await
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.root.join(format!("models/{WORKER}.sock"))).unwrap()
    }

    fn records(&self) -> Vec<Value> {
        let files = std::fs::read_dir(self.root.join("spool"))
            .unwrap()
            .flatten();
        let texts = files.map(|it| std::fs::read_to_string(it.path()).unwrap());
        let text: String = texts.collect();
        let lines = text.lines().map(|line| line.trim_matches('\0'));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn cause(&self) -> Value {
        self.records().pop().unwrap()["cause"].clone()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).ok();
    }
}

fn whole(body: &str) -> OutboundBody {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A body of which nobody knows the length before it has come.
struct Pieces(usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::from(vec![b'1'; 64])))))
    }
}

fn call(uri: &str, body: OutboundBody) -> OutboundCall {
    let request = Request::post(uri)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(INFERENCE_HEADER, "2")
        .header("cookie", "s=1")
        .header("authorization", "Bearer secret")
        .body(body);
    OutboundCall {
        request_id: HeaderValue::from_static("r1"),
        request: request.unwrap(),
        timeouts: OutboundTimeouts::default(),
        until: Instant::now() + PATIENCE,
        interface: Interface::Http,
        is_one_too_many: false,
    }
}

async fn answered(
    calls: &Arc<dyn Outbound>,
    call: OutboundCall,
) -> Result<(u16, String), BodyError> {
    let done = async {
        let response = calls.send(call).await?;
        let (parts, body) = response.into_parts();
        assert!(
            parts.headers.keys().all(|it| ANSWERED.contains(it)),
            "{parts:?}"
        );
        let body = body.collect().await?.to_bytes();
        Ok((
            parts.status.as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
        ))
    };
    tokio::time::timeout(PATIENCE, done).await.unwrap()
}

/// The head and body of a request on `stream`, as they came.
async fn read(stream: &mut UnixStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(read).unwrap();
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |it| it.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// Answers every request; what it was asked is kept.
fn answer_all(listener: UnixListener) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = Arc::clone(&kept);
            tokio::spawn(async move {
                while let Some(request) = read(&mut stream).await {
                    asked.lock().unwrap().push(request);
                    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                        x-vedette-queue-us: 12\r\nx-vedette-run-us: 3456\r\nx-vedette-drift: drifted\r\nset-cookie: a=b\r\n\
                        content-length: 2\r\n\r\n{}";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    asked
}

#[tokio::test]
async fn a_model_is_asked_what_it_needs_and_the_call_is_recorded() {
    let bench = Bench::new(PERMIT);
    let asked = answer_all(bench.listen());
    let answer = bench.ask("http://digits.model/infer?q=1").await.unwrap();
    assert_eq!(answer, (200, "{}".to_owned()));
    let seen = asked.lock().unwrap().concat();
    assert!(
        seen.starts_with("POST /v2/models/digits/infer HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.ends_with("\r\n\r\n{}1234"), "{seen}");
    let names = seen.lines().skip(1).take_while(|it| !it.is_empty());
    let mut names: Vec<_> = names.map(|it| it.split(':').next().unwrap()).collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "host",
        "inference-header-content-length",
        "x-vedette-deadline-ms",
        "x-vedette-tenant",
    ];
    assert_eq!(names, expected, "{seen}");
    let mut record = bench.records().pop().unwrap();
    let told = record.as_object_mut().unwrap();
    for changing in ["time", "totalUs", "policies"] {
        assert!(told.remove(changing).is_some(), "{changing}");
    }
    let expected = json!({
        "kind": "predict", "interface": "wasi:http", "function": "shop", "component": component('a'), "route": "front",
        "requestId": "r1", "principal": ID, "snapshot": "sha256:none",
        "method": "POST", "scheme": "http", "host": "digits.model", "port": 80,
        "path": "/v2/models/digits/infer", "model": "digits", "modelVersion": 2,
        "modelDigest": component('f'), "tier": "edge", "queueMicros": 12, "runMicros": 3456, "drift": "drifted",
        "outcome": "served", "status": 200, "bytesOut": 6, "bytesIn": 2,
    });
    assert_eq!(record, expected);
    let counted = serde_json::to_value(crate::metrics::report(&bench.node)).unwrap();
    let row = json!({
        "model": "digits", "version": 2, "requests": 1, "queueMicros": 12, "runMicros": 3456,
    });
    assert_eq!(counted["models"], json!([row]));
}

#[tokio::test]
async fn what_came_twice_goes_twice_and_what_passes_for_ours_does_not() {
    let bench = Bench::new(PERMIT);
    let asked = answer_all(bench.listen());
    let mut twice = call("http://digits.model/infer", whole("{}1234"));
    let fields = twice.request.headers_mut();
    fields.append(INFERENCE_HEADER, HeaderValue::from_static("6"));
    fields.insert(TENANT, HeaderValue::from_static("another"));
    answered(&bench.calls(), twice).await.unwrap();
    let seen = asked.lock().unwrap().concat();
    for length in [2, 6] {
        let line = format!("inference-header-content-length: {length}\r\n");
        assert!(seen.contains(&line), "{seen}");
    }
    let told = seen.lines().filter(|it| it.starts_with(TENANT.as_str()));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{seen}");
    assert!(!told[0].contains("another"), "{seen}");
}

#[tokio::test]
async fn paths_are_below_the_model_whatever_they_say() {
    let bench = Bench::new(PERMIT);
    let asked = answer_all(bench.listen());
    for (path, expected) in [
        ("/infer", "/v2/models/digits/infer"),
        ("/v2/models/digits/infer", "/v2/models/digits/infer"),
        ("/v2/models/digits", "/v2/models/digits"),
        ("/", "/v2/models/digits"),
        ("", "/v2/models/digits"),
        ("/versions/2/infer", "/v2/models/digits/versions/2/infer"),
        (
            "/v2/models/digits/../letters/infer",
            "/v2/models/digits/v2/models/letters/infer",
        ),
        ("/%2e%2e/letters/infer", "/v2/models/digits/letters/infer"),
    ] {
        bench
            .ask(&format!("http://Digits.MODEL{path}"))
            .await
            .unwrap();
        let seen = asked.lock().unwrap().pop().unwrap();
        assert!(
            seen.starts_with(&format!("POST {expected} HTTP")),
            "{path}: {seen}"
        );
        assert_eq!(bench.records().pop().unwrap()["path"], expected);
    }
    let refused = bench.ask("http://digits.model/a%2fb").await.unwrap_err();
    assert!(
        matches!(refused, BodyError::HttpRequestUriInvalid),
        "{refused:?}"
    );
    assert_eq!(bench.cause(), "malformed_path");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_policy_no_model_is_asked_and_the_log_says_which_one_is_missing() {
    // Who may call the function, and what others may do, says nothing of what the function may.
    let others = r#"permit (principal is Subject, action, resource);
        permit (principal == Function::"shop", action == Action::"predict", resource == Model::"letters");
        permit (principal == Function::"other", action == Action::"predict", resource == Model::"digits");
        permit (principal is Workload, action == Action::"predict", resource == Model::"digits");"#;
    let bench = Bench::new(others);
    let asked = answer_all(bench.listen());
    let refused = bench.ask("http://digits.model/infer").await.unwrap_err();
    assert!(
        matches!(refused, BodyError::HttpRequestDenied),
        "{refused:?}"
    );
    let record = bench.records().pop().unwrap();
    assert_eq!(
        (&record["cause"], &record["outcome"]),
        (&json!("policy_denied"), &json!("refused"))
    );
    assert_eq!(
        (&record["principal"], &record["modelVersion"]),
        (&json!(ID), &json!(2))
    );
    let missing = record["wouldAllow"].as_str().unwrap().to_owned();
    let line = bench.log.0.lock().unwrap().pop().unwrap();
    assert_eq!(
        line,
        format!(
            "vedette: shop may not call POST http://digits.model:80: policy_denied; the policy \
             {missing} would allow it"
        )
    );
    assert!(asked.lock().unwrap().is_empty());
    // And it would.
    bench.serve(&missing, Some('a'), &[]);
    assert_eq!(bench.ask("http://digits.model/infer").await.unwrap().0, 200);
    bench.serve(
        &format!("{missing} forbid (principal is Function, action, resource);"),
        Some('a'),
        &[],
    );
    bench.ask("http://digits.model/infer").await.unwrap_err();
    assert!(
        bench.records().pop().unwrap().get("wouldAllow").is_none(),
        "it would not"
    );
}

#[tokio::test]
async fn policies_see_method_path_host_version_and_what_is_known_of_the_function() {
    let holds = [
        r#"context.method == "POST" && context.path == "/v2/models/digits/infer""#,
        r#"context.host == "digits.model" && context.scheme == "http" && context.version == 2"#,
        r#"context.listener == "function" && context.sourceIp.isLoopback()"#,
        r#"principal.name == "shop" && !(context has certificate)"#,
        r#"context.posture.isEmpty()"#,
    ];
    let bench = Bench::new(PERMIT);
    answer_all(bench.listen());
    for (condition, allowed) in holds
        .iter()
        .flat_map(|it| [((*it).to_owned(), true), (format!("!({it})"), false)])
    {
        let policy = PERMIT.replace(';', &format!(" when {{ {condition} }};"));
        bench.serve(&policy, Some('a'), &[]);
        let answer = bench.ask("http://digits.model/infer").await;
        assert_eq!(answer.is_ok(), allowed, "{condition}: {answer:?}");
    }
}

#[tokio::test]
async fn decisions_that_are_remembered_are_for_one_model_and_one_function() {
    let text = format!(
        r#"{PERMIT} permit (principal is Function, action, resource)
        when {{ principal.name == "shop" && context.path == "/v2/models/letters/ready" }};"#
    );
    let bench = Bench::new(&text);
    answer_all(bench.listen());
    for _ in 0..2 {
        assert!(bench.ask("http://digits.model/infer").await.is_ok());
        assert!(bench.ask("http://letters.model/infer").await.is_err());
        assert!(bench.ask("http://letters.model/ready").await.is_ok());
    }
}

#[tokio::test]
async fn what_names_no_model_of_the_node_is_not_asked() {
    let bench = Bench::new(r#"permit (principal, action, resource);"#);
    let asked = answer_all(bench.listen());
    for (uri, cause) in [
        ("http://nothing.model/infer", "model_unknown"),
        ("http://a.digits.model/infer", "model_unknown"),
        ("http://.model/infer", "model_unknown"),
        ("https://digits.model/infer", "destination_not_allowed"),
        ("http://digits.model:8080/infer", "destination_not_allowed"),
        // Not below the domain of models: a name like others, for which there is no rule.
        ("http://model/infer", "destination_not_allowed"),
        ("http://digits.models/infer", "destination_not_allowed"),
        (
            "http://digits.model.example.com/infer",
            "destination_not_allowed",
        ),
    ] {
        assert!(bench.ask(uri).await.is_err(), "{uri}");
        assert_eq!(bench.cause(), cause, "{uri}");
    }
    let unknown = bench.ask("http://nothing.model/infer").await.unwrap_err();
    assert!(
        matches!(unknown, BodyError::DestinationNotFound),
        "{unknown:?}"
    );
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_function_that_is_revoked_replaced_or_gone_gets_nothing() {
    let bench = Bench::new(PERMIT);
    answer_all(bench.listen());
    let calls = bench.calls();
    let ask = || async {
        let answer = answered(&calls, call("http://digits.model/infer", whole("{}"))).await;
        (answer.is_ok(), bench.cause())
    };
    assert_eq!(ask().await, (true, Value::Null));
    bench.serve(PERMIT, Some('a'), &[ID]);
    assert_eq!(ask().await, (false, json!("identity_revoked")));
    bench.serve(PERMIT, Some('b'), &[]);
    assert_eq!(ask().await, (false, json!("function_replaced")));
    bench.serve(PERMIT, None, &[]);
    assert_eq!(ask().await, (false, json!("function_replaced")));
    bench.serve(PERMIT, Some('a'), &[]);
    assert_eq!(ask().await, (true, Value::Null));
    let ahead = Revocation::TrustDomain {
        name: "edge-1.vedette.local".into(),
    };
    bench.node.ahead.revoke(vec![ahead]).unwrap();
    assert_eq!(ask().await, (false, json!("identity_revoked")));
}

#[tokio::test]
async fn a_body_beyond_the_model_s_limit_is_refused_however_it_comes() {
    let bench = Bench::new(PERMIT);
    let silent = bench.listen();
    let uri = "http://digits.model/infer";
    let calls = bench.calls();
    for body in [whole(&"1".repeat(1025)), Pieces(17).boxed_unsync()] {
        let error = answered(&calls, call(uri, body)).await.unwrap_err();
        assert!(
            matches!(error, BodyError::HttpRequestBodySize(_)),
            "{error:?}"
        );
        assert_eq!(bench.cause(), "request_too_large");
    }
    answer_all(silent);
    let fits = answered(&calls, call(uri, whole(&"1".repeat(1024)))).await;
    assert_eq!(fits.unwrap().0, 200);
}

#[tokio::test]
async fn limits_of_the_function_hold_and_its_time_is_the_model_s() {
    let bench = Bench::new(PERMIT);
    let silent = bench.listen();
    let calls = bench.calls();
    let uri = "http://digits.model/infer";
    let mut one_too_many = call(uri, whole("{}"));
    one_too_many.is_one_too_many = true;
    answered(&calls, one_too_many).await.unwrap_err();
    assert_eq!(bench.cause(), "too_many_calls");
    let mut tunnel = call(uri, whole(""));
    *tunnel.request.method_mut() = Method::CONNECT;
    answered(&calls, tunnel).await.unwrap_err();
    assert_eq!(bench.cause(), "method_not_allowed");
    let mut ending = call(uri, whole("{}"));
    ending.until = Instant::now() + Duration::from_millis(30);
    let error = answered(&calls, ending).await.unwrap_err();
    assert!(matches!(error, BodyError::HttpResponseTimeout), "{error:?}");
    let mut hasty = call(uri, whole("{}"));
    hasty.timeouts.first_byte = Some(Duration::from_millis(30));
    let error = answered(&calls, hasty).await.unwrap_err();
    assert!(matches!(error, BodyError::HttpResponseTimeout), "{error:?}");
    drop(silent);
}

#[tokio::test]
async fn a_process_is_told_how_long_the_function_waits() {
    let bench = Bench::new(PERMIT);
    let asked = answer_all(bench.listen());
    let mut hasty = call("http://digits.model/infer", whole("{}"));
    hasty.timeouts.first_byte = Some(Duration::from_secs(100));
    answered(&bench.calls(), hasty).await.unwrap();
    let seen = asked.lock().unwrap().concat();
    let told = seen
        .lines()
        .find_map(|it| it.strip_prefix("x-vedette-deadline-ms: "));
    let told: u64 = told.unwrap().parse().unwrap();
    assert!((1..=100_000).contains(&told), "{seen}");
}

#[tokio::test]
async fn a_process_that_is_away_is_a_call_that_failed() {
    let bench = Bench::new(PERMIT);
    let error = bench.ask("http://digits.model/infer").await.unwrap_err();
    assert!(matches!(error, BodyError::ConnectionRefused), "{error:?}");
    let record = bench.records().pop().unwrap();
    assert_eq!(record["outcome"], "failed");
    assert_eq!(record["cause"], "connect_failed");
}

#[tokio::test]
async fn a_question_whether_a_model_may_be_asked_is_recorded_when_it_may_not() {
    let bench = Bench::new(&PERMIT.replace(';', r#" when { context.method == "POST" };"#));
    let calls = bench.calls();
    let id = HeaderValue::from_static("r2");
    calls.may_ask(&id, "digits").unwrap();
    assert!(bench.records().is_empty());
    let denied = calls.may_ask(&id, "letters").unwrap_err();
    assert!(matches!(denied, BodyError::HttpRequestDenied), "{denied:?}");
    let record = bench.records().pop().unwrap();
    let told = ["cause", "requestId", "interface", "path"].map(|it| record[it].clone());
    let path = "/v2/models/letters/infer";
    assert_eq!(
        told,
        ["policy_denied", "r2", "wasi:nn", path].map(|it| json!(it))
    );
    for none in [
        "",
        "nothing",
        "a.digits",
        "digits/../letters",
        "digits@letters",
        "x y",
    ] {
        let unknown = calls.may_ask(&id, none).unwrap_err();
        assert!(
            matches!(unknown, BodyError::DestinationNotFound),
            "{none}: {unknown:?}"
        );
    }
}
