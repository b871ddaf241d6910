//! Whole connections: hostile bytes in, the path with every stage, answers out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use vedette_wasm::{Runtime, RuntimeOptions};

use super::{SNAPSHOT, peer};
use crate::connection::serve_bytes;
use crate::load::{EngineDir, sha256};
use crate::node::{Connection, Node};
use crate::plan::{Before, Plan};
use crate::record::log::FunctionLog;
use crate::spool::Spool;
use crate::wire::Answering;
use crate::worker;

const SCHEMA: &str = include_str!("../../../../src/vedette/policy/schema.cedarschema");
const POLICY: &str = r#"permit (principal, action, resource) unless { resource == Route::"closed" };
permit (principal is Subject, action, resource);
"#;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// More than any answer here takes; an exchange that is not over then hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often others have their turn before the client leaves.
const TURNS: u32 = 16;

/// An engine without sockets, and the thread's runtime.
struct Bench {
    node: Arc<Node>,
    runtime: tokio::runtime::Runtime,
    spool: PathBuf,
    runs: std::cell::Cell<u32>,
}

thread_local! {
    // For good: a runtime that ends with its thread would look for what the thread has lost already.
    static BENCH: &'static Bench = Box::leak(Box::new(Bench::new()));
}

impl Bench {
    fn new() -> Self {
        let root = folder_of_this_process();
        let (engine, spool) = (root.join("engine"), root.join("spool"));
        let blobs = engine.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&spool).unwrap();
        let store = |text: &str| {
            let digest = sha256(text.as_bytes());
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), text).unwrap();
            digest
        };
        let text = SNAPSHOT
            .replace("SCHEMA", &store(SCHEMA))
            .replace("POLICY", &store(POLICY));
        let dir = EngineDir::new(&engine, "none");
        let snapshot = serde_json::from_str(&text).unwrap();
        let digest = sha256(text.as_bytes());
        let plan = Plan::compile(snapshot, digest, &dir, Before::Nothing).unwrap();
        let location = HeaderValue::from_static("here");
        let log = FunctionLog::start(&spool, "log").unwrap();
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let node = Arc::new(Node::new(location, dir, runtime, log));
        node.serve(plan);
        let records = Spool::open(&spool, "records").unwrap();
        worker::install(records, node.shards.add());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            node,
            runtime,
            spool,
            runs: std::cell::Cell::default(),
        }
    }

    /// What a connection with these bytes answers, and how many requests it had.
    fn answer(&self, bytes: &[u8], is_http2: bool) -> (Vec<u8>, u64) {
        self.runs.set(self.runs.get().wrapping_add(1));
        if self.runs.get().is_multiple_of(4096) {
            forget_records(&self.spool);
        }
        let talk = async {
            let (client, server) = duplex(16 << 10);
            let (mut read, mut write) = split(client);
            let mut answer = Vec::new();
            let ((), _, requests) = tokio::join!(
                async {
                    let _ = write.write_all(bytes).await;
                    // A client that is gone gets no answer: the streams of HTTP/2 are tasks.
                    for _ in 0..TURNS {
                        tokio::task::yield_now().await;
                    }
                    let _ = write.shutdown().await;
                },
                read.read_to_end(&mut answer),
                serve_bytes(Arc::clone(&self.node), server, peer(), is_http2),
            );
            (answer, requests)
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, talk).await })
            .expect("the connection hangs")
    }
}

/// A folder for blobs and records. Those of processes that are gone go first: libFuzzer ends at once.
fn folder_of_this_process() -> PathBuf {
    const NAME: &str = "vedette-fuzz-";
    let all = std::env::temp_dir();
    for entry in std::fs::read_dir(&all).unwrap().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(format!("{NAME}{}", std::process::id()))
}

/// Records of millions of requests are nobody's; the files in use stay mapped.
fn forget_records(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// A connection that nobody made.
pub fn connection() -> Arc<Connection> {
    let ip = peer().ip();
    Arc::new(Connection {
        listener: "https".into(),
        scheme: "https",
        client: peer().to_string().into(),
        client_address: ip,
        client_ip: ip.to_string().into(),
        client_ip_value: HeaderValue::from_static("127.0.0.1"),
        sni: None,
        certificate: None,
        ja4: None,
        location: HeaderValue::from_static("here"),
        offenders: Arc::default(),
        sidecar: None,
        answering: Answering::default(),
    })
}

/// No request is answered twice, each answer has its id, and nobody reads what is closed.
pub fn http1(data: &[u8]) {
    let (answer, requests) = BENCH.with(|bench| bench.answer(data, false));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
    let ids = count(&answer, b"\r\nx-request-id: ");
    // One more for bytes that were no request.
    assert!(ids <= requests + 1, "{ids} answers to {requests} requests");
    assert_eq!(count(&answer, b"secret"), 0, "nobody has a token");
}

/// The bytes after the preface; the rest as with HTTP/1.1.
pub fn http2(data: &[u8]) {
    let bytes = [PREFACE, data].concat();
    let (answer, _) = BENCH.with(|bench| bench.answer(&bytes, true));
    assert_eq!(count(&answer, b"secret"), 0, "nobody has a token");
}

fn count(text: &[u8], what: &[u8]) -> u64 {
    text.windows(what.len()).filter(|it| *it == what).count() as u64
}

#[cfg(test)]
#[test]
fn requests_of_both_protocols_reach_the_path_and_are_answered() {
    let two = include_bytes!("../../../fuzz/seeds/http1/two");
    let (answer, requests) = BENCH.with(|bench| bench.answer(two, false));
    assert_eq!((requests, count(&answer, b"\r\nx-request-id: ")), (2, 2));
    assert!(count(&answer, b"HTTP/1.1 200 OK") == 1 && count(&answer, b"HTTP/1.1 401 ") == 1);
    let get = [PREFACE, include_bytes!("../../../fuzz/seeds/http2/get")].concat();
    let (answer, requests) = BENCH.with(|bench| bench.answer(&get, true));
    // DATA frames of the two answers end their streams, 1 and 3.
    let ends = |stream: u8| count(&answer, &[0, 1, 0, 0, 0, stream]);
    assert_eq!((requests, ends(1), ends(3)), (2, 1, 1));
}
