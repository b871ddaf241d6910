//! What single steps of the path cost: measurements that `make bench` runs, no tests.
//!
//! Each prints `MEASURED name nanoseconds`, the median of rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Uri};
use vedette_upstream::{EgressRate, EgressRule, EgressRules};

use crate::caller::Caller;
use crate::clock;
use crate::jwt::Verified;
use crate::metrics::Shards;
use crate::policy::{Attributes, Policies, ResourceKind};
use crate::posture::Posture;
use crate::presence::Presence;
use crate::revoked::Ahead;
use crate::spool::Spool;
use crate::stages::authenticate::{recall, remember};
use crate::worker;

const SCHEMA: &str = include_str!("../../../src/vedette/policy/schema.cedarschema");
const POLICIES: &str = include_str!("../../../benches/policies.cedar");
const OWN: &str = r#"@id("node-tokens-invoke-functions")
permit(principal is Subject, action == Action::"invoke", resource is Function)
when { principal.issuer == "spiffe://td" };"#;
const ROUNDS: usize = 15;
const STEPS: u32 = 20_000;

fn measure(name: &str, mut step: impl FnMut()) {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..STEPS).for_each(|_| step());
            started.elapsed().as_nanos() / u128::from(STEPS)
        })
        .collect();
    rounds.sort_unstable();
    println!("MEASURED {name} {}", rounds[ROUNDS / 2]);
}

fn caller() -> Caller {
    Caller::new(Verified {
        issuer: "spiffe://td".into(),
        subject: "caller-1".into(),
        audiences: vec!["spiffe://td/gateway".into()],
        scopes: vec!["hello:read".into()],
        expires_at: u64::MAX,
        bound_to: None,
        id: None,
        key: "".into(),
    })
    .unwrap()
}

#[test]
#[ignore = "a measurement: make bench"]
fn measure_an_egress_decision() {
    let listed = |number: u32| {
        let mut rule = EgressRule::to(&format!("https://api-{number}.example.com"));
        rule.methods = vec![Method::GET, Method::POST];
        rule.rate = Some(EgressRate {
            calls: 1_000_000_000,
            period: Duration::from_secs(1),
            burst: 1_000_000_000,
        });
        rule
    };
    let ranges = ["https://10.0.0.0/8", "https://[fd00::/8]"].map(EgressRule::to);
    let rules = EgressRules::compile((1..=20).map(listed).chain(ranges)).unwrap();
    let uri: Uri = "https://api-20.example.com/v1/things?limit=10"
        .parse()
        .unwrap();
    measure("egress", || {
        black_box(rules.call(black_box(&uri), &Method::GET)).unwrap();
    });
    let other: Uri = "https://elsewhere.example.com/".parse().unwrap();
    measure("egress_denied", || {
        black_box(rules.call(black_box(&other), &Method::GET)).unwrap_err();
    });
}

#[test]
#[ignore = "a measurement: make bench"]
fn measure_a_decision_of_20_policies() {
    let files = [("own.cedar", OWN), ("bench.cedar", POLICIES)];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let policies = Policies::compile(SCHEMA, &files).unwrap();
    let slice = policies.slice(ResourceKind::Function, "hello").unwrap();
    let caller = caller();
    let attributes = Attributes {
        method: "GET",
        path: "/hello/items/7",
        host: "localhost",
        scheme: "https",
        source_ip: "127.0.0.1",
        listener: "https",
        certificate: None,
        version: None,
        posture: None,
    };
    assert!(slice.decide(Some(&caller), &attributes).is_allowed);
    measure("decision", || {
        black_box(slice.decide(Some(black_box(&caller)), &attributes));
    });
    become_worker("decision");
    measure("remembered", || {
        let decision = worker::with(|worker| {
            let memory = worker.memory(1);
            memory.key.clear();
            for value in attributes.values() {
                memory.key.extend_from_slice(value.as_bytes());
            }
            memory.decision(|| slice.decide(Some(&caller), &attributes))
        });
        assert!(decision.is_some_and(|it| it.is_allowed));
    });
    worker::uninstall();
}

#[test]
#[ignore = "a measurement: make bench"]
fn measure_a_token_that_is_known() {
    become_worker("token");
    let token = "a".repeat(420);
    let (proof, known) = recall(1, &token);
    assert!(known.is_none());
    remember(1, proof, &Arc::new(caller()));
    measure("token", || {
        assert!(recall(1, black_box(&token)).1.is_some());
    });
    worker::uninstall();
}

fn become_worker(name: &str) {
    let folder = std::env::temp_dir().join(format!("vedette-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let spool = Spool::open(&folder, "measure").unwrap();
    worker::install(spool, Shards::default().add());
    // The spool has its files open; their names are not needed any more.
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn measure_what_a_request_looks_at_beside_the_plan() {
    let (ahead, posture, presence) = (Ahead::default(), Posture::default(), Presence::default());
    measure("beside", || {
        let known = black_box(&ahead).known();
        assert!(known.revoked.is_none());
        assert!(!black_box(&presence).is_away());
        black_box(black_box(&posture).number());
    });
    measure("onward", || {
        black_box(clock::onward_seconds());
    });
    measure("wall", || {
        black_box(clock::unix_seconds());
    });
}
