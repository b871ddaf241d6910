//! Whole requests to a model, whose process is played by a task on a Unix socket.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::net::{UnixListener, UnixStream};
use vedette_wasm::{Runtime, RuntimeOptions};

use super::*;
use crate::connection::serve_bytes;
use crate::fuzz::{SNAPSHOT, peer};
use crate::load::sha256;
use crate::node::Node;
use crate::plan::{Before, Plan};
use crate::record::log::FunctionLog;
use crate::spool::Spool;
use crate::worker;

const SCHEMA: &str = include_str!("../../../src/vedette/policy/schema.cedarschema");
const POLICY: &str = r#"permit (principal, action == Action::"predict", resource) when { context.version >= 2 };
"#;
const WORKER: &str = "0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine without sockets, and the folder of its models.
struct Bench {
    node: Arc<Node>,
    dir: EngineDir,
    root: PathBuf,
    text: String,
}

fn model(name: &str, version: u64, worker: &str) -> Value {
    json!({
        "name": name, "version": version, "blob": format!("sha256:{}", "a".repeat(64)), "size": 1,
        "format": "onnx", "task": "tensors",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [0]}],
        "sessions": 1, "threads": 1, "worker": worker,
        "limits": {"memoryBytes": 67_108_864, "runMillis": 10_000, "queue": 4, "batch": 1, "streams": 1, "requestBytes": 1024},
    })
}

fn route(name: &str, path: &str, model: &str) -> Value {
    json!({
        "name": name, "hosts": [], "path": {"type": "PathPrefix", "value": path},
        "backend": {"type": "Model", "model": model}, "headers": [], "query": [], "cookies": [],
    })
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("vedette-models-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for folder in ["engine/blobs/sha256", "spool", "models"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let store = |text: &str| {
            let digest = sha256(text.as_bytes());
            let blobs = root.join("engine/blobs/sha256");
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), text).unwrap();
            digest
        };
        let text = SNAPSHOT
            .replace("SCHEMA", &store(SCHEMA))
            .replace("POLICY", &store(POLICY));
        let dir = EngineDir::new(root.join("engine"), "none").with_models(root.join("models"));
        let spool = root.join("spool");
        let log = FunctionLog::start(&spool, "log").unwrap();
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let location = HeaderValue::from_static("here");
        let node = Arc::new(Node::new(location, dir.clone(), runtime, log));
        worker::install(Spool::open(&spool, "records").unwrap(), node.shards.add());
        let bench = Self {
            node,
            dir,
            root,
            text,
        };
        bench.serve(json!([model("digits", 2, WORKER)]));
        bench
    }

    fn plan(&self, models: Value) -> Result<Plan, LoadError> {
        let mut snapshot: Value = serde_json::from_str(&self.text).unwrap();
        snapshot["models"] = models;
        let routes = snapshot["routes"].as_array_mut().unwrap();
        routes.push(route("model", "/v2/models/digits", "digits"));
        routes.push(route("short", "/d", "digits"));
        let before = self.node.plan();
        let before = before.as_deref().map_or(Before::Nothing, Before::Plan);
        let snapshot = serde_json::from_value(snapshot).unwrap();
        Plan::compile(snapshot, "sha256:none".into(), &self.dir, before)
    }

    fn serve(&self, models: Value) {
        self.node.serve(self.plan(models).unwrap());
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.root.join(format!("models/{WORKER}.sock"))).unwrap()
    }

    /// What a connection with these bytes gets.
    async fn ask(&self, bytes: &[u8]) -> String {
        let talk = async {
            let (client, server) = duplex(64 << 10);
            let (mut read, mut write) = split(client);
            let mut answer = Vec::new();
            let (written, read, _) = tokio::join!(
                write.write_all(bytes),
                read.read_to_end(&mut answer),
                serve_bytes(Arc::clone(&self.node), server, peer(), false),
            );
            assert!(written.is_ok() && read.is_ok());
            String::from_utf8(answer).unwrap()
        };
        tokio::time::timeout(PATIENCE, talk).await.unwrap()
    }

    fn records(&self) -> Vec<Value> {
        let files = std::fs::read_dir(self.root.join("spool"))
            .unwrap()
            .flatten();
        let texts = files.map(|it| std::fs::read_to_string(it.path()).unwrap());
        let text: String = texts.collect();
        let lines = text.lines().map(|line| line.trim_matches('\0'));
        let lines = lines.filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).ok();
    }
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
        .find_map(|line| line.strip_prefix("content-length: "));
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
                        x-vedette-queue-us: 12\r\nx-vedette-run-us: 3456\r\nx-vedette-batch: 3\r\nx-vedette-drift: steady\r\nset-cookie: a=b\r\n\
                        x-vedette-principal: root\r\ncontent-length: 2\r\n\r\n{}";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    asked
}

fn post(path: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

const SECRETS: &str = "cookie: s=1\r\nx-api-key: k\r\nx-vedette-principal: root\r\n\
    content-type: application/octet-stream\r\ninference-header-content-length: 2\r\n";

#[tokio::test]
async fn a_model_is_asked_what_it_needs_and_no_more_and_its_times_are_recorded() {
    let bench = Bench::new();
    let asked = answer_all(bench.listen());
    let answer = bench
        .ask(&post("/d/infer?token=1", SECRETS, "{}1234"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nserver-timing: queue;dur=0.012, run;dur=3.456\r\n"),
        "{answer}"
    );
    for gone in ["set-cookie", "x-vedette-"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let seen = asked.lock().unwrap().concat();
    assert!(
        seen.starts_with("POST /v2/models/digits/infer HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.ends_with("\r\n\r\n{}1234"), "{seen}");
    for kept in [
        "host: digits",
        "content-type: application/octet-stream",
        "inference-header-content-length: 2",
        "content-length: 6",
        "traceparent: ",
    ] {
        assert!(seen.contains(&format!("\r\n{kept}")), "{kept} in {seen}");
    }
    let fields = seen
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .count();
    assert_eq!(fields, 6, "{seen}");
    let record = bench.records().pop().unwrap();
    let told = [
        "model",
        "modelVersion",
        "modelDigest",
        "tier",
        "queueMicros",
        "runMicros",
        "batch",
        "drift",
    ];
    let told = told.map(|name| record[name].clone());
    let digest = format!("sha256:{}", "a".repeat(64));
    let expected = [
        json!("digits"),
        json!(2),
        json!(digest),
        json!("edge"),
        json!(12),
        json!(3456),
        json!(3),
        json!("steady"),
    ];
    assert_eq!(told, expected);
    let counted = serde_json::to_value(crate::metrics::report(&bench.node)).unwrap();
    let row = json!({
        "model": "digits", "version": 2, "requests": 1, "queueMicros": 12, "runMicros": 3456,
    });
    assert_eq!(counted["models"], json!([row]));
    assert_eq!(
        (&record["route"], &record["outcome"]),
        (&json!("short"), &json!("served"))
    );
}

#[tokio::test]
async fn tensors_without_a_type_are_bytes_and_everything_else_stays_without() {
    let bench = Bench::new();
    let asked = answer_all(bench.listen());
    let tensors = "inference-header-content-length: 2\r\n";
    for (fields, body, is_named) in [(tensors, "{}1234", true), ("", "{}", false)] {
        asked.lock().unwrap().clear();
        let answer = bench.ask(&post("/d/infer", fields, body)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let seen = asked.lock().unwrap().concat();
        let named = seen.contains("\r\ncontent-type: application/octet-stream\r\n");
        assert_eq!(named, is_named, "{seen}");
    }
}

#[tokio::test]
async fn paths_lead_to_the_model_of_the_route_and_to_no_other() {
    let bench = Bench::new();
    let asked = answer_all(bench.listen());
    for (path, expected) in [
        ("/v2/models/digits", "/v2/models/digits"),
        ("/v2/models/digits/ready", "/v2/models/digits/ready"),
        (
            "/v2/models/digits/versions/2/infer",
            "/v2/models/digits/versions/2/infer",
        ),
        ("/d", "/v2/models/digits"),
        (
            "/d/v2/models/other/infer",
            "/v2/models/digits/v2/models/other/infer",
        ),
        ("/d/../v2/models/digits/ready", "/v2/models/digits/ready"),
    ] {
        bench.ask(&post(path, "", "{}")).await;
        let seen = asked.lock().unwrap().pop().unwrap();
        assert!(
            seen.starts_with(&format!("POST {expected} HTTP/1.1\r\n")),
            "{path}: {seen}"
        );
    }
    let served = bench.node.plan();
    let served = served.as_ref().unwrap().model("digits").unwrap();
    // What already is a path of the model stays, wherever the route is.
    assert_eq!(
        served.path("/", "/v2/models/digits/infer"),
        "/v2/models/digits/infer"
    );
    assert_eq!(
        served.path("/", "/v2/models/digits2/x"),
        "/v2/models/digits/v2/models/digits2/x"
    );
}

#[tokio::test]
async fn a_body_beyond_the_model_s_limit_is_refused_however_it_comes() {
    let bench = Bench::new();
    answer_all(bench.listen());
    let large = "1".repeat(1025);
    let declared = bench.ask(&post("/d/infer", "", &large)).await;
    assert!(declared.starts_with("HTTP/1.1 413 "), "{declared}");
    let chunked = format!(
        "POST /d/infer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n401\r\n{large}\r\n0\r\n\r\n"
    );
    let undeclared = bench.ask(chunked.as_bytes()).await;
    assert!(undeclared.starts_with("HTTP/1.1 413 "), "{undeclared}");
    let fits = bench.ask(&post("/d/infer", "", &"1".repeat(1024))).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
}

#[tokio::test]
async fn a_process_that_is_away_or_breaks_off_is_a_model_that_is_not_available() {
    let bench = Bench::new();
    let refused = |answer: &str| {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        assert!(answer.contains("The model is not available"), "{answer}");
    };
    refused(&bench.ask(&post("/d/infer", "", "{}")).await);
    let listener = bench.listen();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read(&mut stream).await;
        }
    });
    refused(&bench.ask(&post("/d/infer", "", "{}")).await);
    let causes: Vec<_> = bench
        .records()
        .iter()
        .map(|it| it["cause"].clone())
        .collect();
    assert_eq!(causes, ["model_unavailable", "model_unavailable"]);
}

#[tokio::test]
async fn a_deadline_is_the_caller_s_to_say_and_a_process_is_told_what_is_left() {
    let bench = Bench::new();
    let asked = answer_all(bench.listen());
    let within = |said: &str| {
        post(
            "/d/infer",
            &format!("x-vedette-deadline-ms: {said}\r\n"),
            "{}",
        )
    };
    let answer = bench.ask(&within("60000")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = asked.lock().unwrap().pop().unwrap();
    let told = seen
        .lines()
        .find_map(|it| it.strip_prefix("x-vedette-deadline-ms: "));
    let told: u64 = told.unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&told), "{seen}");
    for said in [
        "0",
        "-1",
        "+1",
        "1.5",
        "soon",
        "",
        "3600001",
        "1\r\nx-vedette-deadline-ms: 1",
    ] {
        let answer = bench.ask(&within(said)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{said}: {answer}");
        assert!(answer.contains("The deadline is malformed"), "{answer}");
    }
    assert!(asked.lock().unwrap().is_empty());
    assert!(bench.records().iter().all(|it| it.get("spoofed").is_none()));
}

#[tokio::test]
async fn nobody_waits_for_a_model_beyond_the_deadline() {
    let bench = Bench::new();
    let _silent = bench.listen();
    let answer = bench
        .ask(&post("/d/infer", "x-vedette-deadline-ms: 30\r\n", "{}"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(bench.records().pop().unwrap()["cause"], "model_timeout");
}

/// Answers every request with these bytes.
fn answer_with(listener: UnixListener, answer: String) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                while read(&mut stream).await.is_some() {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
}

#[tokio::test]
async fn what_a_process_refuses_is_recorded_with_its_cause_and_told_in_its_words() {
    let sentence = "input \"x\" is missing";
    let body = json!({"error": sentence}).to_string();
    for (status, fields, cause, outcome) in [
        (400, "", "model_request_invalid", "refused"),
        (404, "", "model_path_unknown", "refused"),
        (405, "allow: POST\r\n", "model_method", "refused"),
        (408, "", "body_too_slow", "refused"),
        (413, "", "request_too_large", "refused"),
        (415, "", "model_medium", "refused"),
        (
            500,
            "x-vedette-queue-us: 5\r\nx-vedette-run-us: 70\r\n",
            "model_failed",
            "failed",
        ),
        (503, "retry-after: 7\r\n", "model_busy", "refused"),
        (504, "", "model_timeout", "failed"),
    ] {
        let bench = Bench::new();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} No\r\n{fields}content-length: {length}\r\n\r\n{body}");
        answer_with(bench.listen(), answer);
        let told = bench.ask(&post("/d/infer", "", "{}")).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
        let (head, said) = told.split_once("\r\n\r\n").unwrap();
        let said: Value = serde_json::from_str(said).unwrap();
        assert_eq!(said["error"], sentence);
        let told_fields = if status == 500 { "" } else { fields };
        assert!(head.contains(told_fields.trim_end()), "{head}");
        let record = bench.records().pop().unwrap();
        let kept = ["cause", "outcome", "detail", "model", "status"].map(|it| record[it].clone());
        let expected = [cause, outcome, sentence, "digits"].map(Value::from);
        assert_eq!(kept[..4], expected, "{status}");
        assert_eq!(kept[4], status);
        if status == 500 {
            assert_eq!(
                (&record["queueMicros"], &record["runMicros"]),
                (&json!(5), &json!(70))
            );
        }
        let counted = serde_json::to_value(crate::metrics::report(&bench.node)).unwrap();
        assert_eq!(counted["refusals"][cause], 1, "{counted}");
    }
}

#[tokio::test]
async fn what_a_process_says_is_bounded_and_no_sentence_is_needed() {
    let long = json!({"error": "é".repeat(10_000)}).to_string();
    let endless = "x".repeat(200_000);
    for (status, body, cause, told_length, kept_length) in [
        (500, long.as_str(), "model_failed", 2000, 500),
        (500, endless.as_str(), "model_failed", 16, 29),
        (503, "{\"error\": 7}", "model_busy", 17, 29),
        (503, "", "model_busy", 17, 29),
        (
            302,
            "{\"error\": \"elsewhere\"}",
            "upstream_invalid",
            31,
            32,
        ),
    ] {
        let bench = Bench::new();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\n\r\n");
        answer_with(bench.listen(), head + body);
        let told = bench.ask(&post("/d/infer", "", "{}")).await;
        let (_, said) = told.split_once("\r\n\r\n").unwrap();
        let said: Value = serde_json::from_str(said).unwrap();
        let record = bench.records().pop().unwrap();
        assert_eq!(record["cause"], cause);
        let lengths =
            [&said["error"], &record["detail"]].map(|it| it.as_str().unwrap().chars().count());
        assert_eq!(lengths, [told_length, kept_length], "{said} {record}");
    }
}

#[test]
fn a_tenant_is_one_caller_and_tells_nobody_who() {
    let caller = |issuer: &str, subject: &str| {
        let verified = crate::jwt::Verified {
            issuer: issuer.into(),
            subject: subject.into(),
            audiences: vec![],
            scopes: vec![],
            expires_at: 0,
            bound_to: None,
            id: None,
            key: "k".into(),
        };
        crate::caller::Caller::new(verified).unwrap()
    };
    let (alice, bob) = (caller("i", "alice"), caller("i", "bob"));
    let tenants: Vec<_> = [Some(&alice), Some(&bob), Some(&caller("j", "alice")), None]
        .into_iter()
        .map(tenant_of)
        .collect();
    assert_eq!(tenant_of(Some(&caller("i", "alice"))), tenants[0]);
    for (place, tenant) in tenants.iter().enumerate() {
        let text = tenant.to_str().unwrap();
        assert!(text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit()));
        assert!(!tenants[..place].contains(tenant));
        assert_ne!(*tenant, hash_without_key(alice.principal.as_bytes()));
    }
}

fn hash_without_key(bytes: &[u8]) -> String {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write_u8(1);
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

#[tokio::test]
async fn a_process_is_told_callers_apart_and_nobody_else_says_who_they_are() {
    let bench = Bench::new();
    let asked = answer_all(bench.listen());
    let forged = "x-vedette-tenant: 0123456789abcdef\r\n";
    bench.ask(&post("/d/infer", forged, "{}")).await;
    bench.ask(&post("/d/infer", "", "{}")).await;
    let seen = asked.lock().unwrap().clone();
    let tenant = |it: &String| {
        let line = it
            .lines()
            .find_map(|it| it.strip_prefix("x-vedette-tenant: "));
        line.unwrap().to_owned()
    };
    let tenants: Vec<_> = seen.iter().map(tenant).collect();
    assert_eq!(tenants, [tenant_of(None), tenant_of(None)]);
    assert_eq!(bench.records().first().unwrap()["spoofed"], 1);
}

#[tokio::test]
async fn policies_are_asked_about_the_version_that_answers() {
    let bench = Bench::new();
    answer_all(bench.listen());
    bench.serve(json!([model("digits", 1, WORKER)]));
    let old = bench.ask(&post("/d/infer", "", "{}")).await;
    assert!(old.starts_with("HTTP/1.1 401 "), "{old}");
    bench.serve(json!([model("digits", 3, WORKER)]));
    let new = bench.ask(&post("/d/infer", "", "{}")).await;
    assert!(new.starts_with("HTTP/1.1 200 "), "{new}");
}

#[tokio::test]
async fn a_model_that_stays_keeps_its_connections_and_one_that_changes_gets_others() {
    let bench = Bench::new();
    let upstream = || {
        let plan = bench.node.plan().unwrap();
        Arc::clone(
            &plan
                .model("digits")
                .unwrap()
                .process
                .as_ref()
                .unwrap()
                .upstream,
        )
    };
    let before = upstream();
    bench.serve(json!([model("digits", 2, WORKER)]));
    assert!(Arc::ptr_eq(&before, &upstream()));
    bench.serve(json!([model("digits", 3, "fedcba9876543210")]));
    assert!(!Arc::ptr_eq(&before, &upstream()));
}

#[tokio::test]
async fn no_path_is_made_of_what_is_no_name_of_a_process() {
    let bench = Bench::new();
    for worker in ["../../admin", "0123456789ABCDEF", "", "0123456789abcdef0"] {
        let refused = bench
            .plan(json!([model("digits", 2, worker)]))
            .err()
            .unwrap();
        assert_eq!(refused.code, "snapshot_malformed", "{worker}");
    }
    let unknown = bench.plan(json!([])).err().unwrap();
    assert_eq!(unknown.code, "route_invalid");
}

#[test]
fn patience_is_for_all_who_may_wait_before() {
    let declared = |run: u64, queue: u64, sessions: u64| {
        let mut value = model("digits", 1, WORKER);
        value["limits"]["runMillis"] = json!(run);
        value["limits"]["queue"] = json!(queue);
        value["sessions"] = json!(sessions);
        serde_json::from_value::<ServedModel>(value).unwrap()
    };
    let millis = |declared: &ServedModel| patience(declared).as_millis();
    assert_eq!(millis(&declared(100, 0, 1)), 100 * 2 + 5000);
    assert_eq!(millis(&declared(100, 9, 4)), 100 * 5 + 5000);
    assert_eq!(millis(&declared(3_600_000, 100_000, 1)), 7_200_000 + 5000);
    assert_eq!(millis(&declared(10_000, 100_000, 1)), 3_600_000 + 5000);
    assert_eq!(connections(&declared(100, 64, 2)), 64 + 2 + 16);
}

#[tokio::test]
async fn text_for_a_model_is_inspected_and_tensors_are_not() {
    let mut text = model("digits", 2, WORKER);
    text["inputs"][0]["datatype"] = json!("BYTES");
    let bench = Bench::new();
    let kind = |models: Value, fields: &[(&'static str, &'static str)]| {
        bench.serve(json!([models]));
        let headers = fields.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let plan = bench.node.plan().unwrap();
        let target = plan.route("model").unwrap();
        crate::stages::inspect::kind_for(target, &headers.collect())
    };
    let json = ("content-type", "application/json");
    let binary = ("inference-header-content-length", "10");
    assert_eq!(kind(text.clone(), &[json]), crate::waf::BodyKind::Fields);
    assert_eq!(kind(text.clone(), &[]), crate::waf::BodyKind::Fields);
    assert_eq!(kind(text, &[json, binary]), crate::waf::BodyKind::Opaque);
    let mut read = model("digits", 2, WORKER);
    read["input"] = json!({"type": "Text", "maxTokens": 8, "tensors": {"ids": "x"}});
    let plain = ("content-type", "Text/plain; charset=utf-8");
    assert_eq!(kind(read.clone(), &[plain]), crate::waf::BodyKind::Fields);
    let both = kind(read.clone(), &[plain, binary]);
    assert_eq!(
        both,
        crate::waf::BodyKind::Fields,
        "JSON before it changes nothing"
    );
    assert_eq!(kind(read, &[json]), crate::waf::BodyKind::Opaque);
    let tensors = model("digits", 2, WORKER);
    assert_eq!(
        kind(tensors.clone(), &[plain]),
        crate::waf::BodyKind::Opaque
    );
    assert_eq!(kind(tensors, &[json]), crate::waf::BodyKind::Opaque);
}
